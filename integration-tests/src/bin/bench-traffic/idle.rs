//! Connections that do nothing.

use std::{
    io::{self, BufRead as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{ANSWER, MESSAGE};

/// Longest wait for a connection or an answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Opens them, then does what standard input says.
pub(crate) fn hold(target: SocketAddr, count: usize) -> Result<()> {
    let mut connections = Vec::with_capacity(count);
    for number in 0..count {
        let connection = TcpStream::connect_timeout(&target, LIMIT)
            .with_context(|| format!("connection {number} of {count}"))?;
        connection.set_read_timeout(Some(LIMIT))?;
        connections.push(connection);
    }
    say("open")?;
    for line in io::stdin().lock().lines() {
        line?;
        for (number, connection) in connections.iter_mut().enumerate() {
            ask(connection).with_context(|| format!("connection {number} of {count}"))?;
        }
        say("answered")?;
    }
    Ok(())
}

fn ask(connection: &mut TcpStream) -> io::Result<()> {
    connection.write_all(&[ANSWER; MESSAGE])?;
    io::Read::read_exact(connection, &mut [0; MESSAGE])
}

fn say(what: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{what}")
}
