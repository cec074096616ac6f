//! Names of managers → addresses. The binary is linked statically and so has no part of
//! glibc's name service: /etc/hosts and DNS are asked by a resolver of its own.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;

use super::settings::CLUSTER_PORT;

/// Time for a name. Resolvers answer in milliseconds; one that is silent for longer is down.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why a manager's address is not known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    /// It is neither a name nor an address.
    #[error("invalid address {text:?}: {reason}")]
    Invalid { text: String, reason: String },
    /// Name servers know no host of this name.
    #[error("there is no host of the name {0}")]
    Unknown(String),
    /// They know the name, and no address of it.
    #[error("the name {0} has no address")]
    WithoutAddress(String),
    /// They do not answer as they should.
    #[error("cannot look up the name {host}: {reason}")]
    Failed { host: String, reason: String },
}

impl ResolveError {
    /// What the user can do.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "write HOST or HOST:PORT, as in 10.0.0.1:2377",
            Self::Unknown(_) | Self::WithoutAddress(_) => {
                "correct the name, or use the manager's address"
            }
            Self::Failed { .. } => {
                "use the manager's address, or see to this host's name servers (/etc/resolv.conf)"
            }
        }
    }
}

/// The addresses of `HOST` or `HOST:PORT`.
///
/// # Errors
/// The text makes no sense, or there is no such name.
pub(crate) async fn resolve(text: &str) -> Result<Vec<SocketAddr>, ResolveError> {
    let (host, port) = split(text)?;
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |reason: String| ResolveError::Failed {
        host: host.to_owned(),
        reason,
    };
    let resolver = TokioResolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(|error| failed(format!("the resolver's settings are unusable: {error}")))?;
    match tokio::time::timeout(DEADLINE, resolver.lookup_ip(host)).await {
        Ok(Ok(found)) => {
            let addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
            if addresses.is_empty() {
                return Err(ResolveError::WithoutAddress(host.to_owned()));
            }
            Ok(addresses)
        }
        // The resolver's own words for these are its whole query.
        Ok(Err(error)) if error.is_nx_domain() => Err(ResolveError::Unknown(host.to_owned())),
        Ok(Err(error)) if error.is_no_records_found() => {
            Err(ResolveError::WithoutAddress(host.to_owned()))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!(
            "no name server answered within {} s",
            DEADLINE.as_secs()
        ))),
    }
}

/// Whether a text may be a name or an address, without looking it up.
///
/// # Errors
/// It makes no sense.
pub(crate) fn check(text: &str) -> Result<(), ResolveError> {
    split(text).map(|_| ())
}

/// Splits off the port.
fn split(text: &str) -> Result<(&str, u16), ResolveError> {
    let invalid = |reason: String| ResolveError::Invalid {
        text: text.to_owned(),
        reason,
    };
    if let Ok(address) = text.parse::<IpAddr>() {
        // An IPv6 address by itself has colons, too.
        let host = text.trim_matches(['[', ']']);
        return Ok((if address.is_ipv6() { host } else { text }, CLUSTER_PORT));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => match port.parse::<u16>() {
            Ok(port) if port != 0 => (host, port),
            _ => return Err(invalid(format!("{port:?} is no port (1 to 65535)"))),
        },
        None => (text, CLUSTER_PORT),
    };
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() || host.contains(['/', ' ', '@']) {
        return Err(invalid("expected a name or an address".to_owned()));
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_split_off() {
        let splits = |text: &str, expected: Result<(&str, u16), &str>| {
            let found = split(text).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        };
        splits("10.0.0.1", Ok(("10.0.0.1", 2377)));
        splits("10.0.0.1:99", Ok(("10.0.0.1", 99)));
        splits("::1", Ok(("::1", 2377)));
        splits("[::1]:99", Ok(("::1", 99)));
        splits("manager.example", Ok(("manager.example", 2377)));
        splits("manager.example:99", Ok(("manager.example", 99)));
        for (text, reason) in [
            ("m:x", "\"x\" is no port (1 to 65535)"),
            ("m:0", "\"0\" is no port (1 to 65535)"),
            ("", "expected a name or an address"),
            ("http://m:99", "expected a name or an address"),
        ] {
            splits(text, Err(&format!("invalid address {text:?}: {reason}")));
        }
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
