//! A few managers that can be killed and started again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use super::commands;
use super::network::Network;
use crate::raft::{Committed, ProposeError, Raft, RaftConfig, RaftError, state_hash};

/// More than anything takes, on a machine that does much else.
pub(in crate::raft) const PATIENCE: Duration = Duration::from_secs(30);

pub(in crate::raft) struct Cluster {
    pub(in crate::raft) network: Network,
    pub(in crate::raft) nodes: BTreeMap<u64, Node>,
    snapshot_every: u64,
    dir: TempDir,
}

pub(in crate::raft) struct Node {
    pub(in crate::raft) raft: Raft,
    dead: CancellationToken,
}

impl Cluster {
    pub(in crate::raft) fn new(snapshot_every: u64) -> Self {
        Self {
            network: Network::default(),
            nodes: BTreeMap::new(),
            snapshot_every,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// So many managers, all of them voters, with the cluster's first command applied.
    pub(in crate::raft) async fn of(size: u64, snapshot_every: u64) -> Self {
        let mut cluster = Self::new(snapshot_every);
        cluster.start(1).await.unwrap();
        cluster.raft(1).bootstrap(address(1)).await.unwrap();
        cluster
            .raft(1)
            .propose(vec![commands::init()])
            .await
            .unwrap();
        for id in 2..=size {
            cluster.start(id).await.unwrap();
            cluster.raft(1).add_voter(id, address(id)).await.unwrap();
        }
        cluster
    }

    /// Has the state know managers 1 to `last`.
    pub(in crate::raft) async fn name_managers(&self, last: u64) {
        let commands = (1..=last).map(|id| commands::add_manager(id, address(id)));
        let leader = self.leader().await;
        let committed = self.raft(leader).propose(commands.collect()).await.unwrap();
        assert!(committed.results.iter().all(Result::is_ok));
    }

    /// Starts a manager; one that has a directory goes on from there.
    pub(in crate::raft) async fn start(&mut self, id: u64) -> Result<(), RaftError> {
        self.start_in(id, 0).await
    }

    /// The same of a manager that has joined an incarnation of the cluster.
    pub(in crate::raft) async fn start_in(
        &mut self,
        id: u64,
        incarnation: u64,
    ) -> Result<(), RaftError> {
        let dir = self.dir_of(id);
        let config = RaftConfig {
            incarnation,
            snapshot_every: self.snapshot_every,
            expect_log: dir.exists(),
            ..RaftConfig::new(id, dir)
        };
        let raft = Raft::open(config, self.network.dialer(address(id))).await?;
        let dead = CancellationToken::new();
        let accepted = self.network.listen(address(id), dead.clone());
        let server = tonic::transport::Server::builder()
            .add_service(raft.service())
            .serve_with_incoming_shutdown(
                UnboundedReceiverStream::new(accepted).map(Ok::<_, std::io::Error>),
                dead.clone().cancelled_owned(),
            );
        tokio::spawn(server);
        self.nodes.insert(id, Node { raft, dead });
        Ok(())
    }

    /// Ends a manager at once: its connections break, and nothing is written any more.
    pub(in crate::raft) async fn kill(&mut self, id: u64) {
        let node = self.nodes.remove(&id).unwrap();
        node.dead.cancel();
        node.raft.shutdown().await;
    }

    pub(in crate::raft) fn raft(&self, id: u64) -> &Raft {
        &self.nodes[&id].raft
    }

    /// The term that a manager knows of.
    pub(in crate::raft) fn term(&self, id: u64) -> u64 {
        let metrics = self.raft(id).inner.consensus.metrics();
        metrics.borrow().current_term
    }

    pub(in crate::raft) fn dir_of(&self, id: u64) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    /// The one manager among `ids` that leads, once there is one.
    pub(in crate::raft) async fn leader_of(&self, ids: &[u64]) -> u64 {
        let began = Instant::now();
        loop {
            for id in ids {
                if self.raft(*id).watch_leadership().borrow().is_self {
                    return *id;
                }
            }
            assert!(began.elapsed() < PATIENCE, "nobody leads");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(in crate::raft) async fn leader(&self) -> u64 {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        self.leader_of(&ids).await
    }

    /// Adds node `number` by whoever leads, and says whether that was acknowledged.
    pub(in crate::raft) async fn try_add(&self, number: u64) -> bool {
        for node in self.nodes.values() {
            match node.raft.propose(vec![commands::add(number)]).await {
                Ok(Committed { results, .. }) => {
                    // After a loss of the answer it may be there already.
                    assert!(results.len() == 1, "{results:?}");
                    return true;
                }
                Err(ProposeError::NotLeader { .. } | ProposeError::NoQuorum) => {}
                Err(error) => panic!("{error}"),
            }
        }
        false
    }

    /// Adds node `number`, however often that has to be tried.
    pub(in crate::raft) async fn add(&self, number: u64) {
        let began = Instant::now();
        while !self.try_add(number).await {
            assert!(began.elapsed() < PATIENCE, "no write gets through");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until all managers have nodes 1 to `last`, in equal states.
    pub(in crate::raft) async fn agree(&self, last: u64) {
        for (id, node) in &self.nodes {
            let all = |state: &std::sync::Arc<_>| (1..=last).all(|n| commands::has(state, n));
            let mut states = node.raft.watch_state();
            let waited = tokio::time::timeout(PATIENCE, states.wait_for(all)).await;
            assert!(waited.is_ok(), "manager {id} does not have all of {last}");
        }
        let began = Instant::now();
        loop {
            let hashes: Vec<_> = self
                .nodes
                .values()
                .map(|node| state_hash(&node.raft.state()))
                .collect();
            if hashes.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "the states differ: {hashes:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes.values() {
            node.dead.cancel();
        }
    }
}

pub(in crate::raft) fn address(id: u64) -> SocketAddr {
    let port = 2377;
    let last = u8::try_from(id).unwrap();
    SocketAddr::from(([10, 99, 0, last], port))
}
