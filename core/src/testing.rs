//! Small states for unit tests.

// Shared with the simulation and the benchmarks, which see this crate from outside.
#[path = "../tests/simulated/objects.rs"]
mod objects;

use std::time::Duration;

use crate::apply::{Outcome, apply};
use crate::command::{Command, Proposal};
use crate::model::{
    Availability, Node, NodeId, NodeSpec, NodeState, PortMode, PortSpec, Protocol, ServiceId,
    ServiceMode, ServiceSpec, Task, TaskId, TaskPort, TaskState, TaskStatus, Timestamp, Version,
};
use crate::state::State;

pub(crate) use objects::cluster;

pub(crate) fn node_id(number: u8) -> NodeId {
    NodeId::from_random(u128::from(number))
}

pub(crate) fn service_id(number: u8) -> ServiceId {
    ServiceId::from_random(u128::from(number))
}

/// A ready worker with 4 cores and 8 GiB at 10.0.0.`number`.
pub(crate) fn node(number: u8) -> Node {
    objects::node(&format!("n{number}"), number, 4, 8 << 30)
}

pub(crate) fn ingress(published: u16, target: u16) -> PortSpec {
    PortSpec {
        target,
        published,
        protocol: Protocol::Tcp,
        mode: PortMode::Ingress,
        proxy_protocol: None,
        accept_proxy: Vec::new(),
    }
}

/// A service that runs `whoami`.
pub(crate) fn spec(name: &str, replicas: u32) -> ServiceSpec {
    ServiceSpec {
        mode: ServiceMode::Replicated { replicas },
        ..objects::spec(name)
    }
}

/// A state with a clock, whose every step is checked.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) now: Timestamp,
}

impl World {
    /// A cluster of nodes 1 to `nodes`, all ready.
    pub(crate) fn new(nodes: u8) -> Self {
        let mut world = Self {
            state: State::default(),
            now: Timestamp(1_000_000),
        };
        world.ok(Command::InitCluster {
            cluster: Box::new(cluster()),
            node: Box::new(node(1)),
        });
        for number in 2..=nodes {
            world.ok(Command::AddNode {
                node: Box::new(node(number)),
            });
        }
        world
    }

    /// Applies commands as one proposal.
    pub(crate) fn propose(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let before = self.state.clone();
        let proposal = Proposal {
            at: self.now,
            commands,
        };
        let index = Version(before.version().0 + 1);
        let outcomes = apply(&mut self.state, index, &proposal);
        crate::invariants::check(&self.state).unwrap();
        crate::invariants::check_step(&before, &self.state).unwrap();
        outcomes
    }

    pub(crate) fn try_one(&mut self, command: Command) -> Outcome {
        self.propose(vec![command]).remove(0)
    }

    #[track_caller]
    pub(crate) fn ok(&mut self, command: Command) {
        self.try_one(command).unwrap();
    }

    /// The refusal of a command, as the user reads it.
    #[track_caller]
    pub(crate) fn refusal(&mut self, command: Command) -> String {
        let before = self.state.clone();
        let refusal = self.try_one(command).unwrap_err().to_string();
        let mut after = self.state.clone();
        after.version = before.version;
        assert_eq!(before, after, "a refusal leaves the state alone");
        refusal
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    #[track_caller]
    pub(crate) fn create(&mut self, number: u8, spec: ServiceSpec) {
        self.ok(Command::CreateService {
            id: service_id(number),
            spec: Box::new(spec),
        });
    }

    #[track_caller]
    pub(crate) fn update(&mut self, number: u8, edit: impl FnOnce(&mut ServiceSpec)) {
        let service = self.state.service(&service_id(number)).unwrap();
        let mut spec = service.spec.clone();
        edit(&mut spec);
        let command = Command::UpdateService {
            id: service_id(number),
            expected: service.version,
            spec: Box::new(spec),
        };
        self.ok(command);
    }

    #[track_caller]
    pub(crate) fn scale(&mut self, number: u8, replicas: u32) {
        self.update(number, |spec| {
            spec.mode = ServiceMode::Replicated { replicas };
        });
    }

    /// Lets orchestrator and scheduler work until they have nothing to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..20 {
            let mut commands = crate::orchestrator::reconcile(&self.state, self.now, 7);
            commands.extend(crate::scheduler::schedule(&self.state, self.now, 7));
            commands.extend(crate::rebalance::advance(&self.state));
            if commands.is_empty() {
                return;
            }
            self.propose(commands);
        }
        panic!("the deciders do not come to rest");
    }

    #[track_caller]
    pub(crate) fn report(&mut self, id: &TaskId, state: TaskState) {
        let task = self.state.task(id).unwrap();
        let command = Command::ReportTask {
            id: id.clone(),
            by: task.node.clone(),
            status: Box::new(observed(task, state)),
        };
        self.ok(command);
    }

    /// All tasks that are to run do.
    pub(crate) fn run_all(&mut self) {
        let starting: Vec<TaskId> = self
            .state
            .tasks()
            .filter(|task| {
                let state = task.status.state;
                task.node.is_some()
                    && task.desired == TaskState::Running
                    && state < TaskState::Running
            })
            .map(|task| task.id.clone())
            .collect();
        for id in starting {
            self.report(&id, TaskState::Running);
        }
    }

    #[track_caller]
    pub(crate) fn node_is(&mut self, number: u8, state: NodeState) {
        self.ok(Command::ReportNode {
            id: node_id(number),
            state,
            message: String::new(),
        });
    }

    #[track_caller]
    pub(crate) fn availability(&mut self, number: u8, availability: Availability) {
        let node = self.state.node(&node_id(number)).unwrap();
        let command = Command::UpdateNode {
            id: node_id(number),
            expected: node.version,
            spec: NodeSpec {
                availability,
                ..node.spec.clone()
            },
        };
        self.ok(command);
    }

    /// The tasks that are not told to stop and have not ended.
    pub(crate) fn members(&self) -> Vec<Task> {
        self.state
            .tasks()
            .filter(|task| task.is_member() && task.is_live())
            .cloned()
            .collect()
    }

    /// `ng.1 n2 running`, for every task, sorted.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .state
            .tasks()
            .map(|task| {
                let node = task.node.as_ref().and_then(|id| self.state.node(id));
                format!(
                    "{} {} {}/{}",
                    task.name(),
                    node.map_or("-", |node| node.description.hostname.as_str()),
                    task.desired,
                    task.status.state
                )
            })
            .collect();
        lines.sort();
        lines
    }

    /// Members per node, by number of the node.
    pub(crate) fn spread(&self) -> Vec<usize> {
        self.state
            .nodes()
            .map(|node| {
                let on = |task: &&Task| task.node.as_ref() == Some(&node.id);
                self.members().iter().filter(on).count()
            })
            .collect()
    }
}

/// What an agent would say of a task: its ports are 20000 plus its slot.
pub(crate) fn observed(task: &Task, state: TaskState) -> TaskStatus {
    let ports = task.ports.iter().map(|port| TaskPort {
        target: port.target,
        host: match port.mode {
            PortMode::Ingress => 20_000 + u16::try_from(task.slot).unwrap(),
            PortMode::Host => port.published,
        },
        protocol: port.protocol,
        mode: port.mode,
    });
    TaskStatus {
        state,
        at: Timestamp(1),
        message: String::new(),
        error: None,
        container: None,
        ports: if state == TaskState::Running {
            ports.collect()
        } else {
            Vec::new()
        },
    }
}
