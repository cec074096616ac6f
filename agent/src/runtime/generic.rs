//! How a task learns which generic resources are its own.

use swarmlet_core::model::Task;

/// `DOCKER_RESOURCE_GPU=a,b` for resources that have names and `DOCKER_RESOURCE_DISC=2` for
/// others, as Docker Swarm gives them to containers.
pub(super) fn variables(task: &Task) -> impl Iterator<Item = (String, String)> {
    let reserved = task.spec.resources.reservations.generic.iter();
    reserved.map(|(kind, amount)| {
        let names = task.generic_names.get(kind);
        let value = names.map_or_else(|| amount.to_string(), |names| names.join(","));
        (format!("DOCKER_RESOURCE_{}", kind.to_uppercase()), value)
    })
}
