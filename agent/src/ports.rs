//! Task ports: which host port each task's port is reached at.
//!
//! They come from a range of the agent's own and not from the engine: its ephemeral range
//! collides with outgoing connections, and it would give a port to another task while old
//! tables still name it. A port that was in use is given out again only once the node works
//! by a table without its task and [`COOLDOWN`] has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::time::Duration;

use swarmlet_core::model::{
    NodeId, PortMode, PortSpec, Protocol, Task, TaskId, TaskPort, Timestamp,
};

/// How long a port rests after its task ended. Nodes that are cut off from the managers go on
/// by an old table; by then their balancers have found its endpoint dead and ejected it.
const COOLDOWN: Duration = Duration::from_secs(60);

/// A range of no more ports than this has none to spare for attempts of other nodes.
const SMALL_RANGE: u16 = 16;

/// Why a task gets no ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortError {
    /// All are in use, resting, or taken by somebody else.
    #[error("no free task port in {0}-{1}")]
    Exhausted(u16, u16),
}

/// What is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SavedPorts {
    pub(crate) held: BTreeMap<TaskId, Vec<TaskPort>>,
    pub(crate) resting: BTreeMap<u16, Resting>,
}

/// A port that was in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resting {
    /// Whose it was.
    pub(crate) task: TaskId,
    /// Since when it is not in use, by the wall clock: it must outlive a restart.
    pub(crate) since: Timestamp,
    /// Whether the node works by a table without that task.
    pub(crate) acknowledged: bool,
}

/// Gives out task ports.
pub(crate) struct Ports {
    address: IpAddr,
    range: (u16, u16),
    next: u16,
    saved: SavedPorts,
    changed: bool,
    /// The port that other nodes try.
    probed: Option<u16>,
}

impl Ports {
    /// Goes on from what was saved.
    pub(crate) fn new(
        node: &NodeId,
        address: IpAddr,
        range: (u16, u16),
        saved: SavedPorts,
    ) -> Self {
        let span = u32::from(range.1.saturating_sub(range.0)) + 1;
        // Agents that share a machine begin at different places, so that two of them hardly
        // ever find the same port free at the same moment.
        let offset = node.as_str().bytes().fold(0u32, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(byte.into())
        }) % span;
        let next = u16::try_from(u32::from(range.0) + offset).unwrap_or(range.0);
        Self {
            address,
            range,
            next,
            saved,
            changed: false,
            probed: None,
        }
    }

    /// Takes a port out of the range on which other nodes can try whether the range is open:
    /// the last that is free, so that tasks, which count up, seldom stand in its way. A range
    /// that is small is left to the tasks.
    pub(crate) fn for_probes(&mut self) -> Option<TcpListener> {
        let (first, last) = self.range;
        if last - first < SMALL_RANGE {
            return None;
        }
        let held: BTreeSet<u16> = self.saved.held.values().flatten().map(|p| p.host).collect();
        let free = |port: &u16| !held.contains(port) && !self.saved.resting.contains_key(port);
        for port in (first..=last).rev().filter(free) {
            match TcpListener::bind((self.address, port)) {
                Ok(listener) => {
                    self.probed = Some(port);
                    return Some(listener);
                }
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => {
                    let address = self.address;
                    tracing::warn!(%error, %address, "other nodes cannot try this node's task ports");
                    return None;
                }
            }
        }
        None
    }

    /// What to keep, if it changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Option<SavedPorts> {
        std::mem::take(&mut self.changed).then(|| self.saved.clone())
    }

    /// Ports for everything that a task publishes; the same ones each time it is asked.
    ///
    /// # Errors
    /// [`PortError`] where the range has none left.
    pub(crate) fn allot(
        &mut self,
        task: &Task,
        now: Timestamp,
    ) -> Result<Vec<TaskPort>, PortError> {
        if let Some(ports) = self.saved.held.get(&task.id) {
            return Ok(ports.clone());
        }
        let mut ports: Vec<TaskPort> = Vec::with_capacity(task.ports.len());
        for spec in &task.ports {
            let host = match spec.mode {
                PortMode::Host if spec.published != 0 => spec.published,
                _ => self.find(spec, &ports, now)?,
            };
            ports.push(TaskPort {
                target: spec.target,
                host,
                protocol: spec.protocol,
                mode: spec.mode,
            });
        }
        if !ports.is_empty() {
            self.saved.held.insert(task.id.clone(), ports.clone());
            self.changed = true;
        }
        Ok(ports)
    }

    /// Takes over the ports that a container was found with.
    pub(crate) fn adopt(&mut self, task: &TaskId, ports: &[TaskPort]) {
        if ports.is_empty() || self.saved.held.get(task).is_some_and(|held| held == ports) {
            return;
        }
        self.release(task, Timestamp::default());
        for port in ports {
            self.saved.resting.remove(&port.host);
        }
        self.saved.held.insert(task.clone(), ports.to_vec());
        self.changed = true;
    }

    /// Notes that a task's ports are in use no more.
    pub(crate) fn release(&mut self, task: &TaskId, now: Timestamp) {
        let Some(ports) = self.saved.held.remove(task) else {
            return;
        };
        for port in ports {
            if (self.range.0..=self.range.1).contains(&port.host) {
                let resting = Resting {
                    task: task.clone(),
                    since: now,
                    acknowledged: false,
                };
                self.saved.resting.insert(port.host, resting);
            }
        }
        self.changed = true;
    }

    /// Whether a task has ports.
    pub(crate) fn holds(&self, task: &TaskId) -> bool {
        self.saved.held.contains_key(task)
    }

    /// Notes that the node works by a table that names exactly `tasks`.
    pub(crate) fn acknowledge(&mut self, tasks: &BTreeSet<TaskId>) {
        for resting in self.saved.resting.values_mut() {
            if !resting.acknowledged && !tasks.contains(&resting.task) {
                resting.acknowledged = true;
                self.changed = true;
            }
        }
    }

    fn find(
        &mut self,
        spec: &PortSpec,
        already: &[TaskPort],
        now: Timestamp,
    ) -> Result<u16, PortError> {
        let rested =
            |resting: &Resting| resting.acknowledged && now.since(resting.since) >= COOLDOWN;
        let before = self.saved.resting.len();
        self.saved.resting.retain(|_, resting| !rested(resting));
        self.changed |= before != self.saved.resting.len();

        let in_use: BTreeSet<u16> = self
            .saved
            .held
            .values()
            .flatten()
            .chain(already)
            .map(|port| port.host)
            .collect();
        let address = match spec.mode {
            PortMode::Ingress => self.address,
            PortMode::Host => Ipv4Addr::UNSPECIFIED.into(),
        };
        let (first, last) = self.range;
        for _ in first..=last {
            let port = self.next;
            self.next = if port >= last { first } else { port + 1 };
            if !in_use.contains(&port)
                && self.probed != Some(port)
                && !self.saved.resting.contains_key(&port)
                && is_free(address, port, spec.protocol)
            {
                return Ok(port);
            }
        }
        Err(PortError::Exhausted(first, last))
    }
}

