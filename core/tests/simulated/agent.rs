//! A fake agent: it goes through the states of a task as a real one does, one step per tick,
//! and does with containers what the simulated world says.

use std::collections::BTreeMap;

use swarmlet_core::drain::NodeAck;
use swarmlet_core::endpoints::{EndpointState, Table};
use swarmlet_core::model::{
    ContainerStatus, PortMode, Task, TaskId, TaskPort, TaskState, TaskStatus, Timestamp, Version,
};

/// What becomes of the containers of a service; healthy ones run until they are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Behaviour {
    /// They run.
    #[default]
    Healthy,
    /// Each ends by itself with a failure this long after its start.
    CrashesAfter(u64),
    /// Each ends by itself and well this long after its start.
    CompletesAfter(u64),
    /// Their image does not exist.
    Missing,
    /// They start, and their health check never passes.
    NeverHealthy,
}

/// One container, or what is left of it.
#[derive(Debug, Clone)]
struct Container {
    task: Task,
    state: TaskState,
    since: Timestamp,
    port: u16,
    error: Option<String>,
    ejected: bool,
}

/// The agent of one node.
#[derive(Debug, Default)]
pub(crate) struct Agent {
    /// Whether the managers can hear it.
    pub(crate) connected: bool,
    containers: BTreeMap<TaskId, Container>,
    next_port: u16,
    ack: NodeAck,
}

impl Agent {
    /// An agent that the managers hear.
    pub(crate) fn connected() -> Self {
        Self {
            connected: true,
            ..Self::default()
        }
    }

    /// A complete set of assignments: what is not in it is removed.
    pub(crate) fn assign(&mut self, tasks: Vec<Task>, now: Timestamp) {
        let known: Vec<TaskId> = tasks.iter().map(|task| task.id.clone()).collect();
        self.containers.retain(|id, _| known.contains(id));
        for task in tasks {
            let port = 20_000 + self.next_port;
            let container = self.containers.entry(task.id.clone()).or_insert_with(|| {
                self.next_port = (self.next_port + 1) % 10_000;
                Container {
                    state: TaskState::Assigned,
                    since: now,
                    port,
                    error: None,
                    ejected: false,
                    task: task.clone(),
                }
            });
            container.task = task;
        }
    }

    /// One transition per container at most. What a disconnected agent does stays as it was
    /// told last.
    pub(crate) fn step(&mut self, now: Timestamp, behaviour: impl Fn(&Task) -> Behaviour) {
        for container in self.containers.values_mut() {
            container.step(now, behaviour(&container.task));
        }
    }

    /// The state of every container, as after a reconnect: reports are idempotent.
    pub(crate) fn statuses(&self, now: Timestamp) -> Vec<(TaskId, TaskStatus)> {
        self.containers
            .iter()
            .filter(|(_, container)| container.state >= TaskState::Accepted)
            .map(|(id, container)| (id.clone(), container.status(now)))
            .collect()
    }

    /// Works by a table from now on.
    pub(crate) fn route(&mut self, table: &Table, connections: &BTreeMap<TaskId, u64>) {
        let serves = |task: &TaskId| {
            let mut endpoints = table.listeners.iter().flat_map(|l| &l.endpoints);
            endpoints.any(|e| e.task == *task && e.state == EndpointState::Ready)
        };
        // Connections outlive their listener, as those of a service that is being removed do.
        self.ack = NodeAck {
            version: table.version,
            active: connections
                .iter()
                .filter(|(task, _)| !serves(task))
                .map(|(task, &active)| (task.clone(), active))
                .collect(),
        };
    }

    /// What its balancer acknowledges.
    pub(crate) fn ack(&self) -> &NodeAck {
        &self.ack
    }

    /// The table version it works by.
    pub(crate) fn table_version(&self) -> Version {
        self.ack.version
    }

    /// Ends a container that has not ended yet.
    pub(crate) fn fail(&mut self, task: &TaskId, error: &str, now: Timestamp) -> bool {
        match self.containers.get_mut(task) {
            Some(container) if !container.state.is_terminal() => {
                container.fail(TaskState::Failed, error, now);
                true
            }
            _ => false,
        }
    }

    /// Notes that the checks of a running container fail, or that they pass again.
    pub(crate) fn eject(&mut self, task: &TaskId, ejected: bool) -> bool {
        match self.containers.get_mut(task) {
            Some(container) if container.state == TaskState::Running => {
                container.ejected = ejected;
                true
            }
            _ => false,
        }
    }

    /// Containers that run, for comparison with the state.
    pub(crate) fn running(&self) -> impl Iterator<Item = &TaskId> {
        self.containers
            .iter()
            .filter(|(_, container)| container.state == TaskState::Running)
            .map(|(id, _)| id)
    }
}

impl Container {
    fn step(&mut self, now: Timestamp, behaviour: Behaviour) {
        if self.state.is_terminal() {
            return;
        }
        if self.task.desired > TaskState::Running {
            return self.enter(TaskState::Shutdown, now);
        }
        match (self.state, behaviour) {
            (TaskState::Preparing, Behaviour::Missing) => {
                let image = self.task.spec.containers[0].image.clone();
                self.fail(TaskState::Rejected, &format!("No such image: {image}"), now);
            }
            (TaskState::Ready, _) if self.task.desired < TaskState::Running => {}
            (TaskState::Running, Behaviour::CrashesAfter(ms)) if now.0 >= self.since.0 + ms => {
                self.fail(TaskState::Failed, "task: non-zero exit (1)", now);
            }
            (TaskState::Running, Behaviour::CompletesAfter(ms)) if now.0 >= self.since.0 + ms => {
                self.enter(TaskState::Complete, now);
            }
            (TaskState::Running, _) | (TaskState::Starting, Behaviour::NeverHealthy) => {}
            (state, _) => {
                let next = TaskState::ALL.into_iter().find(|&next| next > state);
                self.enter(next.expect("running is not the last state"), now);
            }
        }
    }

    fn enter(&mut self, state: TaskState, now: Timestamp) {
        self.state = state;
        self.since = now;
    }

    fn fail(&mut self, state: TaskState, error: &str, now: Timestamp) {
        self.enter(state, now);
        self.error = Some(error.to_owned());
    }

    fn status(&self, now: Timestamp) -> TaskStatus {
        let ports = self.task.ports.iter().map(|port| TaskPort {
            target: port.target,
            host: match port.mode {
                PortMode::Ingress => self.port,
                PortMode::Host => port.published,
            },
            protocol: port.protocol,
            mode: port.mode,
        });
        TaskStatus {
            state: self.state,
            at: now,
            message: String::new(),
            error: self.error.clone(),
            container: self.ejected.then(|| ContainerStatus {
                ejected: true,
                ..ContainerStatus::default()
            }),
            ports: match self.state {
                TaskState::Starting | TaskState::Running => ports.collect(),
                _ => Vec::new(),
            },
        }
    }
}
