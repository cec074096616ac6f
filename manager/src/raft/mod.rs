//! The replicated log: the only module that knows the consensus library.
//!
//! A [`Raft`] takes commands ([`Raft::propose`]), has more than half of the managers write
//! them down, applies them with [`swarmlet_core::apply`] and gives out the state that results
//! ([`Raft::state`], [`Raft::watch_state`]). What it must not know: what any command means,
//! who may propose it, or when.
//!
//! ```text
//! propose ─→ batch ─→ openraft ─→ log ─────→ (sealed, one redb file, one sync per entry)
//!                        │  ╲──→ network ─→ server of another manager
//!                        ↓
//!                     machine ─→ watch_state
//!                        ╰────→ snapshot ──→ (sealed, every 10,000 entries)
//! ```
//!
//! What holds, whatever happens:
//!
//! - A vote or an entry is on the disk before anybody is told of it.
//! - A file that lost something acknowledged is refused at the start ([`storage`]), never
//!   repaired in silence.
//! - A failed write ends this replica ([`Raft::failed`]); a sync is never tried again, because
//!   the system drops the pages of the first attempt.
//! - A proposal that timed out is unknown: it may still be applied.
//! - A message of another incarnation of the cluster is refused ([`lineage`]): managers that were
//!   left behind ([`go_on_alone`]) have no say any more, whatever they know and whoever they are.
//! - Nobody leads without an election after its start, and nothing is read as of now
//!   ([`Raft::linearizable`]) without asking a quorum.

mod batch;
mod contact;
mod durable;
mod election;
mod error;
mod lineage;
mod log;
mod machine;
mod members;
mod network;
mod recovery;
mod seal;
mod server;
mod snapshot;
mod space;
mod standing;
mod storage;
mod survey;
mod types;
mod wire;
mod witness;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{CheckIsLeaderError, Fatal, InitializeError, RaftError as LibraryError};
use openraft::{Config, SnapshotPolicy};
use swarmlet_core::command::Command;
use swarmlet_core::state::State;
use swarmlet_proto::v1::raft_server::RaftServer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub use self::batch::Committed;
pub use self::error::{Leader, MembersError, ProposeError, RaftError};
pub use self::lineage::Superseded;
pub use self::recovery::go_on_alone;
pub use self::server::RaftService;
pub use self::standing::Leadership;
pub use self::survey::Survey;

use self::batch::{Batcher, DEADLINE, from_fatal};
use self::contact::Contacts;
use self::election::{Election, Voter};
use self::lineage::Lineage;
use self::log::LogStore;
use self::members::Members;
use self::network::Network;
use self::space::Space;
use self::standing::{Follow, Office};
use self::storage::Expect;
use self::types::{Consensus, Peer};

/// Entries that stay in the log although a snapshot has them: a follower that was away for a
/// moment gets these instead of the whole state.
const KEPT_ENTRIES: u64 = 500;
/// How long a manager may take to write down a chunk of a snapshot and to load the last one.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(10);
/// Largest chunk of a snapshot; most snapshots are a single one.
const CHUNK_BYTES: u64 = 4 << 20;

/// How a manager takes part.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// Its number among the voters; never used again for another one.
    pub raft_id: u64,
    /// The directory that is Raft's alone.
    pub dir: PathBuf,
    /// How often the leader is heard of.
    pub heartbeat: Duration,
    /// Silence of the leader after which an election begins lies between these two, and half
    /// of the second one is the leader's lease. The first one is lengthened where the second
    /// and the heartbeat leave no room for it.
    pub election: (Duration, Duration),
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// Whether this node has been a manager before: its log must then be there.
    pub expect_log: bool,
    /// The incarnation of the cluster that this manager has joined. The state tells it as well,
    /// once it has caught up.
    pub incarnation: u64,
}

impl RaftConfig {
    /// The usual timings, for a manager that starts for the first time.
    #[must_use]
    pub fn new(raft_id: u64, dir: PathBuf) -> Self {
        Self {
            raft_id,
            dir,
            heartbeat: Duration::from_millis(150),
            election: (Duration::from_millis(400), Duration::from_millis(800)),
            snapshot_every: 10_000,
            expect_log: false,
            incarnation: 0,
        }
    }
}

