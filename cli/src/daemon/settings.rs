//! Settings of a daemon: what its flags say, then what it was last started with, then the
//! defaults.

mod balancer;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use swarmlet_agent::GenericResources;

use super::store::{NodeRecord, StoredSettings};
use crate::args::{DaemonFlags, RuntimeArg};

/// Where the node's state is, unless a flag says otherwise.
pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/swarmlet";

/// The port between nodes.
pub(crate) const CLUSTER_PORT: u16 = 2377;

/// The port of the health page and metrics.
const HTTP_PORT: u16 = 2378;

/// Ports for tasks. Below the range that Linux gives to outgoing connections (32768 and up):
/// those would collide with them.
const TASK_PORTS: (u16, u16) = (20000, 29999);

/// Raft's clockwork: a leader that is gone is replaced within about 1.5 s, and a heartbeat
/// still has the time for a write to a slow disk.
const RAFT_HEARTBEAT: Duration = Duration::from_millis(150);
const RAFT_ELECTION: (Duration, Duration) =
    (Duration::from_millis(400), Duration::from_millis(800));

/// Everything that a daemon was told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// What it keeps.
    pub(crate) stored: StoredSettings,
    /// Which runtime it should have; counts only while it belongs to no cluster.
    pub(crate) runtime: RuntimeArg,
    /// systemd is to run the balancer, in a unit of its own.
    pub(crate) lb_unit: bool,
}

/// The data directory that the flags name.
pub(crate) fn data_dir(flags: &DaemonFlags) -> PathBuf {
    flags
        .data_dir
        .clone()
        .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR))
}

impl Settings {
    /// Puts flags, the last run's settings and the defaults together.
    ///
    /// # Errors
    /// A flag makes no sense.
    pub(crate) fn new(flags: &DaemonFlags, last: Option<&NodeRecord>) -> Result<Self> {
        let last = last.map(|record| &record.settings);
        let any = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let milliseconds = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let listen = match &flags.listen_addr {
            Some(text) => Some(
                address(text, CLUSTER_PORT)
                    .with_context(|| format!("invalid --listen-addr {text}"))?,
            ),
            None => None,
        };
        let ingress = if flags.ingress_addr.is_empty() {
            last.map(|last| last.ingress.clone()).unwrap_or_else(|| {
                vec![
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                ]
            })
        } else {
            flags.ingress_addr.clone()
        };
        let generic = if flags.node_generic_resource.is_empty() {
            last.map(|last| last.generic_resources.clone())
                .unwrap_or_default()
        } else {
            flags.node_generic_resource.clone()
        };
        generic_resources(&generic).context("invalid --node-generic-resource")?;
        let of_balancer = last.map(|last| last.balancer.clone()).unwrap_or_default();
        let balancer = balancer::settings(&flags.balancer, of_balancer)?;
        let election = flags
            .raft_election
            .map(|(low, high)| (milliseconds(low), milliseconds(high)));
        Ok(Self {
            runtime: flags.runtime.unwrap_or(RuntimeArg::Auto),
            lb_unit: flags.lb_unit,
            stored: StoredSettings {
                hostname: flags
                    .hostname
                    .clone()
                    .or_else(|| last.map(|l| l.hostname.clone()))
                    .unwrap_or_else(machine_name),
                listen: listen
                    .or(last.map(|l| l.listen))
                    .unwrap_or_else(|| any(CLUSTER_PORT)),
                http: flags
                    .http_addr
                    .or(last.map(|l| l.http))
                    .unwrap_or_else(|| any(HTTP_PORT)),
                ingress,
                docker_host: flags
                    .docker_host
                    .clone()
                    .filter(|host| !host.is_empty())
                    .or_else(|| last.and_then(|l| l.docker_host.clone())),
                task_ports: flags
                    .task_ports
                    .or(last.map(|l| l.task_ports))
                    .unwrap_or(TASK_PORTS),
                reserve_nano_cpus: flags
                    .reserve_system_cpu
                    .or(last.map(|l| l.reserve_nano_cpus))
                    .unwrap_or_default(),
                reserve_memory_bytes: flags
                    .reserve_system_memory
                    .or(last.map(|l| l.reserve_memory_bytes))
                    .unwrap_or_default(),
                generic_resources: generic,
                raft_heartbeat_ms: flags
                    .raft_heartbeat
                    .map(milliseconds)
                    .or(last.map(|l| l.raft_heartbeat_ms))
                    .unwrap_or_else(|| milliseconds(RAFT_HEARTBEAT)),
                raft_election_ms: election
                    .or(last.map(|l| l.raft_election_ms))
                    .unwrap_or_else(|| {
                        (milliseconds(RAFT_ELECTION.0), milliseconds(RAFT_ELECTION.1))
                    }),
                balancer,
            },
        })
    }
}

