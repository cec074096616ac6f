//! A host's own ports as they look from a manager: what a security group lets through cannot
//! be seen from inside.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Status;

use swarmlet_proto::v1;

/// Ports of one request: the range for tasks and the cluster port, and room for one more of
/// each. Nobody scans a host with so few.
const MAX_PORTS: usize = 4;

/// How long an attempt may take: a lost packet is sent again after a second.
const DEADLINE: Duration = Duration::from_secs(2);

/// The address of the host that asks at which its ports are to be tried: the one that it is going
/// to advertise where it says so, for that is the one that all nodes will use.
///
/// Whoever has the secret could join a node with any such address, and have every other node try
/// it: what is refused here is what no node advertises.
///
/// # Errors
/// It is no address, or none at which a node elsewhere could be reached.
pub(super) fn address(said: &str, source: IpAddr) -> Result<IpAddr, Status> {
    if said.is_empty() {
        return Ok(source);
    }
    let invalid = |why: &str| Status::invalid_argument(format!("invalid address {said:?}: {why}"));
    let address: IpAddr = said
        .parse()
        .map_err(|_| invalid("expected an IP address"))?;
    let address = address.to_canonical();
    let local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    // Several nodes of one machine may be on its loopback addresses.
    let own = address.is_loopback() && !source.is_loopback();
    if own || local || address.is_unspecified() || address.is_multicast() {
        return Err(invalid("a node elsewhere cannot be reached at it"));
    }
    Ok(address)
}

/// Tries ports of the host that asks.
///
/// # Errors
/// There are too many of them, or one is none.
pub(super) async fn try_ports(
    address: IpAddr,
    ports: &[u32],
) -> Result<Vec<v1::PortCheck>, Status> {
    if ports.len() > MAX_PORTS {
        return Err(Status::invalid_argument(format!(
            "{} ports are to be tried: {MAX_PORTS} are the most",
            ports.len()
        )));
    }
    let mut attempts = Vec::new();
    for &port in ports {
        let number = u16::try_from(port)
            .ok()
            .filter(|number| *number != 0)
            .ok_or_else(|| Status::invalid_argument(format!("{port} is no port")))?;
        attempts.push(async move {
            v1::PortCheck {
                port,
                found: attempt(SocketAddr::new(address, number))
                    .await
                    .map(Into::into),
            }
        });
    }
    Ok(join_all(attempts).await)
}

/// How an attempt failed; `None` where it was answered.
async fn attempt(address: SocketAddr) -> Option<v1::Closed> {
    match timeout(DEADLINE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => None,
        Err(_) => Some(v1::Closed::Dropped),
        Ok(Err(error)) => Some(match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => v1::Closed::Refused,
            ErrorKind::TimedOut => v1::Closed::Dropped,
            _ => v1::Closed::Unreachable,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn ports_are_tried_where_the_node_will_be() {
        let check = |said: &str, source: &str, expected: Result<&str, &str>| {
            let found = address(said, source.parse().unwrap());
            let found = found.map_err(|status| status.message().to_owned());
            let expected = expected.map(|ip| ip.parse().unwrap());
            assert_eq!(found, expected.map_err(str::to_owned), "{said} of {source}");
        };
        check("", "10.0.0.4", Ok("10.0.0.4"));
        check("10.1.0.4", "10.0.0.4", Ok("10.1.0.4"));
        check("::ffff:10.1.0.4", "10.0.0.4", Ok("10.1.0.4"));
        check("fd00::4", "10.0.0.4", Ok("fd00::4"));
        check("127.0.0.2", "127.0.0.1", Ok("127.0.0.2"));
        let nowhere = |said: &str| {
            let why = "a node elsewhere cannot be reached at it";
            let expected = format!("invalid address {said:?}: {why}");
            check(said, "10.0.0.4", Err(&expected));
        };
        for said in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"] {
            nowhere(said);
        }
        for said in ["169.254.169.254", "fe80::1", "224.0.0.1", "255.255.255.255"] {
            nowhere(said);
        }
        let expected = "invalid address \"host\": expected an IP address";
        check("host", "10.0.0.4", Err(expected));
    }

    #[tokio::test]
    async fn open_and_closed_ports_are_told_apart_and_many_are_refused() {
        let source = IpAddr::from(Ipv4Addr::LOCALHOST);
        let listener = tokio::net::TcpListener::bind((source, 0)).await.unwrap();
        let open = u32::from(listener.local_addr().unwrap().port());
        let gone = tokio::net::TcpListener::bind((source, 0)).await.unwrap();
        let closed = u32::from(gone.local_addr().unwrap().port());
        drop(gone);
        let found = try_ports(source, &[open, closed]).await.unwrap();
        assert_eq!(found[0].found, None);
        assert_eq!(found[1].found, Some(v1::Closed::Refused.into()));
        for wrong in [&[0_u32][..], &[65_536], &[1; 5]] {
            let error = try_ports(source, wrong).await.unwrap_err();
            assert_eq!(error.code(), tonic::Code::InvalidArgument);
        }
    }
}
