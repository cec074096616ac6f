use rcgen::{CertificateParams, DnType, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384};
use time::OffsetDateTime;

use swarmlet_core::model::{
    Cluster, ClusterId, ClusterSpec, JoinSecret, NodeId, Role, RootCa, Timestamp, Version,
};
use swarmlet_proto::identity::{Identity, PeerIdentity, new_key_and_csr};
use swarmlet_proto::token;

use super::{CaError, Subject, new_root, secret, sign};

const DAY_MS: u64 = 24 * 3600 * 1000;
const HOUR_MS: u64 = 3600 * 1000;

/// 2026-01-01.
const NOW_S: i64 = 1_767_225_600;

fn date() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW_S).unwrap()
}

fn cluster_id() -> ClusterId {
    ClusterId::from_random(1)
}

fn cluster() -> Cluster {
    let root_ca = new_root(&cluster_id(), date()).unwrap();
    Cluster {
        id: cluster_id(),
        version: Version(1),
        created_at: Timestamp(0),
        spec: ClusterSpec::default(),
        worker_secret: secret::rotate(&root_ca, Role::Worker).unwrap(),
        manager_secret: secret::rotate(&root_ca, Role::Manager).unwrap(),
        root_ca,
        schema: Cluster::SCHEMA,
        next_raft_id: 2,
        incarnation: 0,
    }
}

fn certify(root: &RootCa, csr: &[u8], role: Role) -> Result<Vec<u8>, CaError> {
    let subject = Subject {
        node: &NodeId::from_random(7),
        cluster: &cluster_id(),
        role,
    };
    sign(root, csr, subject, date())
}

#[test]
fn a_certificate_says_what_the_authority_knows() {
    let root = new_root(&cluster_id(), date()).unwrap();
    for role in [Role::Worker, Role::Manager] {
        let new = new_key_and_csr().unwrap();
        let certificate = certify(&root, &new.csr, role).unwrap();
        let identity = Identity::new(certificate, new.key, root.certificate.clone()).unwrap();
        assert_eq!(identity.node, NodeId::from_random(7));
        assert_eq!(identity.cluster, cluster_id());
        assert_eq!(identity.role, role);
        let now_ms = u64::try_from(NOW_S).unwrap() * 1000;
        assert_eq!(identity.not_before, Timestamp(now_ms - HOUR_MS));
        assert_eq!(identity.not_after, Timestamp(now_ms + 90 * DAY_MS));
    }
}

#[test]
fn what_a_request_asks_for_is_ignored() {
    let root = new_root(&cluster_id(), date()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut greedy = CertificateParams::new(vec!["swarmlet-manager".to_owned()]).unwrap();
    let name = &mut greedy.distinguished_name;
    name.push(DnType::CommonName, NodeId::from_random(1).to_string());
    name.push(DnType::OrganizationalUnitName, "swarmlet-manager");
    name.push(
        DnType::OrganizationName,
        ClusterId::from_random(99).to_string(),
    );
    greedy.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = greedy.serialize_request(&key).unwrap();

    let certificate = certify(&root, csr.der(), Role::Worker).unwrap();
    let der = rustls::pki_types::CertificateDer::from(certificate.clone());
    let peer = PeerIdentity::from_certificates(&[der]).unwrap();
    assert_eq!(
        (peer.node, peer.cluster, peer.role),
        (NodeId::from_random(7), cluster_id(), Role::Worker)
    );
    // Neither the role's name nor the wish to be an authority made it into the certificate.
    let contains = |text: &[u8]| certificate.windows(text.len()).any(|part| part == text);
    assert!(contains(b"swarmlet-worker"));
    assert!(!contains(b"swarmlet-manager"));
    // BasicConstraints with cA = TRUE.
    assert!(!contains(&[
        0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x05, 0x30, 0x03, 0x01, 0x01, 0xff
    ]));
}

#[test]
fn requests_that_are_none_are_refused() {
    let root = new_root(&cluster_id(), date()).unwrap();
    let mut forged = new_key_and_csr().unwrap().csr;
    *forged.last_mut().unwrap() ^= 1;
    for csr in [Vec::new(), vec![0x30; 64], vec![0; 1 << 20], forged] {
        let refused = certify(&root, &csr, Role::Worker);
        assert!(matches!(refused, Err(CaError::Request(_))), "{refused:?}");
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let refused = certify(&root, csr.der(), Role::Worker);
    assert!(matches!(refused, Err(CaError::Algorithm)), "{refused:?}");
}

#[test]
fn a_secret_gives_its_own_role() {
    let cluster = cluster();
    for role in [Role::Worker, Role::Manager] {
        let token = secret::token(&cluster, role);
        assert_eq!(
            token.ca_digest,
            token::ca_digest(&cluster.root_ca.certificate)
        );
        assert_eq!(secret::role_of(&cluster, &token.secret), Ok(Some(role)));
        let again: token::JoinToken = token.to_string().parse().unwrap();
        assert_eq!(again, token);
    }
}

#[test]
fn other_secrets_give_none() {
    let cluster = cluster();
    let right = secret::token(&cluster, Role::Worker).secret;
    let other = secret::token(&self::cluster(), Role::Worker).secret;
    let wrong = [
        "",
        "0",
        &right[1..],
        &format!("{}0", right.as_str()),
        &right.to_uppercase(),
        other.as_str(),
    ];
    for wrong in wrong {
        assert_eq!(secret::role_of(&cluster, wrong), Ok(None), "{wrong:?}");
    }
}

#[test]
fn rotation_makes_the_old_secret_worthless_and_leaves_the_other_role_alone() {
    let mut cluster = cluster();
    let old = secret::token(&cluster, Role::Worker).secret;
    let managers = secret::token(&cluster, Role::Manager).secret;
    cluster.worker_secret = secret::rotate(&cluster.root_ca, Role::Worker).unwrap();
    let new = secret::token(&cluster, Role::Worker).secret;
    assert_ne!(old, new);
    assert_eq!(secret::role_of(&cluster, &old), Ok(None));
    assert_eq!(secret::role_of(&cluster, &new), Ok(Some(Role::Worker)));
    assert_eq!(
        secret::role_of(&cluster, &managers),
        Ok(Some(Role::Manager))
    );
}

#[test]
fn roles_with_one_salt_still_have_different_secrets() {
    let mut cluster = cluster();
    cluster.manager_secret = JoinSecret {
        salt: cluster.worker_secret.salt,
        ..cluster.manager_secret
    };
    assert_ne!(
        secret::token(&cluster, Role::Worker).secret,
        secret::token(&cluster, Role::Manager).secret
    );
}
