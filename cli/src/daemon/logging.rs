//! Logs of processes that run for long: on stderr, `info` and above unless `SWARMLET_LOG` says
//! otherwise (`debug`, `swarmlet_manager=trace`…).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts to log; to be called once, before the first thread starts.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("SWARMLET_LOG")
        // openraft tells each step of an election as `info`; what matters of it is told by the
        // manager itself.
        .unwrap_or_else(|_| EnvFilter::new("info,openraft=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
