//! Published ports: `80:80`, `8080:80/tcp`, `published=8080,target=80,mode=host,protocol=tcp`;
//! both forms may be followed by `,proxy-protocol=v2` and `,accept-proxy=10.0.0.0/8`.

use swarmlet_core::model::{PortMode, PortSpec, Protocol, ProxyProtocol};

/// Reads a published port in the short or the long form.
///
/// # Errors
/// A sentence that names what is wrong, in Docker's words where Docker has some.
pub(crate) fn port(text: &str) -> Result<PortSpec, String> {
    let (first, options) = text.split_once(',').unwrap_or((text, ""));
    if first.contains('=') {
        return long(text);
    }
    let mut port = short(first)?;
    for field in options.split(',').filter(|_| text.contains(',')) {
        let (key, value) = key_and_value(field)?;
        if !balancer_option(&mut port, &key, value)? {
            return Err(format!(
                "invalid field key: {key}: only proxy-protocol and accept-proxy can follow \
                 {first}; the long form is published=…,target=…,{field}"
            ));
        }
    }
    Ok(port)
}

fn short(text: &str) -> Result<PortSpec, String> {
    let (ports, protocol_text) = text.split_once('/').unwrap_or((text, "tcp"));
    if ports.is_empty() {
        return Err(format!(
            "no port specified: {text}: expected PUBLISHED:TARGET"
        ));
    }
    if ports.contains('[') || ports.matches(':').count() > 1 {
        return Err(format!(
            "an address to publish on is not supported: {text}: a published port answers on every \
             node, at the addresses that its daemon's --ingress-addr names"
        ));
    }
    let protocol = protocol(protocol_text).ok_or_else(|| {
        format!(
            "invalid proto: {protocol_text}: {}",
            no_protocol(protocol_text)
        )
    })?;
    let (published, target) = match ports.split_once(':') {
        Some((published, target)) => (Some(published), target),
        None => (None, ports),
    };
    for (what, value) in [
        ("hostPort", published.unwrap_or("1")),
        ("containerPort", target),
    ] {
        if value.contains('-') {
            return Err(format!(
                "port ranges are not supported: {value}: publish each port by itself"
            ));
        }
        if number(value).is_none() {
            return Err(format!("invalid {what}: {value}: expected 1 to 65535"));
        }
    }
    Ok(PortSpec {
        target: number(target).unwrap_or_default(),
        published: published.and_then(number).unwrap_or_default(),
        protocol,
        mode: PortMode::Ingress,
        proxy_protocol: None,
        accept_proxy: Vec::new(),
    })
}

fn long(text: &str) -> Result<PortSpec, String> {
    let mut port = PortSpec {
        target: 0,
        published: 0,
        protocol: Protocol::Tcp,
        mode: PortMode::Ingress,
        proxy_protocol: None,
        accept_proxy: Vec::new(),
    };
    for field in text.split(',') {
        let (key, value) = key_and_value(field)?;
        match key.as_str() {
            "protocol" => {
                port.protocol = protocol(value).ok_or_else(|| {
                    format!("invalid protocol value '{value}': {}", no_protocol(value))
                })?;
            }
            "mode" => {
                port.mode = match value {
                    "ingress" => PortMode::Ingress,
                    "host" => PortMode::Host,
                    _ => {
                        return Err(format!(
                            "invalid publish mode value ({value}): must be either 'ingress' or 'host'"
                        ));
                    }
                };
            }
            "target" => port.target = long_number("target", value)?,
            "published" => port.published = long_number("published", value)?,
            _ if balancer_option(&mut port, &key, value)? => {}
            _ => {
                return Err(format!(
                    "invalid field key: {key}: known are target, published, protocol, mode, \
                 proxy-protocol and accept-proxy"
                ));
            }
        }
    }
    if port.target == 0 {
        return Err("missing mandatory field 'target', the port of the container".to_owned());
    }
    Ok(port)
}

fn key_and_value(field: &str) -> Result<(String, &str), String> {
    let (key, value) = field
        .split_once('=')
        .ok_or_else(|| format!("invalid field: {field}: expected KEY=VALUE"))?;
    Ok((key.trim().to_lowercase(), value))
}

