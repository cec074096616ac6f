//! Which of this machine's addresses other nodes should use, where the user has not said.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, bail};

use super::settings::address;

/// Decides at which address other nodes reach this one.
///
/// In this order: what the user said; the address that the daemon listens on, where it is a
/// particular one; the address from which a manager (`towards`) is reached; the machine's only
/// address.
///
/// # Errors
/// There are several, or none; in Docker's words.
pub(crate) fn advertise(
    wish: &str,
    listen: SocketAddr,
    towards: Option<SocketAddr>,
) -> Result<SocketAddr> {
    if !wish.is_empty() {
        let chosen = address(wish, listen.port())
            .with_context(|| format!("invalid --advertise-addr {wish}"))?;
        if chosen.ip().is_unspecified() {
            bail!("invalid --advertise-addr {wish}: other nodes must be able to reach it");
        }
        return Ok(chosen);
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen);
    }
    if let Some(source) = towards.and_then(source_towards) {
        return Ok(SocketAddr::new(source, listen.port()));
    }
    let trie = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    choose(&addresses(&trie, &routes)).map(|ip| SocketAddr::new(ip.into(), listen.port()))
}

/// The address from which packets to `remote` leave; nothing is sent to find it out.
fn source_towards(remote: SocketAddr) -> Option<IpAddr> {
    let any = if remote.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// An address of this machine and the interface that has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Local {
    interface: String,
    address: Ipv4Addr,
}

fn choose(addresses: &[Local]) -> Result<Ipv4Addr> {
    match addresses {
        [only] => Ok(only.address),
        [] => bail!("could not find the system's IP address - specify one with --advertise-addr"),
        [first, second, ..] if first.interface == second.interface => bail!(
            "could not choose an IP address to advertise since this system has multiple addresses \
             on interface {} ({} and {}) - specify one with --advertise-addr",
            first.interface,
            first.address,
            second.address
        ),
        [first, second, ..] => bail!(
            "could not choose an IP address to advertise since this system has multiple addresses \
             on different interfaces ({} on {} and {} on {}) - specify one with --advertise-addr",
            first.address,
            first.interface,
            second.address,
            second.interface
        ),
    }
}

/// This machine's IPv4 addresses, from the kernel's routing tables in /proc: without those of
/// the loopback interface and of bridges that container engines and hypervisors make.
fn addresses(fib_trie: &str, routes: &str) -> Vec<Local> {
    let mut locals = BTreeSet::new();
    let mut last = None;
    for line in fib_trie.lines() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("|-- ") {
            last = text.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL") {
            locals.extend(last.filter(|address| !address.is_loopback()));
        }
    }
    locals
        .into_iter()
        .map(|address| Local {
            interface: interface_of(address, routes).unwrap_or_else(|| "an interface".to_owned()),
            address,
        })
        .filter(|local| !is_internal(&local.interface))
        .collect()
}

/// The interface whose own network holds the address, by /proc/net/route: name, destination
/// and mask in hexadecimal, in the machine's byte order.
fn interface_of(address: Ipv4Addr, routes: &str) -> Option<String> {
    let wanted = u32::from_ne_bytes(address.octets());
    let mut best: Option<(u32, &str)> = None;
    for line in routes.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, destination, gateway, _, _, _, _, mask, ..] = fields.as_slice() else {
            continue;
        };
        let hexadecimal = |text: &str| u32::from_str_radix(text, 16).ok();
        let (Some(destination), Some(mask)) = (hexadecimal(destination), hexadecimal(mask)) else {
            continue;
        };
        let own = hexadecimal(gateway) == Some(0) && mask != 0 && wanted & mask == destination;
        if own && best.is_none_or(|(found, _)| mask.count_ones() > found) {
            best = Some((mask.count_ones(), name));
        }
    }
    best.map(|(_, name)| name.to_owned())
}

fn is_internal(interface: &str) -> bool {
    [
        "lo", "docker", "br-", "veth", "virbr", "cni", "lxc", "podman", "flannel", "cali",
    ]
    .iter()
    .any(|prefix| interface.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n     \
        |-- 10.0.0.7\n        /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n     \
        |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 172.17.0.1\n        /32 host LOCAL\n";
    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
        eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\n\
        eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n\
        docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\n";

    #[test]
    fn the_only_address_is_taken() {
        let found = addresses(TRIE, ROUTES);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(choose(&found).unwrap().to_string(), "10.0.0.7");
    }

    #[test]
    fn several_addresses_are_the_users_choice() {
        let trie = format!("{TRIE}     |-- 10.0.0.8\n        /32 host LOCAL\n");
        let error = choose(&addresses(&trie, ROUTES)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not choose an IP address to advertise since this system has multiple addresses \
             on interface eth0 (10.0.0.7 and 10.0.0.8) - specify one with --advertise-addr"
        );
        let local = |interface: &str, address: &str| Local {
            interface: interface.to_owned(),
            address: address.parse().unwrap(),
        };
        let error = choose(&[local("eth0", "10.0.0.7"), local("eth1", "10.1.0.7")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not choose an IP address to advertise since this system has multiple addresses \
             on different interfaces (10.0.0.7 on eth0 and 10.1.0.7 on eth1) - specify one with \
             --advertise-addr"
        );
        let error = choose(&[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not find the system's IP address - specify one with --advertise-addr"
        );
    }

    #[test]
    fn a_wish_and_a_particular_listener_decide() {
        let listen: SocketAddr = "127.0.0.2:77".parse().unwrap();
        let check = |wish: &str, expected: &str| {
            let found = advertise(wish, listen, None);
            let found = found.map_or_else(|e| format!("{e:#}"), |a| a.to_string());
            assert_eq!(found, expected);
        };
        check("", "127.0.0.2:77");
        check("10.0.0.1", "10.0.0.1:77");
        check("10.0.0.1:5", "10.0.0.1:5");
        check(
            "eth0",
            "invalid --advertise-addr eth0: expected an IP address, with or without a port",
        );
        check(
            "0.0.0.0",
            "invalid --advertise-addr 0.0.0.0: other nodes must be able to reach it",
        );
        let any = "0.0.0.0:77".parse().unwrap();
        let towards = Some("127.0.0.1:1".parse().unwrap());
        assert_eq!(
            advertise("", any, towards).unwrap().to_string(),
            "127.0.0.1:77"
        );
    }
}
