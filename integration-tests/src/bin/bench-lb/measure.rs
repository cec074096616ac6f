//! One measurement: everything is started anew, works for a second, and is ended.

use std::{
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarmlet_integration_tests::{
    Pid,
    bench::{self, Testbed},
    sibling_binary,
};

use crate::{
    Bench,
    cell::{Cell, Figure, Workload},
    contender::{Contender, Running, pinned},
    results::Sample,
};

/// Endpoints behind each port of the balancer.
pub(crate) const ENDPOINTS: u16 = 4;

/// Time before a measurement counts.
pub(crate) const WARM_UP_MS: u64 = 200;

/// Small requests beside bulk are few: they are watched for longer.
const MIXED_FACTOR: u64 = 2;

/// What a measurement works with.
pub(crate) struct Setup<'a> {
    pub(crate) testbed: &'a Testbed,
    pub(crate) cell: Cell,
    pub(crate) balancer: Ipv4Addr,
    pub(crate) server: Ipv4Addr,
    window_ms: u64,
}

impl<'a> Setup<'a> {
    pub(crate) fn new(bench: &mut Bench<'a>, cell: Cell) -> Result<Self> {
        let (balancer, server) = bench.testbed.addresses(cell.route, bench.next()?);
        Ok(Self {
            testbed: bench.testbed,
            cell,
            balancer,
            server,
            window_ms: bench.window_ms,
        })
    }

    /// Ports of the balancer and the first of the endpoints behind them. Bulk has a server of
    /// its own, or else small answers would wait behind it in the server already.
    pub(crate) fn listeners(&self) -> [(u16, u16); 2] {
        [(self.small_port(), 9000), (self.bulk_port(), 9100)]
    }

    /// Where the balancer of this project listens for `swarmlet lb status`.
    pub(crate) fn control(&self) -> std::path::PathBuf {
        self.testbed.directory().join("lb.sock")
    }

    pub(crate) fn small_port(&self) -> u16 {
        8000
    }

    pub(crate) fn bulk_port(&self) -> u16 {
        8100
    }

    /// Where the client connects to.
    fn target(&self, contender: Contender, port: u16) -> String {
        match contender {
            Contender::Direct => format!("{}:{}", self.server, port + 1000),
            _ => format!("{}:{port}", self.balancer),
        }
    }

    fn traffic(&self) -> Result<std::path::PathBuf> {
        sibling_binary("bench-traffic")
    }

    /// A client of the balancer or, if it is direct, of the server.
    pub(crate) fn client(
        &self,
        contender: Contender,
        port: u16,
        mode: &[&str],
        connections: usize,
    ) -> Result<Command> {
        let namespace = self.testbed.client(self.cell.route);
        let mut command = pinned(namespace, self.cell.layout.others());
        command
            .arg(self.traffic()?)
            .args(mode)
            .args(["--target", &self.target(contender, port)])
            .args(["--connections", &connections.to_string()])
            .stdout(Stdio::piped());
        Ok(command)
    }

    /// A client that works for the time of the measurement.
    fn timed_client(
        &self,
        contender: Contender,
        port: u16,
        mode: &[&str],
        connections: usize,
    ) -> Result<Child> {
        let window = match self.cell.workload {
            Workload::Mixed => self.window_ms * MIXED_FACTOR,
            _ => self.window_ms,
        };
        self.client_for(contender, port, mode, connections, window)
    }

    /// A client that works for so long.
    pub(crate) fn client_for(
        &self,
        contender: Contender,
        port: u16,
        mode: &[&str],
        connections: usize,
        window_ms: u64,
    ) -> Result<Child> {
        self.client(contender, port, mode, connections)?
            .args(["--warm-up-ms", &WARM_UP_MS.to_string()])
            .args(["--window-ms", &window_ms.to_string()])
            .spawn()
            .context("cannot start the client")
    }
}

/// Of the endpoints of small requests.
fn first_port(setup: &Setup<'_>) -> u16 {
    setup.listeners()[0].1
}

/// The servers, one for small requests and one for bulk.
pub(crate) struct Servers(Vec<Child>);

impl Servers {
    pub(crate) fn start(setup: &Setup<'_>) -> Result<Self> {
        let mut servers = Self(Vec::new());
        for (_, first) in setup.listeners() {
            servers.0.push(Self::one(setup, first, ENDPOINTS)?);
        }
        Ok(servers)
    }

    /// A process for each endpoint of small requests, so that one can be killed.
    pub(crate) fn start_singly(setup: &Setup<'_>) -> Result<Self> {
        let mut servers = Self(Vec::new());
        for number in 0..ENDPOINTS {
            servers
                .0
                .push(Self::one(setup, first_port(setup) + number, 1)?);
        }
        Ok(servers)
    }

    /// Ends one by SIGKILL, and returns once its sockets are closed.
    pub(crate) fn kill(&mut self, number: usize) -> Result<()> {
        self.0[number].kill()?;
        self.0[number].wait()?;
        Ok(())
    }

    /// Starts one again that was killed.
    pub(crate) fn revive(&mut self, setup: &Setup<'_>, number: usize) -> Result<()> {
        let port = first_port(setup) + u16::try_from(number)?;
        self.0[number] = Self::one(setup, port, 1)?;
        Ok(())
    }

