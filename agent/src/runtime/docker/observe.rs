//! What the engine says of a container, in our words.

use std::net::IpAddr;

use bollard::models::{
    ContainerInspectResponse, ContainerState as EngineState, ContainerStateStatusEnum,
    HealthStatusEnum, NetworkSettings,
};
use swarmlet_core::model::{PortMode, Protocol, TaskId, TaskPort};

use super::label;
use crate::runtime::{Container, ContainerState, Health};

/// The most characters of a health check's output that are told: it travels with the status of
/// its task through the log of the managers.
const MOST_OUTPUT: usize = 200;

/// A container as the engine describes it; `None` where it is none of a task's.
///
/// # Errors
/// What every description of a container has, and this one lacks.
pub(super) fn container(
    found: &ContainerInspectResponse,
) -> Result<Option<Container>, &'static str> {
    let id = found
        .id
        .clone()
        .ok_or("a container without an identifier")?;
    let state = found.state.as_ref().ok_or("a container without a state")?;
    let config = found.config.as_ref();
    let labels = &config.ok_or("a container without a configuration")?.labels;
    let label = |name: &str| labels.as_ref().and_then(|labels| labels.get(name));
    let Some(task) = label(label::TASK).and_then(|task| TaskId::parse(task).ok()) else {
        return Ok(None);
    };
    Ok(Some(Container {
        task,
        id,
        pid: state
            .pid
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or(0),
        address: found.network_settings.as_ref().and_then(address),
        ports: label(label::PORTS)
            .map(|text| ports_from_text(text))
            .unwrap_or_default(),
        state: container_state(state)?,
        failing: failing(state),
    }))
}

fn container_state(state: &EngineState) -> Result<ContainerState, &'static str> {
    use ContainerStateStatusEnum as Status;
    Ok(match state.status {
        None | Some(Status::EMPTY) => return Err("a container in no state"),
        Some(Status::CREATED) => ContainerState::Created,
        Some(Status::EXITED | Status::DEAD | Status::REMOVING) => ContainerState::Exited {
            code: state
                .exit_code
                .and_then(|code| i32::try_from(code).ok())
                .unwrap_or(-1),
            reason: reason(state),
        },
        // Paused and restarting ones have their processes, too.
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => {
            ContainerState::Running(health(state))
        }
    })
}

fn reason(state: &EngineState) -> Option<String> {
    if state.oom_killed == Some(true) {
        return Some("out of memory".to_owned());
    }
    state.error.clone().filter(|error| !error.is_empty())
}

fn health(state: &EngineState) -> Health {
    match state.health.as_ref().and_then(|health| health.status) {
        None | Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) => Health::Unchecked,
        Some(HealthStatusEnum::STARTING) => Health::Starting,
        Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
    }
}

/// The last result in the engine's log of its health check, where the check does not pass.
fn failing(state: &EngineState) -> Option<String> {
    if !matches!(health(state), Health::Starting | Health::Unhealthy) {
        return None;
    }
    let result = state.health.as_ref()?.log.as_ref()?.last()?;
    let output = result.output.as_deref().unwrap_or_default();
    let words: Vec<&str> = output.split_whitespace().collect();
    let output: String = words.join(" ").chars().take(MOST_OUTPUT).collect();
    match (result.exit_code, output.as_str()) {
        (Some(0), _) => None,
        // The engine's own words: it could not run the check, or gave it up.
        (Some(-1) | None, "") => Some("health check: no result".to_owned()),
        (Some(-1) | None, _) => Some(format!("health check: {output}")),
        (Some(code), "") => Some(format!("health check: exit code {code}")),
        (Some(code), _) => Some(format!("health check: exit code {code}: {output}")),
    }
}

/// The container's address in the engine's own network, where it is in one.
fn address(settings: &NetworkSettings) -> Option<IpAddr> {
    let networks = settings.networks.as_ref()?;
    let parse = |name: &str| networks.get(name)?.ip_address.as_ref()?.parse().ok();
    parse("bridge").or_else(|| {
        // By name, so that the choice among several is the same each time.
        let mut names: Vec<&String> = networks.keys().collect();
        names.sort();
        names.into_iter().find_map(|name| parse(name))
    })
}

/// Ports as a label carries them: `80/tcp=20001 53/udp=53@host`.
pub(super) fn ports_to_text(ports: &[TaskPort]) -> String {
    let texts: Vec<String> = ports
        .iter()
        .map(|port| {
            let mode = match port.mode {
                PortMode::Ingress => "",
                PortMode::Host => "@host",
            };
            format!("{}/{}={}{mode}", port.target, port.protocol, port.host)
        })
        .collect();
    texts.join(" ")
}

fn ports_from_text(text: &str) -> Vec<TaskPort> {
    text.split(' ').filter_map(port_from_text).collect()
}

