//! The cluster's certificate authority: a root made once, and node certificates under it.
//!
//! A certificate says who a node is and nothing that the node itself could have asked for:
//! of a signing request only the public key is used. Subject, names and validity are ours.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use swarmlet_core::model::{ClusterId, NodeId, Role, RootCa};

/// How long a root is valid, as Docker Swarm's.
const ROOT_VALIDITY: Duration = Duration::days(20 * 365);

/// How long a node certificate is valid, as Docker Swarm's.
const NODE_VALIDITY: Duration = Duration::days(90);

/// Certificates are valid from this long before they were made: the clocks of the nodes need
/// not agree to the minute.
const BACKDATED: Duration = Duration::hours(1);

/// The largest signing request that is looked at. One for a P-256 key has about 300 bytes.
const MAX_CSR_BYTES: usize = 16 * 1024;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The request is none, is too large, or is not signed by its own key.
    #[error("invalid certificate signing request")]
    Request(#[source] Option<rcgen::Error>),
    /// The key in the request is of a kind that swarmlet does not use.
    #[error("the key in the certificate signing request is not an ECDSA P-256 key")]
    Algorithm,
    /// The root in the state is damaged, or the system gives no random bytes.
    #[error("cannot sign with the cluster's root key")]
    Root(#[source] rcgen::Error),
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The node; the certificate's `CN`.
    pub(crate) node: &'a NodeId,
    /// Its cluster; the certificate's `O`.
    pub(crate) cluster: &'a ClusterId,
    /// Its role; the certificate's `OU`.
    pub(crate) role: Role,
}

/// Makes the root of a new cluster.
pub(crate) fn new_root(cluster: &ClusterId, now: OffsetDateTime) -> Result<RootCa, CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Root)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "swarmlet-ca");
    params
        .distinguished_name
        .push(DnType::OrganizationName, cluster.as_str());
    params.not_before = now - BACKDATED;
    params.not_after = now + ROOT_VALIDITY;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(CaError::Root)?;
    Ok(RootCa {
        certificate: certificate.der().to_vec(),
        key: key.serialize_der(),
    })
}

/// Signs the public key of a request (PKCS #10 in DER); the certificate comes back in DER.
pub(crate) fn sign(
    root: &RootCa,
    csr: &[u8],
    subject: Subject<'_>,
    now: OffsetDateTime,
) -> Result<Vec<u8>, CaError> {
    if csr.len() > MAX_CSR_BYTES {
        return Err(CaError::Request(None));
    }
    let mut request =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
            .map_err(|error| CaError::Request(Some(error)))?;
    if rcgen::PublicKeyData::algorithm(&request.public_key) != &PKCS_ECDSA_P256_SHA256 {
        return Err(CaError::Algorithm);
    }
    request.params = node_params(subject, now)?;
    let certificate = request.signed_by(&issuer(root)?).map_err(CaError::Root)?;
    Ok(certificate.der().to_vec())
}

fn node_params(subject: Subject<'_>, now: OffsetDateTime) -> Result<CertificateParams, CaError> {
    let unit = format!("swarmlet-{}", subject.role);
    // The role is among the names, so that whoever dials a manager can insist on meeting one.
    let mut params = CertificateParams::new(vec![unit.clone(), subject.node.to_string()])
        .map_err(CaError::Root)?;
    params.distinguished_name = DistinguishedName::new();
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, subject.node.as_str());
    name.push(DnType::OrganizationalUnitName, unit);
    name.push(DnType::OrganizationName, subject.cluster.as_str());
    params.not_before = now - BACKDATED;
    params.not_after = now + NODE_VALIDITY;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn issuer(root: &RootCa) -> Result<Issuer<'static, KeyPair>, CaError> {
    let key = KeyPair::from_pkcs8_der_and_sign_algo(
        &PrivatePkcs8KeyDer::from(root.key.as_slice()),
        &PKCS_ECDSA_P256_SHA256,
    )
    .map_err(CaError::Root)?;
    Issuer::from_ca_cert_der(&CertificateDer::from(root.certificate.as_slice()), key)
        .map_err(CaError::Root)
}
