//! How soon a published port accepts.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow, ensure};
use swarmlet_integration_tests::{Load, wait_until};

use crate::node::{InForce, Node};

/// The first of the ports that are published singly, and of those at once. Tasks are not there.
const SINGLY_FROM: u16 = 2_500;
const AT_ONCE_FROM: u16 = 10_000;

/// Pause between two attempts to connect: much less than what is measured, and little enough of
/// a processor that it is not this that is measured.
const POLL: Duration = Duration::from_micros(200);

/// Longest wait for a port.
const LIMIT: Duration = Duration::from_secs(30);

/// All times in milliseconds, one for each port.
#[derive(Debug)]
pub(crate) struct Singly {
    /// From the node's balancer having the table to the first connection.
    pub(crate) from_table: Vec<f64>,
    /// From the command being typed to the first connection.
    pub(crate) from_command: Vec<f64>,
}

/// One table that brings all ports.
#[derive(Debug)]
pub(crate) struct AtOnce {
    pub(crate) ports: u16,
    /// From the balancer having the table to all ports accepting, in milliseconds.
    pub(crate) in_force: f64,
    /// Until a connect to each had been answered, in milliseconds.
    pub(crate) connects: Vec<f64>,
    /// Requests answered, one through each port.
    pub(crate) answered: u64,
}

/// One service after the other, each with one port.
pub(crate) fn singly(node: &Node, ports: u16) -> Result<Singly> {
    let before = node.tables()?.last().map_or(0, |table| table.ports);
    let mut accepted = Vec::new();
    let mut from_command = Vec::new();
    for number in 0..ports {
        let port = SINGLY_FROM + number;
        let first = node.namespace().thread(move || first_accept(port))?;
        let typed = now_us()?;
        let (name, publish) = (format!("port{port}"), format!("{port}:80"));
        let line = [
            "service",
            "create",
            "--detach",
            "--replicas=0",
            "--name",
            &name,
        ];
        node.run(&[&line[..], &["--publish", &publish, "whoami"]].concat())?;
        let first = first.join().map_err(|_| anyhow!("the poller panicked"))??;
        let first = first.with_context(|| format!("port {port}"))?;
        from_command.push(milliseconds(typed, first));
        accepted.push(first);
        if (number + 1) % 100 == 0 {
            eprintln!("{} of {ports} ports published", number + 1);
        }
    }
    // The port accepts before its table is wholly in force and in the log.
    let last = before + u64::from(ports);
    let tables = wait_until(LIMIT, "the last table in the log", || {
        let tables = node.tables()?;
        let is_there = tables.iter().any(|table| table.ports == last);
        Ok(is_there.then_some(tables))
    })?;
    let from_table = (1..).zip(&accepted).map(|(number, first)| {
        let table = tables.iter().find(|table| table.ports == before + number);
        let table = table.with_context(|| format!("no table of {number} ports in the log"))?;
        Ok(milliseconds(table.at_us - table.took_us, *first))
    });
    Ok(Singly {
        from_table: from_table.collect::<Result<_>>()?,
        from_command,
    })
}

/// One service with all the ports.
pub(crate) fn at_once(node: &Node, ports: u16) -> Result<AtOnce> {
    let before = node.tables()?.last().map_or(0, |table| table.ports);
    let publish: Vec<String> = (0..ports)
        .map(|number| format!("--publish={}:80", AT_ONCE_FROM + number))
        .collect();
    let mut line = vec!["service", "create", "--detach", "--name=many"];
    line.extend(publish.iter().map(String::as_str));
    line.push("whoami");
    node.run(&line)?;
    let table: InForce = wait_until(LIMIT, "the table of all ports", || {
        let all = before + u64::from(ports);
        let tables = node.tables()?;
        Ok(tables.into_iter().find(|table| table.ports == all))
    })?;
    let connects = node.namespace().thread(move || {
        let ports = (0..ports).map(|number| AT_ONCE_FROM + number);
        ports.map(connect_time).collect::<Result<Vec<f64>>>()
    })?;
    let connects = connects
        .join()
        .map_err(|_| anyhow!("the client panicked"))???;
    node.wait_for_endpoints(AT_ONCE_FROM + ports - 1, 1)?;
    let load = Load {
        targets: (0..ports).map(|n| address(AT_ONCE_FROM + n)).collect(),
        ..Load::new(address(AT_ONCE_FROM), u64::from(ports))
    };
    let report = load.run(node.namespace())?;
    ensure!(report.failed() == 0, "{:?}", report.messages);
    Ok(AtOnce {
        ports,
        in_force: milliseconds(0, table.took_us),
        connects,
        answered: report.answered(),
    })
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// When a connection to the port first succeeded, in microseconds since the Unix epoch.
fn first_accept(port: u16) -> Result<u64> {
    let end = Instant::now() + LIMIT;
    loop {
        match TcpStream::connect(address(port)) {
            Ok(_) => return now_us(),
            Err(error) if Instant::now() > end => {
                return Err(error).with_context(|| format!("not accepted within {LIMIT:?}"));
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

fn connect_time(port: u16) -> Result<f64> {
    let begun = Instant::now();
    TcpStream::connect(address(port)).with_context(|| format!("port {port} is in force"))?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

fn now_us() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(u64::try_from(now.as_micros())?)
}

/// Below zero where the second came first.
#[expect(clippy::cast_precision_loss, reason = "times of a run")]
fn milliseconds(from_us: u64, to_us: u64) -> f64 {
    let between = i128::from(to_us) - i128::from(from_us);
    between as f64 / 1e3
}
