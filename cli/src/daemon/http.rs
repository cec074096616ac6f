//! The node's pages: `/healthz` for a load balancer in front, `/metrics` for Prometheus.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
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
///
/// # Errors
/// The server failed.
pub(super) async fn serve(
    listener: TcpListener,
    views: Views,
    end: CancellationToken,
) -> Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics_page))
        .with_state(views);
    // Pages are answered in milliseconds; a client that keeps its connection open must not
    // hold up the end.
    tokio::select! {
        result = async { axum::serve(listener, router).await } => result.context("the health page failed"),
        () = end.cancelled() => Ok(()),
    }
}

async fn healthz(State(views): State<Views>) -> impl IntoResponse {
    let phase = views.now();
    let (status, mut lines) = match health(&phase) {
        Ok(()) => (StatusCode::OK, vec!["ok".to_owned()]),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, reasons),
    };
    lines.extend(warnings(&phase));
    (status, lines.join("\n") + "\n")
}

async fn metrics_page(State(views): State<Views>) -> impl IntoResponse {
    match metrics::page(&views.now()).await {
        Ok(page) => (
            StatusCode::OK,
            [(
                CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            page,
        ),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(CONTENT_TYPE, "text/plain; charset=utf-8")],
            format!("cannot write the metrics: {error}\n"),
        ),
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
        serving.await.unwrap().unwrap();
    }
}