/// Whether the port can be bound right now. Somebody may still be faster: the runtime's own
/// refusal is what counts, and this only makes it rare.
fn is_free(address: IpAddr, port: u16, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => TcpListener::bind((address, port)).is_ok(),
        Protocol::Udp => UdpSocket::bind((address, port)).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::worker::fake;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// Ports of a range of free ones that nothing else in this test run uses.
    fn ports(range: (u16, u16)) -> Ports {
        Ports::new(
            &NodeId::from_random(1),
            LOOPBACK,
            range,
            SavedPorts::default(),
        )
    }

    fn publishing(id: u128, published: &[u16], mode: PortMode) -> Task {
        fake::task(id, |task| {
            task.ports = published
                .iter()
                .map(|&published| PortSpec {
                    target: 80,
                    published,
                    protocol: Protocol::Tcp,
                    mode,
                    proxy_protocol: None,
                    accept_proxy: Vec::new(),
                })
                .collect();
        })
    }

    fn hosts(ports: &[TaskPort]) -> Vec<u16> {
        ports.iter().map(|port| port.host).collect()
    }

    #[test]
    fn a_task_keeps_its_ports() {
        let mut ports = ports((42_100, 42_109));
        let task = publishing(1, &[80, 81], PortMode::Ingress);
        let first = ports.allot(&task, Timestamp(0)).unwrap();
        assert_eq!(ports.allot(&task, Timestamp(1)).unwrap(), first);
        let other = ports
            .allot(&publishing(2, &[80], PortMode::Ingress), Timestamp(1))
            .unwrap();
        assert!(!hosts(&first).contains(&other[0].host));
        assert_ne!(first[0].host, first[1].host);
    }

    #[test]
    fn ports_outlive_a_restart() {
        let mut before = ports((42_110, 42_119));
        let task = publishing(1, &[80], PortMode::Ingress);
        let given = before.allot(&task, Timestamp(0)).unwrap();
        let saved = before.take_changes().unwrap();
        assert_eq!(before.take_changes(), None);
        let mut after = Ports::new(&NodeId::from_random(1), LOOPBACK, (42_110, 42_119), saved);
        assert_eq!(after.allot(&task, Timestamp(1)).unwrap(), given);
    }

    #[test]
    fn a_released_port_rests_until_acknowledged_and_cool() {
        let mut ports = ports((42_120, 42_120));
        let (old, new) = (
            publishing(1, &[80], PortMode::Ingress),
            publishing(2, &[80], PortMode::Ingress),
        );
        ports.allot(&old, Timestamp(0)).unwrap();
        ports.release(&old.id, Timestamp(1_000));
        let exhausted = Err(PortError::Exhausted(42_120, 42_120));
        assert_eq!(ports.allot(&new, Timestamp(90_000)), exhausted);

        ports.acknowledge(&BTreeSet::from([old.id.clone()]));
        assert_eq!(ports.allot(&new, Timestamp(90_000)), exhausted);

        ports.acknowledge(&BTreeSet::new());
        assert_eq!(ports.allot(&new, Timestamp(60_999)), exhausted);
        assert_eq!(
            hosts(&ports.allot(&new, Timestamp(61_000)).unwrap()),
            [42_120]
        );
    }

    #[test]
    fn a_port_of_somebody_else_is_passed_over() {
        let taken: SocketAddr = (LOOPBACK, 42_130).into();
        let _listener = TcpListener::bind(taken).unwrap();
        let mut ports = ports((42_130, 42_131));
        let task = publishing(1, &[80], PortMode::Ingress);
        assert_eq!(hosts(&ports.allot(&task, Timestamp(0)).unwrap()), [42_131]);
        let error = ports
            .allot(&publishing(2, &[80], PortMode::Ingress), Timestamp(0))
            .unwrap_err();
        assert_eq!(error.to_string(), "no free task port in 42130-42131");
    }

    #[test]
    fn host_mode_uses_the_published_port_or_one_of_the_range() {
        let mut ports = ports((42_140, 42_149));
        let fixed = ports
            .allot(&publishing(1, &[8080], PortMode::Host), Timestamp(0))
            .unwrap();
        assert_eq!(hosts(&fixed), [8080]);
        ports.release(&TaskId::from_random(1), Timestamp(0));
        let again = ports
            .allot(&publishing(2, &[8080], PortMode::Host), Timestamp(0))
            .unwrap();
        assert_eq!(hosts(&again), [8080], "only ports of the range rest");
        let random = ports
            .allot(&publishing(3, &[0], PortMode::Host), Timestamp(0))
            .unwrap();
        assert!((42_140..=42_149).contains(&random[0].host));
    }

    #[test]
    fn the_port_for_attempts_is_the_last_that_no_task_has() {
        let held = [
            (TaskId::from_random(1), 42_199),
            (TaskId::from_random(2), 42_197),
        ];
        let saved = SavedPorts {
            held: held
                .iter()
                .map(|(task, host)| {
                    let port = TaskPort {
                        target: 80,
                        host: *host,
                        protocol: Protocol::Tcp,
                        mode: PortMode::Ingress,
                    };
                    (task.clone(), vec![port])
                })
                .collect(),
            resting: BTreeMap::new(),
        };
        let _taken = TcpListener::bind((LOOPBACK, 42_198)).unwrap();
        let mut ports = Ports::new(&NodeId::from_random(1), LOOPBACK, (42_180, 42_199), saved);
        let listener = ports.for_probes().unwrap();
        assert_eq!(listener.local_addr().unwrap().port(), 42_196);
        // Also for UDP, where it could be bound, it is not given to a task.
        for id in 10..26 {
            let given = ports.allot(&publishing(id, &[80], PortMode::Ingress), Timestamp(0));
            assert_ne!(hosts(&given.unwrap()), [42_196]);
        }
        assert!(self::ports((42_200, 42_215)).for_probes().is_none());
    }

    #[test]
    fn adopted_ports_are_in_use() {
        let mut ports = ports((42_150, 42_150));
        let found = [TaskPort {
            target: 80,
            host: 42_150,
            protocol: Protocol::Tcp,
            mode: PortMode::Ingress,
        }];
        ports.adopt(&TaskId::from_random(1), &found);
        assert!(ports.holds(&TaskId::from_random(1)));
        assert!(
            ports
                .allot(&publishing(2, &[80], PortMode::Ingress), Timestamp(0))
                .is_err()
        );
    }
}
