//! What the node knows of its own endpoints, before any manager does.
//!
//! A table says where a task was when the managers last heard of it. Of the node's own tasks
//! the worker knows better: whether the container runs at this moment, and which address the
//! engine has given it. An address of an earlier run may be another service's container by
//! now, so an own endpoint is used only as far as it was seen.

use std::collections::BTreeMap;
use std::net::IpAddr;

use swarmlet_core::model::TaskId;

/// The node's own tasks as they can be reached right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// Grows with each change.
    pub(crate) number: u64,
    /// Whether every container was looked at; before, what is missing here may well run.
    pub(crate) complete: bool,
    /// The containers that take connections, each with its own address where it has one.
    pub(crate) serving: BTreeMap<TaskId, Option<IpAddr>>,
}

impl Own {
    /// Takes over what was found, and tells whether it is news.
    pub(super) fn replace(
        &mut self,
        complete: bool,
        serving: BTreeMap<TaskId, Option<IpAddr>>,
    ) -> bool {
        if self.complete == complete && self.serving == serving {
            return false;
        }
        *self = Self {
            number: self.number + 1,
            complete,
            serving,
        };
        true
    }
}