/// A manager's part in Raft; clones are handles of the same one.
#[derive(Clone)]
pub struct Raft {
    inner: Arc<Inner>,
}

struct Inner {
    raft_id: u64,
    consensus: Consensus,
    contacts: Arc<Contacts>,
    lineage: Arc<Lineage>,
    network: Network,
    voter: Voter,
    batcher: Batcher,
    members: Members,
    space: Arc<Space>,
    state: watch::Receiver<Arc<State>>,
    leadership: watch::Receiver<Leadership>,
    stop: CancellationToken,
}

impl Raft {
    /// Opens the log and starts to take part. `dialer` makes a channel to another manager that
    /// connects when it is first used.
    ///
    /// On return the state is that of the last snapshot and of all entries after it that were
    /// known to be committed.
    ///
    /// # Errors
    ///
    /// [`RaftError`], where the files are not what was acknowledged or cannot be used.
    pub async fn open(
        config: RaftConfig,
        dialer: impl Fn(SocketAddr) -> Channel + Send + Sync + 'static,
    ) -> Result<Self, RaftError> {
        let raft_id = config.raft_id;
        let library = Arc::new(library_config(&config)?);
        let (store, machine) = open_storage(&config).await?;
        let state = machine.watch();
        let patience = patience(&config);
        let contacts = Arc::new(Contacts::new(raft_id, patience));
        let lineage = Lineage::open(&config.dir, config.incarnation, state.clone())?;
        let lineage = Arc::new(lineage);
        let network = Network::new(
            Arc::new(dialer),
            Arc::clone(&contacts),
            Arc::clone(&lineage),
        );
        let (shortest, lease) = (library.election_timeout_min, library.election_timeout_max);
        let consensus = Consensus::new(raft_id, library, network.clone(), store, machine)
            .await
            .map_err(failure)?;
        let [shortest, lease] = [shortest, lease].map(Duration::from_millis);
        let voter = Voter::new(consensus.clone(), Arc::clone(&contacts), lease);

        let stop = CancellationToken::new();
        let leadership = watch::Sender::new(Leadership::default());
        let inner = Inner {
            raft_id,
            contacts: Arc::clone(&contacts),
            lineage: Arc::clone(&lineage),
            network: network.clone(),
            voter: voter.clone(),
            batcher: Batcher::start(consensus.clone(), stop.clone()),
            members: Members::new(consensus.clone(), Arc::clone(&contacts)),
            space: Space::watch(config.dir.clone(), stop.clone()),
            state,
            leadership: leadership.subscribe(),
            stop: stop.clone(),
            consensus: consensus.clone(),
        };
        let election = Election {
            raft_id,
            voter: voter.clone(),
            network,
            lineage: Arc::clone(&lineage),
            pause: shortest..lease,
        };
        tokio::spawn(election.run(stop.clone()));
        tokio::spawn(end_of_part(lineage, consensus.clone(), stop.clone()));
        let follow = Follow {
            raft: consensus,
            contacts,
            voter,
            heartbeat: config.heartbeat,
            patience: config.election.1,
        };
        tokio::spawn(standing::follow(follow, leadership, stop));
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Makes this manager, which listens at `address`, the first one of a new cluster, and
    /// returns once it leads.
    ///
    /// # Errors
    ///
    /// [`RaftError::AlreadyBootstrapped`] where its log is in use.
    pub async fn bootstrap(&self, address: SocketAddr) -> Result<(), RaftError> {
        let members = BTreeMap::from([(self.inner.raft_id, Peer { address })]);
        match self.inner.consensus.initialize(members).await {
            Ok(()) => {}
            Err(LibraryError::Fatal(fatal)) => return Err(failure(fatal)),
            Err(LibraryError::APIError(InitializeError::NotAllowed(_))) => {
                return Err(RaftError::AlreadyBootstrapped);
            }
            Err(LibraryError::APIError(error)) => return Err(RaftError::Failed(error.to_string())),
        }
        let mut leadership = self.watch_leadership();
        tokio::select! {
            error = self.failed() => Err(error),
            led = leadership.wait_for(|leadership| leadership.is_self) => {
                led.map(|_| ()).map_err(|_| RaftError::Stopped)
            }
        }
    }

    /// Proposes commands and waits until they are applied here. Proposals that come at the
    /// same time share a log entry; each command succeeds or fails by itself.
    ///
    /// # Errors
    ///
    /// [`ProposeError`]; whether the outcome is unknown is said there.
    pub async fn propose(&self, commands: Vec<Command>) -> Result<Committed, ProposeError> {
        // An isolated leader would write down what nobody will ever acknowledge.
        if self.office() == Office::Isolated {
            return Err(ProposeError::NoQuorum);
        }
        self.inner.space.for_proposal().await?;
        self.inner.batcher.propose(commands).await
    }

    /// The state after the last entry that was applied here. On a follower, or on a leader
    /// that does not yet know that it is one no longer, this may lie behind.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.inner.state.borrow())
    }

