//! Published ports.

use swarmlet_core::model::{PortMode, PortSpec, Protocol};

use super::Malformed;
use super::field::{enumeration, mirrored, port};
use crate::v1;

mirrored!(Protocol { Tcp, Udp });
mirrored!(PortMode { Ingress, Host });

impl From<&PortSpec> for v1::PortSpec {
    fn from(spec: &PortSpec) -> Self {
        Self {
            target: spec.target.into(),
            published: spec.published.into(),
            protocol: v1::Protocol::from(spec.protocol).into(),
            mode: v1::PortMode::from(spec.mode).into(),
        }
    }
}

impl TryFrom<v1::PortSpec> for PortSpec {
    type Error = Malformed;

    fn try_from(message: v1::PortSpec) -> Result<Self, Malformed> {
        Ok(Self {
            target: port("target", message.target)?,
            published: port("published", message.published)?,
            protocol: enumeration::<v1::Protocol, _>("protocol", message.protocol)?,
            mode: enumeration::<v1::PortMode, _>("mode", message.mode)?,
        })
    }
}