    fn one(setup: &Setup<'_>, port: u16, ports: u16) -> Result<Child> {
        let namespace = setup.testbed.server(setup.cell.route);
        let mut server = pinned(namespace, setup.cell.layout.others())
            .arg(setup.traffic()?)
            .args(["backend", "--port", &port.to_string()])
            .args(["--ports", &ports.to_string()])
            // It ends with its standard input.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server")?;
        let stdout = server.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "the server said {line:?}");
        Ok(server)
    }

    fn cpu_times(&self) -> Result<Vec<Duration>> {
        let times = self.0.iter().map(Pid::from_child).map(bench::cpu_time);
        times.collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.0 {
            // Fails only for a process that has ended already, which is what is wanted.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// What the clients of a measurement reported, by which processes were busy meanwhile.
pub(crate) struct Outcome {
    /// One of each client, small requests before bulk.
    pub(crate) reports: Vec<Value>,
    servers: Vec<Duration>,
    seconds: f64,
}

/// Lets the clients of the setup's workload work.
pub(crate) fn work(setup: &Setup<'_>, contender: Contender, servers: &Servers) -> Result<Outcome> {
    let before = servers.cpu_times()?;
    let begun = std::time::Instant::now();
    let client =
        |port, mode: &[&str], connections| setup.timed_client(contender, port, mode, connections);
    let (small, bulk) = (setup.small_port(), setup.bulk_port());
    let clients = match setup.cell.workload {
        Workload::Short {
            client_closes: true,
        } => vec![client(small, &["short", "--client-closes"], 32)?],
        Workload::Short { .. } => vec![client(small, &["short"], 32)?],
        Workload::Keep => vec![client(small, &["keep"], 64)?],
        Workload::Bulk => vec![client(bulk, &["bulk"], 8)?],
        Workload::Mixed => vec![
            client(small, &["paced", "--rate", "1000"], 16)?,
            client(bulk, &["bulk"], 4)?,
        ],
    };
    let reports = clients.into_iter().map(report).collect::<Result<_>>()?;
    let seconds = begun.elapsed().as_secs_f64();
    let after = servers.cpu_times()?;
    let servers = after.iter().zip(before).map(|(now, then)| *now - then);
    Ok(Outcome {
        reports,
        servers: servers.collect(),
        seconds,
    })
}

pub(crate) fn report(client: Child) -> Result<Value> {
    let output = client.wait_with_output()?;
    ensure!(
        output.status.success(),
        "the client ended with {}",
        output.status
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Measures a contender once.
pub(crate) fn measure(setup: &Setup<'_>, contender: Contender) -> Result<Sample> {
    let servers = Servers::start(setup)?;
    let balancer = Running::start(setup, contender)?;
    let (machine, own) = (bench::machine_time()?, balancer.cpu_time()?);
    let outcome = work(setup, contender, &servers)?;
    let own = balancer.cpu_time()? - own;
    let resident = balancer.resident_bytes()?;
    let busy = bench::busy_share(machine, bench::machine_time()?);
    let mut sample = outcome.figures(setup.cell.workload, contender, own)?;
    sample.insert(Figure::MachineBusy, busy);
    if contender.is_process() {
        sample.insert(Figure::Resident, resident as f64 / 1e6);
    }
    Ok(sample)
}

impl Outcome {
    /// Requests done by the first client.
    pub(crate) fn done(&self) -> Result<f64> {
        number(&self.reports[0], "done")
    }

    fn figures(&self, workload: Workload, contender: Contender, own: Duration) -> Result<Sample> {
        let mut sample = Sample::new();
        let clients: Vec<f64> = self
            .reports
            .iter()
            .map(|report| Ok(number(report, "cpu_ns")? / 1e9))
            .collect::<Result<_>>()?;
        let servers: Vec<f64> = self.servers.iter().map(Duration::as_secs_f64).collect();
        let all = own.as_secs_f64() + clients.iter().chain(&servers).sum::<f64>();
        let busiest = clients.iter().chain(&servers).copied().fold(0.0, f64::max);
        sample.insert(Figure::ClientBusy, busiest / self.seconds);
        let failed = self.reports.iter().filter_map(|report| {
            let kinds = report["failed"].as_object()?;
            Some(kinds.values().filter_map(Value::as_f64).sum::<f64>())
        });
        // The sum of nothing is -0, which would be shown so.
        sample.insert(Figure::Failed, failed.fold(0.0, |sum, count| sum + count));
        if workload != Workload::Bulk {
            let report = &self.reports[0];
            sample.insert(Figure::Rate, number(report, "per_second")?);
            sample.insert(Figure::P50, number(report, "p50_us")?);
            sample.insert(Figure::P99, number(report, "p99_us")?);
        }
        if workload.has_bulk() {
            let report = &self.reports[self.reports.len() - 1];
            let gigabytes = number(report, "bytes")? / 1e9;
            let gigabits = number(report, "bytes_per_second")? * 8.0 / 1e9;
            sample.insert(Figure::Gigabits, gigabits);
            sample.insert(Figure::AllTimePerGigabyte, all / gigabytes);
            if contender.is_process() {
                let own = own.as_secs_f64() / gigabytes;
                sample.insert(Figure::BalancerTimePerGigabyte, own);
            }
        } else {
            let done = self.done()?;
            sample.insert(Figure::AllTime, all * 1e6 / done);
            if contender.is_process() {
                let own = own.as_secs_f64() * 1e6 / done;
                sample.insert(Figure::BalancerTime, own);
            }
        }
        Ok(sample)
    }
}

pub(crate) fn number(report: &Value, key: &str) -> Result<f64> {
    report[key]
        .as_f64()
        .with_context(|| format!("no {key} in {report}"))
}
