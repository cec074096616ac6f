//! Who a node is: its certificate and key, on disk and as its peers see it.
//!
//! Every certificate of a cluster carries `CN` = node id, `OU` = [`role_name`] and `O` =
//! cluster id, and the role's name as well as the node id as DNS names, so that a client can
//! insist on the role of whom it calls.

mod file;

use std::fmt;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use swarmlet_core::model::{ClusterId, NodeId, Role, Timestamp};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};
use x509_parser::x509::AttributeTypeAndValue;
use zeroize::Zeroizing;

/// What a role is called in certificates, and the name under which its nodes are called.
#[must_use]
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Worker => "swarmlet-worker",
        Role::Manager => "swarmlet-manager",
    }
}

/// The node's own certificate, its key, and the root that it trusts.
///
/// `node`, `cluster`, `role` and the validity are read from the certificate, so that they can
/// never disagree with it.
#[derive(Clone)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its role.
    pub role: Role,
    /// When its certificate begins to be valid.
    pub not_before: Timestamp,
    /// When its certificate ends.
    pub not_after: Timestamp,
    /// The certificate in DER.
    pub certificate: CertificateDer<'static>,
    /// Its private key, PKCS #8 in DER.
    pub key: Zeroizing<Vec<u8>>,
    /// The cluster's root certificate in DER.
    pub root: CertificateDer<'static>,
}

/// Another node, as its verified certificate names it.
///
/// Servers of this crate attach it to each request as an extension where the caller has a
/// certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its role.
    pub role: Role,
    /// When its certificate ends; connections made with it end then, too. It may have ended before:
    /// see [`GRACE`](crate::tls::GRACE).
    pub not_after: Timestamp,
}

/// A fresh key, and the request to have it certified.
pub struct NewKey {
    /// Private key, PKCS #8 in DER.
    pub key: Zeroizing<Vec<u8>>,
    /// PKCS #10 request in DER. Of its contents only the public key counts.
    pub csr: Vec<u8>,
}

/// What can be wrong with an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A certificate cannot be read, or lacks what every certificate of a cluster has.
    #[error("unusable certificate: {0}")]
    Certificate(String),
    /// The private key cannot be read or belongs to another certificate.
    #[error("unusable private key")]
    Key(#[source] rustls::Error),
    /// A key could not be made.
    #[error("cannot make a key and its certificate request")]
    Request(#[source] rcgen::Error),
    /// The file is there but does not hold one certificate, one key and one root.
    #[error(
        "{path} is damaged: {reason}; restore it from a backup, or remove the node's data and join again"
    )]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Makes a key pair and a request for its certificate.
///
/// # Errors
/// [`IdentityError::Request`] where the system's random source fails.
pub fn new_key_and_csr() -> Result<NewKey, IdentityError> {
    let pair = rcgen::KeyPair::generate().map_err(IdentityError::Request)?;
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&pair)
        .map_err(IdentityError::Request)?;
    Ok(NewKey {
        key: Zeroizing::new(pair.serialize_der()),
        csr: csr.der().to_vec(),
    })
}

// === impl Identity ===

impl Identity {
    /// Puts an identity together from what the authority sent and the key that stayed here.
    ///
    /// Whether the root signed the certificate is left to the handshakes, which check it on
    /// both sides anyway.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] or [`IdentityError::Key`] where something is unreadable
    /// or the key is not that of the certificate.
    pub fn new(
        certificate: impl Into<Vec<u8>>,
        key: Zeroizing<Vec<u8>>,
        root: impl Into<Vec<u8>>,
    ) -> Result<Self, IdentityError> {
        let certificate = CertificateDer::from(certificate.into());
        let root = CertificateDer::from(root.into());
        parse(&root)?;
        let subject = Subject::read(&parse(&certificate)?)?;
        let identity = Self {
            node: subject.node,
            cluster: subject.cluster,
            role: subject.role,
            not_before: subject.not_before,
            not_after: subject.not_after,
            certificate,
            key,
            root,
        };
        crate::tls::check_key(&identity).map_err(IdentityError::Key)?;
        Ok(identity)
    }

    /// The private key as the TLS library takes it.
    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.to_vec()).into()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node", &self.node)
            .field("cluster", &self.cluster)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

// === impl PeerIdentity ===

impl PeerIdentity {
    /// Reads who the peer is from the chain that it presented, its own certificate first. The
    /// chain must have been verified before.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] unless the first certificate names exactly one node,
    /// cluster and role.
    pub fn from_certificates(chain: &[CertificateDer<'_>]) -> Result<Self, IdentityError> {
        let first = chain
            .first()
            .ok_or_else(|| IdentityError::Certificate("the chain is empty".to_owned()))?;
        let subject = Subject::read(&parse(first)?)?;
        Ok(Self {
            node: subject.node,
            cluster: subject.cluster,
            role: subject.role,
            not_after: subject.not_after,
        })
    }
}

/// What a certificate says of its node.
struct Subject {
    node: NodeId,
    cluster: ClusterId,
    role: Role,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Subject {
    fn read(certificate: &X509Certificate<'_>) -> Result<Self, IdentityError> {
        let bad = |reason: String| IdentityError::Certificate(reason);
        let name = certificate.subject();
        let node = only("common name", name, X509Name::iter_common_name)?;
        let cluster = only("organization", name, X509Name::iter_organization)?;
        let role = only(
            "organizational unit",
            name,
            X509Name::iter_organizational_unit,
        )?;
        Ok(Self {
            node: NodeId::parse(node).map_err(|error| bad(format!("common name: {error}")))?,
            cluster: ClusterId::parse(cluster)
                .map_err(|error| bad(format!("organization: {error}")))?,
            role: [Role::Worker, Role::Manager]
                .into_iter()
                .find(|&known| role_name(known) == role)
                .ok_or_else(|| bad(format!("unknown role {role:?}")))?,
            not_before: moment(certificate.validity().not_before.timestamp()),
            not_after: moment(certificate.validity().not_after.timestamp()),
        })
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(IdentityError::Certificate(
            "bytes follow after its end".to_owned(),
        )),
        Err(error) => Err(IdentityError::Certificate(error.to_string())),
    }
}

/// The value of an attribute that must be there exactly once: were there two, two readers
/// might disagree on which one counts.
fn only<'a, I>(
    what: &str,
    name: &'a X509Name<'a>,
    attributes: impl FnOnce(&'a X509Name<'a>) -> I,
) -> Result<&'a str, IdentityError>
where
    I: Iterator<Item = &'a AttributeTypeAndValue<'a>>,
{
    let bad = |reason: String| IdentityError::Certificate(reason);
    let mut attributes = attributes(name);
    let (Some(first), None) = (attributes.next(), attributes.next()) else {
        return Err(bad(format!("it has not exactly one {what}")));
    };
    first
        .as_str()
        .map_err(|error| bad(format!("{what}: {error}")))
}

/// Seconds since 1970 as a timestamp; a date before that is as long past as can be.
fn moment(seconds: i64) -> Timestamp {
    Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}
