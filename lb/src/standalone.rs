//! The balancer by itself: a configuration file takes the place of the daemon.
//!
//! SIGHUP has the file read again. Its listeners and endpoints come into force
//! as a table does, and its limits, access log and page with them, without touching
//! a connection; a file with a flaw is refused with the line and the reason, and what was in force stays. SIGTERM drains and
//! ends, a second one ends at once.
//!
//! A second process replaces the first one, with another version of the program
//! or with settings that take a restart, if it is told to take over
//! ([`Start::TakeOver`]).

mod file;
mod flaw;
mod page;
mod reload;
mod takeover;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tokio::signal::unix::{SignalKind, signal};

use self::{
    file::File,
    page::{Page, Place, Taken},
    reload::Reloading,
    takeover::Predecessor,
};
use crate::{
    balancer::Handle,
    control::{ClientError, server::ControlSocket},
    run::{self, Running},
};

/// Why the configuration file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not say what it should.
    #[error("{}, line {line}: {reason}", path.display())]
    Flaw {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// It changes what is settled when the balancer starts.
    #[error(
        "{}: control, ingress, threads, drain_timeout_ms and timeouts cannot change while the \
         balancer runs: replace it, with --takeover, or leave them as they were",
        path.display()
    )]
    Restart {
        /// The file.
        path: PathBuf,
    },
    /// The access log that it names cannot be written.
    #[error("{}: cannot open the access log {}", path.display(), log.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// The access log.
        log: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The page for Prometheus cannot be at the address that it names.
    #[error(
        "{}: metrics = \"{address}\": cannot listen there, name an address of this machine that \
         nobody has",
        path.display()
    )]
    Page {
        /// The file.
        path: PathBuf,
        /// Where the page was to be.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The balancer took no table from it.
    #[error("{}: {reason}", path.display())]
    NotInForce {
        /// The file.
        path: PathBuf,
        /// What the balancer said.
        reason: String,
    },
}

/// Why the balancer could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration file was refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The balancer cannot run as it says.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// There is no way to the balancer that runs.
    #[error("{} names no control socket, without which no balancer is found to take over from", .0.display())]
    NoControl(PathBuf),
    /// The balancer that runs does not hand over. It goes on.
    #[error("cannot take over from the balancer that runs")]
    TakeOver(#[source] ClientError),
}

/// What becomes of a balancer that runs at the file's control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It stays, and starting another one is an error.
    Alone,
    /// Its listening sockets are taken over, clients in their queues included;
    /// it keeps the connections that it has, and ends with them or when the
    /// drain timeout of the new file is over. It need not be there.
    TakeOver,
}

/// Runs a balancer by a configuration file, on the tokio runtime of the caller,
/// until SIGTERM. The file is in TOML:
///
/// ```toml
/// # All but the listeners is optional.
/// max_connections = 10000       # what the limit of open files allows if left out
/// max_buffered = 268435456      # bytes
/// max_connections_per_source = 1000
/// max_rate_per_source = 200
/// access_log = { path = "/var/log/lb-access.log", format = "json" }
/// metrics = "127.0.0.1:9900"    # a page for Prometheus; none if left out
///
/// # This and the timeouts take effect at the start only.
/// ingress = ["0.0.0.0", "::"]   # addresses to answer on
/// control = "/run/lb.sock"      # a control socket, for status and take-over
/// threads = 4                   # that forward; one for each core if left out
/// drain_timeout_ms = 30000
///
/// [timeouts]
/// connect_ms = 250
/// half_closed_ms = 30000
/// idle_ms = 3600000
/// proxy_header_ms = 5000
///
/// [[listeners]]
/// port = 80
/// service = "web"               # a label for logs and the status
/// policy = "round_robin"        # or "least_conn", "source_hash"
/// proxy_protocol = "v2"         # endpoints are told whose connection it is; not if left out
/// accept_proxy = ["10.0.0.0/8"] # clients that must tell; nobody if left out
///
/// [[listeners.endpoints]]
/// address = "10.0.0.1:8080"
/// id = "first"                  # the address if left out
/// weight = 1
/// proxy_protocol = "v1"         # the listener's if left out
/// draining = false
/// ```
///
/// # Errors
///
/// Only before it begins to forward; see [`Error`].
pub async fn run(path: impl Into<PathBuf>, start: Start) -> Result<(), Error> {
    let path = path.into();
    let file = File::read(&path)?;
    // All that can fail comes before the balancer that runs makes room: one that nobody
    // succeeds could not be found any more.
    let config = file.config();
    config.check()?;
    let refused = |taken| FileError::page(&path, taken);
    let mut place = Place::take(file.metrics, start).await.map_err(refused)?;
    let predecessor = match (start, &file.fixed.control) {
        (Start::Alone, _) => None,
        (Start::TakeOver, Some(control)) => Predecessor::find(control).await?,
        (Start::TakeOver, None) => return Err(Error::NoControl(path)),
    };
    if predecessor.is_none() {
        place = place.or_never().await.map_err(refused)?;
    }
    let patience = config.drain_timeout;
    let listen = |kind| signal(kind).map_err(run::Error::Signals);
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let socket = match &file.fixed.control {
        Some(control) => Some(
            ControlSocket::bind(control, config.control_mode)
                .await
                .map_err(run::Error::from)?,
        ),
        None => None,
    };
    let running = Running::start(config)?;
    let balancer = running.balancer.clone();
    let retiring = match predecessor {
        Some(predecessor) => Some(predecessor.hand_over(&balancer).await),
        None => None,
    };
    put_in_force(&balancer, &path, &file, 1).await?;
    if let Some(retiring) = retiring {
        retiring.retire(patience).await;
    }
    let control = file.fixed.control.clone();
    let page = Page::new(balancer.clone(), control, running.end.clone(), place);
    let reloading = Reloading::new(path, file.fixed, balancer, page);
    tokio::select! {
        () = running.until_ended(socket, &mut terminate) => {}
        () = reloading.forever(&mut hangup) => {}
    }
    Ok(())
}

async fn put_in_force(
    balancer: &Handle,
    path: &Path,
    file: &File,
    version: u64,
) -> Result<(), FileError> {
    // Ports that cannot be bound are logged, and tried again, by the balancer.
    match balancer.set_table(file.table(version)).await {
        Ok(Ok(_)) => Ok(()),
        // It is ending, and needs no table any more.
        Err(_) => Ok(()),
        // Somebody has put a newer one in force over the control socket.
        Ok(Err(error)) => Err(FileError::NotInForce {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
    }
}

impl FileError {
    /// The page cannot be where the file says.
    fn page(path: &Path, taken: Taken) -> Self {
        Self::Page {
            path: path.to_owned(),
            address: taken.address,
            source: taken.source,
        }
    }
}
