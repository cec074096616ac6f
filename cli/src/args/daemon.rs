//! `daemon`, and the commands that run beside it: `whoami`, `shim`, `demo`.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Args, ValueEnum};
use swarmlet_core::model::Availability;

use super::BalancerFlags;
use crate::values;

/// Whether a node takes tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AvailabilityArg {
    /// It takes tasks
    Active,
    /// It keeps its tasks and takes no more
    Pause,
    /// Its tasks go elsewhere
    Drain,
}

impl From<AvailabilityArg> for Availability {
    fn from(argument: AvailabilityArg) -> Self {
        match argument {
            AvailabilityArg::Active => Self::Active,
            AvailabilityArg::Pause => Self::Pause,
            AvailabilityArg::Drain => Self::Drain,
        }
    }
}

/// What runs the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeArg {
    /// Docker where an engine answers, processes elsewhere; decided once, then kept
    Auto,
    /// A Docker engine
    Docker,
    /// Plain processes: an image is the path of an executable
    Process,
}

/// `swarmlet daemon`.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    #[command(flatten)]
    pub(crate) flags: DaemonFlags,
    /// Run in the background and be started again after a crash (`init` and `join` start it so)
    #[arg(long, hide = true, conflicts_with = "supervised")]
    pub(crate) detached: bool,
    /// Be the daemon of a detached one, and end after `leave`
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
}

/// Settings of a daemon. `init` and `join` take them too, for the daemon that they start.
///
/// A setting that is left out keeps the value of the daemon's last run, which is in its data
/// directory, and is the default where there was none.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Daemon options")]
pub(crate) struct DaemonFlags {
    /// Directory of the node's state [default: /var/lib/swarmlet]
    #[arg(
        long,
        env = "SWARMLET_DATA_DIR",
        value_name = "PATH",
        hide_env_values = true
    )]
    pub(crate) data_dir: Option<PathBuf>,
    /// Name of the node [default: the machine's host name]
    #[arg(
        long,
        env = "SWARMLET_HOSTNAME",
        value_name = "NAME",
        hide_env_values = true
    )]
    pub(crate) hostname: Option<String>,
    /// Where a manager takes calls of other nodes [default: 0.0.0.0:2377]
    #[arg(
        long,
        env = "SWARMLET_LISTEN_ADDR",
        value_name = "ADDRESS[:PORT]",
        hide_env_values = true
    )]
    pub(crate) listen_addr: Option<String>,
    /// Where the health page and metrics are [default: 0.0.0.0:2378]
    #[arg(
        long,
        env = "SWARMLET_HTTP_ADDR",
        value_name = "ADDRESS:PORT",
        hide_env_values = true
    )]
    pub(crate) http_addr: Option<SocketAddr>,
    /// Address on which published ports answer [default: all, IPv4 and IPv6]
    #[arg(
        long,
        env = "SWARMLET_INGRESS_ADDR",
        value_name = "ADDRESS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) ingress_addr: Vec<IpAddr>,
    /// What runs the containers [default: auto]
    #[arg(long, env = "SWARMLET_RUNTIME", value_enum, hide_env_values = true)]
    pub(crate) runtime: Option<RuntimeArg>,
    /// The engine's socket [default: unix:///var/run/docker.sock]
    #[arg(long, env = "DOCKER_HOST", value_name = "URL", hide_env_values = true)]
    pub(crate) docker_host: Option<String>,
    /// Range of ports for tasks [default: 20000-29999]
    #[arg(
        long,
        env = "SWARMLET_TASK_PORTS",
        value_name = "FIRST-LAST",
        value_parser = port_range,
        hide_env_values = true
    )]
    pub(crate) task_ports: Option<(u16, u16)>,
    /// CPUs set aside for the system [default: 0]
    #[arg(
        long,
        env = "SWARMLET_RESERVE_SYSTEM_CPU",
        value_name = "CPUS",
        value_parser = values::nano_cpus,
        hide_env_values = true
    )]
    pub(crate) reserve_system_cpu: Option<u64>,
    /// Memory set aside for the system [default: 0]
    #[arg(
        long,
        env = "SWARMLET_RESERVE_SYSTEM_MEMORY",
        value_name = "BYTES",
        value_parser = values::memory,
        hide_env_values = true
    )]
    pub(crate) reserve_system_memory: Option<u64>,
    /// Resource that tasks may reserve: gpu=2, or gpu=NAME once for each
    #[arg(
        long,
        env = "SWARMLET_NODE_GENERIC_RESOURCE",
        value_name = "KIND=N|KIND=NAME",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) node_generic_resource: Vec<String>,
    /// How often the leader calls the other managers [default: 150ms]
    #[arg(
        long,
        env = "SWARMLET_RAFT_HEARTBEAT",
        value_name = "DURATION",
        value_parser = values::duration,
        hide_env_values = true
    )]
    pub(crate) raft_heartbeat: Option<Duration>,
    /// Shortest and longest silence after which a manager stands for election
    /// [default: 400ms-800ms]
    #[arg(
        long,
        env = "SWARMLET_RAFT_ELECTION",
        value_name = "SHORTEST-LONGEST",
        value_parser = election,
        hide_env_values = true
    )]
    pub(crate) raft_election: Option<(Duration, Duration)>,
    #[command(flatten)]
    pub(crate) balancer: BalancerFlags,
    /// Have systemd run the balancer, in a unit of its own (the daemon's unit says so)
    #[arg(long, hide = true)]
    pub(crate) lb_unit: bool,
    /// Variables of those that stand on the command line itself; the others come from the
    /// environment.
    #[arg(skip)]
    pub(crate) named: Vec<String>,
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let range = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    match range {
        Some((first, last)) if first > 0 && first <= last => Ok((first, last)),
        _ => Err("expected FIRST-LAST, such as 20000-29999".to_owned()),
    }
}

