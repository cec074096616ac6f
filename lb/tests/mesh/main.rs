//! The balancer as its clients, its endpoints and its daemon see it: real
//! sockets on the loopback, one balancer for each test.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod balance;
mod care;
mod control;
mod failures;
mod handover;
mod hostile;
mod hosts;
mod lifecycle;
mod local;
mod policies;
mod ports;
mod proxy;
mod settings;
mod streams;
#[path = "../support/mod.rs"]
mod support;