fn port_from_text(text: &str) -> Option<TaskPort> {
    let (inside, outside) = text.split_once('=')?;
    let (target, protocol) = inside.split_once('/')?;
    let (host, mode) = match outside.strip_suffix("@host") {
        Some(host) => (host, PortMode::Host),
        None => (outside, PortMode::Ingress),
    };
    Some(TaskPort {
        target: target.parse().ok()?,
        host: host.parse().ok()?,
        protocol: match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        },
        mode,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard::models::{
        ContainerConfig, EndpointSettings, Health as EngineHealth, HealthcheckResult,
    };

    use super::*;

    fn state(status: ContainerStateStatusEnum) -> EngineState {
        EngineState {
            status: Some(status),
            ..EngineState::default()
        }
    }

    #[test]
    fn ports_survive_their_label() {
        let port = |target, host, protocol, mode| TaskPort {
            target,
            host,
            protocol,
            mode,
        };
        let ports = [
            port(80, 20_001, Protocol::Tcp, PortMode::Ingress),
            port(53, 53, Protocol::Udp, PortMode::Host),
        ];
        let text = ports_to_text(&ports);
        assert_eq!(text, "80/tcp=20001 53/udp=53@host");
        assert_eq!(ports_from_text(&text), ports);
        assert_eq!(ports_from_text(""), []);
        assert_eq!(ports_from_text("80/tcp=x 80=1 nonsense"), []);
    }

    #[test]
    fn states() {
        use ContainerStateStatusEnum as Status;
        assert_eq!(
            container_state(&state(Status::CREATED)),
            Ok(ContainerState::Created)
        );
        assert_eq!(
            container_state(&state(Status::PAUSED)),
            Ok(ContainerState::Running(Health::Unchecked))
        );
        let unhealthy = EngineState {
            health: Some(EngineHealth {
                status: Some(HealthStatusEnum::UNHEALTHY),
                ..EngineHealth::default()
            }),
            ..state(Status::RUNNING)
        };
        assert_eq!(
            container_state(&unhealthy),
            Ok(ContainerState::Running(Health::Unhealthy))
        );
        let killed = EngineState {
            exit_code: Some(137),
            oom_killed: Some(true),
            ..state(Status::EXITED)
        };
        assert_eq!(
            container_state(&killed),
            Ok(ContainerState::Exited {
                code: 137,
                reason: Some("out of memory".to_owned())
            })
        );
        assert!(container_state(&EngineState::default()).is_err());
    }

    #[test]
    fn a_health_check_that_does_not_pass_tells_its_last_result() {
        let told = |status, results: &[(Option<i64>, &str)]| {
            let result = |&(exit_code, output): &(Option<i64>, &str)| HealthcheckResult {
                exit_code,
                output: Some(output.to_owned()),
                ..HealthcheckResult::default()
            };
            failing(&EngineState {
                health: Some(EngineHealth {
                    status: Some(status),
                    log: Some(results.iter().map(result).collect()),
                    ..EngineHealth::default()
                }),
                ..state(ContainerStateStatusEnum::RUNNING)
            })
        };
        let (starting, unhealthy) = (HealthStatusEnum::STARTING, HealthStatusEnum::UNHEALTHY);
        let first = (Some(2), "first");
        let last = (Some(1), "curl: (7)\n  refused\n");
        let expected = "health check: exit code 1: curl: (7) refused";
        assert_eq!(told(starting, &[first, last]).as_deref(), Some(expected));
        assert_eq!(told(unhealthy, &[last]).as_deref(), Some(expected));
        assert_eq!(told(HealthStatusEnum::HEALTHY, &[last]), None);
        assert_eq!(told(starting, &[]), None);
        assert_eq!(told(starting, &[last, (Some(0), "well")]), None);
        let silent = told(starting, &[(Some(1), "")]);
        assert_eq!(silent.as_deref(), Some("health check: exit code 1"));
        let slow = told(
            starting,
            &[(Some(-1), "Health check exceeded timeout (1s)")],
        );
        let expected = "health check: Health check exceeded timeout (1s)";
        assert_eq!(slow.as_deref(), Some(expected));
        let long = told(starting, &[(Some(1), &"é".repeat(500))]).unwrap();
        assert_eq!(long.chars().filter(|&c| c == 'é').count(), MOST_OUTPUT);
    }

    #[test]
    fn a_container_of_somebody_else_is_none() {
        let mut found = ContainerInspectResponse {
            id: Some("abc".to_owned()),
            state: Some(state(ContainerStateStatusEnum::RUNNING)),
            config: Some(ContainerConfig {
                labels: Some(HashMap::from([("x".to_owned(), "y".to_owned())])),
                ..ContainerConfig::default()
            }),
            network_settings: Some(NetworkSettings {
                networks: Some(HashMap::from([(
                    "bridge".to_owned(),
                    EndpointSettings {
                        ip_address: Some("172.17.0.2".to_owned()),
                        ..EndpointSettings::default()
                    },
                )])),
                ..NetworkSettings::default()
            }),
            ..ContainerInspectResponse::default()
        };
        assert_eq!(container(&found), Ok(None));
        let task = TaskId::from_random(3);
        if let Some(labels) = found
            .config
            .as_mut()
            .and_then(|config| config.labels.as_mut())
        {
            labels.insert(label::TASK.to_owned(), task.to_string());
        }
        let ours = container(&found).unwrap().unwrap();
        assert_eq!(ours.task, task);
        assert_eq!(ours.address, Some("172.17.0.2".parse().unwrap()));
    }
}
