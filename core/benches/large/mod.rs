//! Large clusters for the benchmarks, made by the same commands as real ones.

#[path = "../../tests/simulated/objects.rs"]
mod objects;
pub(crate) mod report;

use swarmlet_core::apply::apply;
use swarmlet_core::command::{Command, Proposal};
use swarmlet_core::model::{
    NodeId, PortMode, PortSpec, Protocol, ServiceId, ServiceMode, Timestamp, Version,
};
use swarmlet_core::state::State;
use swarmlet_core::{orchestrator, scheduler};

/// Any will do: ties between equal nodes fall by it.
pub(crate) const SEED: u64 = 7;

/// A state and its clock.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) now: Timestamp,
}

impl World {
    /// Ready nodes with 16 cores each, and nothing on them.
    pub(crate) fn new(nodes: u16) -> Self {
        let mut world = Self {
            state: State::default(),
            now: Timestamp(1_700_000_000_000),
        };
        let node = |number: u16| {
            let [high, low] = number.to_be_bytes();
            let mut node = objects::node(&format!("n{number}"), 0, 16, 64 << 30);
            node.id = NodeId::from_random(u128::from(number) + 1);
            node.description.address = [10, 0, high, low].into();
            Box::new(node)
        };
        let cluster = Box::new(objects::cluster());
        world.apply(vec![Command::InitCluster {
            cluster,
            node: node(0),
        }]);
        let others = (1..nodes).map(|number| Command::AddNode { node: node(number) });
        world.apply(others.collect());
        world
    }

    /// Adds services that publish a port each.
    pub(crate) fn create(&mut self, services: u16, replicas: u32) {
        let create = |number: u16| {
            let mut spec = objects::spec(&format!("s{number}"));
            spec.mode = ServiceMode::Replicated { replicas };
            spec.task.resources.reservations.nano_cpus = 1_000_000;
            spec.ports = vec![PortSpec {
                target: 80,
                published: 10_000 + number,
                protocol: Protocol::Tcp,
                mode: PortMode::Ingress,
                proxy_protocol: None,
                accept_proxy: Vec::new(),
            }];
            Command::CreateService {
                id: ServiceId::from_random(u128::from(number) + 1),
                spec: Box::new(spec),
            }
        };
        self.apply((0..services).map(create).collect());
    }

    /// Applies commands, of which none may be refused.
    pub(crate) fn apply(&mut self, commands: Vec<Command>) {
        let proposal = Proposal {
            at: self.now,
            commands,
        };
        let index = Version(self.state.version().0 + 1);
        for outcome in apply(&mut self.state, index, &proposal) {
            outcome.expect("commands that were decided from this very state are accepted");
        }
    }

    pub(crate) fn orchestrate(&self) -> Vec<Command> {
        orchestrator::reconcile(&self.state, self.now, SEED)
    }

    pub(crate) fn schedule(&self) -> Vec<Command> {
        scheduler::schedule(&self.state, self.now, SEED)
    }
}
