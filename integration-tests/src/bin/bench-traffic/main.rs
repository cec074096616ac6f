//! The two ends of a benchmark of balancers: a client that generates traffic and the server
//! behind the balancer. Each is one thread on epoll with as few system calls as the work
//! allows, so that neither is what is measured; run as processes of their own, they can be
//! put on other processors than the balancer, and their time can be told from its time.
//!
//! They speak in messages of [`MESSAGE`] bytes. The first byte of a request says what the
//! server does: [`ANSWER`] sends one message back, [`LAST`] does and closes, [`BULK`] sends
//! without end.

mod backend;
mod bulk;
mod client;
mod idle;
mod keep;
mod paced;
mod poller;
mod report;
mod short;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Result;
use backend::Until;
use clap::{Args, Parser};

/// Bytes of a request and of an answer.
pub(crate) const MESSAGE: usize = 100;
/// A request that is answered.
pub(crate) const ANSWER: u8 = b'A';
/// A request that is answered, after which the server closes.
pub(crate) const LAST: u8 = b'L';
/// A request that is answered with bytes until the client closes.
pub(crate) const BULK: u8 = b'B';

/// Bytes that bulk is sent and received in.
pub(crate) const CHUNK: usize = 256 * 1024;

#[derive(Parser)]
#[command(about = "Client and server of the balancer's benchmark")]
enum Command {
    /// Serves until standard input ends; says "ready" once it listens.
    Backend {
        /// Serve until the process is killed, whatever standard input does.
        #[arg(long)]
        forever: bool,
        /// The first port.
        #[arg(long)]
        port: u16,
        /// How many ports, one after the other: endpoints of the balancer.
        #[arg(long)]
        ports: u16,
    },
    /// A connection for each request, as fast as they are answered.
    Short {
        #[command(flatten)]
        load: Load,
        /// The client closes once it has the answer, instead of the server.
        #[arg(long)]
        client_closes: bool,
    },
    /// Requests on connections that stay, as fast as they are answered.
    Keep(Load),
    /// Requests on connections that stay, so many in a second.
    Paced {
        #[command(flatten)]
        load: Load,
        /// Requests a second.
        #[arg(long)]
        rate: u32,
    },
    /// Downloads without end.
    Bulk(Load),
    /// Connections that do nothing. Says "open" once all are; on a line of standard input each
    /// sends one request, "answered" says that all have their answer; ends with standard input.
    Idle {
        /// Where to connect to.
        #[arg(long)]
        target: SocketAddr,
        /// How many.
        #[arg(long)]
        connections: usize,
    },
}

/// Load for a time.
#[derive(Args, Clone)]
pub(crate) struct Load {
    /// Where to connect to.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// Connections at a time.
    #[arg(long)]
    pub(crate) connections: usize,
    /// Milliseconds before what is done is counted.
    #[arg(long)]
    pub(crate) warm_up_ms: u64,
    /// Milliseconds that are counted.
    #[arg(long)]
    pub(crate) window_ms: u64,
}

impl Load {
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_millis(self.warm_up_ms)
    }

    pub(crate) fn window(&self) -> Duration {
        Duration::from_millis(self.window_ms)
    }
}

fn main() -> Result<()> {
    let report = match Command::parse() {
        Command::Backend {
            forever,
            port,
            ports,
        } => {
            let until = if forever {
                Until::Killed
            } else {
                Until::StandardInputEnds
            };
            return backend::serve(port, ports, until);
        }
        Command::Idle {
            target,
            connections,
        } => return idle::hold(target, connections),
        Command::Short {
            load,
            client_closes,
        } => {
            let request = if client_closes { ANSWER } else { LAST };
            short::run(&load, request)?
        }
        Command::Keep(load) => keep::run(&load)?,
        Command::Paced { load, rate } => paced::run(&load, rate)?,
        Command::Bulk(load) => bulk::run(&load)?,
    };
    writeln!(io::stdout().lock(), "{}", report.into_json()?)?;
    Ok(())
}
