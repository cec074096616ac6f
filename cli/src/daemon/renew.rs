//! Renews the node's certificate before it ends.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use swarmlet_agent::Agent;
use swarmlet_core::model::{Role, Timestamp};
use swarmlet_proto::clock;
use swarmlet_proto::identity::{Identity, new_key_and_csr};
use swarmlet_proto::transport::{IdentityStore, channel};
use swarmlet_proto::v1;
use swarmlet_proto::v1::ca_client::CaClient;
use tokio_util::sync::CancellationToken;

/// Pause after an attempt that failed: there are weeks left for the next.
const RETRY: Duration = Duration::from_secs(5 * 60);

/// The same once the certificate has ended: until there is another one the node has no session.
/// Managers that were off as well have to elect a leader first.
const RETRY_ENDED: Duration = Duration::from_secs(1);

/// Time for an answer.
const DEADLINE: Duration = Duration::from_secs(15);

/// The longest sleep: a machine that was suspended must not sleep on by a clock that stood.
const NAP: Duration = Duration::from_secs(3600);

/// Runs until `stop`.
pub(super) async fn run(
    directory: PathBuf,
    identities: IdentityStore,
    agent: Arc<Agent>,
    stop: CancellationToken,
) {
    loop {
        let due = due(&identities.identity());
        while clock::now() < due {
            tokio::select! {
                () = tokio::time::sleep(clock::until(due).min(NAP)) => {}
                () = stop.cancelled() => return,
            }
        }
        match renew(&directory, &identities, &agent).await {
            Ok(()) => tracing::info!("renewed the node's certificate"),
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "cannot renew the node's certificate yet"
                );
                let ended = identities.identity().not_after <= clock::now();
                let pause = if ended { RETRY_ENDED } else { RETRY };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}

/// When to renew: somewhere between 50 and 80 % of the
/// certificate's life, so that nodes that joined together do not all come at once.
fn due(identity: &Identity) -> Timestamp {
    let random = RandomState::new().hash_one(identity.node.as_str()) % 1000;
    Timestamp(share(identity.not_before.0, identity.not_after.0, random))
}

fn share(begin: u64, end: u64, thousandths: u64) -> u64 {
    let life = end.saturating_sub(begin);
    begin + life / 2 + life / 1000 * 300 * thousandths / 1000
}

async fn renew(
    directory: &std::path::Path,
    identities: &IdentityStore,
    agent: &Agent,
) -> Result<()> {
    let session = agent.connected().borrow().manager;
    let mut failed = anyhow::anyhow!("no manager is known");
    // Without a session the others are asked as well: one that has ended opens none.
    for manager in candidates(session, agent.managers()) {
        match ask(manager, identities, None).await {
            Ok(Renewed { identity, .. }) => {
                identity.save(directory)?;
                identities.replace(identity)?;
                return Ok(());
            }
            Err(error) => failed = error.context(format!("the manager at {manager}")),
        }
    }
    Err(failed)
}

/// The managers in the order in which they are asked.
fn candidates(session: Option<SocketAddr>, known: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let others = known.into_iter().filter(|&known| Some(known) != session);
    session.into_iter().chain(others).collect()
}

/// What a renewal came to.
pub(super) struct Renewed {
    /// With the role that the managers see the node in.
    pub(super) identity: Identity,
    /// Its number among the voters, for a manager.
    pub(super) raft_id: u64,
    /// All managers.
    pub(super) managers: Vec<SocketAddr>,
    /// The cluster's incarnation.
    pub(super) incarnation: u64,
}

/// Asks a manager for a new certificate. With an address a node that is to be a manager gets
/// its place among them.
///
/// # Errors
/// The manager's, or that it does not answer.
pub(super) async fn ask(
    manager: SocketAddr,
    identities: &IdentityStore,
    advertise: Option<SocketAddr>,
) -> Result<Renewed> {
    let key = new_key_and_csr()?;
    let mut client = CaClient::new(channel(manager, identities, Role::Manager));
    let request = v1::RenewRequest {
        csr: key.csr.clone(),
        address: advertise
            .map(|address| address.to_string())
            .unwrap_or_default(),
    };
    let answer = tokio::time::timeout(DEADLINE, client.renew(request))
        .await
        .context("the manager does not answer")?
        .map_err(|status| anyhow::anyhow!("{}", status.message()))?
        .into_inner();
    let managers = answer
        .managers
        .iter()
        .map(|manager| manager.address.parse())
        .collect::<Result<_, _>>()
        .context("the manager's answer cannot be used")?;
    Ok(Renewed {
        identity: Identity::new(answer.certificate, key.key, answer.root)?,
        raft_id: answer.raft_id,
        managers,
        incarnation: answer.incarnation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_in_the_second_half_of_a_life() {
        assert_eq!(share(1000, 101_000, 0), 51_000);
        assert_eq!(share(1000, 101_000, 1000), 81_000);
        assert_eq!(share(1000, 1000, 500), 1000);
    }

    #[test]
    fn a_node_without_a_session_asks_every_manager_that_it_knows() {
        let [one, two] = [1, 2].map(|host| SocketAddr::from(([10, 0, 0, host], 2377)));
        assert_eq!(candidates(None, vec![one, two]), [one, two]);
        assert_eq!(candidates(Some(two), vec![one, two]), [two, one]);
        assert_eq!(candidates(None, Vec::new()), []);
    }
}
