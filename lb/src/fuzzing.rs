//! What fuzz targets do with the bytes that they are given: the state machine of
//! a connection, PROXY headers, and the control socket's frames. Each panics
//! where a promise is broken.
//!
//! `fuzz` has a target for each, for cargo-fuzz; the tests here run the same on
//! what has been collected (`fuzz/seeds`) and on random changes of it.

use std::{net::IpAddr, sync::Arc};

use bytes::BytesMut;
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::codec::Decoder;

use crate::{
    connection::{
        ConnectFailure, Connection, Event, Finding, Side,
        world::{Proxy, Step, confuse, live},
    },
    control::wire::{Call, Hello, Request, ServerFrame, codec},
    event::Hub,
    port::{Endpoint, Port},
    proxy::{self, Parsed, Version},
    select::EndpointKey,
    table::{EndpointState, Listener, Table},
};

/// More steps find nothing that fewer do not, and take longer.
const MAX_STEPS: usize = 400;

/// A whole life of a connection, among peers that do what the bytes say.
pub fn connection_life(data: &[u8]) {
    let Some((flags, data)) = data.split_first() else {
        return;
    };
    let proxy = Proxy {
        expected: flags & 1 != 0,
        sent: flags & 2 != 0,
    };
    let steps: Vec<Step> = data
        .as_chunks::<3>()
        .0
        .iter()
        .take(MAX_STEPS)
        .map(step)
        .collect();
    live(proxy, &steps);
}

fn step(&[kind, high, low]: &[u8; 3]) -> Step {
    let amount = u64::from(u16::from_be_bytes([high, low]));
    let side = side(kind);
    match kind >> 1 & 0xf {
        0..5 => Step::Speak(side, amount * 5 + 1),
        5..10 => Step::Read(side, amount * 5 + 1),
        10 | 11 => Step::Connect(true),
        12 => Step::Connect(false),
        13 => Step::End(side),
        14 => Step::ResetBy(side),
        _ => Step::Wait(amount),
    }
}

fn side(byte: u8) -> Side {
    if byte & 1 == 0 {
        Side::Client
    } else {
        Side::Endpoint
    }
}

/// Events in any order, told to a connection.
pub fn connection_events(data: &[u8]) {
    let Some((flags, data)) = data.split_first() else {
        return;
    };
    let machine = if flags & 1 == 0 {
        Connection::new(1_000)
    } else {
        Connection::expecting_header(1_000)
    };
    let events = data.as_chunks::<4>().0.iter().take(MAX_STEPS);
    confuse(machine, events.map(event));
}

fn event(&[kind, flags, high, low]: &[u8; 4]) -> (Event, u64) {
    let (side, flag) = (side(flags), flags & 2 != 0);
    let amount = u16::from_be_bytes([high, low]);
    let bytes = u32::from(amount) * 9;
    let event = match kind % 17 {
        0 => Event::HeaderReceived { drained: flag },
        1 => Event::HeaderRefused,
        2 => Event::Greeting {
            bytes: amount % 300,
        },
        3 => Event::NoEndpoint,
        4 => Event::ConnectFailed(match amount % 3 {
            0 => ConnectFailure::Refused,
            1 => ConnectFailure::Unanswered,
            _ => ConnectFailure::Local,
        }),
        5 => Event::HungUp(side),
        6 => Event::Failing(side),
        7 => Event::Ended(side),
        8 => Event::Failed(side),
        9 => Event::Inspected(match amount % 3 {
            0 => Finding::Quiet,
            1 => Finding::Slow,
            _ => Finding::Dead,
        }),
        10 => Event::Connected,
        11 => Event::Readable(side),
        12 => Event::Writable(side),
        13 => Event::Received {
            from: side,
            bytes,
            drained: flag,
        },
        14 => Event::ReceiveBlocked(side),
        15 => Event::Sent { to: side, bytes },
        _ => Event::SendBlocked(side),
    };
    // Half of them at once, the others up to a minute later; a timer among them.
    if flags & 4 == 0 {
        (event, 0)
    } else {
        (Event::Timer, u64::from(amount))
    }
}

