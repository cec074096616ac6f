//! The agent of a node: runs the node's tasks and reports on them.
//!
//! It keeps one session with any manager, gets from it the tasks that the node should have
//! and the table of endpoints, and makes the one true with a container runtime and hands the
//! other to a balancer. It decides nothing about the cluster: it knows neither Raft nor
//! scheduling, and it does not know what the balancer is, only that it takes tables.
//!
//! Start reading at [`Agent`] (what hangs together how), then `worker` (the loop that brings
//! tasks to where they should be), [`runtime`] (what runs them), `session` (the wire),
//! [`routing`] (tables on their way to the balancer) and `publisher` (logs on their way to a
//! manager).

mod agent;
mod cause;
mod check;
mod description;
mod diagnosis;
mod ports;
mod publisher;
pub mod registry;
pub mod routing;
pub mod runtime;
mod session;
mod standing;
mod store;
pub mod whoami;
mod worker;

pub use agent::{Agent, AgentConfig, AgentError};
pub use description::{GenericResources, NodeFacts, describe};
pub use diagnosis::Watched;
pub use routing::{RoutedEndpoint, RoutedListener, RoutedTable, SinkError, SinkReport, TableSink};
pub use session::Connection;
