//! Nodes that were off until after their certificates had ended.

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};
use tonic::Code;
use zeroize::Zeroizing;

use swarmlet_core::model::{Role, RootCa};
use swarmlet_proto::identity::{Identity, new_key_and_csr, role_name};
use swarmlet_proto::v1;
use swarmlet_proto::v1::ca_client::CaClient;

use crate::agent::Agent;
use crate::harness::{Node, channel, join, until};

/// What is left of a certificate when its node is switched off for 120 days: it would have been
/// renewed after 80 % of 90 days.
const ENDED_DAYS: i64 = 120 - 18;

fn root(node: &Node) -> RootCa {
    node.manager.state().cluster().unwrap().root_ca.clone()
}

/// The identity with a certificate of the cluster's that ended so many days ago.
fn ended(identity: &Identity, root: &RootCa, days: i64) -> Identity {
    let role = role_name(identity.role).to_owned();
    let names = vec![role.clone(), identity.node.to_string()];
    let mut params = CertificateParams::new(names).unwrap();
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, identity.node.as_str());
    name.push(DnType::OrganizationalUnitName, role);
    name.push(DnType::OrganizationName, identity.cluster.as_str());
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.not_after = OffsetDateTime::now_utc() - Duration::days(days);
    params.not_before = params.not_after - Duration::days(90);
    let key = KeyPair::try_from(identity.key.as_slice()).unwrap();
    let authority = KeyPair::try_from(&PrivatePkcs8KeyDer::from(root.key.as_slice())).unwrap();
    let issuer = CertificateDer::from(root.certificate.as_slice());
    let issuer = Issuer::from_ca_cert_der(&issuer, authority).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().der().to_vec();
    let key = Zeroizing::new(identity.key.to_vec());
    Identity::new(certificate, key, root.certificate.clone()).unwrap()
}

/// Asks for another certificate, as the node's daemon does.
async fn renew(identity: &Identity, node: &Node) -> Result<Identity, tonic::Status> {
    let new = new_key_and_csr().unwrap();
    let mut ca = CaClient::new(channel(identity, node.address));
    let request = v1::RenewRequest {
        csr: new.csr,
        ..Default::default()
    };
    let answer = ca.renew(request).await?.into_inner();
    Ok(Identity::new(answer.certificate, new.key, answer.root).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_off_for_120_days_renews_by_its_known_key() {
    let first = Node::first().await;
    let second = first.another().await;
    let token = first.token(Role::Worker).await;
    let worker = join(first.address, &token, "").await.unwrap().identity;
    let off = ended(&worker, &root(&first), ENDED_DAYS);

    // Before it has renewed it has no session, and hears why.
    let agent = Agent::start("w1", off.clone(), &[&first]);
    until("the session is refused", async || {
        let seen = agent.seen.lock().unwrap();
        let status = seen.last_error.as_ref()?;
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("renew it first"), "{status}");
        Some(())
    })
    .await;
    drop(agent);
    for node in [&first, &second] {
        let renewed = renew(&off, node).await.unwrap();
        assert_eq!((&renewed.node, renewed.role), (&off.node, Role::Worker));
        let agent = Agent::start("w1", renewed, &[node]);
        agent.is_ready(&first).await;
    }

    let too_late = ended(&worker, &root(&first), 181);
    let refused = renew(&too_late, &first).await.unwrap_err();
    // The connection breaks, before the call or under it.
    let broken = [Code::Unavailable, Code::Cancelled, Code::Unknown];
    assert!(broken.contains(&refused.code()), "{refused}");
    let request = v1::RemoveNodeRequest {
        id: worker.node.to_string(),
        force: true,
    };
    first.control().remove_node(request).await.unwrap();
    until("a removed node is refused", async || {
        renew(&off, &second).await.err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_that_were_all_off_for_120_days_elect_and_renew() {
    let first = Node::first().await;
    let second = first.another().await;
    let third = first.another().await;
    first.create("ng", 1, 8080).await.unwrap();
    let root = root(&first);
    for node in [&first, &second, &third] {
        node.kill().await;
    }
    let mut nodes = Vec::new();
    for node in [first, second, third] {
        let identities = node.manager.identities().clone();
        let off = ended(&identities.identity(), &root, ENDED_DAYS);
        identities.replace(off).unwrap();
        nodes.push(node.restart().await);
    }
    until("one of them leads", async || {
        nodes.iter().any(Node::leads).then_some(())
    })
    .await;
    for node in &nodes {
        let identities = node.manager.identities();
        let off = identities.identity();
        let renewed = until("a renewal", async || renew(&off, node).await.ok()).await;
        assert_eq!((&renewed.node, renewed.role), (&off.node, Role::Manager));
        assert!(renewed.not_after > off.not_after);
        identities.replace(renewed).unwrap();
    }
    let found = nodes[0].service("ng").await;
    assert!(found.is_some(), "everything is there as it was");
}
