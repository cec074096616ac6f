//! The way to a cluster that this host is to join.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use swarmlet_core::model::Closed;
use swarmlet_proto::clock::now;
use swarmlet_proto::token::JoinToken;
use swarmlet_proto::transport::{JoinError, pinned_channel};
use swarmlet_proto::v1;
use swarmlet_proto::v1::ca_client::CaClient;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tonic::Code;

use super::{Case, Finding};
use crate::daemon::resolve;

const MANAGER: &str = "manager";

/// How long a connection may take: a lost packet is sent again after a second.
const CONNECT: Duration = Duration::from_secs(3);

/// How long the manager may take: it tries our ports for two seconds.
const CHECK: Duration = Duration::from_secs(8);

/// A difference of clocks that certificates bear, and people notice in logs.
const CLOCK_LIMIT_MS: u64 = 1000;

/// Tries every manager that is named; the first that answers is asked for the rest.
pub(super) async fn look(
    case: &Case,
    remotes: &[String],
    token: Option<&JoinToken>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut reached = None;
    for remote in remotes {
        match resolve(remote).await {
            Err(error) => {
                findings.push(Finding::problem(MANAGER, error.to_string(), error.remedy()));
            }
            Ok(addresses) => {
                for address in addresses {
                    let found = connect(case, address).await;
                    if found.level == super::Level::Ok {
                        reached = reached.or(Some(address));
                    }
                    findings.push(found);
                }
            }
        }
    }
    match (reached, token) {
        (Some(address), Some(token)) => findings.extend(ask(case, address, token).await),
        (Some(_), None) => findings.push(Finding::warning(
            "token",
            "none was given: clocks, and this host's ports as the managers see them, are not \
             compared",
            "add --token-file with what `swarmlet join-token worker` prints on a manager",
        )),
        (None, _) => {}
    }
    findings
}

async fn connect(case: &Case, address: SocketAddr) -> Finding {
    let closed = match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => return Finding::ok(MANAGER, format!("{address} can be reached")),
        Err(_) => Closed::Dropped,
        Ok(Err(error)) => match error.kind() {
            ErrorKind::ConnectionRefused => Closed::Refused,
            ErrorKind::TimedOut => Closed::Dropped,
            _ => Closed::Unreachable,
        },
    };
    let own = case.address(address);
    let own = own.map_or_else(|_| "this host".to_owned(), |own| own.ip().to_string());
    let open = format!(
        "open TCP {} from {own} to {} (security group, firewall)",
        address.port(),
        address.ip()
    );
    let remedy = match closed {
        Closed::Refused => format!("see whether a manager runs there; {open}"),
        Closed::Dropped | Closed::Unreachable => open,
    };
    Finding::problem(
        MANAGER,
        format!("{address} cannot be reached: {closed}"),
        remedy,
    )
}

/// What a manager says of us.
async fn ask(case: &Case, address: SocketAddr, token: &JoinToken) -> Vec<Finding> {
    let channel = match pinned_channel(address, token.ca_digest).await {
        Ok(channel) => channel,
        Err(error) => {
            let remedy = match error {
                JoinError::WrongDigest { .. } => {
                    "use the token that a manager of that swarm prints"
                }
                _ => "see whether it is a swarmlet manager that answers there",
            };
            return vec![Finding::problem("token", error.to_string(), remedy)];
        }
    };
    let own = match case.address(address) {
        Ok(own) => own,
        Err(error) => {
            let remedy = "name one at which other nodes can reach this host with --advertise-addr";
            return vec![Finding::problem("address", format!("{error:#}"), remedy)];
        }
    };
    let listening = Listening::start(case, own).await;
    let request = v1::CheckRequest {
        secret: token.secret.to_string(),
        ports: listening
            .ports
            .iter()
            .map(|port| u32::from(port.number))
            .collect(),
        address: own.ip().to_string(),
    };
    let sent = now().0;
    let answer = timeout(CHECK, CaClient::new(channel).check(request)).await;
    let answer = match answer {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => {
            let (subject, remedy) = match status.code() {
                Code::InvalidArgument => ("address", "name another with --advertise-addr"),
                _ => (
                    "token",
                    "print a new one on a manager (swarmlet join-token worker)",
                ),
            };
            return vec![Finding::problem(subject, status.message(), remedy)];
        }
        Err(_) => {
            let found = format!("the manager at {address} does not answer");
            return vec![Finding::problem("token", found, "see its log")];
        }
    };
    let mut findings = vec![
        Finding::ok("token", format!("it makes this host a {}", answer.role)),
        clock(sent, answer.now_ms, now().0),
    ];
    findings.extend(from_outside(&listening.ports, &answer, address));
    findings
}

/// The manager's clock stands for some moment between question and answer: only what lies
/// outside of both is a difference.
fn clock(sent_ms: u64, theirs_ms: u64, received_ms: u64) -> Finding {
    const SUBJECT: &str = "clock";
    let (off, side) = if theirs_ms < sent_ms {
        (sent_ms - theirs_ms, "ahead of")
    } else {
        (theirs_ms.saturating_sub(received_ms), "behind")
    };
    if off <= CLOCK_LIMIT_MS {
        return Finding::ok(SUBJECT, "it agrees with the manager's");
    }
    Finding::problem(
        SUBJECT,
        format!("it is {} s {side} the manager's", off.div_ceil(1000)),
        "set it, and let a time service keep it (chrony, or `timedatectl set-ntp true`)",
    )
}

