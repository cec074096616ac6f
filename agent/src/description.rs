//! What a node says of itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use swarmlet_core::model::{Cluster, NodeDescription, Platform, Resources};
use tokio::time::timeout;

use crate::runtime::{Engine, Runtime, machine};

/// What a node is told about itself by whoever starts it.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// Host name.
    pub hostname: String,
    /// Address at which other nodes reach it.
    pub advertise: IpAddr,
    /// First and last port of the range that is given to tasks.
    pub task_ports: (u16, u16),
    /// The port of that range on which other nodes' attempts are answered; zero for none.
    pub probe_port: u16,
    /// What tasks may not reserve, for the system itself.
    pub reserve: Resources,
    /// Generic resources, by kind, with their names where they have some.
    pub generic: GenericResources,
}

/// What a node has besides CPU and memory, such as GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GenericResources {
    /// How many of each kind.
    pub amounts: BTreeMap<String, u64>,
    /// The names of those that have some: as many as the amount of their kind.
    pub names: BTreeMap<String, Vec<String>>,
}

/// How long an engine may take to describe itself. A session does not begin before, and a
/// node without one is unknown after four seconds.
const DEADLINE: Duration = Duration::from_secs(2);

/// Describes the node. An engine that does not answer leaves its version empty; the node is
/// a member of the cluster all the same.
pub async fn describe(facts: &NodeFacts, runtime: &dyn Runtime) -> NodeDescription {
    let engine = match timeout(DEADLINE, runtime.describe()).await {
        Ok(Ok(engine)) => engine,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the container engine does not describe itself");
            silent_engine()
        }
        Err(_) => {
            tracing::warn!("the container engine does not answer");
            silent_engine()
        }
    };
    let free = |all: u64, reserved: u64| all.saturating_sub(reserved);
    NodeDescription {
        hostname: facts.hostname.clone(),
        address: facts.advertise,
        platform: Platform {
            os: "linux".to_owned(),
            arch: engine.arch,
        },
        resources: Resources {
            nano_cpus: free(engine.resources.nano_cpus, facts.reserve.nano_cpus),
            memory_bytes: free(engine.resources.memory_bytes, facts.reserve.memory_bytes),
            pids: 0,
            generic: facts.generic.amounts.clone(),
        },
        generic_names: facts.generic.names.clone(),
        runtime: runtime.kind(),
        engine_version: engine.version,
        engine_labels: engine.labels,
        task_ports: facts.task_ports,
        probe_port: facts.probe_port,
        schema: Cluster::SCHEMA,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// What is known without asking the engine.
fn silent_engine() -> Engine {
    let (resources, arch) = machine();
    Engine {
        version: String::new(),
        labels: BTreeMap::new(),
        resources,
        arch,
        storage: None,
    }
}
