//! Several hosts on one switch, and a client that is none of them.

use std::{
    env,
    net::Ipv4Addr,
    ops::Index,
    path::Path,
    slice,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::{
    Host, Image, Namespace, Registry, cleanup, contention,
    host::ImportedFrom,
    run::{Clock, Run},
};

/// What the harness runs, and `integration-tests/install-prerequisites` installs.
const PROGRAMS: [&str; 8] = [
    "containerd",
    "dockerd",
    "docker",
    "ip",
    "nft",
    "nsenter",
    "unshare",
    "mount",
];

/// Address of the client; hosts count up from 10.99.0.1.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 254);

/// The shared hosts, for as long as one test works with them.
pub type SharedHosts = MutexGuard<'static, Hosts>;

/// Hosts on one switch. They are numbered from 0, their names and addresses
/// from 1: `hosts[0]` is `host1` at 10.99.0.1.
///
/// Dropping it removes everything.
pub struct Hosts {
    hosts: Vec<Host>,
    client: Namespace,
    switch: Namespace,
    run: Run,
}

impl Hosts {
    /// Starts `count` hosts with running engines that have `image`.
    ///
    /// # Errors
    ///
    /// Without root, when a program is missing, or when an engine does not start.
    pub fn start(count: u8, image: &Image) -> Result<Self> {
        check_prerequisites()?;
        contention::watch();
        ensure!(
            (1..=200).contains(&count),
            "{count} hosts: there are addresses for 1 to 200"
        );
        cleanup::remove_dead_runs()?;
        let run = Run::begin()?;
        let mut clock = Clock::start();

        let switch = Namespace::create(&run.name, "switch", &run.directory.join("switch"))?;
        make_bridge(&switch)?;
        let client = Namespace::create(&run.name, "client", &run.directory.join("client"))?;
        plug(&switch, &client, CLIENT)?;
        make_ports_last(&client)?;
        clock.lap("switch and client");

        let archive = run.directory.join("image.tar");
        image.write_archive(&archive)?;
        clock.lap(&format!("archive of image {}", image.name));

        let image = ImportedFrom {
            image,
            archive: &archive,
        };
        let start = |number: u8| {
            let name = format!("host{number}");
            let address = Ipv4Addr::new(10, 99, 0, number);
            let namespace = Namespace::create(&run.name, &name, &run.directory.join(&name))?;
            plug(&switch, &namespace, address)?;
            Host::start(namespace, address, &run.name, &image)
                .with_context(|| format!("cannot start {name}"))
        };
        let hosts = thread::scope(|scope| {
            let started: Vec<_> = (1..=count)
                .map(|number| scope.spawn(move || start(number)))
                .collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Result<Host>>| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("the thread that starts a host panicked")))
            };
            // All are joined before the first error is returned.
            started
                .into_iter()
                .map(join)
                .collect::<Vec<_>>()
                .into_iter()
                .collect::<Result<Vec<_>>>()
        })?;
        clock.lap(&format!("{count} hosts with engines and image"));
        // What a build before has left to be written would delay what is measured.
        rustix::fs::sync();
        clock.lap("disks at rest");
        Ok(Self {
            hosts,
            client,
            switch,
            run,
        })
    }

    /// Hosts that all tests of a binary share, one test at a time, since they
    /// cost seconds to start. Each test gets them [reset](Self::reset).
    /// They are removed when the process ends.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start); and when an earlier test of this binary
    /// asked for fewer of them.
    pub fn shared(count: u8, image: &Image) -> Result<SharedHosts> {
        static SHARED: OnceLock<std::result::Result<Mutex<Hosts>, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            // Kept as text: an error that every test is to show cannot be moved out.
            Self::start(count, image)
                .map(Mutex::new)
                .map_err(|error| format!("{error:#}"))
        });
        let shared = shared.as_ref().map_err(|error| anyhow!("{error}"))?;
        // A test that panics poisons the lock, and the reset below is the cure.
        let hosts = shared.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(
            hosts.hosts.len() >= usize::from(count),
            "this binary's tests share only {} hosts",
            hosts.hosts.len()
        );
        hosts.reset()?;
        Ok(hosts)
    }

    /// Makes all hosts as they were at the start, in parallel; see [`Host::reset`].
    ///
    /// # Errors
    ///
    /// When something of a host cannot be removed.
    pub fn reset(&self) -> Result<()> {
        let mut clock = Clock::start();
        thread::scope(|scope| {
            let resets: Vec<_> = self
                .iter()
                .map(|host| scope.spawn(move || self.connect(host).and_then(|()| host.reset())))
                .collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("the thread that resets a host panicked")))
            };
            resets
                .into_iter()
                .map(join)
                .collect::<Vec<_>>()
                .into_iter()
                .collect::<Result<()>>()
        })?;
        clock.lap("reset");
        Ok(())
    }

    /// The hosts, in order.
    pub fn iter(&self) -> slice::Iter<'_, Host> {
        self.hosts.iter()
    }

    /// A machine on the same switch with neither engine nor swarmlet.
    #[must_use]
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// A registry of images on the client, at this port, that every engine may pull from.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn registry(&self, port: u16) -> Result<Registry> {
        Registry::start(&self.client, CLIENT, port)
    }

    /// The name of this run, as in [`cleanup::remaining`].
    #[must_use]
    pub fn run_name(&self) -> &str {
        &self.run.name
    }

    /// Everything that this run writes is below this directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.run.directory
    }

    /// Packets between the two are lost in both directions.
    ///
    /// # Errors
    ///
    /// When nft refuses.
    pub fn cut(&self, one: &Host, other: &Host) -> Result<()> {
        one.drop_from(other.address())?;
        other.drop_from(one.address())
    }

    /// Ends [`cut`](Self::cut).
    ///
    /// # Errors
    ///
    /// When they were not cut off from each other.
    pub fn heal(&self, one: &Host, other: &Host) -> Result<()> {
        one.accept_from(other.address())?;
        other.accept_from(one.address())
    }

    /// Pulls the host's cable. The host keeps its addresses and routes.
    ///
    /// # Errors
    ///
    /// When `ip` refuses.
    pub fn disconnect(&self, host: &Host) -> Result<()> {
        self.switch
            .run("ip", &["link", "set", &port(host.namespace()), "down"])?
            .success()
            .map(drop)
    }

    /// Plugs the host's cable in again.
    ///
    /// # Errors
    ///
    /// When `ip` refuses.
    pub fn connect(&self, host: &Host) -> Result<()> {
        self.switch
            .run("ip", &["link", "set", &port(host.namespace()), "up"])?
            .success()
            .map(drop)
    }
}

