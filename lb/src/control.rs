//! The control socket: how the daemon tells the balancer what to do.
//!
//! A Unix stream socket. Each side sends frames: a length of four bytes, big
//! endian, then that many bytes of JSON. The client's first frame is a hello
//! with the version of the protocol. Then it sends calls, each with a number
//! that comes back in the reply, and after a `Subscribe` the server sends
//! events between the replies. Any number of clients may be connected; none is
//! needed for forwarding.
//!
//! With some frames come descriptors (`SCM_RIGHTS`): listening sockets. Whoever
//! has duplicates of them ([`Keeper`]) keeps a port open while there is no
//! balancer, clients waiting in its queue, and hands it to the next one.
//!
//! ```text
//! one that has died:    start the next, Inherit, SetTable
//! one that is replaced: StepAside; start the next, Inherit, SetTable; Retire the old
//! ```

mod aside;
mod client;
mod descriptors;
mod keeper;
pub(crate) mod server;
#[cfg(any(test, fuzzing))]
pub(crate) mod wire;
#[cfg(not(any(test, fuzzing)))]
mod wire;

pub use aside::{aside, replaced};
pub use client::{Client, ClientError, Events};
pub use keeper::Keeper;
pub use wire::Refusal;
