//! The channel of a node that joins.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::CertificateError;
use swarmlet_core::model::Role;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;
use tower::service_fn;

use super::channel::{dial, endpoint};
use crate::tls::{self, WrongDigest};

/// A person waits for the answer, perhaps over a slow line: longer than between nodes, which
/// leaves the time for two lost SYNs.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why a cluster cannot be joined at an address.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody accepts connections there.
    #[error(
        "cannot reach a manager at {address}: {cause} (is the address right, and is the port \
         open between the hosts?)"
    )]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// Why, in the system's words; no `source`, because the advice comes after it.
        cause: io::Error,
    },
    /// The root certificate there is not the one of the token.
    #[error(
        "the certificate of the swarm at {address} does not match the digest in the join token (is \
         it that swarm's token? run `swarmlet join-token worker|manager` there)"
    )]
    WrongDigest {
        /// Where.
        address: SocketAddr,
    },
    /// The root is the right one, but not the rest.
    #[error("the certificate of the manager at {address} is not valid: {reason}")]
    Certificate {
        /// Where.
        address: SocketAddr,
        /// What the TLS library says.
        reason: String,
    },
    /// Something else answers there.
    #[error("what answers at {address} is no swarm manager: {reason}")]
    NotAManager {
        /// Where.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
}

/// Connects to a manager that is known by the digest of its cluster's root only, without a
/// certificate of one's own.
///
/// The first connection is made at once, because its failure has a cause that the user must
/// see, and channels that connect later only say `Unavailable`.
///
/// # Errors
/// [`JoinError`] says which of the possible mistakes it was.
pub async fn pinned_channel(
    address: SocketAddr,
    ca_digest: [u8; 32],
) -> Result<Channel, JoinError> {
    let not_a_manager = |reason: String| JoinError::NotAManager { address, reason };
    let config = tls::pinned_config(ca_digest).map_err(|error| not_a_manager(error.to_string()))?;
    let config = Arc::new(config);
    let name = tls::server_name(Role::Manager);
    let first = dial(address, config.clone(), name.clone(), DEADLINE)
        .await
        .map_err(|error| explain(address, error))?;
    let first: Mutex<Option<TlsStream<TcpStream>>> = Mutex::new(Some(first));
    let connector = service_fn(move |_| {
        let made = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (config, name) = (config.clone(), name.clone());
        async move {
            match made {
                Some(stream) => Ok(TokioIo::new(stream)),
                None => dial(address, config, name, DEADLINE)
                    .await
                    .map(TokioIo::new),
            }
        }
    });
    let channel = endpoint().connect_with_connector(connector).await;
    channel.map_err(|error| not_a_manager(error.to_string()))
}

/// Finds the cause of a failed connection in its chain of errors.
fn explain(address: SocketAddr, error: io::Error) -> JoinError {
    let Some(tls) = tls_error(&error) else {
        // An end in the middle of the handshake: it took the connection, but not our hello.
        if error.kind() == io::ErrorKind::UnexpectedEof {
            let reason = "it closed the connection".to_owned();
            return JoinError::NotAManager { address, reason };
        }
        let cause = innermost(error);
        return JoinError::Unreachable { address, cause };
    };
    match tls {
        rustls::Error::InvalidCertificate(CertificateError::Other(other))
            if other.0.is::<WrongDigest>() =>
        {
            JoinError::WrongDigest { address }
        }
        rustls::Error::InvalidCertificate(reason) => JoinError::Certificate {
            address,
            reason: reason.to_string(),
        },
        other => JoinError::NotAManager {
            address,
            reason: other.to_string(),
        },
    }
}

/// [`dial`] wraps the error to name the address; messages here name it themselves.
fn innermost(error: io::Error) -> io::Error {
    let kind = error.kind();
    let Some(source) = error.get_ref().and_then(|inner| inner.source()) else {
        return error;
    };
    io::Error::new(kind, source.to_string())
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        // `source` of an I/O error skips the error inside and returns that one's source.
        cause = match current.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => current.source(),
        };
    }
    None
}
