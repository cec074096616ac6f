//! What a container that was found means for its task.
//!
//! Whether a running container serves is said by the engine's health check, by the check that
//! this node runs itself, or by neither; where there are both, the worse counts.

use std::net::{IpAddr, SocketAddr};

use swarmlet_core::check;
use swarmlet_core::model::{
    Check, PortSpec, Protocol, ProxyProtocol, TaskState, Timestamp, UnhealthyAction,
};

use super::entry::Entry;
use crate::check::{Report, Subject};
use crate::runtime::{Container, ContainerState, Health};

/// What the node's own check has found.
pub(super) struct Checked {
    container: String,
    health: check::Health,
    reason: Option<String>,
}

impl Entry {
    /// What is to be checked, if anything; `advertise` is where task ports are bound.
    pub(super) fn to_check(&self, advertise: IpAddr) -> Option<Subject> {
        let container = self.container.as_ref().filter(|found| found.is_running())?;
        if self.is_leaving() || self.status.state.is_terminal() {
            return None;
        }
        let check = self.check()?;
        let target = self.target(check)?;
        Some(Subject {
            task: self.id.clone(),
            container: container.id.clone(),
            address: address(target, container, advertise)?,
            check: check.clone(),
            proxy_protocol: self.proxy_protocol(target),
            health: self.checked(container)?.0,
        })
    }

    /// Takes the result of checks.
    pub(super) fn report(&mut self, report: Report, now: Timestamp) {
        self.checked = Some(Checked {
            container: report.container,
            health: report.health,
            reason: report.reason,
        });
        if let Some(container) = self.container.take() {
            if !self.is_leaving() {
                self.follow(&container, now);
            }
            self.container = Some(container);
        }
    }

    /// Follows what was found of the container.
    pub(super) fn follow(&mut self, container: &Container, now: Timestamp) {
        match &container.state {
            ContainerState::Created => {}
            ContainerState::Running(health) => self.follow_health(container, *health, now),
            ContainerState::Exited { code: 0, .. } => {
                self.end(TaskState::Complete, "finished", None, now);
            }
            ContainerState::Exited { code, reason } => {
                let mut error = format!("task: non-zero exit ({code})");
                if let Some(reason) = reason {
                    error = format!("{error}: {reason}");
                }
                self.end(TaskState::Failed, "failed", Some(error), now);
            }
        }
    }

    fn follow_health(&mut self, container: &Container, engine: Health, now: Timestamp) {
        let (own, reason) = match self.checked(container) {
            None => (Health::Unchecked, None),
            Some((check::Health::Starting, reason)) => (Health::Starting, reason),
            Some((check::Health::Healthy, _)) => (Health::Healthy, None),
            Some((check::Health::Unhealthy, reason)) => (Health::Unhealthy, reason),
        };
        let failing = container.failing.clone();
        let reason = match (engine, own) {
            (_, Health::Unhealthy) => reason,
            (Health::Unhealthy, _) => failing,
            _ => reason.or(failing),
        };
        match (engine, own) {
            (Health::Unhealthy, _) | (_, Health::Unhealthy) => self.unhealthy(reason, now),
            (Health::Starting, _) | (_, Health::Starting) => {
                let error = reason.map(|reason| format!("not healthy yet: {reason}"));
                self.advance(TaskState::Starting, "starting", error, now);
            }
            _ => {
                let message = match self.attempt {
                    0 => "started".to_owned(),
                    attempt => format!("started, again in place ({attempt})"),
                };
                self.eject(false);
                self.advance(TaskState::Running, &message, None, now);
            }
        }
    }

    /// One that never ran is of no use to anybody; one that did is treated as its service says.
    fn unhealthy(&mut self, reason: Option<String>, now: Timestamp) {
        let error = match reason {
            Some(reason) => format!("unhealthy container: {reason}"),
            None => "unhealthy container".to_owned(),
        };
        // What was said before this agent was started may have been more.
        let error = match &self.status.error {
            Some(known) if self.is_ejected() && known.starts_with(&error) => known.clone(),
            _ => error,
        };
        let ran = self.status.state == TaskState::Running;
        if ran && self.unhealthy_action() == UnhealthyAction::Eject {
            self.eject(true);
            let message = "running, and gets no connections";
            self.advance(TaskState::Running, message, Some(error), now);
        } else {
            // Reported before it has stopped: the sooner the balancers know the better.
            self.end(TaskState::Failed, "failed", Some(error), now);
        }
    }

    fn eject(&mut self, ejected: bool) {
        if let Some(container) = &mut self.status.container {
            container.ejected = ejected;
        }
    }

    /// Whether its checks fail while it runs on.
    pub(super) fn is_ejected(&self) -> bool {
        let container = self.status.container.as_ref();
        container.is_some_and(|container| container.ejected)
    }

    /// What the node's own check says; `None` where there is none. Of a container that was
    /// adopted nothing else is known than what was said before.
    fn checked(&self, container: &Container) -> Option<(check::Health, Option<String>)> {
        self.check()?;
        let latest = self.checked.as_ref();
        if let Some(checked) = latest.filter(|checked| checked.container == container.id) {
            return Some((checked.health, checked.reason.clone()));
        }
        let before = match self.status.state {
            TaskState::Running if self.is_ejected() => check::Health::Unhealthy,
            TaskState::Running => check::Health::Healthy,
            _ => check::Health::Starting,
        };
        Some((before, None))
    }

    fn check(&self) -> Option<&Check> {
        self.task.as_ref()?.spec.container()?.check.as_ref()
    }

    fn unhealthy_action(&self) -> UnhealthyAction {
        let container = self.task.as_ref().and_then(|task| task.spec.container());
        container.map_or_else(UnhealthyAction::default, |spec| spec.unhealthy_action)
    }

    /// The container's port that is asked.
    fn target(&self, check: &Check) -> Option<u16> {
        let ports = &self.task.as_ref()?.ports;
        let first = || ports.iter().find(|port| port.protocol == Protocol::Tcp);
        check
            .probe
            .port()
            .or_else(|| first().map(|port| port.target))
    }

    /// Which PROXY header the port expects, if it is published as one that does.
    fn proxy_protocol(&self, target: u16) -> Option<ProxyProtocol> {
        let mut ports = self.task.as_ref()?.ports.iter();
        let is_asked = |port: &&PortSpec| port.target == target && port.protocol == Protocol::Tcp;
        ports.find_map(|port| Some(port).filter(is_asked)?.proxy_protocol)
    }
}

/// Where to ask. The container's own address comes first, as for the node's balancer: the
/// engine's port proxy accepts connections even when nothing listens behind it.
fn address(target: u16, container: &Container, advertise: IpAddr) -> Option<SocketAddr> {
    if let Some(address) = container.address {
        return Some(SocketAddr::new(address, target));
    }
    let host = container
        .ports
        .iter()
        .find(|port| port.target == target && port.protocol == Protocol::Tcp)?;
    Some(SocketAddr::new(advertise, host.host))
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
