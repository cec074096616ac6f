//! Connections between nodes, and from the command line to its daemon.
//!
//! tonic's own TLS fixes its identity when a server or channel is built. Here each new
//! connection takes the configuration of the moment from the [`IdentityStore`], so that a
//! certificate is renewed without a restart.

mod channel;
mod connection;
mod pinned;
mod port;
mod server;
mod store;
mod unix;

pub use channel::channel;
pub use connection::Caller;
pub use pinned::{JoinError, pinned_channel};
pub use port::serve;
pub use server::ServeError;
pub use store::IdentityStore;
pub use unix::{serve_unix, unix_channel};
