//! What nodes see of each other, and what is wrong with them.

use std::time::Duration;

use swarmlet_core::diagnosis::{DescriptorUse, DiskSpace, Failing, Observation, Peer, ProbedPort};
use swarmlet_core::model::{
    Closed, DiskUser, NodeId, NodeProblem, Place, Problem, ProblemKind, Timestamp,
};

use super::Malformed;
use super::field::{
    Result, address, enumeration, id, list, malformed, messages, mirrored, port, required,
};
use crate::v1;
use crate::v1::problem::Kind;

mirrored!(Closed {
    Dropped,
    Refused,
    Unreachable,
});
mirrored!(DiskUser { State, Engine });
mirrored!(ProbedPort { Tasks, Cluster });

impl From<&Place> for v1::Place {
    fn from(place: &Place) -> Self {
        Self {
            node_id: place.node.to_string(),
            hostname: place.hostname.clone(),
            address: place.address.to_string(),
        }
    }
}

impl TryFrom<v1::Place> for Place {
    type Error = Malformed;

    fn try_from(message: v1::Place) -> Result<Self> {
        Ok(Self {
            node: id("node_id", &message.node_id, NodeId::parse)?,
            hostname: message.hostname,
            address: address("address", &message.address)?,
        })
    }
}

impl From<&Problem> for v1::Problem {
    fn from(problem: &Problem) -> Self {
        let kind = match &problem.kind {
            ProblemKind::Closed { to, ports, found } => Kind::Closed(v1::ClosedPorts {
                to: Some(to.into()),
                ports: ports
                    .iter()
                    .map(|&(first, last)| v1::PortRange {
                        first: first.into(),
                        last: last.into(),
                    })
                    .collect(),
                found: v1::Closed::from(*found).into(),
            }),
            ProblemKind::CutOff { managers, port } => Kind::CutOff(v1::CutOff {
                managers: messages(managers),
                port: (*port).into(),
            }),
            &ProblemKind::Clock { ahead_ms } => Kind::Clock(v1::ClockProblem { ahead_ms }),
            ProblemKind::Disk {
                user,
                path,
                free_bytes,
                total_bytes,
            } => Kind::Disk(v1::DiskProblem {
                user: v1::DiskUser::from(*user).into(),
                path: path.clone(),
                free_bytes: *free_bytes,
                total_bytes: *total_bytes,
            }),
            ProblemKind::Engine { reason } => Kind::Engine(v1::EngineProblem {
                reason: reason.clone(),
            }),
            ProblemKind::Descriptors {
                process,
                open,
                limit,
            } => Kind::Descriptors(v1::DescriptorProblem {
                process: process.clone(),
                open: *open,
                limit: *limit,
            }),
        };
        Self {
            since_ms: problem.since.0,
            kind: Some(kind),
        }
    }
}

impl TryFrom<v1::Problem> for Problem {
    type Error = Malformed;

    fn try_from(message: v1::Problem) -> Result<Self> {
        let kind = match message.kind.ok_or_else(|| malformed("kind", "missing"))? {
            Kind::Closed(closed) => ProblemKind::Closed {
                to: required("to", closed.to)?,
                ports: closed
                    .ports
                    .iter()
                    .map(|range| Ok((port("first", range.first)?, port("last", range.last)?)))
                    .collect::<Result<_>>()?,
                found: enumeration::<v1::Closed, _>("found", closed.found)?,
            },
            Kind::CutOff(cut) => ProblemKind::CutOff {
                managers: list("managers", cut.managers)?,
                port: port("port", cut.port)?,
            },
            Kind::Clock(clock) => ProblemKind::Clock {
                ahead_ms: clock.ahead_ms,
            },
            Kind::Disk(disk) => ProblemKind::Disk {
                user: enumeration::<v1::DiskUser, _>("user", disk.user)?,
                path: disk.path,
                free_bytes: disk.free_bytes,
                total_bytes: disk.total_bytes,
            },
            Kind::Engine(engine) => ProblemKind::Engine {
                reason: engine.reason,
            },
            Kind::Descriptors(used) => ProblemKind::Descriptors {
                process: used.process,
                open: used.open,
                limit: used.limit,
            },
        };
        Ok(Self {
            since: Timestamp(message.since_ms),
            kind,
        })
    }
}

