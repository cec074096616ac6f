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

/// Tries ports of the host that asks, and of no other.
///
/// # Errors
/// There are too many of them, or one is none.
pub(super) async fn try_ports(source: IpAddr, ports: &[u32]) -> Result<Vec<v1::PortCheck>, Status> {
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
                found: attempt(SocketAddr::new(source, number))
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
