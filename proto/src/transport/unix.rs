//! The socket between the command line and the daemon of its own machine.

use std::fs::{self, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::server::{ServeError, server};

/// Owner and group may command the daemon, nobody else.
const MODE: u32 = 0o660;

/// As for the port: calls under way may finish, watches are cut.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// A channel to the daemon that listens on a socket. It connects with the first call.
#[must_use]
pub fn unix_channel(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // Both ends are on one machine: where the daemon dies, the kernel closes the socket, and
    // keepalive would only report a debugger's breakpoint as a failure.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

/// Serves the routes on a socket until `shutdown` is ready, and removes the socket then.
///
/// A socket that a dead daemon left behind is replaced; one that somebody listens on is not,
/// and neither is a file of any other kind.
///
/// # Errors
/// [`ServeError`] where the socket cannot be made, or the HTTP server fails.
pub async fn serve_unix(
    path: &Path,
    routes: Routes,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let listener = listen(path).await.map_err(|source| ServeError::Socket {
        path: path.display().to_string(),
        source,
    })?;
    let _socket = RemovedAtTheEnd(path.to_owned());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving =
        server().serve_with_incoming_shutdown(routes, UnixListenerStream::new(listener), async {
            // An error means that the sender is gone, which is the end as well.
            let _ = stopped.await;
        });
    tokio::pin!(serving);
    tokio::select! {
        result = &mut serving => return Ok(result?),
        () = shutdown => drop(stop),
    }
    match tokio::time::timeout(SHUTDOWN_GRACE, serving).await {
        Ok(result) => Ok(result?),
        // What is still open now ends with the process.
        Err(_) => Ok(()),
    }
}

async fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file of that name, and it is no socket",
            ));
        }
        Ok(_) => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another daemon listens on it",
                ));
            }
            fs::remove_file(path)?;
        }
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    Ok(listener)
}

struct RemovedAtTheEnd(PathBuf);

impl Drop for RemovedAtTheEnd {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "the socket is gone already");
        }
    }
}
