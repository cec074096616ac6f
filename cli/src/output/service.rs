//! Services: `service ls` and `service inspect --pretty`.

use std::fmt::Write as _;

use serde::Serialize;
use swarmlet_core::model::{
    Check, ContainerSpec, Placement, PortMode, PortSpec, Resources, Service, ServiceMode, Strategy,
    Task, TaskState, Timestamp, UnhealthyAction,
};

use super::counts::{Counts, at_once};
use super::{Row, ago, natural, title, update, without_digest};

/// One line of `service ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceRow {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    mode: String,
    replicas: String,
    image: String,
    ports: String,
    /// Why tasks wait, where some do.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Row for ServiceRow {
    const HEADERS: &'static [&'static str] = &["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"];

    fn cells(&self) -> Vec<String> {
        let replicas = match &self.reason {
            Some(reason) => format!("{} ({reason})", self.replicas),
            None => self.replicas.clone(),
        };
        vec![
            self.id.get(..12).unwrap_or(&self.id).to_owned(),
            self.name.clone(),
            self.mode.clone(),
            replicas,
            without_digest(&self.image),
            self.ports.clone(),
        ]
    }

    fn id(&self) -> &str {
        &self.id
    }
}

/// The lines of `service ls`, by name.
pub(crate) fn service_rows(services: &[Service], tasks: &[Task]) -> Vec<ServiceRow> {
    let mut rows: Vec<_> = services.iter().map(|service| row(service, tasks)).collect();
    rows.sort_by(|a, b| natural(&a.name, &b.name));
    rows
}

fn row(service: &Service, tasks: &[Task]) -> ServiceRow {
    let own = || tasks.iter().filter(|task| task.service == service.id);
    let waiting = own()
        .filter(|task| task.is_live() && task.status.state <= TaskState::Pending)
        .find_map(|task| task.status.error.clone());
    let image = service
        .spec
        .task
        .container()
        .map(|container| container.image.clone())
        .unwrap_or_default();
    let ports: Vec<String> = service
        .spec
        .ports
        .iter()
        .filter(|port| port.mode == PortMode::Ingress)
        .map(published)
        .collect();
    ServiceRow {
        id: service.id.to_string(),
        name: service.spec.name.clone(),
        mode: service.spec.mode.kind().to_string().replace('-', " "),
        replicas: Counts::of(service, own()).to_string(),
        image,
        ports: ports.join(", "),
        reason: waiting,
    }
}

/// `http /up every 2s, timeout 1s, rise 2, fall 3, start period 60s`.
fn check_line(check: &Check) -> String {
    format!(
        "{} every {:?}, timeout {:?}, rise {}, fall {}, start period {:?}",
        check.probe, check.interval, check.timeout, check.rise, check.fall, check.start_period
    )
}

fn mode_lines(mode: ServiceMode) -> Vec<(&'static str, String)> {
    // `replicated-job` as `Replicated Job`.
    let kind = mode.kind().to_string();
    let words: Vec<String> = kind.split('-').map(title).collect();
    let mut lines = vec![("Service Mode:", words.join(" "))];
    match mode {
        ServiceMode::Replicated { replicas } => lines.push((" Replicas:", replicas.to_string())),
        ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions,
        } => lines.extend([
            (
                " Max Concurrent:",
                at_once(max_concurrent, total_completions).to_string(),
            ),
            (" Total Completions:", total_completions.to_string()),
        ]),
        ServiceMode::Global {} | ServiceMode::GlobalJob {} => {}
    }
    lines
}

/// `*:8080->80/tcp`.
fn published(port: &PortSpec) -> String {
    format!("*:{}->{}/{}", port.published, port.target, port.protocol)
}