/// Reads what a node has besides CPU and memory, as dockerd's flag of the same name: `gpu=2`, or
/// `gpu=NAME` once for each. The empty text stands for none, and takes back what was set.
///
/// # Errors
/// A text is neither, or a kind has both a number and names.
pub(crate) fn generic_resources(texts: &[String]) -> Result<GenericResources> {
    let mut found = GenericResources::default();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let (kind, value) = text
            .split_once('=')
            .filter(|(kind, value)| !kind.is_empty() && !value.is_empty())
            .with_context(|| format!("{text:?}: expected KIND=NUMBER or KIND=NAME"))?;
        let names = found.names.get_mut(kind);
        match (value.parse::<u64>(), names, found.amounts.get_mut(kind)) {
            (Ok(number), None, None) => {
                found.amounts.insert(kind.to_owned(), number);
            }
            (Err(_), Some(names), Some(amount)) => {
                if names.iter().any(|name| name == value) {
                    bail!("{text:?} is given twice");
                }
                names.push(value.to_owned());
                *amount += 1;
            }
            (Err(_), None, None) => {
                found.names.insert(kind.to_owned(), vec![value.to_owned()]);
                found.amounts.insert(kind.to_owned(), 1);
            }
            _ => bail!("{text:?}: a kind has one number, or names"),
        }
    }
    Ok(found)
}

fn machine_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Reads `ADDRESS` or `ADDRESS:PORT`; an IPv6 address with a port stands in brackets.
///
/// # Errors
/// It is neither.
pub(crate) fn address(text: &str, default_port: u16) -> Result<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, default_port));
    }
    text.parse::<SocketAddr>()
        .map_err(|_| anyhow::anyhow!("expected an IP address, with or without a port"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::store::StoredRuntime;

    #[test]
    fn flags_go_before_the_last_run_and_that_before_defaults() {
        let none = DaemonFlags::default();
        let first = Settings::new(&none, None).unwrap().stored;
        assert_eq!(first.listen.to_string(), "0.0.0.0:2377");
        assert_eq!(first.http.to_string(), "0.0.0.0:2378");
        assert_eq!(first.ingress.len(), 2);
        let flags = DaemonFlags {
            listen_addr: Some("127.0.0.2".to_owned()),
            task_ports: Some((1, 2)),
            ..DaemonFlags::default()
        };
        let second = Settings::new(&flags, None).unwrap().stored;
        assert_eq!(second.listen.to_string(), "127.0.0.2:2377");
        let record = NodeRecord {
            advertise: second.listen,
            raft_id: None,
            votes: false,
            incarnation: 0,
            managers: Vec::new(),
            runtime: StoredRuntime::Process,
            settings: second.clone(),
        };
        assert_eq!(Settings::new(&none, Some(&record)).unwrap().stored, second);
        let flags = DaemonFlags {
            listen_addr: Some("[::1]:5".to_owned()),
            ..DaemonFlags::default()
        };
        let third = Settings::new(&flags, Some(&record)).unwrap().stored;
        assert_eq!(third.listen.to_string(), "[::1]:5");
        assert_eq!(third.task_ports, (1, 2));
    }

    #[test]
    fn generic_resources_have_a_number_or_names() {
        #[track_caller]
        fn check(texts: &[&str], expected: Result<&str, &str>) {
            let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
            let found = generic_resources(&texts)
                .map(|found| format!("{:?} {:?}", found.amounts, found.names))
                .map_err(|error| error.to_string());
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
        }
        check(&[], Ok("{} {}"));
        check(&[""], Ok("{} {}"));
        check(
            &["gpu=GPU-1", "disc=4", "gpu=GPU-2"],
            Ok(r#"{"disc": 4, "gpu": 2} {"gpu": ["GPU-1", "GPU-2"]}"#),
        );
        check(&["gpu"], Err(r#""gpu": expected KIND=NUMBER or KIND=NAME"#));
        check(&["gpu=a", "gpu=a"], Err(r#""gpu=a" is given twice"#));
        for mixed in [["gpu=1", "gpu=a"], ["gpu=a", "gpu=1"], ["gpu=1", "gpu=2"]] {
            let error = format!("{:?}: a kind has one number, or names", mixed[1]);
            check(&mixed, Err(&error));
        }
    }

    #[test]
    fn addresses_may_lack_their_port() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1:2377")),
            ("10.0.0.1:99", Some("10.0.0.1:99")),
            ("::1", Some("[::1]:2377")),
            ("[::1]:99", Some("[::1]:99")),
            ("host", None),
            ("10.0.0.1:x", None),
        ] {
            let found = address(text, 2377).ok().map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
