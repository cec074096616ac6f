//! Arguments of `service create` → what is asked of the cluster; those of `service update` are
//! in [`edit`], and what both have in common in [`settings`].

mod check;
mod edit;
mod mode;
mod settings;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

use anyhow::{Context, Result, bail};
use swarmlet_core::model::{
    ContainerSpec, LbPolicy, Placement, ResourceRequirements, Resources, ServiceSpec, TaskSpec,
    UpdateConfig,
};

use crate::args::CreateArgs;
use crate::values::{env_file, env_variable};

pub(crate) use edit::edited;
use settings::set_fields;

/// The specification that the arguments ask for, checked as far as it can be without asking
/// the cluster.
///
/// # Errors
/// One sentence on the first mistake.
pub(crate) fn service_spec(args: &CreateArgs) -> Result<ServiceSpec> {
    let Some((image, image_args)) = args.image.split_first() else {
        bail!("an image is required");
    };
    if args.flags.health_cmd.as_deref() == Some("") {
        bail!("--health-cmd is empty");
    }
    let container = ContainerSpec {
        image: image.clone(),
        args: image_args.to_vec(),
        env: environment(args)?,
        labels: args.container_label.iter().cloned().collect(),
        mounts: args.mount.clone(),
        stop_grace_period: ContainerSpec::DEFAULT_STOP_GRACE_PERIOD,
        ..ContainerSpec::default()
    };
    let mut spec = ServiceSpec {
        name: args.name.clone().unwrap_or_else(|| random_name(image)),
        labels: args.label.iter().cloned().collect(),
        mode: args.mode.initial(),
        task: TaskSpec {
            containers: vec![container],
            resources: ResourceRequirements {
                reservations: Resources {
                    generic: args.generic_resource.iter().cloned().collect(),
                    ..Resources::default()
                },
                ..ResourceRequirements::default()
            },
            placement: Placement {
                constraints: args.constraint.clone(),
                preferences: args.placement_pref.clone(),
                platforms: args.platform.clone(),
                ..Placement::default()
            },
            restart: mode::restart(args.mode),
            ..TaskSpec::default()
        },
        ports: args.publish.clone(),
        lb_policy: LbPolicy::RoundRobin,
        lb_prefer_local: false,
        drain_timeout: ServiceSpec::DEFAULT_DRAIN_TIMEOUT,
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
    };
    set_fields(&mut spec, &args.flags)?;
    spec.validate()?;
    Ok(spec)
}

/// Variables of the files, then those of the flags; a later one replaces an earlier one of the
/// same name.
fn environment(args: &CreateArgs) -> Result<Vec<String>> {
    let lookup = |name: &str| std::env::var(name).ok();
    let mut variables: Vec<String> = Vec::new();
    for path in &args.env_file {
        variables.extend(read_env_file(path)?);
    }
    for text in &args.env {
        variables.extend(env_variable(text, lookup).map_err(anyhow::Error::msg)?);
    }
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let last: BTreeMap<String, usize> = variables
        .iter()
        .enumerate()
        .map(|(index, v)| (name(v), index))
        .collect();
    Ok(variables
        .iter()
        .enumerate()
        .filter(|(index, variable)| last.get(&name(variable)) == Some(index))
        .map(|(_, variable)| variable.clone())
        .collect())
}

fn read_env_file(path: &Path) -> Result<Vec<String>> {
    let content = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the environment file {}", path.display()))?;
    env_file(&content, |name| std::env::var(name).ok())
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("poorly formatted environment file {}", path.display()))
}

/// A name for a service that was given none: the image's, and a few random digits. The hasher's
/// keys are random, and nothing secret hangs on the name.
fn random_name(image: &str) -> String {
    let base = image.rsplit('/').next().unwrap_or_default();
    let base = base.split([':', '@']).next().unwrap_or_default();
    let base: String = base
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(40)
        .collect();
    let random = RandomState::new().build_hasher().finish();
    format!(
        "{}-{:06x}",
        if base.is_empty() { "service" } else { &base },
        random & 0xff_ffff
    )
}

#[cfg(test)]
mod tests;
