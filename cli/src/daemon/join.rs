//! The way into a cluster: managers are asked in turn, each known by the digest in the token
//! only, until one of them signs this node's certificate.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use swarmlet_core::model::{NodeDescription, Role};
use swarmlet_proto::identity::{Identity, NewKey, new_key_and_csr};
use swarmlet_proto::transport::{JoinError, pinned_channel};
use swarmlet_proto::v1;
use swarmlet_proto::v1::ca_client::CaClient;
use tonic::Code;

use super::advertise::advertise;
use super::node::JoinWish;
use super::resolve::resolve;

/// Time for a manager to sign: it may have to wait for an election.
const SIGN_DEADLINE: Duration = Duration::from_secs(15);

/// What joining came to.
pub(super) struct Joined {
    pub(super) identity: Identity,
    pub(super) advertise: SocketAddr,
    pub(super) raft_id: Option<u64>,
    pub(super) managers: Vec<SocketAddr>,
    pub(super) incarnation: u64,
}

/// Asks for membership. The address in `description` is found out on the way.
///
/// # Errors
/// A refusal at once, with its reason; where nobody could be asked, why, for each address.
pub(super) async fn join(
    wish: &JoinWish,
    listen: SocketAddr,
    description: &NodeDescription,
) -> Result<Joined> {
    let mut failures: Vec<String> = Vec::new();
    for remote in &wish.remotes {
        let addresses = match resolve(remote).await {
            Ok(addresses) => addresses,
            Err(error) => {
                failures.push(format!("{error}; {}", error.remedy()));
                continue;
            }
        };
        for address in addresses {
            match ask(wish, address, listen, description).await {
                Ok(joined) => return Ok(joined),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Elsewhere(error)) => failures.push(format!("{error:#}")),
            }
        }
    }
    bail!("{}", failures.join("; "))
}

/// Why one manager was asked in vain.
enum Failure {
    /// Another would answer the same.
    Final(anyhow::Error),
    /// Another may help.
    Elsewhere(anyhow::Error),
}

async fn ask(
    wish: &JoinWish,
    address: SocketAddr,
    listen: SocketAddr,
    description: &NodeDescription,
) -> Result<Joined, Failure> {
    let own = advertise(&wish.advertise, listen, Some(address)).map_err(Failure::Final)?;
    if own == address {
        return Err(Failure::Elsewhere(anyhow::anyhow!(
            "{address} is this node's own address; name a manager of the swarm that it is to join"
        )));
    }
    let channel = pinned_channel(address, wish.token.ca_digest)
        .await
        .map_err(|error| match error {
            JoinError::WrongDigest { .. } => Failure::Final(error.into()),
            other => Failure::Elsewhere(other.into()),
        })?;
    let key = new_key_and_csr().map_err(|error| Failure::Final(error.into()))?;
    let request = v1::JoinRequest {
        secret: wish.token.secret.to_string(),
        csr: key.csr.clone(),
        address: own.to_string(),
        availability: wish.availability.to_string(),
        description: Some(v1::NodeDescription {
            address: own.ip().to_string(),
            ..description.into()
        }),
    };
    let mut client = CaClient::new(channel);
    let answer = match tokio::time::timeout(SIGN_DEADLINE, client.join(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => {
            let error = anyhow::anyhow!("{}", status.message());
            return Err(match status.code() {
                Code::Unavailable | Code::Unknown | Code::DeadlineExceeded | Code::Cancelled => {
                    Failure::Elsewhere(
                        error.context(format!("the manager at {address} cannot help")),
                    )
                }
                _ => Failure::Final(error),
            });
        }
        Err(_) => {
            return Err(Failure::Elsewhere(anyhow::anyhow!(
                "the manager at {address} did not answer within {} s",
                SIGN_DEADLINE.as_secs()
            )));
        }
    };
    read(answer, key, own).map_err(Failure::Final)
}

fn read(answer: v1::JoinResponse, key: NewKey, advertise: SocketAddr) -> Result<Joined> {
    let identity = Identity::new(answer.certificate, key.key, answer.root)
        .context("the manager's answer cannot be used")?;
    let managers = answer
        .managers
        .iter()
        .map(|manager| manager.address.parse())
        .collect::<Result<Vec<SocketAddr>, _>>()
        .context("the manager's answer cannot be used")?;
    let raft_id = (identity.role == Role::Manager).then_some(answer.raft_id);
    Ok(Joined {
        identity,
        advertise,
        raft_id,
        managers,
        incarnation: answer.incarnation,
    })
}
