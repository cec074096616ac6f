//! Certificates that ended while their node was off.
//!
//! A node that comes back after months has its key and a certificate that has ended. It must be let
//! in to ask for another one, and nobody should have to carry a token to it. So for [`GRACE`] after
//! its end a certificate still tells who calls; that it has ended is in
//! [`PeerIdentity::not_after`](crate::identity::PeerIdentity::not_after), and what may be called
//! with it, a renewal first of all, is for the access rules to say.
//!
//! Managers accept each other's for as long when they call: where all of them were off together,
//! there is nobody else to sign. Workers do not: the managers renew theirs first.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// How long after its end a certificate still tells who a node is. Nodes renew after 50 to 80 % of
/// 90 days, so this leaves any node that was well before at least 198 days to be off.
pub const GRACE: Duration = Duration::from_secs(180 * 24 * 3600);

/// Verifies as the one within does, and a certificate that has ended as of its last moment.
pub(super) struct Lenient<V: ?Sized>(pub(super) Arc<V>);

impl<V: ?Sized> Lenient<V> {
    fn verify<T>(
        &self,
        now: UnixTime,
        verify: impl Fn(&V, UnixTime) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match verify(&self.0, now) {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) if now.as_secs() <= not_after.as_secs().saturating_add(GRACE.as_secs()) => {
                verify(&self.0, not_after)
            }
            verified => verified,
        }
    }
}

impl<V: ?Sized + fmt::Debug> fmt::Debug for Lenient<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lenient").field(&self.0).finish()
    }
}

impl ClientCertVerifier for Lenient<dyn ClientCertVerifier> {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(now, |within, at| {
            within.verify_client_cert(end_entity, intermediates, at)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Lenient<dyn ServerCertVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(now, |within, at| {
            within.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