fn election(text: &str) -> Result<(Duration, Duration), String> {
    let (shortest, longest) = text
        .split_once('-')
        .ok_or("expected SHORTEST-LONGEST, such as 400ms-800ms")?;
    let (shortest, longest) = (values::duration(shortest)?, values::duration(longest)?);
    if shortest.is_zero() || shortest >= longest {
        return Err("the longest must be longer than the shortest, and neither zero".to_owned());
    }
    Ok((shortest, longest))
}

impl DaemonFlags {
    /// The same settings as arguments for a daemon that is to be started with them.
    pub(crate) fn to_args(&self) -> Vec<OsString> {
        let mut args = Vec::new();
        let mut add = |flag: &str, value: Option<OsString>| {
            if let Some(value) = value {
                args.push(OsString::from(flag));
                args.push(value);
            }
        };
        let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis());
        add("--data-dir", self.data_dir.clone().map(Into::into));
        add("--hostname", self.hostname.clone().map(Into::into));
        add("--listen-addr", self.listen_addr.clone().map(Into::into));
        add(
            "--http-addr",
            self.http_addr.map(|addr| addr.to_string().into()),
        );
        for addr in &self.ingress_addr {
            add("--ingress-addr", Some(addr.to_string().into()));
        }
        let runtime = self.runtime.and_then(|runtime| {
            let name = runtime.to_possible_value()?.get_name().to_owned();
            Some(OsString::from(name))
        });
        add("--runtime", runtime);
        add("--docker-host", self.docker_host.clone().map(Into::into));
        let range = self
            .task_ports
            .map(|(first, last)| format!("{first}-{last}").into());
        add("--task-ports", range);
        let cpus = self
            .reserve_system_cpu
            .map(|nano| format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000).into());
        add("--reserve-system-cpu", cpus);
        let memory = self
            .reserve_system_memory
            .map(|bytes| bytes.to_string().into());
        add("--reserve-system-memory", memory);
        for resource in &self.node_generic_resource {
            add("--node-generic-resource", Some(resource.into()));
        }
        add(
            "--raft-heartbeat",
            self.raft_heartbeat.map(|d| milliseconds(d).into()),
        );
        let election = self
            .raft_election
            .map(|(low, high)| format!("{}-{}", milliseconds(low), milliseconds(high)).into());
        add("--raft-election", election);
        args.extend(self.balancer.to_args());
        args
    }

    /// The same settings as the daemon finds them in its environment: names and values.
    pub(crate) fn to_environment(&self) -> Vec<(String, String)> {
        let known = Self::augment_args(clap::Command::new("daemon"));
        let mut environment: Vec<(String, String)> = Vec::new();
        for pair in self.to_args().chunks_exact(2) {
            let (flag, value) = (pair[0].to_string_lossy(), pair[1].to_string_lossy());
            let argument = known
                .get_arguments()
                .find(|argument| argument.get_long() == flag.strip_prefix("--"));
            let Some(name) = argument.and_then(|argument| argument.get_env()?.to_str()) else {
                continue;
            };
            // A flag that may be given several times is one variable with commas.
            match environment.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => *values = format!("{values},{value}"),
                None => environment.push((name.to_owned(), value.into_owned())),
            }
        }
        environment
    }

    /// Notes which settings stand on the command line that `matches` was read from.
    pub(crate) fn note_named(&mut self, matches: &clap::ArgMatches) {
        let known = Self::augment_args(clap::Command::new("daemon"));
        self.named = known
            .get_arguments()
            .filter(|argument| {
                matches.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine)
            })
            .filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned))
            .collect();
    }

    /// The settings that stand on the command line itself, as variables.
    pub(crate) fn named_environment(&self) -> Vec<(String, String)> {
        let mut environment = self.to_environment();
        environment.retain(|(name, _)| self.named.contains(name));
        environment
    }
}

/// `swarmlet whoami`.
#[derive(Debug, Args)]
pub(crate) struct WhoamiArgs {
    /// Port to answer on [default: PORT of the environment, or 80]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Time that requests have to end after SIGTERM
    #[arg(long, value_name = "DURATION", value_parser = values::duration, default_value = "9s")]
    pub(crate) finish_within: Duration,
}

/// `swarmlet shim`: its arguments are between it and the agent.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct ShimArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<OsString>,
}

/// `swarmlet demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// End after the requests instead of staying up until Ctrl-C
    #[arg(long)]
    pub(crate) exit: bool,
    /// What runs the containers
    #[arg(
        long,
        env = "SWARMLET_RUNTIME",
        value_enum,
        default_value = "auto",
        hide_env_values = true
    )]
    pub(crate) runtime: RuntimeArg,
    /// Port to publish [default: 80, or 8080 without root]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Requests through each node
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) requests: u32,
}
