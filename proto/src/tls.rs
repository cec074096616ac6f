//! TLS configurations between nodes: version 1.3 only, HTTP/2 only, certificates of the
//! cluster's own authority only.
//!
//! The cryptography provider is passed to each builder, so that nothing depends on a default
//! of the process. Sessions are never resumed: a resumed session would skip the check of a
//! certificate that has expired or been replaced meanwhile, and connections here live long.

mod grace;
mod pinned;

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use swarmlet_core::model::Role;

use self::grace::Lenient;
use crate::identity::{Identity, role_name};

pub use grace::GRACE;
pub use pinned::{WrongDigest, pinned_config};

/// HTTP/2, the only protocol spoken over these connections.
const ALPN: &[u8] = b"h2";

/// An identity that no TLS configuration can be made of.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificates or the key do not fit the TLS library.
    #[error("unusable TLS identity")]
    Identity(#[from] rustls::Error),
    /// The root cannot be used to verify others.
    #[error("unusable root certificate")]
    Root(#[from] VerifierBuilderError),
    /// The identity that is to replace the current one belongs to another node.
    #[error("identity of node {found} cannot replace that of node {expected}")]
    OtherNode {
        /// The node that the store is of.
        expected: String,
        /// The node that was offered.
        found: String,
    },
}

/// The server's side.
///
/// A caller without a certificate is let in, because a node that joins has none yet; what it
/// may call is for the access rules to say. A certificate that is presented must be valid, or
/// have ended not longer than [`GRACE`] ago.
///
/// # Errors
/// [`TlsError`] where the identity is unusable.
pub fn server_config(identity: &Identity) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let roots = Arc::new(roots(&identity.root)?);
    let verifier: Arc<dyn ClientCertVerifier> =
        WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .allow_unauthenticated()
            .build()?;
    // The root goes along: a node that joins knows nothing but its digest.
    let chain = vec![identity.certificate.clone(), identity.root.clone()];
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(Lenient(verifier)))
        .with_single_cert(chain, identity.private_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The client's side. The role of whom it calls is in the [`server_name`] it dials.
///
/// # Errors
/// [`TlsError`] where the identity is unusable.
pub fn client_config(identity: &Identity) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let roots = Arc::new(roots(&identity.root)?);
    let strict: Arc<dyn ServerCertVerifier> =
        WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
    let verifier: Arc<dyn ServerCertVerifier> = match identity.role {
        Role::Manager => Arc::new(Lenient(strict)),
        Role::Worker => strict,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.private_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The name under which a node of that role is dialled, and which its certificate must carry.
#[must_use]
pub fn server_name(role: Role) -> ServerName<'static> {
    ServerName::try_from(role_name(role)).expect("the names of roles are valid DNS names")
}

/// Checks that the key can be used and is that of the certificate.
pub(crate) fn check_key(identity: &Identity) -> Result<(), rustls::Error> {
    let chain = vec![identity.certificate.clone()];
    CertifiedKey::from_der(chain, identity.private_key(), &provider()).map(drop)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(root: &CertificateDer<'static>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone())?;
    Ok(roots)
}
