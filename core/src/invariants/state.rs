//! Rules about one state.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, ensure};
use crate::endpoints;
use crate::model::{PortMode, Service, Task, TaskState};
use crate::scheduler::host_ports;
use crate::state::State;

/// The most members that a slot may have: one that is displaced or outdated, and its
/// replacement.
const MEMBERS_PER_SLOT: usize = 2;

pub(super) fn cluster(state: &State) -> Result<(), Violation> {
    let empty = state.nodes().next().is_none() && state.services().next().is_none();
    let Some(cluster) = state.cluster() else {
        return ensure(empty, || "objects without a cluster".to_owned());
    };
    let mut raft_ids = BTreeSet::new();
    for node in state.nodes() {
        let Some(manager) = &node.manager else {
            continue;
        };
        ensure(!node.superseded, || {
            format!("node {} is a manager and was left behind", node.id)
        })?;
        ensure(raft_ids.insert(manager.raft_id), || {
            format!("two managers have the number {}", manager.raft_id)
        })?;
        ensure(manager.raft_id < cluster.next_raft_id, || {
            format!("manager number {} will be given out again", manager.raft_id)
        })?;
    }
    Ok(())
}

pub(super) fn services(state: &State) -> Result<(), Violation> {
    let mut names = BTreeSet::new();
    let mut ports = BTreeMap::new();
    let is_kept = |service: &&Service| !service.removing;
    for service in state.services().filter(is_kept) {
        let name = &service.spec.name;
        ensure(names.insert(name), || format!("two services named {name}"))?;
        ensure(service.spec_version <= service.version, || {
            format!("service {name} has a specification from the future")
        })?;
        for port in &service.spec.ports {
            if port.mode != PortMode::Ingress {
                continue;
            }
            ensure(port.published != 0, || {
                format!("service {name} has an ingress port without a number")
            })?;
            let other = ports.insert((port.published, port.protocol), name);
            ensure(other.is_none(), || {
                format!("services {other:?} and {name} publish {}", port.published)
            })?;
        }
    }
    Ok(())
}

pub(super) fn tasks(state: &State) -> Result<(), Violation> {
    if let Some(text) = state.disagreement() {
        return Err(Violation(text));
    }
    for task in state.tasks() {
        let broken = |rule: &str| Err(Violation(format!("task {} {rule}", task.id)));
        let Some(service) = state.service(&task.service) else {
            return broken("has no service");
        };
        if task.home.is_some() != service.spec.mode.is_global() {
            return broken("is meant for a node, or for none, against its service's mode");
        }
        if task.home.is_some() && task.node.is_some() && task.node != task.home {
            return broken("is on another node than the one that it is for");
        }
        if task.slot == 0 {
            return broken("has no slot");
        }
        let exists = |node| state.node(node).is_some();
        if task.is_live() && !task.node.as_ref().is_none_or(exists) {
            return broken("lives on a node that does not exist");
        }
        let rebalanced = state
            .service(&task.service)
            .is_some_and(|service| service.rebalance.is_some() || service.removing);
        if task.moving && task.is_live() && task.is_member() && !rebalanced {
            return broken("moves although its service is not being rebalanced");
        }
        let placed = task.status.state >= TaskState::Assigned && task.is_live();
        if placed != (task.node.is_some() && task.is_live()) {
            return broken("is placed without a node, or has a node without being placed");
        }
        if task.status.state == TaskState::Remove {
            return broken("was observed in a state that is only ever desired");
        }
    }
    Ok(())
}

/// Two members of a slot at most, and so two endpoints: the second is there only to replace the
/// first one, whose node is down or drained (or was, until this moment).
pub(super) fn slots(state: &State) -> Result<(), Violation> {
    let mut homes = BTreeMap::new();
    for task in state.tasks() {
        let home = homes
            .entry((&task.service, task.slot))
            .or_insert(&task.home);
        ensure(**home == task.home, || {
            format!(
                "slot {} of service {} is of two nodes",
                task.slot, task.service
            )
        })?;
    }
    let mut slots: BTreeMap<_, usize> = BTreeMap::new();
    for task in state
        .tasks()
        .filter(|task| task.is_live() && task.is_member())
    {
        *slots.entry((&task.service, task.slot)).or_default() += 1;
    }
    for ((service, slot), count) in slots {
        ensure(count <= MEMBERS_PER_SLOT, || {
            format!("slot {slot} of service {service} has {count} members")
        })?;
    }
    for listener in endpoints::derive(state).listeners {
        for endpoint in listener.endpoints {
            let runs = |task: &Task| task.status.state == TaskState::Running && task.is_live();
            ensure(state.task(&endpoint.task).is_some_and(runs), || {
                format!("endpoint {} does not run", endpoint.task)
            })?;
        }
    }
    Ok(())
}

pub(super) fn nodes(state: &State) -> Result<(), Violation> {
    for node in state.nodes() {
        let mut ports = BTreeSet::new();
        let mut names = BTreeSet::new();
        for task in state.tasks_on(&node.id).filter(|task| task.is_live()) {
            for (kind, own) in &task.generic_names {
                for name in own {
                    ensure(names.insert((kind, name)), || {
                        format!("two tasks on node {} have {kind} {name}", node.id)
                    })?;
                }
            }
            for (port, protocol) in host_ports(task) {
                ensure(ports.insert((port, protocol)), || {
                    format!("two tasks on node {} have port {port}/{protocol}", node.id)
                })?;
            }
        }
    }
    Ok(())
}
