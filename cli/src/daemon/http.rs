//! The node's pages: `/healthz` for a load balancer in front, `/metrics` for Prometheus.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use swarmlet_lb::pages::{self, Answer, Pages};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::health::{health, warnings};
use super::metrics;
use super::view::Views;

/// Takes the port.
///
/// # Errors
/// Somebody else has it.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot serve the health page on {address} (choose another with --http-addr)")
    })
}

/// Serves the pages until `end`.
pub(super) async fn serve(listener: TcpListener, views: Views, end: CancellationToken) {
    // Clients that are being answered do not hold up the end.
    end.run_until_cancelled(pages::serve(listener, Node(views)))
        .await;
}

#[derive(Clone)]
struct Node(Views);

impl Pages for Node {
    async fn page(&self, path: &str) -> Option<Answer> {
        let phase = self.0.now();
        match path {
            "/healthz" => {
                let reasons = health(&phase).err().unwrap_or_default();
                Some(Answer::health(&reasons, &warnings(&phase)))
            }
            "/metrics" => Some(Answer::metrics(&metrics::page(&phase).await)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::view::Phase;
    use super::*;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn pages_need_no_host_header() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, Views::new(Phase::Inactive), end.clone()));
        let answer = ask(address, "GET /healthz HTTP/1.0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
        assert!(
            answer.ends_with("the node is not part of a swarm\n"),
            "{answer}"
        );
        let answer = ask(
            address,
            "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        let answer = ask(address, "GET /metrics HTTP/1.0\r\n\r\n").await;
        assert!(answer.contains("swarmlet_node_active 0\n"), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
        end.cancel();
        serving.await.unwrap();
    }
}
