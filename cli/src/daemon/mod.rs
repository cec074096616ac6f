//! The daemon: the composition root, where manager, agent, runtime and balancer are put
//! together, and where nothing is decided about the cluster.
//!
//! ```text
//!                  init, join                      leave
//!   inactive ───────────────────▶ active ──────────────────────▶ inactive, or the end
//!       ▲                           ▲                            where `init` or `join`
//!       └ no node on disk           └─── starting (a node on disk is brought back)  had started it
//! ```
//!
//! Start reading at [`run`], then `local_service` (what the command line asks), then `node`
//! (what an active node is made of).

mod advertise;
mod alone;
pub(crate) mod balancer;
mod denied;
mod files;
mod gate;
mod health;
mod http;
mod join;
mod local_balancer;
mod local_service;
mod logging;
mod metrics;
mod node;
mod renew;
mod resolve;
mod role;
mod sealed;
mod settings;
pub(crate) mod start;
pub(crate) mod store;
mod supervisor;
mod sysctl;
mod view;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use swarmlet_proto::transport::{ServeError, serve_unix};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::args::{DaemonArgs, DaemonFlags};
use crate::edge::many_threads;
use node::Node;
use view::{Phase, Views};

pub(crate) use advertise::advertise;
pub(crate) use resolve::{check as check_address, resolve};
pub(crate) use settings::{DEFAULT_DATA_DIR, Settings, data_dir};
pub(crate) use store::{Layout, NodeRecord, StoredRuntime};

/// What happens to a daemon after its node has left its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterLeave {
    /// It waits for `init` or `join`.
    Stay,
    /// It ends: `init` or `join` had started it, and `leave` leaves nothing behind.
    End,
}

/// Everything that requests share.
pub(crate) struct Daemon {
    layout: Layout,
    flags: DaemonFlags,
    after_leave: AfterLeave,
    /// The node, while there is one. Whoever changes what this daemon is holds it.
    node: Mutex<Option<Node>>,
    /// What it is, for everybody who only wants to know.
    views: Views,
    /// Ends the daemon.
    end: CancellationToken,
}

/// `swarmlet daemon`: runs until it is told to end.
///
/// # Errors
/// It cannot start, or cannot go on.
pub(crate) fn run(args: DaemonArgs, socket: &Path) -> Result<ExitCode> {
    if args.detached {
        return supervisor::run(&args.flags, socket);
    }
    let layout = Layout::new(data_dir(&args.flags));
    layout.create()?;
    let _lock = layout.lock()?;
    logging::start();
    store::write_pid(&layout.daemon_pid(), std::process::id())?;
    files::raise_limit();
    let after_leave = if args.supervised {
        AfterLeave::End
    } else {
        AfterLeave::Stay
    };
    let runtime = many_threads()?;
    let result = runtime.block_on(serve(layout.clone(), args.flags, after_leave, socket));
    // Blocking work that still runs (a look-up, a write to disk) is of no use to anybody now.
    runtime.shutdown_background();
    if let Err(error) = std::fs::remove_file(layout.daemon_pid()) {
        tracing::debug!(%error, "the pid file is gone already");
    }
    result.map(|()| ExitCode::SUCCESS)
}

async fn serve(
    layout: Layout,
    flags: DaemonFlags,
    after_leave: AfterLeave,
    socket: &Path,
) -> Result<()> {
    let record = layout.load()?;
    let settings = Settings::new(&flags, record.as_ref())?;
    let http = http::bind(settings.stored.http).await?;
    sysctl::reuse_time_wait();
    let phase = if record.is_some() {
        Phase::Starting
    } else {
        Phase::Inactive
    };
    let daemon = Arc::new(Daemon {
        layout,
        flags,
        after_leave,
        node: Mutex::new(None),
        views: Views::new(phase),
        end: CancellationToken::new(),
    });
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %daemon.layout.root().display(),
        socket = %socket.display(),
        http = %settings.stored.http,
        "the daemon has started"
    );
    let routes = local_service::routes(daemon.clone());
    let serving = serve_unix(socket, routes, daemon.end.clone().cancelled_owned());
    tokio::pin!(serving);
    let mut served = None;
    let pages = http::serve(http, daemon.views.clone(), daemon.end.clone());
    let result = tokio::select! {
        result = &mut serving => {
            served = Some(());
            result.map_err(socket_failed)
        }
        () = pages => Ok(()),
        result = live(&daemon) => result,
        result = terminated() => result,
    };
    daemon.end.cancel();
    // The answer to the very request that ended the daemon has yet to go out.
    if served.is_none()
        && let Err(error) = serving.await
    {
        tracing::warn!(%error, "the local socket failed at the end");
    }
    if let Some(node) = daemon.node.lock().await.take() {
        node.stop().await;
    }
    tracing::info!("the daemon ends; its tasks and the balancer go on");
    result
}

fn socket_failed(error: ServeError) -> anyhow::Error {
    match error {
        ServeError::Socket { path, source } => {
            denied::failed(source, &format!("cannot listen on socket {path}"))
        }
        other => anyhow::Error::new(other).context("the local socket failed"),
    }
}

/// Brings back the node that is on disk, then watches over whatever node there is.
async fn live(daemon: &Arc<Daemon>) -> Result<()> {
    if let Some(record) = daemon.layout.load()? {
        let mut node = daemon.node.lock().await;
        let settings = Settings::new(&daemon.flags, Some(&record))?;
        let restored = Node::restore(&daemon.layout, settings, record, None).await?;
        daemon.views.show(restored.view());
        *node = Some(restored);
    }
    let mut views = daemon.views.subscribe();
    loop {
        let phase = views.borrow_and_update().clone();
        tokio::select! {
            error = phase.failed() => return Err(error),
            role = role::wanted(&phase) => daemon.change_role(role).await?,
            () = daemon.end.cancelled() => return Ok(()),
            changed = views.changed() => changed.context("the daemon's state is gone")?,
        }
    }
}

/// Resolves once the process is told to end.
async fn terminated() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to signals")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("told to end (SIGTERM)"),
        _ = interrupt.recv() => tracing::info!("told to end (SIGINT)"),
    }
    Ok(())
}
