use super::*;
use crate::model::{LbPolicy, ProxyProtocol, ServiceMode, UpdateConfig};

fn spec(edit: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let container = ContainerSpec {
        image: "whoami".to_owned(),
        ..ContainerSpec::default()
    };
    let mut spec = ServiceSpec {
        name: "ng".to_owned(),
        labels: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas: 1 },
        task: TaskSpec {
            containers: vec![container],
            ..TaskSpec::default()
        },
        ports: Vec::new(),
        lb_policy: LbPolicy::RoundRobin,
        lb_prefer_local: false,
        drain_timeout: ServiceSpec::DEFAULT_DRAIN_TIMEOUT,
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
    };
    edit(&mut spec);
    spec
}

fn port(published: u16, target: u16, protocol: Protocol, mode: PortMode) -> PortSpec {
    PortSpec {
        target,
        published,
        protocol,
        mode,
        proxy_protocol: None,
        accept_proxy: Vec::new(),
    }
}

#[track_caller]
fn check(edit: impl FnOnce(&mut ServiceSpec), expected: Result<(), &str>) {
    let found = spec(edit).validate().map_err(|error| error.to_string());
    assert_eq!(found, expected.map_err(str::to_owned));
}

#[test]
fn a_plain_service_is_valid() {
    check(|_| {}, Ok(()));
    check(
        |spec| spec.ports = vec![port(80, 80, Protocol::Tcp, PortMode::Ingress)],
        Ok(()),
    );
    check(
        |spec| {
            spec.ports = vec![
                port(53, 53, Protocol::Tcp, PortMode::Host),
                port(53, 53, Protocol::Udp, PortMode::Host),
            ];
        },
        Ok(()),
    );
}

#[test]
fn names_are_dns_labels() {
    for bad in ["", "-a", "a-", "a b", "a.b", &"a".repeat(64)] {
        let error = spec(|spec| spec.name = bad.to_owned())
            .validate()
            .unwrap_err();
        assert!(
            error
                .0
                .starts_with(&format!("invalid service name {bad:?}")),
            "{error}"
        );
    }
}

#[test]
fn ports_must_be_servable() {
    check(
        |spec| spec.ports = vec![port(80, 0, Protocol::Tcp, PortMode::Ingress)],
        Err("invalid target port 0: expected 1 to 65535"),
    );
    check(
        |spec| spec.ports = vec![port(53, 53, Protocol::Udp, PortMode::Ingress)],
        Err("port 53:53/udp cannot be published through the ingress mesh: use mode=host"),
    );
    let told = |mode| PortSpec {
        proxy_protocol: Some(ProxyProtocol::V2),
        ..port(80, 80, Protocol::Tcp, mode)
    };
    check(|spec| spec.ports = vec![told(PortMode::Ingress)], Ok(()));
    check(
        |spec| spec.ports = vec![told(PortMode::Host)],
        Err(
            "port 80:80 cannot have the PROXY protocol with mode=host: it is the balancer's, \
             which that mode goes without: use mode=ingress",
        ),
    );
    check(
        |spec| {
            spec.lb_prefer_local = true;
            spec.lb_policy = LbPolicy::SourceHash;
        },
        Err(
            "local tasks cannot come first with the policy source-hash, by which a client has \
             the same task on every node: choose round-robin or least-conn",
        ),
    );
    check(
        |spec| {
            spec.ports = vec![
                port(80, 80, Protocol::Tcp, PortMode::Ingress),
                port(80, 81, Protocol::Tcp, PortMode::Ingress),
            ];
        },
        Err("port 80/tcp is published twice"),
    );
}

#[test]
fn what_a_task_runs_is_checked() {
    check(
        |spec| spec.task.containers.clear(),
        Err("a task has exactly one container, not 0"),
    );
    check(
        |spec| spec.task.containers[0].image = "who ami".to_owned(),
        Err("invalid image reference \"who ami\""),
    );
    check(
        |spec| spec.task.containers[0].env = vec!["=x".to_owned()],
        Err("invalid environment variable \"=x\": expected NAME=VALUE"),
    );
    check(
        |spec| spec.task.resources.limits.memory_bytes = 1024,
        Err("memory limit of 1024 bytes is too small: at least 6MiB"),
    );
    check(
        |spec| {
            spec.task.resources.limits.nano_cpus = 1;
            spec.task.resources.reservations.nano_cpus = 2;
        },
        Err("the CPU reservation is larger than the limit"),
    );
    let mount = |kind, source: &str, target: &str| Mount {
        kind,
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: false,
    };
    check(
        |spec| spec.task.containers[0].mounts = vec![mount(MountKind::Bind, "data", "/data")],
        Err("invalid bind source \"data\": expected an absolute path"),
    );
    check(
        |spec| spec.task.containers[0].mounts = vec![mount(MountKind::Volume, "data", "data")],
        Err("invalid mount target \"data\": expected an absolute path"),
    );
}

#[test]
fn numbers_have_limits() {
    check(
        |spec| spec.mode = ServiceMode::Replicated { replicas: 100_001 },
        Err("100001 replicas are too many: a service has at most 100000"),
    );
    check(
        |spec| spec.task.containers[0].stop_grace_period = Duration::from_secs(400 * 24 * 3600),
        Err("stop grace period of 34560000s is too long: at most a year"),
    );
}