/// What the balancer does on the port; `false` for a key of another kind.
fn balancer_option(port: &mut PortSpec, key: &str, value: &str) -> Result<bool, String> {
    match key {
        "proxy-protocol" => {
            port.proxy_protocol = Some(match value {
                "v1" => ProxyProtocol::V1,
                "v2" => ProxyProtocol::V2,
                _ => {
                    return Err(format!(
                        "invalid proxy-protocol value ({value}): must be either 'v1' or 'v2'"
                    ));
                }
            });
        }
        "accept-proxy" => {
            let network = value
                .parse()
                .map_err(|error| format!("invalid accept-proxy value: {error}"))?;
            if !port.accept_proxy.contains(&network) {
                port.accept_proxy.push(network);
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn long_number(what: &str, value: &str) -> Result<u16, String> {
    if value.contains('-') {
        return Err(format!(
            "port ranges are not supported: {value}: publish each port by itself"
        ));
    }
    number(value).ok_or_else(|| {
        format!("invalid {what} port ({value}): value must be an integer of 1 to 65535")
    })
}

fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port != 0)
}

/// What is wrong with a text that is none.
fn no_protocol(text: &str) -> &'static str {
    match text.to_lowercase().as_str() {
        "sctp" => "Docker has it, swarmlet has not: must be either tcp or udp",
        _ => "must be either tcp or udp",
    }
}

fn protocol(text: &str) -> Option<Protocol> {
    match text.to_lowercase().as_str() {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn good(text: &str, published: u16, target: u16, protocol: Protocol, mode: PortMode) {
        let expected = PortSpec {
            target,
            published,
            protocol,
            mode,
            proxy_protocol: None,
            accept_proxy: Vec::new(),
        };
        assert_eq!(port(text), Ok(expected), "{text}");
    }

    #[test]
    fn ports_are_read() {
        use PortMode::{Host, Ingress};
        use Protocol::{Tcp, Udp};
        good("80:80", 80, 80, Tcp, Ingress);
        good("8080:80/tcp", 8080, 80, Tcp, Ingress);
        good("53:53/UDP", 53, 53, Udp, Ingress);
        good("80", 0, 80, Tcp, Ingress);
        good("published=8080,target=80", 8080, 80, Tcp, Ingress);
        good(
            "published=8080,target=80,mode=host,protocol=tcp",
            8080,
            80,
            Tcp,
            Host,
        );
        good("target=53,protocol=udp,mode=host", 0, 53, Udp, Host);
    }

    #[test]
    fn options_of_the_balancer_follow_both_forms() {
        let check = |text: &str, version: Option<ProxyProtocol>, networks: &[&str]| {
            let found = port(text).unwrap();
            assert_eq!((found.published, found.target), (8080, 80), "{text}");
            assert_eq!(found.proxy_protocol, version, "{text}");
            let shown: Vec<_> = found.accept_proxy.iter().map(ToString::to_string).collect();
            assert_eq!(shown, networks, "{text}");
        };
        let (v1, v2) = (Some(ProxyProtocol::V1), Some(ProxyProtocol::V2));
        check("8080:80,proxy-protocol=v2", v2, &[]);
        check("8080:80/tcp,proxy-protocol=v1", v1, &[]);
        check("published=8080,target=80,proxy-protocol=v1", v1, &[]);
        check(
            "8080:80,accept-proxy=10.0.0.0/8,accept-proxy=fd00::/8,accept-proxy=10.0.0.0/8",
            None,
            &["10.0.0.0/8", "fd00::/8"],
        );
        check(
            "target=80,accept-proxy=192.0.2.1,published=8080,proxy-protocol=v2",
            v2,
            &["192.0.2.1/32"],
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("", "no port specified: : expected PUBLISHED:TARGET"),
            ("x", "invalid containerPort: x: expected 1 to 65535"),
            ("80:x", "invalid containerPort: x: expected 1 to 65535"),
            ("x:80", "invalid hostPort: x: expected 1 to 65535"),
            (":80", "invalid hostPort: : expected 1 to 65535"),
            ("80:", "invalid containerPort: : expected 1 to 65535"),
            ("80:0", "invalid containerPort: 0: expected 1 to 65535"),
            (
                "80:65536",
                "invalid containerPort: 65536: expected 1 to 65535",
            ),
            ("80:+1", "invalid containerPort: +1: expected 1 to 65535"),
            ("80:80/xyz", "invalid proto: xyz: must be either tcp or udp"),
            (
                "8000-8010:80",
                "port ranges are not supported: 8000-8010: publish each port by itself",
            ),
            (
                "127.0.0.1:80:80",
                "an address to publish on is not supported: 127.0.0.1:80:80: a published port answers on every node, at the addresses that its daemon's --ingress-addr names",
            ),
            (
                "published=80",
                "missing mandatory field 'target', the port of the container",
            ),
            (
                "target=80,mode=all",
                "invalid publish mode value (all): must be either 'ingress' or 'host'",
            ),
            (
                "target=80,protocol=sctp",
                "invalid protocol value 'sctp': Docker has it, swarmlet has not: must be either tcp or udp",
            ),
            (
                "target=eighty",
                "invalid target port (eighty): value must be an integer of 1 to 65535",
            ),
            (
                "target=80,published=0",
                "invalid published port (0): value must be an integer of 1 to 65535",
            ),
            (
                "80:80,proxy-protocol=v3",
                "invalid proxy-protocol value (v3): must be either 'v1' or 'v2'",
            ),
            (
                "80:80,accept-proxy=10.0.0.0/33",
                "invalid accept-proxy value: invalid network \"10.0.0.0/33\": expected an address or a CIDR block, as in 10.0.0.0/8",
            ),
            (
                "80:80,mode=host",
                "invalid field key: mode: only proxy-protocol and accept-proxy can follow 80:80; the long form is published=…,target=…,mode=host",
            ),
            ("80:80,", "invalid field: : expected KEY=VALUE"),
            (
                "target=80,foo=1",
                "invalid field key: foo: known are target, published, protocol, mode, proxy-protocol and accept-proxy",
            ),
            ("target=80,foo", "invalid field: foo: expected KEY=VALUE"),
        ] {
            assert_eq!(port(text), Err(expected.to_owned()), "{text:?}");
        }
    }
}
