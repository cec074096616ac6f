//! What the balancer reports: acknowledgements and the state of everything.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use crate::settings::InForce;

/// Every new connection is chosen by this table now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Version of the table in force.
    pub version: u64,
    /// Ports that this node does not answer on, and why. They are tried again
    /// about once a second.
    pub port_errors: Vec<PortError>,
}

/// A published port that is not, or not on every address, bound.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortError {
    /// The port.
    pub port: u16,
    /// Which address failed, and with which error.
    pub reason: String,
}

/// Which file a process runs from. Only the process itself may always ask: others need its
/// privileges, which a hardened supervisor has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramFile {
    /// The device that it is on.
    pub device: u64,
    /// Its number there; a file that replaces it has another one.
    pub inode: u64,
}

impl ProgramFile {
    /// That of this process; `None` where the system does not tell.
    #[must_use]
    pub fn own() -> Option<Self> {
        let file = std::fs::metadata("/proc/self/exe").ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
        })
    }
}

/// The state of the whole balancer. Counters start at 0 with the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the table in force, 0 before the first.
    pub table_version: u64,
    /// Version of the program.
    #[serde(default)]
    pub program: String,
    /// The file that it runs from, where that is known.
    #[serde(default)]
    pub program_file: Option<ProgramFile>,
    /// Process id of the balancer.
    pub pid: u32,
    /// When it started, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// It no longer listens and ends once its connections have.
    pub shutting_down: bool,
    /// Bytes that one side has sent and the other did not take yet.
    #[serde(default)]
    pub buffered: u64,
    /// Connections that the access log lacks, for it could not be written in time.
    #[serde(default)]
    pub access_log_dropped: u64,
    /// What it works by.
    #[serde(default)]
    pub settings: InForce,
    /// Published ports, in ascending order.
    pub listeners: Vec<ListenerStatus>,
    /// Endpoints that are in no table any more but still have connections.
    pub removed: Vec<RemovedEndpoint>,
}

/// What has to be known after each change, of however many ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of the table in force, 0 before the first.
    pub table_version: u64,
    /// Ports that are not, or not wholly, bound.
    pub port_errors: Vec<PortError>,
    /// Endpoints that the table calls draining, and those that are in no table any
    /// more but still have connections.
    pub leaving: Vec<RemovedEndpoint>,
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// The port.
    pub port: u16,
    /// Label from the table.
    pub service: String,
    /// Addresses on which it answers.
    pub bound: Vec<SocketAddr>,
    /// Why it does not answer on the others.
    pub error: Option<String>,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Of those, reset because no endpoint could be connected to.
    pub unserved: u64,
    /// And reset because of what the client did: no PROXY header where one must
    /// come, or more connections than a source may have.
    #[serde(default)]
    pub refused: u64,
    /// And reset because all connections together held too much memory, and
    /// these the most.
    #[serde(default)]
    pub shed: u64,
    /// Fewer than half of the endpoints answer, so that all of them are used.
    #[serde(default)]
    pub panicking: bool,
    /// What went through, endpoints that are gone included.
    pub traffic: Traffic,
    /// How long connects took, those to endpoints that are gone included.
    #[serde(default)]
    pub connect_times: ConnectTimes,
    /// Endpoints of the table in force.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Label from the table.
    pub id: String,
    /// Where connections go.
    pub address: SocketAddr,
    /// Share of the connections.
    pub weight: u32,
    /// What the table and this balancer's own experience come to.
    pub condition: EndpointCondition,
    /// Since when that is so, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub since_ms: u64,
    /// Why it is ejected; else empty.
    #[serde(default)]
    pub reason: String,
    /// What went through.
    pub traffic: Traffic,
    /// How long connects took.
    #[serde(default)]
    pub connect_times: ConnectTimes,
}

/// How long connects took that were made, from the choice of the endpoint on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectTimes {
    /// How many took no longer than each of [`ConnectTimes::BOUNDS_US`] and longer
    /// than the one before; at the end those that took longer than all. Empty if
    /// the balancer does not tell.
    pub counts: Vec<u64>,
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

impl ConnectTimes {
    /// Upper bounds in microseconds, ascending.
    pub const BOUNDS_US: [u64; 13] = [
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000,
    ];

    /// A time that a share of the connects, such as 0.99, did not exceed: the upper
    /// bound of the one in the ranking. `None` without any; of those past the last
    /// bound that bound is told.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        let total: u64 = self.counts.iter().sum();
        if total == 0 {
            return None;
        }
        let mut below = 0;
        for (count, bound) in self.counts.iter().zip(Self::BOUNDS_US) {
            below += count;
            // Counts are far below the numbers that this cannot tell apart.
            #[allow(clippy::cast_precision_loss)]
            if below as f64 >= total as f64 * share {
                return Some(bound);
            }
        }
        Self::BOUNDS_US.last().copied()
    }
}

/// Whether an endpoint gets connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointCondition {
    /// It does.
    Ready,
    /// The table says that it gets no new ones.
    Draining,
    /// Ready in the table, but it did not answer; probed until it does.
    Ejected,
}

/// Counters of a port or an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections now, those still being connected included.
    pub active: u64,
    /// Connections made so far.
    pub connections: u64,
    /// Connects that failed so far; each may have been made good elsewhere.
    pub connect_failures: u64,
    /// Bytes forwarded from clients to endpoints.
    pub bytes_to_endpoint: u64,
    /// Bytes forwarded from endpoints to clients.
    pub bytes_to_client: u64,
}

/// An endpoint that gets no connections any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedEndpoint {
    /// The port through which its connections came.
    pub port: u16,
    /// Label from its last table.
    pub id: String,
    /// Where its connections go.
    pub address: SocketAddr,
    /// Connections it still has.
    pub active: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds() {
        let times = |counts: &[u64]| ConnectTimes {
            counts: counts.to_vec(),
            sum_us: 0,
        };
        assert_eq!(times(&[]).quantile_us(0.5), None);
        assert_eq!(times(&[0; 14]).quantile_us(0.5), None);
        assert_eq!(times(&[1]).quantile_us(0.5), Some(100));
        let hundred = times(&[50, 0, 49, 1]);
        assert_eq!(hundred.quantile_us(0.5), Some(100));
        assert_eq!(hundred.quantile_us(0.51), Some(500));
        assert_eq!(hundred.quantile_us(0.99), Some(500));
        assert_eq!(hundred.quantile_us(1.0), Some(1_000));
        let mut slow = vec![0; ConnectTimes::BOUNDS_US.len()];
        slow.push(3);
        assert_eq!(times(&slow).quantile_us(0.5), Some(1_000_000));
    }
}
