//! Rules about what may follow on what.

use std::borrow::Cow;

use super::{Violation, ensure};
use crate::model::{Resources, Service, Task, TaskState, Version};
use crate::scheduler::reserved;
use crate::state::State;

/// Versions strictly increase, and whoever watches them misses no change: an object that
/// changed has the index of this step, one that has not keeps its version.
pub(super) fn versions(before: &State, after: &State) -> Result<(), Violation> {
    ensure(after.version() > before.version(), || {
        format!("version {} after {}", after.version(), before.version())
    })?;
    for node in after.nodes() {
        let old = before.node(&node.id);
        version(
            "node",
            &node.id,
            (old, node),
            (old.map(|n| n.version), node.version),
            after,
        )?;
    }
    for service in after.services() {
        let old = before.service(&service.id);
        let versions = (old.map(|s| s.version), service.version);
        version("service", &service.id, (old, service), versions, after)?;
    }
    for task in after.tasks() {
        let old = before.task(&task.id);
        version(
            "task",
            &task.id,
            (old, task),
            (old.map(|t| t.version), task.version),
            after,
        )?;
    }
    Ok(())
}

fn version<T: PartialEq>(
    kind: &str,
    id: &dyn std::fmt::Display,
    (old, new): (Option<&T>, &T),
    (old_version, new_version): (Option<Version>, Version),
    after: &State,
) -> Result<(), Violation> {
    let changed = old != Some(new);
    let holds = if changed {
        new_version == after.version()
    } else {
        old_version == Some(new_version)
    };
    ensure(holds, || {
        format!("{kind} {id} has version {new_version} after {old_version:?}, changed: {changed}")
    })
}

pub(super) fn cluster(before: &State, after: &State) -> Result<(), Violation> {
    let Some(old) = before.cluster() else {
        return Ok(());
    };
    let Some(new) = after.cluster() else {
        return Err(Violation("the cluster is gone".to_owned()));
    };
    ensure(old.id == new.id, || "the cluster's id changed".to_owned())?;
    ensure(old.schema <= new.schema, || {
        "the schema went back".to_owned()
    })?;
    ensure(old.incarnation <= new.incarnation, || {
        "a state of the past is back".to_owned()
    })?;
    ensure(old.next_raft_id <= new.next_raft_id, || {
        "manager numbers would be given out again".to_owned()
    })
}

pub(super) fn services(before: &State, after: &State) -> Result<(), Violation> {
    for old in before.services() {
        let name = &old.spec.name;
        let Some(new) = after.service(&old.id) else {
            ensure(old.removing, || {
                format!("service {name} is gone although nobody removed it")
            })?;
            continue;
        };
        let broken = old.removing && !new.removing
            || old.spec_version > new.spec_version
            || old.spec.name != new.spec.name
            || old.created_at != new.created_at
            || (old.spec_version == new.spec_version && !same_tasks(old, new));
        ensure(!broken, || {
            format!("service {name}: {old:?} became {new:?}")
        })?;
    }
    Ok(())
}

/// Whether tasks made from both are alike. Those of a job are although images are got with other
/// credentials, for that is no other run of it.
fn same_tasks(old: &Service, new: &Service) -> bool {
    let task = match new.spec.mode.is_job() {
        true => old.spec.task.with_sources_of(&new.spec.task),
        false => Cow::Borrowed(&old.spec.task),
    };
    new.spec.makes(&task, &old.spec.ports)
}

pub(super) fn tasks(before: &State, after: &State) -> Result<(), Violation> {
    for old in before.tasks() {
        let Some(new) = after.task(&old.id) else {
            // It may have ended and been forgotten in one step, but not without an end.
            ensure(!old.is_live() || old.desired > TaskState::Running, || {
                format!(
                    "task {} is gone although it was {}",
                    old.id, old.status.state
                )
            })?;
            continue;
        };
        task(old, new)?;
    }
    Ok(())
}

fn task(old: &Task, new: &Task) -> Result<(), Violation> {
    let broken = |what: &str| Err(Violation(format!("task {}: {what}", old.id)));
    if new.status.state < old.status.state {
        return broken("the observed state went back");
    }
    if new.desired < old.desired {
        return broken("the desired state went back");
    }
    if old.node.is_some() && old.node != new.node {
        return broken("moved to another node");
    }
    if old.draining.is_some() && old.draining != new.draining {
        return broken("stopped draining");
    }
    let origin = |task: &Task| {
        let task = task.clone();
        (
            (task.service, task.service_name, task.slot),
            (task.spec, task.ports, task.spec_version),
            task.created_at,
        )
    };
    if origin(old) != origin(new) {
        return broken("became another task");
    }
    Ok(())
}

/// Reservations fit wherever something was added. (A node may shrink below what it carries.)
pub(super) fn capacity(before: &State, after: &State) -> Result<(), Violation> {
    for node in after.nodes() {
        let (old, new) = (reserved(before, &node.id), reserved(after, &node.id));
        let capacity = &node.description.resources;
        let fits =
            |of: &dyn Fn(&Resources) -> u64| of(&new) <= of(&old) || of(&new) <= of(capacity);
        let generic = |kind: &str| fits(&|r| r.generic.get(kind).copied().unwrap_or(0));
        let all = fits(&|r| r.nano_cpus)
            && fits(&|r| r.memory_bytes)
            && new.generic.keys().all(|kind| generic(kind));
        ensure(all, || format!("node {} is overbooked: {new:?}", node.id))?;
    }
    Ok(())
}

/// Where a service limits its tasks per node, none was placed beyond that. (A limit may be
/// lowered below what a node has.)
pub(super) fn per_node(before: &State, after: &State) -> Result<(), Violation> {
    for task in after.tasks() {
        let most = task.spec.placement.max_replicas as usize;
        let Some(node) = task.node.as_ref().filter(|_| most != 0 && task.is_live()) else {
            continue;
        };
        let is_new = before.task(&task.id).is_none_or(|old| old.node.is_none());
        let count = after
            .tasks_on(node)
            .filter(|other| other.is_live() && other.service == task.service)
            .count();
        ensure(!is_new || count <= most, || {
            format!(
                "node {node} has {count} tasks of {}, at most {most} allowed",
                task.service_name
            )
        })?;
    }
    Ok(())
}
