//! The checks that agents run.

use std::time::Duration;

use swarmlet_core::model::{Check, Probe, UnhealthyAction};

use super::Malformed;
use super::field::{malformed, mirrored, nanoseconds, port};
use crate::v1;
use crate::v1::check::{Http, Probe as Wire, Tcp};

mirrored!(UnhealthyAction { Restart, Eject });

impl From<&Check> for v1::Check {
    fn from(check: &Check) -> Self {
        let probe = match &check.probe {
            Probe::Http { port, path } => Wire::Http(Http {
                port: port.map(Into::into),
                path: path.clone(),
            }),
            Probe::Tcp { port } => Wire::Tcp(Tcp {
                port: port.map(Into::into),
            }),
        };
        Self {
            probe: Some(probe),
            interval_ns: nanoseconds(check.interval),
            timeout_ns: nanoseconds(check.timeout),
            rise: check.rise,
            fall: check.fall,
            start_period_ns: nanoseconds(check.start_period),
        }
    }
}

impl TryFrom<v1::Check> for Check {
    type Error = Malformed;

    fn try_from(message: v1::Check) -> Result<Self, Malformed> {
        let named = |number: Option<u32>| number.map(|number| port("port", number)).transpose();
        let probe = match message.probe {
            Some(Wire::Http(http)) => Probe::Http {
                port: named(http.port)?,
                path: http.path,
            },
            Some(Wire::Tcp(tcp)) => Probe::Tcp {
                port: named(tcp.port)?,
            },
            None => return Err(malformed("probe", "missing")),
        };
        Ok(Self {
            probe,
            interval: Duration::from_nanos(message.interval_ns),
            timeout: Duration::from_nanos(message.timeout_ns),
            rise: message.rise,
            fall: message.fall,
            start_period: Duration::from_nanos(message.start_period_ns),
        })
    }
}