/// A port of ours that the manager is to try.
struct OwnPort {
    subject: &'static str,
    /// As it is to be opened.
    range: String,
    number: u16,
}

/// Ports on which we answer for as long as the manager tries.
struct Listening {
    ports: Vec<OwnPort>,
    _listeners: Vec<TcpListener>,
}

impl Listening {
    /// One of the ports for tasks, and the cluster port, as a node with this address would have
    /// them. The kernel completes connections by itself, so nobody needs to accept them.
    async fn start(case: &Case, own: SocketAddr) -> Self {
        let stored = &case.settings.stored;
        let (first, last) = stored.task_ports;
        let mut listening = Self {
            ports: Vec::new(),
            _listeners: Vec::new(),
        };
        for number in (first..=last).rev() {
            // An address that is not this machine's own leads here all the same (a router
            // translates it), or is wrong, and then the manager finds the port closed.
            let listener = match TcpListener::bind((own.ip(), number)).await {
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                    TcpListener::bind((stored.listen.ip(), number)).await
                }
                bound => bound,
            };
            if let Ok(listener) = listener {
                let range = format!("{first}-{last}");
                listening.add("task ports from outside", range, number, Some(listener));
                break;
            }
        }
        // Where it is taken, a daemon of ours has it most likely, and answers as well.
        let port = own.port();
        let listener = TcpListener::bind(stored.listen).await.ok();
        listening.add(
            "cluster port from outside",
            port.to_string(),
            port,
            listener,
        );
        listening
    }

    fn add(
        &mut self,
        subject: &'static str,
        range: String,
        number: u16,
        listener: Option<TcpListener>,
    ) {
        self.ports.push(OwnPort {
            subject,
            range,
            number,
        });
        self._listeners.extend(listener);
    }
}

fn from_outside(
    ports: &[OwnPort],
    answer: &v1::CheckResponse,
    manager: SocketAddr,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Whoever has named a wrong address finds the right one here.
    let seen = match answer.source == answer.tried {
        true => String::new(),
        false => format!("; the manager sees this host as {}", answer.source),
    };
    for port in ports {
        let tried = answer
            .ports
            .iter()
            .find(|tried| tried.port == u32::from(port.number));
        let Some(tried) = tried else { continue };
        let Some(found) = tried.found else {
            let open = format!("open from the managers to {}", answer.tried);
            findings.push(Finding::ok(port.subject, open));
            continue;
        };
        let what = match v1::Closed::try_from(found) {
            Ok(v1::Closed::Refused) => Closed::Refused.to_string(),
            Ok(v1::Closed::Unreachable) => Closed::Unreachable.to_string(),
            Ok(v1::Closed::Dropped | v1::Closed::Unspecified) | Err(_) => {
                Closed::Dropped.to_string()
            }
        };
        let found = format!(
            "TCP {} of {} is closed to the managers: {what}{seen}",
            port.range, answer.tried
        );
        let remedy = format!(
            "open TCP {} from {} and all other nodes to {} (security group, firewall)",
            port.range,
            manager.ip(),
            answer.tried
        );
        // Only managers take calls on the cluster port.
        let needed = port.subject != "cluster port from outside" || answer.role == "manager";
        findings.push(if needed {
            Finding::problem(port.subject, found, remedy)
        } else {
            let found = format!("{found}; a worker does not need it");
            Finding::ok(port.subject, found)
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn the_way_of_the_answer_is_no_difference_of_clocks() {
        let check =
            |theirs, expected: &str| assert_eq!(clock(10_000, theirs, 14_000).found, expected);
        check(10_000, "it agrees with the manager's");
        check(14_000, "it agrees with the manager's");
        check(9_000, "it agrees with the manager's");
        check(8_999, "it is 2 s ahead of the manager's");
        check(15_000, "it agrees with the manager's");
        check(75_000, "it is 61 s behind the manager's");
    }

    #[test]
    fn closed_ports_name_both_ends() {
        let ports = [
            OwnPort {
                subject: "task ports from outside",
                range: "20000-29999".to_owned(),
                number: 29_999,
            },
            OwnPort {
                subject: "cluster port from outside",
                range: "2377".to_owned(),
                number: 2377,
            },
        ];
        let answer = |role: &str| v1::CheckResponse {
            now_ms: 1,
            role: role.to_owned(),
            source: "10.0.0.4".to_owned(),
            tried: "10.0.0.4".to_owned(),
            ports: [29_999, 2377]
                .map(|port| v1::PortCheck {
                    port,
                    found: Some(v1::Closed::Dropped.into()),
                })
                .to_vec(),
        };
        let manager = "10.0.0.1:2377".parse().unwrap();
        let found = from_outside(&ports, &answer("worker"), manager);
        assert_eq!(found[0].level, Level::Problem);
        assert_eq!(
            found[0].remedy,
            "open TCP 20000-29999 from 10.0.0.1 and all other nodes to 10.0.0.4 (security group, \
             firewall)"
        );
        assert_eq!(found[1].level, Level::Ok);
        let found = from_outside(&ports, &answer("manager"), manager);
        assert_eq!(found[1].level, Level::Problem);
        let mut elsewhere = answer("worker");
        elsewhere.tried = "10.1.0.4".to_owned();
        elsewhere.ports[1].found = None;
        let found = from_outside(&ports, &elsewhere, manager);
        assert_eq!(
            found[0].found,
            "TCP 20000-29999 of 10.1.0.4 is closed to the managers: packets are dropped; the \
             manager sees this host as 10.0.0.4"
        );
        assert_eq!(found[1].found, "open from the managers to 10.1.0.4");
    }
}
