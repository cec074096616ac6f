//! How the balancer starts and ends.
//!
//! ```text
//! forwarding --SIGTERM, Shutdown, Retire--> draining --no connection left--> ended
//!                                              |
//!                                              +--second SIGTERM, deadline--> rest reset, ended
//! ```

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::Instant,
};

pub use crate::control::server::SocketError;
use crate::{
    access::AccessLog,
    balancer,
    control::server::{ControlSocket, Service},
    engine::{Crew, Epoll},
    settings::Settings,
    shared::Shared,
    sources::SourceLimits,
};

/// How a balancer is to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Path of the control socket. The directory must exist.
    pub control: PathBuf,
    /// Permissions of the control socket.
    pub control_mode: u32,
    /// Addresses to answer on. An unspecified IPv6 address means IPv6 only and
    /// is passed over on a machine without IPv6.
    pub ingress: Vec<IpAddr>,
    /// How long connections may live on after the end was asked for.
    pub drain_timeout: Duration,
    /// Threads that forward. `None` takes one for each core.
    pub threads: Option<usize>,
    /// Client connections at once; more wait in the kernel's queue. `None`
    /// takes what the limit of open files allows.
    pub max_connections: Option<usize>,
    /// Bytes that one side has sent and the other did not take, over all
    /// connections. Past it those that hold the most are reset.
    pub max_buffered: usize,
    /// What one source may do.
    pub per_source: SourceLimits,
    /// Where a line for each connection goes. `None`: nowhere.
    pub access_log: Option<AccessLog>,
    /// How long everything else may take.
    pub timeouts: Timeouts,
}

/// How long things may take.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// A client's first try to connect to an endpoint; each further try takes
    /// twice as long as the one before.
    pub connect: Duration,
    /// Silence of a connection that one side has closed, after which it is reset.
    pub half_closed: Duration,
    /// Silence of a connection, after which it is reset.
    pub idle: Duration,
    /// For the whole of a PROXY header, from a client that must send one.
    pub proxy_header: Duration,
    /// Shortest wait between two probes of an ejected endpoint.
    pub probe_min: Duration,
    /// Longest wait between two probes of an ejected endpoint.
    pub probe_max: Duration,
    /// Wait between two questions to a host.
    pub host_round: Duration,
    /// Wait between two tries to bind a port.
    pub bind_retry: Duration,
}

/// Why the balancer could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The control socket cannot be had.
    #[error("cannot open the control socket")]
    Control(#[from] SocketError),
    /// Signals cannot be listened to.
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
    /// The threads that forward cannot be started.
    #[error("cannot start to forward")]
    Engine(#[source] io::Error),
    /// The access log cannot be written.
    #[error("cannot open the access log {}", path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No address to answer on.
    #[error("no ingress address is given, name at least one")]
    NoIngress,
}

impl Config {
    /// The defaults: all addresses, half a minute to drain.
    #[must_use]
    pub fn new(control: impl Into<PathBuf>) -> Self {
        Self {
            control: control.into(),
            control_mode: 0o600,
            ingress: vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            drain_timeout: Duration::from_secs(30),
            threads: None,
            max_connections: None,
            max_buffered: Settings::DEFAULT_MAX_BUFFERED,
            per_source: SourceLimits::default(),
            access_log: None,
            timeouts: Timeouts::default(),
        }
    }
}

impl Config {
    /// Sees what can be seen without touching anything.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.ingress.is_empty() {
            return Err(Error::NoIngress);
        }
        let Some(target) = &self.access_log else {
            return Ok(());
        };
        target.check().map_err(|source| Error::AccessLog {
            path: target.path.clone(),
            source,
        })
    }

    /// What of it can be changed while the balancer runs.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            max_connections: self.max_connections,
            max_buffered: Some(self.max_buffered),
            per_source: self.per_source,
            access_log: self.access_log.clone(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(250),
            half_closed: Duration::from_secs(30),
            idle: Duration::from_secs(60 * 60),
            proxy_header: Duration::from_secs(5),
            probe_min: Duration::from_millis(200),
            probe_max: Duration::from_secs(2),
            host_round: Duration::from_millis(500),
            bind_retry: Duration::from_secs(1),
        }
    }
}

/// Runs a balancer, on the tokio runtime of the caller, until it is told to end
/// by SIGTERM or over the control socket. Raises the process's soft limit of
/// open files to the hard one.
///
/// Forwarding has threads of its own; on the runtime are only the tables, the
/// control socket and the probes, for which one thread is enough.
///
/// # Errors
///
/// Only before it begins to forward; see [`Error`].
pub async fn run(config: Config) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let socket = ControlSocket::bind(&config.control, config.control_mode).await?;
    let running = Running::start(config)?;
    running.until_ended(Some(socket), &mut terminate).await;
    Ok(())
}

