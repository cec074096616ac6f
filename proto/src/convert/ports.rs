//! Published ports.

use swarmlet_core::model::{Network, PortMode, PortSpec, Protocol, ProxyProtocol};

use super::Malformed;
use super::field::{enumeration, malformed, mirrored, port};
use crate::v1;

mirrored!(Protocol { Tcp, Udp });
mirrored!(PortMode { Ingress, Host });
mirrored!(ProxyProtocol { V1, V2 });

/// Absent where tasks are not told whose connection it is.
pub(super) fn proxy_protocol_to(version: Option<ProxyProtocol>) -> Option<i32> {
    version.map(|version| v1::ProxyProtocol::from(version).into())
}

pub(super) fn proxy_protocol_from(value: Option<i32>) -> Result<Option<ProxyProtocol>, Malformed> {
    let read = |value| enumeration::<v1::ProxyProtocol, _>("proxy_protocol", value);
    value.map(read).transpose()
}

pub(super) fn networks_to(networks: &[Network]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

pub(super) fn networks_from(
    name: &'static str,
    texts: &[String],
) -> Result<Vec<Network>, Malformed> {
    let read = |text: &String| {
        text.parse()
            .map_err(|_| malformed(name, "not a CIDR block"))
    };
    texts.iter().map(read).collect()
}

impl From<&PortSpec> for v1::PortSpec {
    fn from(spec: &PortSpec) -> Self {
        Self {
            target: spec.target.into(),
            published: spec.published.into(),
            protocol: v1::Protocol::from(spec.protocol).into(),
            mode: v1::PortMode::from(spec.mode).into(),
            proxy_protocol: proxy_protocol_to(spec.proxy_protocol),
            accept_proxy: networks_to(&spec.accept_proxy),
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
            proxy_protocol: proxy_protocol_from(message.proxy_protocol)?,
            accept_proxy: networks_from("accept_proxy", &message.accept_proxy)?,
        })
    }
}
