//! What is wrong with a node, in words that say what to do about it.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::id::NodeId;
use super::time::Timestamp;

/// Something that its user should mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Problem {
    /// When it was noticed, by the leader's clock.
    pub since: Timestamp,
    /// What it is.
    pub kind: ProblemKind,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub enum ProblemKind {
    /// Connections from this node to another one do not come about, although that one lives.
    #[serde(rename_all = "PascalCase")]
    Closed {
        /// The other node.
        to: Place,
        /// Its ports, as first and last of each range.
        ports: Vec<(u16, u16)>,
        /// What becomes of an attempt.
        found: Closed,
    },
    /// The node's heartbeats do not come, although other nodes reach it.
    #[serde(rename_all = "PascalCase")]
    CutOff {
        /// Where managers take calls.
        managers: Vec<Place>,
        /// The port on which they do.
        port: u16,
    },
    /// Its clock differs from that of most nodes.
    #[serde(rename_all = "PascalCase")]
    Clock {
        /// By how many milliseconds it is ahead; less than zero where it is behind.
        ahead_ms: i64,
    },
    /// A disk is full, or nearly so.
    #[serde(rename_all = "PascalCase")]
    Disk {
        /// Who lives on it.
        user: DiskUser,
        /// Where.
        path: String,
        /// Bytes that can still be written.
        free_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// The container engine is missing or hangs.
    #[serde(rename_all = "PascalCase")]
    Engine {
        /// What the runtime says.
        reason: String,
    },
    /// A process of the node is at the limit of its open files and connections.
    #[serde(rename_all = "PascalCase")]
    Descriptors {
        /// Which: `daemon` or `balancer`.
        process: String,
        /// Descriptors in use.
        open: u64,
        /// Its limit.
        limit: u64,
    },
}

/// A node as people know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// Its host name.
    pub hostname: String,
    /// Its address.
    pub address: IpAddr,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.hostname, self.address)
    }
}

/// What becomes of an attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Closed {
    /// Nothing comes back: what a security group or a firewall that drops does.
    Dropped,
    /// It is refused: nothing listens, or a firewall rejects.
    Refused,
    /// The network says that there is no way, as a firewall that rejects may, too.
    Unreachable,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dropped => "packets are dropped",
            Self::Refused => "connections are refused",
            Self::Unreachable => "the network says that there is no way",
        })
    }
}

/// Who lives on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskUser {
    /// The node's state: managers keep the log there, agents their tasks.
    State,
    /// The container engine.
    Engine,
}

impl ProblemKind {
    /// Whether both are the same problem, seen at different times: values may have moved.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Clock { ahead_ms: one }, Self::Clock { ahead_ms: other }) => {
                // An offset that has doubled, or changed sides, is told anew.
                let (less, more) = (
                    one.unsigned_abs().min(other.unsigned_abs()),
                    one.unsigned_abs().max(other.unsigned_abs()),
                );
                one.signum() == other.signum() && more < less.saturating_mul(2)
            }
            (Self::Disk { path: one, .. }, Self::Disk { path: other, .. })
            | (Self::Descriptors { process: one, .. }, Self::Descriptors { process: other, .. }) => {
                one == other
            }
            _ => self == other,
        }
    }

    /// What is wrong, and with whom.
    #[must_use]
    pub fn what(&self, at: &Place) -> String {
        match self {
            Self::Closed { to, ports, found } => {
                format!("{at} cannot connect to {to} on {}: {found}", tcp(ports))
            }
            Self::CutOff { managers, port } => format!(
                "{at} is alive, but its heartbeats do not reach the managers ({}) on TCP {port}",
                list(managers.iter().map(ToString::to_string))
            ),
            Self::Clock { ahead_ms } => {
                let side = if *ahead_ms > 0 { "ahead of" } else { "behind" };
                let seconds = ahead_ms.unsigned_abs().div_ceil(1000);
                format!("the clock of {at} is about {seconds} s {side} the other nodes'")
            }
            Self::Disk {
                path,
                free_bytes,
                total_bytes,
                ..
            } => format!(
                "the disk with {path} on {at} is full: {} of {} are free",
                size(*free_bytes),
                size(*total_bytes)
            ),
            Self::Engine { reason } => {
                format!("the container engine of {at} does not answer: {reason}")
            }
            Self::Descriptors {
                process,
                open,
                limit,
            } => format!(
                "the {process} on {at} has no free file descriptors: {open} of {limit} are in use"
            ),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self, at: &Place) -> String {
        match self {
            Self::Closed { to, ports, .. } => format!(
                "open {} from {} to {} (security group, firewall)",
                tcp(ports),
                at.address,
                to.address
            ),
            Self::CutOff { managers, port } => format!(
                "open TCP {port} from {} to {} (security group, firewall)",
                at.address,
                list(managers.iter().map(|manager| manager.address.to_string()))
            ),
            Self::Clock { .. } => {
                "set it, and let a time service keep it (chrony, or `timedatectl \
                 set-ntp true`)"
                    .to_owned()
            }
            Self::Disk {
                user: DiskUser::State,
                ..
            } => {
                "make room: without it tasks cannot be kept, and managers refuse changes".to_owned()
            }
            Self::Disk {
                user: DiskUser::Engine,
                ..
            } => "make room (`docker system prune` removes what no container needs): without it \
                 containers do not start"
                .to_owned(),
            Self::Engine { .. } => "start it (`systemctl restart docker`), and see `journalctl -u \
                 docker` for why it ended or hangs"
                .to_owned(),
            Self::Descriptors { .. } => "raise its limit (LimitNOFILE= by `systemctl edit \
                 swarmlet`, or `ulimit -n`) and restart it"
                .to_owned(),
        }
    }

    /// Whether a node is part of it: the one that has it, or one that it names.
    #[must_use]
    pub fn concerns(&self, at: &Place, node: &NodeId) -> bool {
        let named = match self {
            Self::Closed { to, .. } => to.node == *node,
            Self::CutOff { managers, .. } => managers.iter().any(|place| place.node == *node),
            _ => false,
        };
        named || at.node == *node
    }

    /// One word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::CutOff { .. } => "cut-off",
            Self::Clock { .. } => "clock",
            Self::Disk { .. } => "disk",
            Self::Engine { .. } => "engine",
            Self::Descriptors { .. } => "descriptors",
        }
    }
}