/// A balancer at work.
pub(crate) struct Running {
    pub(crate) balancer: balancer::Handle,
    shared: Arc<Shared>,
    crew: Arc<Crew>,
    pub(crate) end: End,
}

/// How the end is asked for, and by when.
#[derive(Debug, Clone)]
pub(crate) struct End {
    patience: Duration,
    deadline: Arc<watch::Sender<Option<Instant>>>,
}

impl End {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            deadline: Arc::default(),
        }
    }

    /// What connections get of time where nobody says otherwise.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Asks for the end within this time; of several the earliest counts.
    pub(crate) fn ask(&self, patience: Duration) {
        let now = Instant::now();
        // As long as nobody lives, which is how tokio itself stands for "never".
        let never = now + Duration::from_secs(86_400 * 365 * 30);
        let asked = now.checked_add(patience).unwrap_or(never).min(never);
        self.deadline.send_modify(|deadline| {
            *deadline = Some(deadline.map_or(asked, |before| before.min(asked)));
        });
    }

    /// Waits until the end was asked for.
    pub(crate) async fn asked(&self) {
        let mut deadline = self.deadline.subscribe();
        // The sender is here.
        let _ = deadline.wait_for(Option::is_some).await;
    }

    /// Waits until the time is over.
    async fn due(&self) {
        let mut changes = self.deadline.subscribe();
        loop {
            let deadline = *changes.borrow_and_update();
            let passed = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = passed => return,
                _ = changes.changed() => {}
            }
        }
    }
}

impl Running {
    /// Starts to forward, with an empty table.
    pub(crate) fn start(config: Config) -> Result<Self, Error> {
        config.check()?;
        let settings = config.settings();
        let by_file_limit = connections_by_file_limit();
        let shared = Arc::new(Shared::new(config.timeouts, &settings, by_file_limit));
        let max_connections = shared.in_force().max_connections;
        let threads = config.threads.unwrap_or_else(cores);
        let crew = Crew::start::<Epoll>(&shared, threads).map_err(Error::Engine)?;
        let crew = Arc::new(crew);
        tracing::info!(max_connections, threads, "balancer started");
        Ok(Self {
            balancer: balancer::spawn(Arc::clone(&shared), Arc::clone(&crew), config.ingress),
            shared,
            crew,
            end: End::new(config.drain_timeout),
        })
    }

    /// Serves the control socket, if there is one, until the end was asked for
    /// and the connections are gone.
    pub(crate) async fn until_ended(self, socket: Option<ControlSocket>, terminate: &mut Signal) {
        let service = Service {
            balancer: self.balancer.clone(),
            events: self.shared.events.clone(),
            end: self.end.clone(),
            ended: self.shared.abort.clone(),
        };
        let serve = async {
            match socket {
                Some(socket) => socket.serve(service).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Cancelled with this block, and the socket's file removed with it.
            () = serve => {}
            () = self.until_drained(terminate) => {}
        }
        self.shared.abort.cancel();
        self.crew.end().await;
        self.shared.probes.close();
        self.shared.probes.wait().await;
        tracing::info!("balancer ended");
    }

    async fn until_drained(&self, terminate: &mut Signal) {
        tokio::select! {
            _ = terminate.recv() => self.end.ask(self.end.patience()),
            () = self.end.asked() => {}
        }
        if self.balancer.stop_listening().await.is_err() {
            return;
        }
        let room = &self.shared.room;
        tracing::info!(connections = room.taken(), "draining");
        tokio::select! {
            () = room.until_empty() => {}
            _ = terminate.recv() => tracing::warn!("told again to end, resetting what is left"),
            () = self.end.due() => {
                tracing::warn!(connections = room.taken(), "drain timeout, resetting");
            }
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Two descriptors for each connection, and an eighth, at least 64, in reserve
/// for listeners, probes and the control socket.
fn connections_by_file_limit() -> usize {
    let limit = raise_file_limit();
    let files = usize::try_from(limit).unwrap_or(usize::MAX);
    let reserve = (files / 8).max(64);
    (files.saturating_sub(reserve) / 2).max(1)
}

/// The limit of open files after raising the soft limit as far as it goes.
fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current.unwrap_or(u64::MAX);
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            limit.current.unwrap_or(u64::MAX)
        }
    }
}