    /// Follows the state; readers that are slow see the latest and miss some in between.
    #[must_use]
    pub fn watch_state(&self) -> watch::Receiver<Arc<State>> {
        self.inner.state.clone()
    }

    /// A state that holds every write that was acknowledged before this call.
    ///
    /// # Errors
    ///
    /// [`ProposeError::NotLeader`], or [`ProposeError::NoQuorum`] where too few managers
    /// confirm that this one leads.
    pub async fn linearizable(&self) -> Result<Arc<State>, ProposeError> {
        let confirmed = self.inner.consensus.ensure_linearizable();
        match tokio::time::timeout(DEADLINE, confirmed).await {
            Ok(Ok(_)) => Ok(self.state()),
            Err(_) | Ok(Err(LibraryError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) => {
                Err(ProposeError::NoQuorum)
            }
            Ok(Err(LibraryError::APIError(CheckIsLeaderError::ForwardToLeader(_)))) => {
                Err(ProposeError::NotLeader {
                    leader: self.inner.leadership.borrow().leader,
                })
            }
            Ok(Err(LibraryError::Fatal(fatal))) => Err(from_fatal(fatal)),
        }
    }

    /// Follows who leads.
    #[must_use]
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// The voters and where they listen.
    #[must_use]
    pub fn voters(&self) -> BTreeMap<u64, SocketAddr> {
        self.inner.members.voters()
    }

    /// The managers that answered lately, this one included. Only the leader asks them all the
    /// time, so that on a follower this says nothing.
    #[must_use]
    pub fn reachable(&self) -> BTreeSet<u64> {
        self.inner.contacts.reachable()
    }

    /// Makes a manager that listens at `address` a voter, and returns once it has caught up
    /// and is one.
    ///
    /// # Errors
    ///
    /// [`MembersError`] with the reason why the voters stay as they are.
    pub async fn add_voter(&self, raft_id: u64, address: SocketAddr) -> Result<(), MembersError> {
        self.inner.members.add(raft_id, address).await
    }

    /// Whether a manager could be taken out of the voters now: the others are to have a quorum.
    ///
    /// # Errors
    ///
    /// [`MembersError`] with the reason why not.
    pub async fn may_remove_voter(&self, raft_id: u64) -> Result<(), MembersError> {
        self.inner.members.may_remove(raft_id).await
    }

    /// Takes a manager out of the voters. A leader may remove itself; the others then elect.
    ///
    /// # Errors
    ///
    /// [`MembersError`] with the reason why the voters stay as they are.
    pub async fn remove_voter(&self, raft_id: u64) -> Result<(), MembersError> {
        self.inner.members.remove(raft_id).await
    }

    /// The incarnation of the cluster that this manager is part of.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.inner.lineage.own()
    }

    /// The later incarnation that this manager is not part of: it was left behind, and takes no
    /// part in anything any more.
    #[must_use]
    pub fn superseded(&self) -> Option<Superseded> {
        self.inner.lineage.superseded()
    }

    /// Asks all other voters whether they are there.
    pub async fn survey(&self) -> Survey {
        let inner = &self.inner;
        survey::ask(
            &inner.network,
            &inner.lineage,
            &inner.consensus,
            inner.raft_id,
        )
        .await
    }

    /// The service that other managers call. It takes any caller: who may call is to be
    /// decided in front of it.
    #[must_use]
    pub fn service(&self) -> RaftServer<RaftService> {
        let service = RaftService::new(
            self.inner.raft_id,
            self.inner.consensus.clone(),
            self.inner.voter.clone(),
            Arc::clone(&self.inner.lineage),
            Arc::clone(&self.inner.space),
        );
        RaftServer::new(service)
            .max_decoding_message_size(server::MESSAGE_LIMIT_BYTES)
            .max_encoding_message_size(server::MESSAGE_LIMIT_BYTES)
    }

