//! Which nodes may have a task. Each filter explains its refusal in Docker's words.

use std::collections::BTreeMap;
use std::fmt;

use super::constraint;
use super::load::{Load, host_ports};
use crate::model::{
    Availability, Node, NodeState, Platform, Resources, RuntimeKind, Task, TaskSpec,
};

/// Why a node cannot have a task. The order is that in which the filters are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The task is for another node.
    NotHome,
    /// It is not ready, or it is paused or drained.
    NotAvailable,
    /// Its container engine does not answer: what runs there is unknown, and nothing can be
    /// started.
    Engine,
    /// It has no container engine for the image.
    NoEngine,
    /// Its container engine runs no executable of the machine.
    NoProcesses,
    /// A constraint of the service does not hold.
    Constraint,
    /// The image is made for other platforms.
    Platform,
    /// The reservations do not fit.
    Resources,
    /// A port of the task is taken.
    HostPort,
    /// It has as many tasks of the service as the service allows.
    MaxReplicas,
}

impl Refusal {
    fn text(self) -> &'static str {
        match self {
            Self::NotHome => "meant for another node",
            Self::NotAvailable => "not available for new tasks",
            Self::Engine => "container engine does not answer",
            Self::NoEngine => "no container engine for an image",
            Self::NoProcesses => "container engine runs images, not a path",
            Self::Constraint => "scheduling constraints not satisfied",
            Self::Platform => "unsupported platform",
            Self::Resources => "insufficient resources",
            Self::HostPort => "host-mode port already in use",
            // Docker's own words, grammar included: scripts look for them.
            Self::MaxReplicas => "max replicas per node limit exceed",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Refusals by reason. Its text is Docker's: `no suitable node (insufficient resources on 2
/// nodes; 1 node not available for new tasks)`.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<Refusal, usize>);

impl Refusals {
    pub(super) fn count(&mut self, refusal: Refusal) {
        *self.0.entry(refusal).or_insert(0) += 1;
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no suitable node")?;
        // The most frequent reason is the most useful one, so it comes first.
        let mut reasons: Vec<(&Refusal, &usize)> = self.0.iter().collect();
        reasons.sort_by_key(|&(refusal, &count)| (std::cmp::Reverse(count), *refusal));
        for (position, (refusal, &count)) in reasons.into_iter().enumerate() {
            f.write_str(if position == 0 { " (" } else { "; " })?;
            let nodes = if count == 1 { "node" } else { "nodes" };
            match refusal {
                Refusal::NotAvailable => write!(f, "{count} {nodes} {refusal}")?,
                _ => write!(f, "{refusal} on {count} {nodes}")?,
            }
        }
        if self.0.is_empty() {
            return Ok(());
        }
        f.write_str(")")
    }
}

/// The filters that look at the node alone, not at what it carries.
pub(super) fn lasting(node: &Node, task: &Task) -> Result<(), Refusal> {
    if task.home.as_ref().is_some_and(|home| *home != node.id) {
        return Err(Refusal::NotHome);
    }
    if node.status.state != NodeState::Ready || node.spec.availability != Availability::Active {
        return Err(Refusal::NotAvailable);
    }
    if !engine_answers(node) {
        return Err(Refusal::Engine);
    }
    runs(node.description.runtime, &task.spec)?;
    if !meets_constraints(node, &task.spec) {
        return Err(Refusal::Constraint);
    }
    if !has_platform(node, &task.spec) {
        return Err(Refusal::Platform);
    }
    Ok(())
}

/// Whether a node could have a task as far as its nature goes, whatever it does at the moment:
/// services with one task on each node leave out those that never can.
pub(crate) fn suits(node: &Node, spec: &TaskSpec) -> bool {
    runs(node.description.runtime, spec).is_ok()
        && meets_constraints(node, spec)
        && has_platform(node, spec)
}

/// Whether every constraint holds for a node.
pub(crate) fn meets_constraints(node: &Node, spec: &TaskSpec) -> bool {
    let mut constraints = spec.placement.constraints.iter();
    constraints.all(|constraint| constraint::holds(constraint, node))
}

/// Whether a node is one of those that the user names, and runs what the image is made for. Where
/// nobody says anything it may.
fn has_platform(node: &Node, spec: &TaskSpec) -> bool {
    let own = &node.description.platform;
    let named = &spec.placement.platforms;
    let runs = |made_for: &[Platform]| {
        made_for.is_empty() || made_for.iter().any(|platform| platform.runs_on(own))
    };
    (named.is_empty() || named.iter().any(|platform| platform.includes(own)))
        && spec
            .containers
            .iter()
            .all(|container| runs(&container.platforms))
}

/// The filters that look at what the node carries; `of_service` is the number of live tasks of
/// the service on it.
pub(super) fn by_load(
    node: &Node,
    load: &Load,
    of_service: usize,
    task: &Task,
) -> Result<(), Refusal> {
    if !has_room(node, load, task) {
        return Err(Refusal::Resources);
    }
    if host_ports(task).any(|port| load.has_port(port)) {
        return Err(Refusal::HostPort);
    }
    let most = task.spec.placement.max_replicas as usize;
    if most != 0 && of_service >= most {
        return Err(Refusal::MaxReplicas);
    }
    Ok(())
}

fn has_room(node: &Node, load: &Load, task: &Task) -> bool {
    let capacity = &node.description.resources;
    let wanted = &task.spec.resources.reservations;
    // A task that reserves nothing fits a node that is overbooked, too (its capacity may have
    // shrunk since).
    let fits = |wanted: u64, reserved: u128, capacity: u64| {
        wanted == 0 || reserved + u128::from(wanted) <= u128::from(capacity)
    };
    let of = |resources: &Resources, kind| resources.generic.get(kind).copied().unwrap_or(0);
    fits(wanted.nano_cpus, load.nano_cpus(), capacity.nano_cpus)
        && fits(
            wanted.memory_bytes,
            load.memory_bytes(),
            capacity.memory_bytes,
        )
        && wanted
            .generic
            .iter()
            .all(|(kind, &amount)| fits(amount, load.generic(kind), of(capacity, kind)))
}

/// A node without an engine has nothing that could be silent.
fn engine_answers(node: &Node) -> bool {
    node.description.runtime == RuntimeKind::Process || !node.description.engine_version.is_empty()
}

/// Whether a runtime can run the task's image. A path is never an image reference, and the
/// other way about, so a mixed cluster places each where it can run; `whoami` is built in for
/// both.
fn runs(runtime: RuntimeKind, spec: &TaskSpec) -> Result<(), Refusal> {
    let Some(container) = spec.container() else {
        return Err(Refusal::NoEngine);
    };
    let image = &container.image;
    let path = image.starts_with(['/', '.']);
    match runtime {
        RuntimeKind::Docker if path => Err(Refusal::NoProcesses),
        RuntimeKind::Process if !path && image != "whoami" => Err(Refusal::NoEngine),
        RuntimeKind::Docker | RuntimeKind::Process => Ok(()),
    }
}
