//! A network to measure balancers in: client, balancer and server each in a namespace of its
//! own, in a row; or all of them in the one in the middle, on its loopback interface.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};

use crate::{Namespace, cleanup, run::Run};

/// How the three reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// All on one loopback interface.
    Loopback,
    /// As on machines of their own: packets of client and server pass through the balancer's.
    Hosts,
}

/// The namespaces. Dropping it removes them with all that runs in them.
#[derive(Debug)]
pub struct Testbed {
    // Dropped first, while the processes that hold the namespaces live: what runs in these is
    // known by them, and nginx's workers by nothing else.
    run: Run,
    client: Namespace,
    middle: Namespace,
    server: Namespace,
}

impl Testbed {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// Without root, or when `ip` of iproute2 is missing.
    pub fn start() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the benchmark makes network namespaces: run it as root"
        );
        cleanup::remove_dead_runs()?;
        let run = Run::begin()?;
        let namespace = |name: &str| {
            let namespace = Namespace::create(&run.name, name, &run.directory.join(name))?;
            shell(&namespace, TUNING)?;
            forget_closed_connections(&namespace)?;
            Ok::<_, anyhow::Error>(namespace)
        };
        let (client, middle, server) = (
            namespace("client")?,
            namespace("middle")?,
            namespace("server")?,
        );
        cable(&middle, "to-client", &client)?;
        cable(&middle, "to-server", &server)?;
        shell(
            &middle,
            "ip address add 10.76.1.2/24 dev to-client && ip address add 10.76.2.2/24 dev to-server \
             && ip link set to-client up && ip link set to-server up \
             && ip route add local 10.77.0.0/16 dev lo && ip route add 10.78.0.0/16 via 10.76.2.1 \
             && echo 1 >/proc/sys/net/ipv4/ip_forward",
        )?;
        shell(
            &client,
            "ip address add 10.76.1.1/24 dev eth0 && ip link set eth0 up \
             && ip route add default via 10.76.1.2",
        )?;
        shell(
            &server,
            "ip address add 10.76.2.1/24 dev eth0 && ip link set eth0 up \
             && ip route add default via 10.76.2.2 && ip route add local 10.78.0.0/16 dev lo",
        )?;
        Ok(Self {
            run,
            client,
            middle,
            server,
        })
    }

    /// Where the client is.
    #[must_use]
    pub fn client(&self, route: Route) -> &Namespace {
        match route {
            Route::Loopback => &self.middle,
            Route::Hosts => &self.client,
        }
    }

    /// Where the balancer is.
    #[must_use]
    pub fn balancer(&self) -> &Namespace {
        &self.middle
    }

    /// Where the server is.
    #[must_use]
    pub fn server(&self, route: Route) -> &Namespace {
        match route {
            Route::Loopback => &self.middle,
            Route::Hosts => &self.server,
        }
    }

    /// Addresses of the balancer and of the server for the measurement of that number. Each has
    /// its own: the ports that a measurement leaves in TIME_WAIT are not missed by the next one.
    #[must_use]
    pub fn addresses(&self, route: Route, number: u16) -> (Ipv4Addr, Ipv4Addr) {
        let [high, low] = number.to_be_bytes();
        match route {
            Route::Loopback => (
                Ipv4Addr::new(127, 77, high, low),
                Ipv4Addr::new(127, 78, high, low),
            ),
            Route::Hosts => (
                Ipv4Addr::new(10, 77, high, low),
                Ipv4Addr::new(10, 78, high, low),
            ),
        }
    }

    /// Where files of the measurement are.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        &self.run.directory
    }
}

/// Limits that a benchmark would run into: ports of outgoing connections, and connections that
/// wait to be accepted. Outgoing connections keep clear of the ports of endpoints, as on a node: a balancer that knows
/// that it could be connected to itself looks, and would look each time.
const TUNING: &str = "echo 10000 65535 >/proc/sys/net/ipv4/ip_local_port_range \
    && echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse \
    && echo 65535 >/proc/sys/net/core/somaxconn \
    && echo 65535 >/proc/sys/net/ipv4/tcp_max_syn_backlog";

/// Keeps no more than five seconds of the connections that are over, for which address translation
/// has an entry each and a benchmark makes more of than there is room for.
///
/// # Errors
///
/// When the namespace is gone.
pub fn forget_closed_connections(namespace: &Namespace) -> Result<()> {
    shell(
        namespace,
        "for timeout in time_wait close fin_wait close_wait last_ack; do \
         file=/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_$timeout; \
         [ ! -e $file ] || echo 5 >$file; done",
    )
}

fn shell(namespace: &Namespace, script: &str) -> Result<()> {
    namespace
        .run("sh", &["-c", script])?
        .success()
        .map(drop)
        .with_context(|| format!("cannot set the network of {} up", namespace.name()))
}

/// Joins a namespace to another one, where it is `eth0`.
fn cable(from: &Namespace, name: &str, to: &Namespace) -> Result<()> {
    let holder = to.holder().as_raw_nonzero().to_string();
    let link = [
        "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", &holder,
    ];
    from.run("ip", &link)?.success().map(drop)
}
