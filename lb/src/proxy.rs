//! The PROXY protocol, versions 1 and 2: a few bytes ahead of a connection's own
//! that say whose connection it is. Pure: bytes in, addresses out, and back.
//!
//! The format is HAProxy's (`doc/proxy-protocol.txt`). What comes from a peer is
//! read strictly: a header that could be understood in two ways is refused, and
//! nothing of it is trusted before all of it has been looked at.

mod v1;
mod v2;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How a header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// From where to where a connection was made, before any proxy had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// The beginning of a header.
    Incomplete,
    /// A whole header.
    Header {
        /// Its length in bytes.
        len: usize,
        /// `None` where it says that the connection is the sender's own (LOCAL),
        /// or of a kind that has no address of use here: those of the connection
        /// itself are to be taken.
        addresses: Option<Addresses>,
    },
    /// No header.
    Malformed(Malformed),
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the connection does not begin with a PROXY header")]
    NoSignature,
    #[error("a line of version 1 does not end within {} bytes", v1::MAX_LEN)]
    LongLine,
    #[error("a line of version 1 is not as it should be")]
    Line,
    #[error("version or command of a binary header is unknown")]
    Command,
    #[error("address family or transport of a binary header is unknown")]
    Family,
    #[error("a binary header is longer than {} bytes", v2::MAX_LEN)]
    Long,
    #[error("a binary header is too short for its addresses")]
    Short,
    #[error("a field of a binary header reaches beyond its end")]
    Field,
    #[error("the checksum of a binary header is wrong")]
    Checksum,
}

/// Bytes that are enough to tell any header.
pub(crate) const MAX_LEN: usize = v2::MAX_LEN;

/// Reads what a connection begins with.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let parsed = if v2::is_begun(bytes) {
        v2::parse(bytes)
    } else if v1::is_begun(bytes) {
        v1::parse(bytes)
    } else {
        Err(Malformed::NoSignature)
    };
    match parsed {
        Ok(Some((len, addresses))) => Parsed::Header { len, addresses },
        Ok(None) => Parsed::Incomplete,
        Err(reason) => Parsed::Malformed(reason),
    }
}

/// A header for a connection between these addresses.
pub(crate) fn header(version: Version, addresses: &Addresses) -> Vec<u8> {
    let addresses = addresses.in_one_family();
    match version {
        Version::V1 => v1::header(&addresses),
        Version::V2 => v2::header(&addresses),
    }
}

/// A header for a connection that is the sender's own, such as a probe: without one an endpoint
/// that expects it would log an error.
pub(crate) fn own_header(version: Version) -> &'static [u8] {
    match version {
        Version::V1 => v1::OWN,
        Version::V2 => v2::OWN,
    }
}

impl Addresses {
    /// Headers have one family for both: IPv4 where both are, else IPv6.
    pub(crate) fn in_one_family(self) -> Self {
        let canonical =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let (source, destination) = (canonical(self.source), canonical(self.destination));
        if source.is_ipv4() == destination.is_ipv4() {
            return Self {
                source,
                destination,
            };
        }
        let mapped = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
            IpAddr::V6(_) => address,
        };
        Self {
            source: mapped(source),
            destination: mapped(destination),
        }
    }
}

#[cfg(test)]
mod tests;
