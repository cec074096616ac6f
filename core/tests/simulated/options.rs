//! The options of services in scenarios.
//!
//! ```text
//! replicas=N mode=replicated|global|replicated-job|global-job max-concurrent=N
//! restart=any|on-failure|none restart-delay=SECONDSs max-attempts=N window=SECONDSs
//! port=80:80 host-port=53:53 cpus=N constraint=KEY==VALUE drain=SECONDSs
//! pref=ATTRIBUTE max-per-node=N generic=KIND:N platform=OS/ARCH strategy=spread|binpack
//! image=IMAGE made-for=OS/ARCH[,OS/ARCH…]
//! behaves=healthy|missing|never-healthy|crash=SECONDSs|exit=SECONDSs force
//! [rollback-] parallelism=N delay=SECONDSs monitor=SECONDSs ratio=R deadline=SECONDSs
//!             action=pause|continue|rollback order=stop-first|start-first
//!             min-healthy=PERCENT max=PERCENT
//! ```

use std::time::Duration;

use swarmlet_core::model::{
    FailureAction, ModeKind, Node, Platform, PortMode, PortSpec, Preference, Protocol,
    RestartCondition, ServiceMode, ServiceSpec, Strategy, UpdateConfig, UpdateOrder,
};

use crate::agent::Behaviour;
use crate::objects;
use crate::simulation::Simulation;

pub(crate) fn seconds(text: &str) -> Duration {
    let number: f64 = text.strip_suffix('s').unwrap().parse().unwrap();
    Duration::from_secs_f64(number)
}

pub(crate) fn behave(simulation: &mut Simulation, name: &str, text: &str) {
    let milliseconds = |time: &str| u64::try_from(seconds(time).as_millis()).unwrap();
    let behaviour = match text.split_once('=') {
        Some(("crash", time)) => Behaviour::CrashesAfter(milliseconds(time)),
        Some(("exit", time)) => Behaviour::CompletesAfter(milliseconds(time)),
        None if text == "missing" => Behaviour::Missing,
        None if text == "healthy" => Behaviour::Healthy,
        None if text == "never-healthy" => Behaviour::NeverHealthy,
        _ => panic!("what is {text:?}?"),
    };
    simulation.behaviours.insert(name.to_owned(), behaviour);
}

pub(crate) fn service(simulation: &mut Simulation, name: &str, options: &[&str]) -> ServiceSpec {
    let mut spec = objects::spec(name);
    for option in options {
        set(simulation, &mut spec, option);
    }
    spec.validate().unwrap();
    spec
}

/// Sets what one option says.
pub(crate) fn set(simulation: &mut Simulation, spec: &mut ServiceSpec, option: &str) {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    if let Some(key) = key.strip_prefix("rollback-") {
        return set_update(&mut spec.rollback, key, value);
    }
    match key {
        "replicas" => spec.mode = spec.mode.scaled(value.parse().unwrap()).unwrap(),
        "mode" => set_mode(spec, value.parse().unwrap()),
        "max-concurrent" => {
            let total = spec.mode.replicas().unwrap();
            spec.mode = ServiceMode::ReplicatedJob {
                max_concurrent: value.parse().unwrap(),
                total_completions: total,
            };
        }
        "restart" => {
            spec.task.restart.condition = match value {
                "any" => RestartCondition::Any,
                "on-failure" => RestartCondition::OnFailure,
                "none" => RestartCondition::None,
                _ => panic!("what is {value:?}?"),
            }
        }
        "restart-delay" => spec.task.restart.delay = seconds(value),
        "max-attempts" => spec.task.restart.max_attempts = value.parse().unwrap(),
        "window" => spec.task.restart.window = seconds(value),
        "port" => spec.ports.push(port(value, PortMode::Ingress)),
        "host-port" => spec.ports.push(port(value, PortMode::Host)),
        "cpus" => {
            let cpus: u64 = value.parse().unwrap();
            spec.task.resources.reservations.nano_cpus = cpus * 1_000_000_000;
        }
        "constraint" => spec.task.placement.constraints.push(value.parse().unwrap()),
        "pref" => {
            let preference = Preference::spread(value).unwrap();
            spec.task.placement.preferences.push(preference);
        }
        "max-per-node" => spec.task.placement.max_replicas = value.parse().unwrap(),
        "generic" => {
            let (kind, amount) = value.split_once(':').unwrap();
            let generic = &mut spec.task.resources.reservations.generic;
            generic.insert(kind.to_owned(), amount.parse().unwrap());
        }
        "platform" => {
            spec.task.placement.platforms.push(platform(value));
        }
        "made-for" => {
            spec.task.containers[0].platforms = value.split(',').map(platform).collect();
        }
        "strategy" => {
            spec.task.placement.strategy = match value {
                "spread" => Strategy::Spread,
                "binpack" => Strategy::Binpack,
                _ => panic!("what is {value:?}?"),
            }
        }
        "drain" => spec.drain_timeout = seconds(value),
        "image" => value.clone_into(&mut spec.task.containers[0].image),
        "behaves" => behave(simulation, &spec.name, value),
        "force" => spec.task.force_update += 1,
        _ => set_update(&mut spec.update, key, value),
    }
}

