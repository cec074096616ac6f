//! Version 2: twelve bytes that begin no other protocol, version and command,
//! family and transport, a length, the addresses, and fields (TLVs).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, Malformed};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The header of a connection that is the sender's own: LOCAL, without addresses.
pub(super) const OWN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
/// Signature, version and command, family, length.
const FIXED_LEN: usize = 16;
/// The longest header taken. The format allows 64 KiB; certificates' names and
/// what cloud balancers add come to a few hundred bytes.
pub(super) const MAX_LEN: usize = 4096;

const VERSION_LOCAL: u8 = 0x20;
const VERSION_PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
/// Type of the field that holds a checksum of the whole header.
const CHECKSUM: u8 = 0x03;

/// What is read: the header's length and addresses; `None` while incomplete.
type Found = Option<(usize, Option<Addresses>)>;

/// Whether these bytes can be the beginning of a header.
pub(super) fn is_begun(bytes: &[u8]) -> bool {
    let common = bytes.len().min(SIGNATURE.len());
    bytes[..common] == SIGNATURE[..common]
}

/// Reads a header. What is wrong shows as early as it can.
pub(super) fn parse(bytes: &[u8]) -> Result<Found, Malformed> {
    let is_local = match bytes.get(12) {
        None => return Ok(None),
        Some(&VERSION_LOCAL) => true,
        Some(&VERSION_PROXY) => false,
        Some(_) => return Err(Malformed::Command),
    };
    let addresses_len = match bytes.get(13) {
        None => return Ok(None),
        // Whatever the family: the addresses of a LOCAL connection are skipped,
        // and so are its fields.
        Some(_) if is_local => 0,
        Some(0x00) => 0,
        Some(&TCP4 | 0x12) => 12,
        Some(&TCP6 | 0x22) => 36,
        // Unix sockets.
        Some(0x31 | 0x32) => 216,
        Some(_) => return Err(Malformed::Family),
    };
    let (Some(family), Some(&[high, low])) =
        (bytes.get(13), bytes.get(14..FIXED_LEN).and_then(pair))
    else {
        return Ok(None);
    };
    let body_len = usize::from(u16::from_be_bytes([high, low]));
    let len = FIXED_LEN + body_len;
    if len > MAX_LEN {
        return Err(Malformed::Long);
    }
    if body_len < addresses_len {
        return Err(Malformed::Short);
    }
    let Some(header) = bytes.get(..len) else {
        return Ok(None);
    };
    if is_local {
        return Ok(Some((len, None)));
    }
    let body = &header[FIXED_LEN..];
    check_fields(header, FIXED_LEN + addresses_len)?;
    let addresses = match *family {
        TCP4 => Some(addresses_v4(body)),
        TCP6 => Some(addresses_v6(body)),
        // Nothing that could be the address of a TCP connection.
        _ => None,
    };
    Ok(Some((len, addresses)))
}

fn pair(bytes: &[u8]) -> Option<&[u8; 2]> {
    bytes.try_into().ok()
}

/// Looks through the fields from `at` on. All but the checksum are skipped.
fn check_fields(header: &[u8], mut at: usize) -> Result<(), Malformed> {
    while at < header.len() {
        let [kind, high, low] = *header
            .get(at..at + 3)
            .and_then(|field| <&[u8; 3]>::try_from(field).ok())
            .ok_or(Malformed::Field)?;
        let value = at + 3;
        let end = value + usize::from(u16::from_be_bytes([high, low]));
        let content = header.get(value..end).ok_or(Malformed::Field)?;
        if kind == CHECKSUM {
            let told: [u8; 4] = content.try_into().map_err(|_| Malformed::Field)?;
            let bytes = header.iter().enumerate();
            let blanked = bytes.map(|(index, byte)| {
                if (value..end).contains(&index) {
                    0
                } else {
                    *byte
                }
            });
            if crc32c(blanked) != u32::from_be_bytes(told) {
                return Err(Malformed::Checksum);
            }
        }
        at = end;
    }
    Ok(())
}

/// CRC-32C (Castagnoli), bit by bit: few senders use it, and headers are short.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let low_bit = crc & 1;
            crc = (crc >> 1) ^ (0x82f6_3b78 * low_bit);
        }
    }
    !crc
}

/// Source, destination, and their ports: 12 bytes, which the caller has seen to.
fn addresses_v4(body: &[u8]) -> Addresses {
    let ip = |at: usize| {
        let mut octets = [0; 4];
        octets.copy_from_slice(&body[at..at + 4]);
        Ipv4Addr::from(octets)
    };
    Addresses {
        source: SocketAddr::new(ip(0).into(), port(body, 8)),
        destination: SocketAddr::new(ip(4).into(), port(body, 10)),
    }
}

/// The same in 36 bytes.
fn addresses_v6(body: &[u8]) -> Addresses {
    let ip = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&body[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    Addresses {
        source: SocketAddr::new(ip(0).into(), port(body, 32)),
        destination: SocketAddr::new(ip(16).into(), port(body, 34)),
    }
}

fn port(body: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([body[at], body[at + 1]])
}

/// The header for two addresses of one family.
pub(super) fn header(addresses: &Addresses) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.push(VERSION_PROXY);
    match (addresses.source, addresses.destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            header.extend([TCP4, 0, 12]);
            header.extend(source.ip().octets());
            header.extend(destination.ip().octets());
        }
        (source, destination) => {
            let octets = |address: SocketAddr| match address {
                SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped().octets(),
                SocketAddr::V6(v6) => v6.ip().octets(),
            };
            header.extend([TCP6, 0, 36]);
            header.extend(octets(source));
            header.extend(octets(destination));
        }
    }
    header.extend(addresses.source.port().to_be_bytes());
    header.extend(addresses.destination.port().to_be_bytes());
    header
}
