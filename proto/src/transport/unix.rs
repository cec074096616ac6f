//! The socket between the command line and the daemon of its own machine.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::connection::Connection;
use super::server::{self, ServeError};

/// Owner and group may command the daemon, nobody else.
const MODE: u32 = 0o660;

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
    let _removed_at_the_end = Socket(path.to_owned());
    let (sender, accepted) = mpsc::channel(1);
    let closing = CancellationToken::new();
    let accept = accept(listener, closing.clone(), sender);
    server::run(routes, accepted, accept, closing, shutdown).await
}

async fn accept(
    listener: UnixListener,
    closing: CancellationToken,
    sender: mpsc::Sender<Connection<UnixStream, ()>>,
) -> Infallible {
    loop {
        let (stream, _) = server::next(|context| listener.poll_accept(context)).await;
        let connection = Connection::new(stream, (), closing.clone().cancelled_owned());
        // Sending fails only while the server ends, and the connection with it.
        drop(sender.send(connection).await);
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
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another daemon listens on it",
            ));
        }
        Ok(_) => {}
    }
    // Made under another name and put in place with its mode, because between bind and chmod
    // the umask alone would say who may connect.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(MODE))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

/// The socket's name, removed when the server ends.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "the socket is gone already");
        }
    }
}