fn platform(text: &str) -> Platform {
    let (os, arch) = text.split_once('/').unwrap();
    Platform {
        os: os.to_owned(),
        arch: arch.to_owned(),
    }
}

/// What a word says of a new node.
pub(crate) fn describe(node: &mut Node, word: &str) {
    if let Some((key, value)) = word.split_once('=') {
        if key == "arch" {
            value.clone_into(&mut node.description.platform.arch);
        } else {
            node.spec.labels.insert(key.to_owned(), value.to_owned());
        }
        return;
    }
    let (kind, value) = word.split_once(':').unwrap();
    let amount = value.parse().unwrap_or_else(|_| {
        let names: Vec<String> = value.split(',').map(str::to_owned).collect();
        let amount = names.len() as u64;
        node.description
            .generic_names
            .insert(kind.to_owned(), names);
        amount
    });
    let generic = &mut node.description.resources.generic;
    generic.insert(kind.to_owned(), amount);
}

/// As the command line does: jobs are restarted after failures only, unless told otherwise.
fn set_mode(spec: &mut ServiceSpec, kind: ModeKind) {
    spec.mode = kind.initial();
    if spec.mode.is_job() {
        spec.task.restart.condition = RestartCondition::OnFailure;
    }
}

fn set_update(config: &mut UpdateConfig, key: &str, value: &str) {
    match key {
        "parallelism" => config.parallelism = value.parse().unwrap(),
        "delay" => config.delay = seconds(value),
        "monitor" => config.monitor = seconds(value),
        "ratio" => config.max_failure_ratio = value.parse().unwrap(),
        "action" => {
            config.failure_action = match value {
                "pause" => FailureAction::Pause,
                "continue" => FailureAction::Continue,
                "rollback" => FailureAction::Rollback,
                _ => panic!("what is {value:?}?"),
            }
        }
        "order" => {
            config.order = match value {
                "stop-first" => UpdateOrder::StopFirst,
                "start-first" => UpdateOrder::StartFirst,
                _ => panic!("what is {value:?}?"),
            }
        }
        "min-healthy" => config.min_healthy_percent = Some(value.parse().unwrap()),
        "max" => config.max_percent = Some(value.parse().unwrap()),
        "deadline" => config.progress_deadline = seconds(value),
        _ => panic!("what is {key:?}?"),
    }
}

fn port(text: &str, mode: PortMode) -> PortSpec {
    let (published, target) = text.split_once(':').unwrap();
    PortSpec {
        target: target.parse().unwrap(),
        published: published.parse().unwrap(),
        protocol: Protocol::Tcp,
        mode,
        proxy_protocol: None,
        accept_proxy: Vec::new(),
    }
}