/// What a client sends first, where it must send a PROXY header.
pub fn proxy_header(data: &[u8]) {
    let parsed = proxy::parse(data);
    match parsed {
        Parsed::Header { len, addresses } => {
            assert!(len <= data.len() && len <= proxy::MAX_LEN);
            // What is behind it does not matter, and no part of it is enough.
            assert_eq!(proxy::parse(&data[..len]), parsed);
            for shorter in 0..len {
                assert_eq!(proxy::parse(&data[..shorter]), Parsed::Incomplete);
            }
            for version in [Version::V1, Version::V2] {
                let Some(addresses) = addresses else {
                    continue;
                };
                let written = proxy::header(version, &addresses);
                let expected = Parsed::Header {
                    len: written.len(),
                    addresses: Some(addresses.in_one_family()),
                };
                assert_eq!(proxy::parse(&written), expected);
            }
        }
        Parsed::Incomplete => {
            assert!(data.len() < proxy::MAX_LEN, "it would wait for ever");
            for shorter in 0..data.len() {
                assert_eq!(proxy::parse(&data[..shorter]), Parsed::Incomplete);
            }
        }
        Parsed::Malformed(_) => assert_stays_malformed(data),
    }
}

/// What is refused once is refused for good, whatever else comes.
fn assert_stays_malformed(data: &[u8]) {
    let refused = |len: usize| matches!(proxy::parse(&data[..len]), Parsed::Malformed(_));
    let first = (0..=data.len()).find(|len| refused(*len));
    let first = first.expect("the whole is refused");
    for longer in first..=data.len().min(first + 100) {
        assert!(refused(longer), "{longer} bytes");
    }
}

/// What comes over the control socket: frames, whatever is in them.
pub fn control_frames(data: &[u8]) {
    let mut codec = codec();
    let mut bytes = BytesMut::from(data);
    while let Ok(Some(frame)) = codec.decode(&mut bytes) {
        look_at(&frame);
    }
    // A frame's content by itself, too: who searches need not find lengths first.
    look_at(data);
}

fn look_at(json: &[u8]) {
    assert_survives::<Hello>(json);
    assert_survives::<ServerFrame>(json);
    if let Some(call) = assert_survives::<Call>(json)
        && let Request::SetTable(table) = call.request
        && table.validate().is_ok()
    {
        assert_obeyed(&table);
    }
}

/// What is understood is understood the same once it was said again.
fn assert_survives<T: Serialize + DeserializeOwned>(json: &[u8]) -> Option<T> {
    let understood: T = serde_json::from_slice(json).ok()?;
    let said = serde_json::to_vec(&understood).expect("what was JSON can be JSON");
    let again: T = serde_json::from_slice(&said).expect("it was said by us");
    let said_again = serde_json::to_vec(&again).expect("what was JSON can be JSON");
    assert_eq!(said, said_again);
    Some(understood)
}

/// A valid table's ports choose ready endpoints of their own, and no others.
fn assert_obeyed(table: &Table) {
    for listener in &table.listeners {
        let port = Port::new(listener.port, Hub::new());
        let mut last = 0;
        port.update(listener, |listed| {
            last += 1;
            let key = EndpointKey(last);
            Arc::new(Endpoint::new(key, listener.port, listed, Hub::new()))
        });
        let mut tried = Vec::new();
        for number in 0..12_u8 {
            let source = || Some(IpAddr::from([10, 0, 0, number]));
            let chosen = port.choose(&tried, source);
            let left = ready(listener).filter(|key| !tried.contains(key)).count();
            assert_eq!(chosen.is_some(), left > 0, "{left} left");
            let Some(lease) = chosen else {
                break;
            };
            let key = lease.endpoint().key;
            assert!(ready(listener).any(|ready| ready == key));
            // The second half fails, one after the other.
            if number >= 6 {
                tried.push(key);
            }
        }
    }
}

fn ready(listener: &Listener) -> impl Iterator<Item = EndpointKey> {
    let numbered = (1..).zip(&listener.endpoints);
    numbered
        .filter(|(_, endpoint)| endpoint.state == EndpointState::Ready)
        .map(|(number, _)| EndpointKey(number))
}

#[cfg(test)]
mod tests;
