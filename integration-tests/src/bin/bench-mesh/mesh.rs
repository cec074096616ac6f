//! Two nodes: one that clients come to, and one with the container.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use swarmlet_integration_tests::{
    Host, Hosts, Image, Namespace, bench::forget_closed_connections, sibling_binary, wait_until,
};

use crate::way::Way;

/// Where each way begins on the node that clients come to.
const PUBLISHED: u16 = 80;
const HAPROXY: u16 = 8_081;
const NFT: u16 = 8_082;

/// Longest wait for anything that is not measured.
const LIMIT: Duration = Duration::from_secs(30);

/// See the module. Dropping it removes everything.
pub(crate) struct Mesh {
    hosts: Hosts,
    /// The container, as the balancer of the first node reaches it.
    endpoint: SocketAddr,
}

impl Mesh {
    pub(crate) fn start() -> Result<Self> {
        let hosts = Hosts::start(2, &Image::whoami()?)?;
        let (first, second) = (&hosts[0], &hosts[1]);
        make_swarm(first, second)?;
        serve(first, second)?;
        let endpoint = wait_until(LIMIT, "an endpoint", || first.endpoint())?;
        for namespace in [first.namespace(), second.namespace(), hosts.client()] {
            forget_closed_connections(namespace)?;
        }
        haproxy(first, endpoint)?;
        nft(first, endpoint)?;
        let mesh = Self { hosts, endpoint };
        for way in Way::ALL {
            mesh.wait_for(way)?;
        }
        Ok(mesh)
    }

    /// Where clients are.
    pub(crate) fn client(&self) -> &Namespace {
        self.hosts.client()
    }

    /// Where a client connects to.
    pub(crate) fn target(&self, way: Way) -> SocketAddr {
        let (host, port) = match way {
            Way::Swarmlet => (0, PUBLISHED),
            Way::SameHost => (1, PUBLISHED),
            Way::HaProxy => (0, HAPROXY),
            Way::Nft => (0, NFT),
            Way::Direct => return self.endpoint,
        };
        (self.hosts[host].address(), port).into()
    }

    /// The engines' version.
    pub(crate) fn engine(&self) -> Result<String> {
        let version = self.hosts[0].docker(&["version", "--format", "{{.Server.Version}}"])?;
        Ok(version.success()?.trim().to_owned())
    }

    fn wait_for(&self, way: Way) -> Result<()> {
        let target = self.target(way);
        wait_until(LIMIT, way.name(), || {
            let connect = move || std::net::TcpStream::connect_timeout(&target, LIMIT).map(drop);
            let connected = self.client().thread(connect)?.join();
            connected.map_err(|_| anyhow::anyhow!("a thread panicked"))???;
            Ok(Some(()))
        })
    }
}

fn make_swarm(manager: &Host, worker: &Host) -> Result<()> {
    let address = manager.address().to_string();
    let init = ["init", "--advertise-addr", &address];
    manager.swarmlet(&init)?.success()?;
    let token = manager.swarmlet(&["join-token", "--quiet", "worker"])?;
    let token = token.success()?;
    let join = ["join", "--token", token.trim(), &format!("{address}:2377")];
    worker.swarmlet(&join)?.success().map(drop)
}

/// One container on the second node: the least that a server can do, so that what is measured is
/// the way to it.
fn serve(manager: &Host, worker: &Host) -> Result<()> {
    let words = ["backend", "--forever", "--port", "80", "--ports", "1"];
    worker.import(&Image::new(
        "server",
        &sibling_binary("bench-traffic")?,
        &words,
    ))?;
    let constraint = format!("--constraint=node.hostname=={}", worker.name());
    let publish = format!("--publish={PUBLISHED}:80");
    let create = ["service", "create", "--no-resolve-image", "--name=one"];
    let words = [&create[..], &[&constraint, &publish, "server"]].concat();
    manager.swarmlet(&words)?.success().map(drop)
}

/// With as many threads as the node's balancer has. `tcp-smart-accept` and `tcp-smart-connect`
/// spare packets of each connection.
fn haproxy(host: &Host, endpoint: SocketAddr) -> Result<()> {
    let threads = std::thread::available_parallelism()?;
    let text = format!(
        "global\n  maxconn 9500\n  nbthread {threads}\n\
         defaults\n  mode tcp\n  maxconn 9500\n\
         \x20 timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         \x20 option tcp-smart-accept\n  option tcp-smart-connect\n\
         listen one\n  bind {}:{HAPROXY} backlog 65535\n  server one {endpoint}\n",
        host.address()
    );
    let file = host.namespace().directory().join("haproxy.cfg");
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let words = ["-db", "-f", &file.display().to_string()];
    host.spawn("haproxy", "haproxy", &words).map(drop)
}

/// Answers have to come back the same way, for which the host puts its own address in.
fn nft(host: &Host, endpoint: SocketAddr) -> Result<()> {
    let own = host.address();
    let rules = format!(
        "table ip bench {{\n\
         \x20 chain in {{\n    type nat hook prerouting priority -100;\n\
         \x20   ip daddr {own} tcp dport {NFT} dnat to {endpoint}\n  }}\n\
         \x20 chain out {{\n    type nat hook postrouting priority 100;\n\
         \x20   ct status dnat ip daddr {} masquerade\n  }}\n}}\n",
        endpoint.ip()
    );
    let file = host.namespace().directory().join("bench.nft");
    fs::write(&file, rules).with_context(|| format!("cannot write {}", file.display()))?;
    host.run("nft", &["-f", &file.display().to_string()])?
        .success()?;
    // An engine lets nothing be forwarded that is not its containers'.
    let accept = ["-I", "FORWARD", "-m", "conntrack", "--ctstate"];
    let both = ["DNAT,ESTABLISHED", "-j", "ACCEPT"];
    host.run("iptables", &[&accept[..], &both].concat())?
        .success()
        .map(drop)
}
