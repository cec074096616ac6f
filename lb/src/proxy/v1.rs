//! Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, Malformed};

/// The longest line that the format allows, its end included.
pub(super) const MAX_LEN: usize = 107;

const SIGNATURE: &[u8] = b"PROXY ";

/// The line of a connection that is the sender's own.
pub(super) const OWN: &[u8] = b"PROXY UNKNOWN\r\n";

/// Whether these bytes can be the beginning of a line.
pub(super) fn is_begun(bytes: &[u8]) -> bool {
    let common = bytes.len().min(SIGNATURE.len());
    bytes[..common] == SIGNATURE[..common]
}

/// Reads a line: its length and what it says; `None` while it has no end yet.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(usize, Option<Addresses>)>, Malformed> {
    let window = &bytes[..bytes.len().min(MAX_LEN)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        if window.len() == MAX_LEN {
            return Err(Malformed::LongLine);
        }
        // An end of line of another kind never becomes a right one.
        let is_broken = window
            .iter()
            .enumerate()
            .any(|(at, byte)| *byte == b'\n' || (*byte == b'\r' && at + 1 < window.len()));
        return if is_broken {
            Err(Malformed::Line)
        } else {
            Ok(None)
        };
    };
    let line = std::str::from_utf8(&window[..end]).map_err(|_| Malformed::Line)?;
    if line.contains(['\r', '\n']) {
        // Refused as soon as it is seen, and so it must be when all comes at once.
        return Err(Malformed::Line);
    }
    let addresses = addresses(line).ok_or(Malformed::Line)?;
    Ok(Some((end + 2, addresses)))
}

/// `None` if the line is not as it should be.
fn addresses(line: &str) -> Option<Option<Addresses>> {
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return None;
    }
    let address: fn(&str) -> Option<IpAddr> = match words.next()? {
        // What follows on the line is to be ignored.
        "UNKNOWN" => return Some(None),
        "TCP4" => |text| Some(text.parse::<Ipv4Addr>().ok()?.into()),
        "TCP6" => |text| Some(text.parse::<Ipv6Addr>().ok()?.into()),
        _ => return None,
    };
    let (source, destination) = (address(words.next()?)?, address(words.next()?)?);
    let (from, to) = (port(words.next()?)?, port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    Some(Some(Addresses {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    }))
}

/// Digits without a leading zero, as the format has it.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| digits && canonical)
}

/// The line for two addresses of one family.
pub(super) fn header(addresses: &Addresses) -> Vec<u8> {
    let Addresses {
        source,
        destination,
    } = addresses;
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    format!(
        "PROXY {family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    )
    .into_bytes()
}
