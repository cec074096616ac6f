//! Tasks to run.

use swarmlet_core::model::{
    ContainerSpec, NodeId, RestartHistory, ServiceId, Task, TaskId, TaskSpec, TaskState,
    TaskStatus, Timestamp, Version,
};

/// A task of service `ng` with one container, assigned and to run.
pub(crate) fn with_container(id: u128, container: ContainerSpec) -> Task {
    Task {
        id: TaskId::from_random(id),
        version: Version(1),
        service: ServiceId::from_random(1),
        service_name: "ng".to_owned(),
        slot: 1,
        home: None,
        node: Some(NodeId::from_random(1)),
        generic_names: Default::default(),
        spec: TaskSpec {
            containers: vec![container],
            ..TaskSpec::default()
        },
        ports: Vec::new(),
        spec_version: Version(1),
        created_at: Timestamp(1),
        desired: TaskState::Running,
        status: TaskStatus {
            state: TaskState::Assigned,
            at: Timestamp(1),
            message: String::new(),
            error: None,
            container: None,
            ports: Vec::new(),
        },
        restart: RestartHistory::default(),
        moving: false,
        draining: None,
    }
}