#[test]
fn updates_that_could_never_move_are_refused() {
    let bounds = |replicas, min, max| {
        move |spec: &mut ServiceSpec| {
            spec.mode = ServiceMode::Replicated { replicas };
            spec.update.min_healthy_percent = min;
            spec.update.max_percent = max;
        }
    };
    check(bounds(2, Some(50), Some(200)), Ok(()));
    check(bounds(5, Some(20), Some(100)), Ok(()));
    check(bounds(0, Some(100), Some(100)), Ok(()));
    check(bounds(2, Some(100), None), Ok(()));
    check(
        bounds(2, Some(75), Some(100)),
        Err(
            "the update could never move: of 2 tasks at least 2 must stay healthy and at most 2 \
             may be started, so that none can be stopped and none added: lower the min healthy \
             percent, or raise the max percent",
        ),
    );
    check(
        bounds(2, Some(101), None),
        Err("update min healthy percent of 101 cannot be met: at most 100"),
    );
    check(
        bounds(2, None, Some(99)),
        Err("invalid update max percent 99: expected 100 to 1000"),
    );
    check(
        |spec| spec.rollback.failure_action = FailureAction::Rollback,
        Err("a rollback that fails can pause or continue, not roll back"),
    );
}

#[test]
fn a_check_needs_a_published_port_and_sane_numbers() {
    let asks = |probe: Probe, edit: fn(&mut Check)| {
        move |spec: &mut ServiceSpec| {
            spec.ports = vec![
                port(53, 53, Protocol::Udp, PortMode::Host),
                port(80, 8080, Protocol::Tcp, PortMode::Ingress),
            ];
            let mut check = Check::new(probe);
            edit(&mut check);
            spec.task.containers[0].check = Some(check);
        }
    };
    let tcp = |port| Probe::Tcp { port };
    check(asks(tcp(None), |_| {}), Ok(()));
    check(asks(tcp(Some(8080)), |_| {}), Ok(()));
    check(
        asks(tcp(Some(53)), |_| {}),
        Err(
            "the check tcp 53 asks port 53, which is not published: publish it with --publish \
             (mode=host does), or name one of the published ports",
        ),
    );
    check(
        |spec| {
            asks(Probe::http("/up").unwrap(), |_| {})(spec);
            spec.ports.clear();
        },
        Err("the check http /up has no port to ask: publish a TCP port with --publish"),
    );
    check(
        asks(tcp(None), |check| check.rise = 0),
        Err("invalid check rise 0: expected 1 to 100"),
    );
    check(
        asks(tcp(None), |check| check.timeout = Duration::ZERO),
        Err("check timeout of 0ns is too short: at least 100ms"),
    );
    let path = "/a b".to_owned();
    check(
        asks(Probe::Http { port: None, path }, |_| {}),
        Err(
            "invalid path \"/a b\" of a check: expected /PATH or PORT/PATH, such as /healthz or \
             8080/healthz",
        ),
    );
}

#[test]
fn jobs_are_not_updated_and_not_restarted_for_ever() {
    let job = |condition, edit: fn(&mut ServiceSpec)| {
        move |spec: &mut ServiceSpec| {
            spec.mode = ServiceMode::ReplicatedJob {
                max_concurrent: 1,
                total_completions: 3,
            };
            spec.task.restart.condition = condition;
            edit(spec);
        }
    };
    check(job(RestartCondition::OnFailure, |_| {}), Ok(()));
    check(job(RestartCondition::None, |_| {}), Ok(()));
    check(
        job(RestartCondition::Any, |_| {}),
        Err(
            "restart condition any is not supported for jobs: a task that has completed is not \
             started again; use on-failure or none",
        ),
    );
    let refused = "update and rollback configuration is not supported for jobs";
    check(
        job(RestartCondition::None, |spec| spec.update.parallelism = 2),
        Err(refused),
    );
    check(
        job(RestartCondition::None, |spec| {
            spec.mode = ServiceMode::GlobalJob {};
            spec.rollback.delay = Duration::from_secs(1);
        }),
        Err(refused),
    );
}

#[test]
fn global_updates_that_could_never_move_are_refused() {
    let percents = |min, max| {
        move |spec: &mut ServiceSpec| {
            spec.mode = ServiceMode::Global {};
            spec.update.min_healthy_percent = min;
            spec.update.max_percent = max;
        }
    };
    check(percents(None, None), Ok(()));
    check(percents(Some(0), Some(100)), Ok(()));
    check(percents(Some(99), None), Ok(()));
    check(percents(Some(100), Some(200)), Ok(()));
    check(
        |spec| {
            spec.mode = ServiceMode::GlobalJob {};
            spec.task.restart.condition = RestartCondition::None;
            spec.task.placement.max_replicas = 2;
        },
        Err("replicas-max-per-node can only be used with replicated or replicated-job mode"),
    );
    check(
        percents(Some(100), None),
        Err(
            "the update could never move: the task of each node must stay healthy and no other \
             one may be started beside it: lower the min healthy percent, or raise the max percent",
        ),
    );
}
