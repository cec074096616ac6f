//! Names of managers → addresses. The binary is linked statically and so has no part of
//! glibc's name service: /etc/hosts and DNS are asked by a resolver of its own.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, bail};
use hickory_resolver::TokioResolver;

use super::settings::CLUSTER_PORT;

/// Time for a name. Resolvers answer in milliseconds; one that is silent for longer is down.
const DEADLINE: Duration = Duration::from_secs(5);

/// The addresses of `HOST` or `HOST:PORT`.
///
/// # Errors
/// The text makes no sense, or there is no such name.
pub(crate) async fn resolve(text: &str) -> Result<Vec<SocketAddr>> {
    let (host, port) = split(text)?;
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let resolver = match TokioResolver::builder_tokio().and_then(|builder| builder.build()) {
        Ok(resolver) => resolver,
        Err(error) => {
            bail!("cannot look up {host}: the system's resolver settings are unusable: {error}")
        }
    };
    match tokio::time::timeout(DEADLINE, resolver.lookup_ip(host)).await {
        Ok(Ok(found)) => {
            let addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
            if addresses.is_empty() {
                bail!("the name {host} has no address");
            }
            Ok(addresses)
        }
        Ok(Err(error)) => bail!("cannot look up {host}: {error}"),
        Err(_) => bail!(
            "cannot look up {host}: no answer within {} s",
            DEADLINE.as_secs()
        ),
    }
}

/// Splits off the port.
fn split(text: &str) -> Result<(&str, u16)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        // An IPv6 address by itself has colons, too.
        let host = text.trim_matches(['[', ']']);
        return Ok((if address.is_ipv6() { host } else { text }, CLUSTER_PORT));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => match port.parse::<u16>() {
            Ok(port) if port != 0 => (host, port),
            _ => bail!("invalid address {text}: invalid port {port:?}"),
        },
        None => (text, CLUSTER_PORT),
    };
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() || host.contains(['/', ' ', '@']) {
        bail!("invalid address {text}: expected a name or an address, with or without a port");
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_split_off() {
        let check = |text: &str, expected: Result<(&str, u16), &str>| {
            let found = split(text).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        };
        check("10.0.0.1", Ok(("10.0.0.1", 2377)));
        check("10.0.0.1:99", Ok(("10.0.0.1", 99)));
        check("::1", Ok(("::1", 2377)));
        check("[::1]:99", Ok(("::1", 99)));
        check("manager.example", Ok(("manager.example", 2377)));
        check("manager.example:99", Ok(("manager.example", 99)));
        check("m:x", Err("invalid address m:x: invalid port \"x\""));
        check("m:0", Err("invalid address m:0: invalid port \"0\""));
        let expected = "expected a name or an address, with or without a port";
        check("", Err(&format!("invalid address : {expected}")));
        check(
            "http://m:99",
            Err(&format!("invalid address http://m:99: {expected}")),
        );
    }

    #[tokio::test]
    async fn addresses_and_local_names_need_no_server() {
        let address = resolve("127.0.0.1:5").await.unwrap();
        assert_eq!(address, ["127.0.0.1:5".parse().unwrap()]);
        let local = resolve("localhost").await.unwrap();
        assert!(
            local
                .iter()
                .all(|a| a.ip().is_loopback() && a.port() == 2377),
            "{local:?}"
        );
    }
}
