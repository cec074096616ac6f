//! Of which incarnation of the cluster this manager's state is, and whether there is a later one.
//!
//! A manager that has gone on without the others ([`super::recovery`]) begins an incarnation.
//! Managers that it left behind may come back with a state that went another way, and might even
//! be a majority among themselves; their votes, entries and terms mean nothing to it. So each
//! message names its sender's incarnation, and is refused where that is not the receiver's. The
//! refusal of a later incarnation ends the part that an earlier one takes, for good: it is kept
//! in a file beside the log.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::digest::{SHA256, digest};
use swarmlet_core::state::State;
use tokio::sync::watch;

use super::durable;
use super::error::RaftError;

/// So much of a digest tells every change by accident.
const SUM_BYTES: usize = 8;

/// A later incarnation that this manager is not part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superseded {
    /// The later one.
    pub incarnation: u64,
    /// The manager that told of it.
    pub by: SocketAddr,
}

impl std::fmt::Display for Superseded {
    /// What has happened, and what to do about it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the swarm went on without this manager (`swarmlet init --force-new-cluster`, says the \
             manager at {}): run `swarmlet leave --force` here, then `swarmlet join` to make this \
             host a node of it again",
            self.by
        )
    }
}

/// Shared by everything that talks to other managers.
#[derive(Debug)]
pub(crate) struct Lineage {
    /// That of the cluster when this manager joined; its state has to catch up first.
    joined: u64,
    state: watch::Receiver<Arc<State>>,
    superseded: watch::Sender<Option<Superseded>>,
    /// How often a later incarnation was heard of.
    told: AtomicU64,
    path: PathBuf,
}

impl Lineage {
    /// Reads what was heard before; a later incarnation of this very manager has settled it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn open(
        dir: &Path,
        joined: u64,
        state: watch::Receiver<Arc<State>>,
    ) -> Result<Self, RaftError> {
        let path = dir.join("superseded");
        let heard = match fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let said = parse(&text);
                Some(said.ok_or_else(|| RaftError::damaged(&path, format!("it says {text:?}")))?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(RaftError::file("read", &path, &error)),
        };
        let this = Self {
            joined,
            state,
            superseded: watch::Sender::new(None),
            told: AtomicU64::new(0),
            path,
        };
        let own = this.own();
        let later = heard.filter(|heard| heard.incarnation > own);
        this.superseded.send_replace(later);
        Ok(this)
    }

    /// The incarnation that this manager is part of.
    pub(crate) fn own(&self) -> u64 {
        let state = self.state.borrow();
        let applied = state.cluster().map_or(0, |cluster| cluster.incarnation);
        applied.max(self.joined)
    }

    /// Notes that another manager names an incarnation; an earlier one means nothing.
    pub(crate) fn heard(&self, incarnation: u64, by: SocketAddr) {
        if incarnation <= self.own() {
            return;
        }
        self.told.fetch_add(1, Ordering::Relaxed);
        let known = self.superseded.borrow().map(|known| known.incarnation);
        if known >= Some(incarnation) {
            return;
        }
        let superseded = Superseded { incarnation, by };
        let text = encode(superseded);
        // A restart would ask the others again, and hear the same.
        if let Err(error) = durable::replace(&self.path, &[text.as_bytes()]) {
            tracing::error!(path = %self.path.display(), %error, "it cannot be kept that this manager was left behind");
        }
        tracing::error!("{superseded}");
        self.superseded.send_replace(Some(superseded));
    }

    /// How often a later incarnation was heard of.
    pub(crate) fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// The later incarnation that this manager is not part of.
    pub(crate) fn superseded(&self) -> Option<Superseded> {
        *self.superseded.borrow()
    }

    /// Resolves once there is one.
    pub(crate) async fn ends(&self) {
        let mut superseded = self.superseded.subscribe();
        // The sender is this one's own.
        let _ = superseded.wait_for(Option::is_some).await;
    }
}

/// One line for people to read, with the digest of what it says: a digit that was changed would
/// be another incarnation.
fn encode(superseded: Superseded) -> String {
    let said = format!("{} {}", superseded.incarnation, superseded.by);
    let digest = digest(&SHA256, said.as_bytes());
    let sum = digest.as_ref().iter().take(SUM_BYTES);
    let sum: String = sum.map(|byte| format!("{byte:02x}")).collect();
    format!("{said} {sum}\n")
}

fn parse(text: &str) -> Option<Superseded> {
    let mut words = text.split_whitespace();
    let superseded = Superseded {
        incarnation: words.next()?.parse().ok()?,
        by: words.next()?.parse().ok()?,
    };
    (encode(superseded) == text).then_some(superseded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, joined: u64) -> Result<Lineage, RaftError> {
        let state = watch::Sender::new(Arc::new(State::default()));
        Lineage::open(dir, joined, state.subscribe())
    }

    fn by() -> SocketAddr {
        ([10, 0, 0, 1], 2377).into()
    }

    #[test]
    fn a_later_incarnation_ends_it_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let lineage = open(dir.path(), 5).unwrap();
        lineage.heard(4, by());
        lineage.heard(5, by());
        assert_eq!((lineage.superseded(), lineage.told()), (None, 0));
        lineage.heard(6, by());
        let expected = Superseded {
            incarnation: 6,
            by: by(),
        };
        assert_eq!(lineage.superseded(), Some(expected));
        lineage.heard(6, by());
        assert_eq!(lineage.told(), 2);
        assert_eq!(open(dir.path(), 5).unwrap().superseded(), Some(expected));
        // It went on alone itself since.
        assert_eq!(open(dir.path(), 7).unwrap().superseded(), None);
    }

    #[test]
    fn a_file_with_a_flipped_bit_or_a_cut_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("superseded");
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let refused = open(dir.path(), 0).unwrap_err();
            assert!(matches!(refused, RaftError::Damaged { .. }), "{refused}");
            let text = refused.to_string();
            assert!(text.contains(path.to_str().unwrap()), "{text}");
        };
        refused(b"yes");
        fs::remove_file(&path).unwrap();
        open(dir.path(), 5).unwrap().heard(16, by());
        let written = fs::read(&path).unwrap();
        for at in 0..written.len() {
            refused(&written[..at]);
            for bit in 0..8 {
                let mut damaged = written.clone();
                damaged[at] ^= 1 << bit;
                refused(&damaged);
            }
        }
    }
}