impl From<&NodeProblem> for v1::NodeProblem {
    fn from(found: &NodeProblem) -> Self {
        Self {
            at: Some((&found.at).into()),
            problem: Some((&found.problem).into()),
        }
    }
}

impl TryFrom<v1::NodeProblem> for NodeProblem {
    type Error = Malformed;

    fn try_from(message: v1::NodeProblem) -> Result<Self> {
        Ok(Self {
            at: required("at", message.at)?,
            problem: required("problem", message.problem)?,
        })
    }
}

impl From<&Peer> for v1::NodePeer {
    fn from(peer: &Peer) -> Self {
        Self {
            place: Some((&peer.place).into()),
            probe_port: peer.probe_port.into(),
            manager_address: peer.manager.map(|at| at.to_string()).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::NodePeer> for Peer {
    type Error = Malformed;

    fn try_from(message: v1::NodePeer) -> Result<Self> {
        let manager = match message.manager_address.as_str() {
            "" => None,
            text => Some(address("manager_address", text)?),
        };
        Ok(Self {
            place: required("place", message.place)?,
            probe_port: port("probe_port", message.probe_port)?,
            manager,
        })
    }
}

impl From<&Observation> for v1::Observation {
    fn from(observation: &Observation) -> Self {
        let failing = observation.failing.iter().map(|failing| v1::FailingPort {
            node_id: failing.node.to_string(),
            port: v1::ProbedPort::from(failing.port).into(),
            found: v1::Closed::from(failing.found).into(),
            lasting_ms: u64::try_from(failing.lasting.as_millis()).unwrap_or(u64::MAX),
        });
        let disks = observation.disks.iter().map(|disk| v1::DiskSpace {
            user: v1::DiskUser::from(disk.user).into(),
            path: disk.path.clone(),
            free_bytes: disk.free_bytes,
            total_bytes: disk.total_bytes,
        });
        let descriptors = observation
            .descriptors
            .iter()
            .map(|used| v1::DescriptorUse {
                process: used.process.clone(),
                open: used.open,
                limit: used.limit,
            });
        Self {
            failing: failing.collect(),
            disks: disks.collect(),
            descriptors: descriptors.collect(),
            engine: observation.engine.clone(),
        }
    }
}

impl TryFrom<v1::Observation> for Observation {
    type Error = Malformed;

    fn try_from(message: v1::Observation) -> Result<Self> {
        let failing = |failing: v1::FailingPort| {
            Ok(Failing {
                node: id("node_id", &failing.node_id, NodeId::parse)?,
                port: enumeration::<v1::ProbedPort, _>("port", failing.port)?,
                found: enumeration::<v1::Closed, _>("found", failing.found)?,
                lasting: Duration::from_millis(failing.lasting_ms),
            })
        };
        let disk = |disk: v1::DiskSpace| {
            Ok(DiskSpace {
                user: enumeration::<v1::DiskUser, _>("user", disk.user)?,
                path: disk.path,
                free_bytes: disk.free_bytes,
                total_bytes: disk.total_bytes,
            })
        };
        let used = |used: v1::DescriptorUse| DescriptorUse {
            process: used.process,
            open: used.open,
            limit: used.limit,
        };
        Ok(Self {
            failing: message
                .failing
                .into_iter()
                .map(failing)
                .collect::<Result<_>>()?,
            disks: message.disks.into_iter().map(disk).collect::<Result<_>>()?,
            descriptors: message.descriptors.into_iter().map(used).collect(),
            engine: message.engine,
        })
    }
}
