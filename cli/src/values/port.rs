//! Published ports: `80:80`, `8080:80/tcp`, `published=8080,target=80,mode=host,protocol=tcp`.

use swarmlet_core::model::{PortMode, PortSpec, Protocol};

/// Reads a published port in the short or the long form.
///
/// # Errors
/// A sentence that names what is wrong, in Docker's words where Docker has some.
pub(crate) fn port(text: &str) -> Result<PortSpec, String> {
    if text.contains('=') {
        long(text)
    } else {
        short(text)
    }
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
            "an address to publish on is not supported: {text}: a published port answers on every node"
        ));
    }
    let protocol =
        protocol(protocol_text).ok_or_else(|| format!("invalid proto: {protocol_text}"))?;
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
            return Err(format!("invalid {what}: {value}"));
        }
    }
    Ok(PortSpec {
        target: number(target).unwrap_or_default(),
        published: published.and_then(number).unwrap_or_default(),
        protocol,
        mode: PortMode::Ingress,
    })
}

fn long(text: &str) -> Result<PortSpec, String> {
    let mut port = PortSpec {
        target: 0,
        published: 0,
        protocol: Protocol::Tcp,
        mode: PortMode::Ingress,
    };
    for field in text.split(',') {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("invalid field: {field}"));
        };
        match key.trim().to_lowercase().as_str() {
            "protocol" => {
                port.protocol =
                    protocol(value).ok_or_else(|| format!("invalid protocol value '{value}'"))?;
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
            _ => return Err(format!("invalid field key: {key}")),
        }
    }
    if port.target == 0 {
        return Err("missing mandatory field 'target'".to_owned());
    }
    Ok(port)
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
    fn mistakes_are_named() {
        for (text, expected) in [
            ("", "no port specified: : expected PUBLISHED:TARGET"),
            ("x", "invalid containerPort: x"),
            ("80:x", "invalid containerPort: x"),
            ("x:80", "invalid hostPort: x"),
            (":80", "invalid hostPort: "),
            ("80:", "invalid containerPort: "),
            ("80:0", "invalid containerPort: 0"),
            ("80:65536", "invalid containerPort: 65536"),
            ("80:+1", "invalid containerPort: +1"),
            ("80:80/xyz", "invalid proto: xyz"),
            (
                "8000-8010:80",
                "port ranges are not supported: 8000-8010: publish each port by itself",
            ),
            (
                "127.0.0.1:80:80",
                "an address to publish on is not supported: 127.0.0.1:80:80: a published port answers on every node",
            ),
            ("published=80", "missing mandatory field 'target'"),
            (
                "target=80,mode=all",
                "invalid publish mode value (all): must be either 'ingress' or 'host'",
            ),
            ("target=80,protocol=sctp", "invalid protocol value 'sctp'"),
            (
                "target=eighty",
                "invalid target port (eighty): value must be an integer of 1 to 65535",
            ),
            (
                "target=80,published=0",
                "invalid published port (0): value must be an integer of 1 to 65535",
            ),
            ("target=80,foo=1", "invalid field key: foo"),
            ("target=80,foo", "invalid field: foo"),
        ] {
            assert_eq!(port(text), Err(expected.to_owned()), "{text:?}");
        }
    }
}
