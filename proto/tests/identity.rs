//! Identities on disk and in certificates.

// Everything here is test code, but the lint knows it in `#[test]` functions only.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{CertificateParams, DnType, KeyPair};
use support::{Authority, CLUSTER, Leaf};
use swarmlet_core::model::{ClusterId, NodeId, Role};
use swarmlet_proto::identity::{Identity, IdentityError, PeerIdentity, new_key_and_csr};
use zeroize::Zeroizing;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_identity_comes_back_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data").join("certificates");
    assert!(Identity::load(&path).unwrap().is_none());
    let authority = Authority::new();
    for node in [1, 2] {
        let identity = authority.sign(&Leaf::of(node, Role::Manager));
        identity.save(&path).unwrap();
        let loaded = Identity::load(&path).unwrap().unwrap();
        assert_eq!(loaded.node, NodeId::from_random(node));
        assert_eq!(loaded.cluster, ClusterId::from_random(CLUSTER));
        assert_eq!(loaded.role, Role::Manager);
        assert_eq!(loaded.certificate, identity.certificate);
        assert_eq!(loaded.key, identity.key);
        assert_eq!(loaded.root, identity.root);
        assert!(loaded.not_before < loaded.not_after);
    }
    let names: Vec<_> = fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["node.pem"]);
}

#[test]
fn files_are_the_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("certificates");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
    // Left by a crash, or planted: nothing secret may be written into it.
    let planted = path.join("node.pem.new");
    fs::write(&planted, "").unwrap();
    fs::set_permissions(&planted, Permissions::from_mode(0o666)).unwrap();
    let identity = Authority::new().sign(&Leaf::of(1, Role::Worker));
    identity.save(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("node.pem")), 0o600);
}

#[test]
fn damage_is_told_from_absence() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.pem");
    let authority = Authority::new();
    authority
        .sign(&Leaf::of(1, Role::Worker))
        .save(directory.path())
        .unwrap();
    let whole = fs::read_to_string(&file).unwrap();
    let check = |text: &str, expected: &str| {
        fs::write(&file, text).unwrap();
        let error = Identity::load(directory.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    let missing = "expected a certificate, a private key and a root certificate";
    check("", missing);
    let (_, without_first) = whole.split_once("-----END CERTIFICATE-----\n").unwrap();
    check(without_first, missing);
    check(&whole[..whole.len() - 30], "node.pem is damaged");

    // The key of another certificate.
    authority
        .sign(&Leaf::of(1, Role::Worker))
        .save(directory.path())
        .unwrap();
    let other = fs::read_to_string(&file).unwrap();
    let cut = |text: &str| text.find("-----BEGIN PRIVATE").unwrap();
    let mixed = format!("{}{}", &whole[..cut(&whole)], &other[cut(&other)..]);
    check(&mixed, "unusable private key");
}

#[test]
fn a_request_is_enough_for_a_certificate() {
    let request = new_key_and_csr().unwrap();
    let params = rcgen::CertificateSigningRequestParams::from_der(&request.csr.into()).unwrap();
    let key = KeyPair::try_from(request.key.as_slice()).unwrap();
    let expected = rcgen::PublicKeyData::der_bytes(&key);
    assert_eq!(
        rcgen::PublicKeyData::der_bytes(&params.public_key),
        expected
    );
    let authority = Authority::new();
    let certificate = authority.certificate(&Leaf::of(5, Role::Worker), &key);
    let identity = Identity::new(certificate, request.key, authority.certificate).unwrap();
    assert_eq!(identity.node, NodeId::from_random(5));
}

#[test]
fn keys_are_not_printed() {
    let identity = Authority::new().sign(&Leaf::of(1, Role::Worker));
    let text = format!("{identity:?}");
    assert!(text.contains(identity.node.as_str()));
    let key = format!("{:?}", *identity.key);
    assert!(!text.contains(key.trim_matches(['[', ']'])), "{text}");
}

#[track_caller]
fn refused(names: &[(DnType, &str)], expected: &str) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in names {
        params.distinguished_name.push(kind.clone(), *value);
    }
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let error = PeerIdentity::from_certificates(std::slice::from_ref(&certificate)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("unusable certificate: {expected}")
    );
    let key = Zeroizing::new(key.serialize_der());
    Identity::new(certificate.to_vec(), key, certificate.to_vec()).unwrap_err();
}

#[test]
fn certificates_name_one_node_cluster_and_role() {
    let id = "0000000000000000000000001";
    let node = (DnType::CommonName, id);
    let cluster = (DnType::OrganizationName, id);
    refused(&[], "it has not exactly one common name");
    refused(
        std::slice::from_ref(&node),
        "it has not exactly one organization",
    );
    refused(
        &[node.clone(), cluster.clone()],
        "it has not exactly one organizational unit",
    );
    refused(
        &[
            node.clone(),
            cluster.clone(),
            (DnType::OrganizationalUnitName, "swarmlet-admin"),
        ],
        "unknown role \"swarmlet-admin\"",
    );
    refused(
        &[
            (DnType::CommonName, "host1"),
            cluster,
            (DnType::OrganizationalUnitName, "swarmlet-worker"),
        ],
        "common name: invalid id \"host1\": expected 25 characters of 0-9a-z",
    );
    let error = PeerIdentity::from_certificates(&[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unusable certificate: the chain is empty"
    );
    let error = PeerIdentity::from_certificates(&[vec![48, 3, 1].into()]).unwrap_err();
    assert!(matches!(error, IdentityError::Certificate(_)));
}
