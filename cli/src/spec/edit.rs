//! Arguments of `service update`: a specification, and what is to change of it.

use std::collections::BTreeMap;

use anyhow::Result;
use swarmlet_core::model::{ContainerSpec, ServiceSpec, TaskSpec};

use super::settings::{set_fields, words};
use crate::args::ServiceUpdateArgs;
use crate::values::env_variable;

/// The specification with what the arguments change. What is to be removed goes first, so that
/// one command can replace it.
///
/// # Errors
/// One sentence on the first mistake.
pub(crate) fn edited(spec: &ServiceSpec, args: &ServiceUpdateArgs) -> Result<ServiceSpec> {
    let mut spec = spec.clone();
    edit_map(&mut spec.labels, &args.label_rm, &args.label_add);
    edit_ports(&mut spec, args);
    edit_task(&mut spec.task, args);
    for container in &mut spec.task.containers {
        edit_container(container, args)?;
    }
    set_fields(&mut spec, &args.flags)?;
    spec.validate()?;
    Ok(spec)
}

fn edit_task(task: &mut TaskSpec, args: &ServiceUpdateArgs) {
    if args.force {
        task.force_update = task.force_update.wrapping_add(1);
    }
    let placement = &mut task.placement;
    edit_list(
        &mut placement.constraints,
        &args.constraint_rm,
        &args.constraint_add,
    );
    edit_list(
        &mut placement.preferences,
        &args.placement_pref_rm,
        &args.placement_pref_add,
    );
    edit_list(
        &mut placement.platforms,
        &args.platform_rm,
        &args.platform_add,
    );
    let generic = &mut task.resources.reservations.generic;
    edit_map(
        generic,
        &args.generic_resource_rm,
        &args.generic_resource_add,
    );
}

/// What is there already keeps its place.
fn edit_list<T: Clone + PartialEq>(list: &mut Vec<T>, removed: &[T], added: &[T]) {
    list.retain(|item| !removed.contains(item));
    for item in added {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

fn edit_container(container: &mut ContainerSpec, args: &ServiceUpdateArgs) -> Result<()> {
    if let Some(image) = &args.image {
        container.image.clone_from(image);
        // Those were of the other one.
        container.platforms.clear();
    }
    if let Some(text) = &args.args {
        container.args = words(text)?;
    }
    edit_environment(&mut container.env, args)?;
    edit_map(
        &mut container.labels,
        &args.container_label_rm,
        &args.container_label_add,
    );
    container.mounts.retain(|mount| {
        let replaced = args.mount_add.iter().any(|new| new.target == mount.target);
        !replaced && !args.mount_rm.contains(&mount.target)
    });
    container.mounts.extend(args.mount_add.iter().cloned());
    Ok(())
}

fn edit_environment(env: &mut Vec<String>, args: &ServiceUpdateArgs) -> Result<()> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    env.retain(|variable| !args.env_rm.contains(&name(variable)));
    for text in &args.env_add {
        let lookup = |name: &str| std::env::var(name).ok();
        if let Some(variable) = env_variable(text, lookup).map_err(anyhow::Error::msg)? {
            env.retain(|other| name(other) != name(&variable));
            env.push(variable);
        }
    }
    Ok(())
}

fn edit_ports(spec: &mut ServiceSpec, args: &ServiceUpdateArgs) {
    spec.ports
        .retain(|port| !args.publish_rm.contains(&(port.target, port.protocol)));
    for port in &args.publish_add {
        spec.ports.retain(|other| {
            (other.target, other.published, other.protocol)
                != (port.target, port.published, port.protocol)
        });
        spec.ports.push(port.clone());
    }
}

fn edit_map<V: Clone>(map: &mut BTreeMap<String, V>, removed: &[String], added: &[(String, V)]) {
    map.retain(|key, _| !removed.contains(key));
    map.extend(added.iter().cloned());
}

#[cfg(test)]
mod tests;