/// A problem together with the node that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeProblem {
    /// Who has it.
    pub at: Place,
    /// What it is.
    pub problem: Problem,
}

impl fmt::Display for NodeProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = &self.problem.kind;
        write!(f, "{}; {}", kind.what(&self.at), kind.remedy(&self.at))
    }
}

/// `TCP 20000-29999 and 2377`.
fn tcp(ports: &[(u16, u16)]) -> String {
    let range = |&(first, last): &(u16, u16)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    format!("TCP {}", list(ports.iter().map(range)))
}

/// `a, b and c`.
fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match items.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes >= 10 << 30 {
        format!("{} GiB", bytes >> 30)
    } else {
        format!("{} MiB", bytes / MIB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u8) -> Place {
        Place {
            node: NodeId::from_random(number.into()),
            hostname: format!("host{number}"),
            address: [10, 0, 0, number].into(),
        }
    }

    #[test]
    fn each_says_what_is_wrong_between_whom_and_what_to_do() {
        let check = |kind: ProblemKind, expected: &str| {
            let problem = Problem {
                since: Timestamp(1),
                kind,
            };
            let at = place(2);
            assert_eq!(NodeProblem { at, problem }.to_string(), expected);
        };
        check(
            ProblemKind::Closed {
                to: place(3),
                ports: vec![(20_000, 29_999), (2377, 2377)],
                found: Closed::Dropped,
            },
            "host2 (10.0.0.2) cannot connect to host3 (10.0.0.3) on TCP 20000-29999 and 2377: \
             packets are dropped; open TCP 20000-29999 and 2377 from 10.0.0.2 to 10.0.0.3 \
             (security group, firewall)",
        );
        check(
            ProblemKind::CutOff {
                managers: vec![place(1), place(3)],
                port: 2377,
            },
            "host2 (10.0.0.2) is alive, but its heartbeats do not reach the managers (host1 \
             (10.0.0.1) and host3 (10.0.0.3)) on TCP 2377; open TCP 2377 from 10.0.0.2 to \
             10.0.0.1 and 10.0.0.3 (security group, firewall)",
        );
        check(
            ProblemKind::Clock { ahead_ms: -61_001 },
            "the clock of host2 (10.0.0.2) is about 62 s behind the other nodes'; set it, and \
             let a time service keep it (chrony, or `timedatectl set-ntp true`)",
        );
        check(
            ProblemKind::Disk {
                user: DiskUser::Engine,
                path: "/var/lib/docker".to_owned(),
                free_bytes: 12 << 20,
                total_bytes: 20 << 30,
            },
            "the disk with /var/lib/docker on host2 (10.0.0.2) is full: 12 MiB of 20 GiB are \
             free; make room (`docker system prune` removes what no container needs): without \
             it containers do not start",
        );
    }

    #[test]
    fn values_that_move_a_little_are_no_news() {
        let disk = |free_bytes| ProblemKind::Disk {
            user: DiskUser::State,
            path: "/".to_owned(),
            free_bytes,
            total_bytes: 100,
        };
        let clock = |ahead_ms| ProblemKind::Clock { ahead_ms };
        assert!(disk(1).is_same(&disk(2)));
        assert!(clock(5000).is_same(&clock(6000)));
        assert!(!clock(5000).is_same(&clock(10_000)));
        assert!(!clock(5000).is_same(&clock(-5000)));
        assert!(!clock(5000).is_same(&disk(1)));
    }
}