impl Index<usize> for Hosts {
    type Output = Host;

    fn index(&self, index: usize) -> &Host {
        &self.hosts[index]
    }
}

impl<'a> IntoIterator for &'a Hosts {
    type Item = &'a Host;
    type IntoIter = slice::Iter<'a, Host>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What the switch forwards by, and nothing else: what a machine filters for its containers' bridges
/// by default, at a price for each packet, no switch does.
fn make_bridge(switch: &Namespace) -> Result<()> {
    let script = "ip link add br0 type bridge && ip link set br0 up || exit 1; \
        filter=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $filter ] || echo 0 >$filter";
    switch.run("sh", &["-c", script])?.success().map(drop)
}

/// The switch's port of a host.
fn port(namespace: &Namespace) -> String {
    format!("to-{}", namespace.name())
}

/// Connects a namespace with the switch, by a cable that is `eth0` on its side.
fn plug(switch: &Namespace, namespace: &Namespace, address: Ipv4Addr) -> Result<()> {
    let port = port(namespace);
    let holder = namespace.holder().as_raw_nonzero().to_string();
    let cable = [
        "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &holder,
    ];
    switch.run("ip", &cable)?.success()?;
    switch
        .run("ip", &["link", "set", &port, "master", "br0", "up"])?
        .success()?;
    namespace
        .run(
            "ip",
            &["address", "add", &format!("{address}/24"), "dev", "eth0"],
        )?
        .success()?;
    namespace
        .run("ip", &["link", "set", "eth0", "up"])?
        .success()?;
    Ok(())
}

/// Lets a client open many more connections to one address than the default
/// range of ports has room for while closed ones wait out their minute.
fn make_ports_last(client: &Namespace) -> Result<()> {
    let script = "echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range && echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse";
    client.run("sh", &["-c", script])?.success().map(drop)
}

fn check_prerequisites() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "tests on hosts make network namespaces and engines: run them as root"
    );
    let path = env::var_os("PATH").unwrap_or_default();
    let missing: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|program| {
            !env::split_paths(&path).any(|directory| directory.join(program).is_file())
        })
        .collect();
    ensure!(
        missing.is_empty(),
        "not in PATH: {}; run integration-tests/install-prerequisites",
        missing.join(", ")
    );
    Ok(())
}