/// What a service says of where its tasks go, where it says anything.
fn placement(placement: &Placement) -> Vec<(&'static str, String)> {
    let joined = |texts: Vec<String>| texts.join(", ");
    let texts = |list: &[String]| (!list.is_empty()).then(|| joined(list.to_vec()));
    let constraints: Vec<_> = placement
        .constraints
        .iter()
        .map(ToString::to_string)
        .collect();
    let preferences: Vec<_> = placement
        .preferences
        .iter()
        .map(ToString::to_string)
        .collect();
    let platforms: Vec<_> = placement
        .platforms
        .iter()
        .map(ToString::to_string)
        .collect();
    let most = placement.max_replicas;
    let strategy = placement.strategy;
    let lines: Vec<_> = [
        (" Constraints:", texts(&constraints)),
        (" Preferences:", texts(&preferences)),
        (" Platforms:", texts(&platforms)),
        (
            " Max Replicas Per Node:",
            (most != 0).then(|| most.to_string()),
        ),
        (
            " Strategy:",
            (strategy != Strategy::default()).then(|| strategy.to_string()),
        ),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    let title = (!lines.is_empty()).then(|| ("Placement:", String::new()));
    title.into_iter().chain(lines).collect()
}

/// What a service's tasks are made of.
fn container(container: &ContainerSpec) -> Vec<(&'static str, String)> {
    let platforms: Vec<_> = container
        .platforms
        .iter()
        .map(ToString::to_string)
        .collect();
    let unhealthy = container.unhealthy_action;
    let mut lines = vec![
        ("ContainerSpec:", String::new()),
        (" Image:", container.image.clone()),
    ];
    let optional = [
        (" Platforms:", platforms.join(", ")),
        (" Args:", container.args.join(" ")),
        (" Env:", container.env.join(" ")),
        (
            " Check:",
            container.check.as_ref().map(check_line).unwrap_or_default(),
        ),
        (
            " Unhealthy action:",
            match unhealthy == UnhealthyAction::default() {
                true => String::new(),
                false => unhealthy.to_string(),
            },
        ),
    ];
    lines.extend(optional.into_iter().filter(|(_, value)| !value.is_empty()));
    let mounts = container.mounts.iter();
    lines.extend(mounts.map(|mount| (" Mount:", format!("{} -> {}", mount.source, mount.target))));
    lines
}

/// What is limited or reserved, in one line: `0.500 CPUs, 64MiB memory, 100 pids, 2 gpu`.
fn amounts(amount: &Resources) -> String {
    let mut parts = Vec::new();
    if amount.nano_cpus != 0 || amount.memory_bytes != 0 {
        let (whole, rest) = (
            amount.nano_cpus / 1_000_000_000,
            amount.nano_cpus % 1_000_000_000,
        );
        parts.push(format!("{whole}.{:03} CPUs", rest / 1_000_000));
        parts.push(format!("{}MiB memory", amount.memory_bytes >> 20));
    }
    if amount.pids != 0 {
        parts.push(format!("{} pids", amount.pids));
    }
    let generic = amount.generic.iter();
    parts.extend(generic.map(|(kind, amount)| format!("{amount} {kind}")));
    parts.join(", ")
}

/// `service inspect --pretty`.
pub(crate) fn pretty_service(service: &Service, now: Timestamp) -> String {
    let mut text = String::new();
    let spec = &service.spec;
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<19} {value}");
    };
    line("ID:", service.id.as_str());
    line("Name:", &spec.name);
    if !spec.labels.is_empty() {
        line("Labels:", "");
        for (key, value) in &spec.labels {
            line(&format!(" {key}={value}"), "");
        }
    }
    for (name, value) in mode_lines(spec.mode) {
        line(name, &value);
    }
    if let Some(status) = &service.update_status {
        let ago = |at: Timestamp| format!("{} ago", ago(now.since(at)));
        line("UpdateStatus:", "");
        line(" State:", &status.state.to_string());
        line(" Started:", &ago(status.started_at));
        // One that was paused may go on.
        if let Some(at) = status.completed_at.filter(|_| !status.is_paused()) {
            line(" Completed:", &ago(at));
        }
        line(" Message:", &status.message);
    }
    for (name, value) in placement(&spec.task.placement) {
        line(name, &value);
    }
    // A job is run again and never updated.
    let configs = [
        ("UpdateConfig:", &spec.update, " Update order:"),
        ("RollbackConfig:", &spec.rollback, " Rollback order:"),
    ];
    for (title, config, order) in configs.into_iter().filter(|_| !spec.mode.is_job()) {
        line(title, "");
        for (name, value) in update::lines(config, order) {
            line(name, &value);
        }
    }
    for (name, value) in spec.task.container().iter().flat_map(|it| container(it)) {
        line(name, &value);
    }
    let resources = &spec.task.resources;
    for (name, amount) in [
        (" Limits:", &resources.limits),
        (" Reservations:", &resources.reservations),
    ] {
        if *amount != Resources::default() {
            line(name, &amounts(amount));
        }
    }
    if !spec.ports.is_empty() {
        line("Ports:", "");
    }
    for port in &spec.ports {
        let mode = match port.mode {
            PortMode::Ingress => "ingress",
            PortMode::Host => "host",
        };
        line(&format!(" {}", published(port)), mode);
        if let Some(version) = port.proxy_protocol {
            line("  PROXY protocol:", &version.to_string());
        }
        if !port.accept_proxy.is_empty() {
            let networks: Vec<_> = port.accept_proxy.iter().map(ToString::to_string).collect();
            line("  Accept PROXY:", &networks.join(", "));
        }
    }
    if spec.ports.iter().any(|port| port.mode == PortMode::Ingress) {
        let local = if spec.lb_prefer_local {
            ", local tasks first"
        } else {
            ""
        };
        line("Balancing:", &format!("{}{local}", spec.lb_policy));
    }
    text.lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}
