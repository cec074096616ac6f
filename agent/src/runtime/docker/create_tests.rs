use std::collections::BTreeMap;

use swarmlet_core::model::{Mount, Protocol, ResourceRequirements, Resources};

use super::*;
use crate::worker::fake;

fn port(target: u16, host: u16, mode: PortMode) -> TaskPort {
    TaskPort {
        target,
        host,
        protocol: Protocol::Tcp,
        mode,
    }
}

fn create(edit: impl FnOnce(&mut Task), ports: &[TaskPort]) -> ContainerCreateBody {
    body(&fake::scope("/tasks"), &fake::task(5, edit), ports).unwrap()
}

#[test]
fn what_is_not_given_is_the_images() {
    let body = create(|_| {}, &[]);
    assert_eq!(body.image.as_deref(), Some("whoami"));
    assert_eq!(
        (body.hostname, body.user, body.entrypoint, body.cmd),
        (None, None, None, None)
    );
    assert_eq!(
        (body.working_dir, body.stop_signal, body.healthcheck),
        (None, None, None)
    );
    let host = body.host_config.unwrap();
    assert_eq!(
        (host.nano_cpus, host.memory, host.mounts, host.binds),
        (None, None, None, None)
    );
    assert_eq!(
        host.restart_policy.unwrap().name,
        Some(RestartPolicyNameEnum::NO)
    );
}

#[test]
fn ports_are_bound_where_they_belong() {
    let ports = [
        port(80, 20_001, PortMode::Ingress),
        port(81, 8081, PortMode::Host),
    ];
    let body = create(|_| {}, &ports);
    assert_eq!(
        body.exposed_ports,
        Some(vec!["80/tcp".to_owned(), "81/tcp".to_owned()])
    );
    let bindings = body.host_config.unwrap().port_bindings.unwrap();
    let bound = |key: &str| {
        let binding = bindings[key].as_ref().unwrap()[0].clone();
        (binding.host_ip.unwrap(), binding.host_port.unwrap())
    };
    assert_eq!(
        bound("80/tcp"),
        ("127.0.0.1".to_owned(), "20001".to_owned())
    );
    assert_eq!(bound("81/tcp"), ("0.0.0.0".to_owned(), "8081".to_owned()));
    assert_eq!(
        body.labels.unwrap()[label::PORTS],
        "80/tcp=20001 81/tcp=8081@host"
    );
}

#[test]
fn the_agents_labels_win() {
    let labels = create(
        |task| {
            task.spec.containers[0].labels = BTreeMap::from([
                ("a".to_owned(), "b".to_owned()),
                (label::TASK.to_owned(), "forged".to_owned()),
            ]);
        },
        &[],
    )
    .labels
    .unwrap();
    assert_eq!(labels["a"], "b");
    assert_eq!(labels[label::TASK], "0000000000000000000000005");
    assert_eq!(labels[label::TASK_NAME], "ng.1");
}

#[test]
fn limits_mounts_and_checks_are_passed_on() {
    let body = create(
        |task| {
            task.spec.resources = ResourceRequirements {
                limits: Resources {
                    nano_cpus: 500_000_000,
                    memory_bytes: 64 << 20,
                    pids: 100,
                    ..Resources::default()
                },
                reservations: Resources {
                    nano_cpus: 0,
                    memory_bytes: 32 << 20,
                    generic: [("gpu".to_owned(), 2), ("disc".to_owned(), 1)].into(),
                    ..Resources::default()
                },
            };
            let names = vec!["a".to_owned(), "b".to_owned()];
            task.generic_names.insert("gpu".to_owned(), names);
            let container = &mut task.spec.containers[0];
            container.hostname = Some("{{.Service.Name}}-{{.Task.Slot}}".to_owned());
            container.mounts = vec![Mount {
                kind: MountKind::Bind,
                source: "/srv/{{.Task.Slot}}".to_owned(),
                target: "/data".to_owned(),
                read_only: true,
            }];
            container.health = Some(HealthCheck {
                test: HealthTest::Shell("true".to_owned()),
                interval: Some(Duration::from_millis(1500)),
                timeout: None,
                start_period: None,
                start_interval: Some(Duration::from_millis(250)),
                retries: Some(2),
            });
            container.stop_grace_period = Duration::from_millis(1500);
        },
        &[],
    );
    assert_eq!(body.hostname.as_deref(), Some("ng-1"));
    assert_eq!(body.stop_timeout, Some(2));
    let health = body.healthcheck.unwrap();
    assert_eq!(
        health.test,
        Some(vec!["CMD-SHELL".to_owned(), "true".to_owned()])
    );
    assert_eq!(
        (health.interval, health.start_interval, health.retries),
        (Some(1_500_000_000), Some(250_000_000), Some(2))
    );
    let host = body.host_config.unwrap();
    assert_eq!(
        (host.nano_cpus, host.memory),
        (Some(500_000_000), Some(64 << 20))
    );
    assert_eq!(host.memory_reservation, Some(32 << 20));
    let mount = host.mounts.unwrap().remove(0);
    assert_eq!(mount.source.as_deref(), Some("/srv/1"));
    assert_eq!(
        (mount.typ, mount.read_only),
        (Some(MountType::BIND), Some(true))
    );
}

#[test]
fn unknown_placeholders_are_rejected() {
    let task = fake::task(5, |task| {
        task.spec.containers[0].env = vec!["A={{.Nothing}}".to_owned()];
    });
    let error = body(&fake::scope("/tasks"), &task, &[]).unwrap_err();
    assert!(matches!(error, RuntimeError::Rejected(_)), "{error}");
}

#[test]
fn the_log_driver_is_the_engines_own_unless_one_is_named() {
    let config = |driver| {
        let body = create(|task| task.spec.log_driver = driver, &[]);
        body.host_config.unwrap().log_config
    };
    assert_eq!(config(None), None);
    let named = config(Some(LogDriver {
        name: "local".to_owned(),
        options: BTreeMap::from([("max-size".to_owned(), "1m".to_owned())]),
    }));
    let named = named.unwrap();
    assert_eq!(named.typ.as_deref(), Some("local"));
    assert_eq!(named.config.unwrap()["max-size"], "1m");
}