    /// Resolves with the reason once this replica has stopped for good, because its storage
    /// failed or an entry could not be applied; never after [`Raft::shutdown`].
    pub async fn failed(&self) -> RaftError {
        let mut metrics = self.inner.consensus.metrics();
        loop {
            let running = metrics.borrow_and_update().running_state.clone();
            match running {
                Err(Fatal::Stopped) => std::future::pending().await,
                Err(fatal) => return failure(fatal),
                Ok(()) => {}
            }
            if metrics.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Stops to take part. What was acknowledged is on the disk already.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        if let Err(error) = self.inner.consensus.shutdown().await {
            tracing::error!(%error, "the consensus task ended badly");
        }
    }

    fn office(&self) -> Office {
        standing::office(
            &self.inner.consensus.metrics().borrow(),
            &self.inner.contacts,
        )
    }
}

impl std::fmt::Debug for Raft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Raft({})", self.inner.raft_id)
    }
}

/// SHA-256 of the state: equal on all managers that have applied the same entries.
#[must_use]
pub fn state_hash(state: &State) -> [u8; 32] {
    let bytes = swarmlet_proto::encode_snapshot(state);
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// Ends this manager's part once there is a later incarnation of the cluster.
async fn end_of_part(lineage: Arc<Lineage>, consensus: Consensus, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = lineage.ends() => {
            if let Err(error) = consensus.shutdown().await {
                tracing::error!(%error, "the consensus task ended badly");
            }
        }
    }
}

async fn open_storage(config: &RaftConfig) -> Result<(LogStore, machine::Machine), RaftError> {
    let (dir, raft_id) = (config.dir.clone(), config.raft_id);
    let expect = if config.expect_log {
        Expect::Log
    } else {
        Expect::Anything
    };
    // In a task of its own, because the store may panic on bytes that it did not write.
    let opened = tokio::task::spawn_blocking(move || storage::open(&dir, raft_id, expect)).await;
    opened.unwrap_or_else(|error| {
        Err(RaftError::damaged(
            &LogStore::path(&config.dir),
            format!("reading it failed: {error}"),
        ))
    })
}

fn library_config(config: &RaftConfig) -> Result<Config, RaftError> {
    let milliseconds = |duration: Duration| {
        u64::try_from(duration.as_millis()).map_err(|error| RaftError::Timings(error.to_string()))
    };
    // The leader's lease, which the library takes to be as long as its longest timeout, has to
    // pass, and then a pause drawn at random: the silence is the sum of the two.
    let heartbeat = milliseconds(config.heartbeat)?;
    let lease = milliseconds(config.election.1)? / 2;
    let shortest = milliseconds(config.election.0)?.saturating_sub(lease);
    let library = Config {
        cluster_name: "swarmlet".to_owned(),
        heartbeat_interval: heartbeat,
        election_timeout_min: shortest.max(heartbeat + 1),
        election_timeout_max: lease,
        // It would stand for election without a look at who would vote: see `election`.
        enable_elect: false,
        install_snapshot_timeout: milliseconds(SNAPSHOT_DEADLINE)?,
        snapshot_max_chunk_size: CHUNK_BYTES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        max_in_snapshot_log_to_keep: KEPT_ENTRIES.min(config.snapshot_every),
        // A follower further behind than the log is long gets a snapshot anyway.
        replication_lag_threshold: config.snapshot_every.saturating_add(KEPT_ENTRIES),
        ..Config::default()
    };
    library
        .validate()
        .map_err(|error| RaftError::Timings(error.to_string()))
}

/// Silence after which a manager counts as not answering: two elections, so that one answer
/// that is lost on a busy machine changes nothing.
fn patience(config: &RaftConfig) -> Duration {
    2 * config.election.1
}

fn failure(fatal: Fatal<u64>) -> RaftError {
    match fatal {
        Fatal::Stopped => RaftError::Stopped,
        Fatal::StorageError(error) => RaftError::Failed(error.to_string()),
        Fatal::Panicked => RaftError::Failed("the consensus task panicked".to_owned()),
    }
}
