//! One check.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use swarmlet_core::model::{Check, Probe, ProxyProtocol};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Asks once; the error says in a few words what was asked and what came back. Where the port
/// expects a PROXY header it gets one that names nobody: the check is the node's own.
pub(super) async fn ask(
    address: SocketAddr,
    check: &Check,
    proxy_protocol: Option<ProxyProtocol>,
) -> Result<(), String> {
    let asked = async {
        let mut stream = TcpStream::connect(address)
            .await
            .map_err(|error| describe(&error))?;
        if let Some(version) = proxy_protocol {
            let told = stream.write_all(own_header(version)).await;
            told.map_err(|error| describe(&error))?;
        }
        match &check.probe {
            Probe::Tcp { .. } => Ok(()),
            Probe::Http { path, .. } => get(stream, address, path).await,
        }
    };
    let result = match timeout(check.timeout, asked).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {:?}", check.timeout)),
    };
    result.map_err(|reason| format!("check {}: {reason}", check.probe))
}

/// UNKNOWN and LOCAL, as HAProxy's proxy-protocol.txt has them.
fn own_header(version: ProxyProtocol) -> &'static [u8] {
    match version {
        ProxyProtocol::V1 => b"PROXY UNKNOWN\r\n",
        ProxyProtocol::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}

/// The kind of an error, without the number that the system adds.
fn describe(error: &std::io::Error) -> String {
    error.kind().to_string()
}

async fn get(stream: TcpStream, address: SocketAddr, path: &str) -> Result<(), String> {
    let failed = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .header(USER_AGENT, concat!("swarmlet/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let mut response = std::pin::pin!(sender.send_request(request));
    // The connection is driven until the head has arrived, and ends with this function. Where
    // it ends by itself the answer says why, or is there all the same.
    let response = tokio::select! {
        response = &mut response => response,
        _ended = connection => response.await,
    };
    match response.map_err(failed)?.status() {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(format!("status {}", text(status))),
    }
}

fn text(status: StatusCode) -> String {
    status.as_u16().to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Asks a server that answers each connection with these bytes, and keeps it open where
    /// there are none.
    async fn answered(probe: Probe, answer: &'static [u8]) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            if answer.is_empty() {
                std::future::pending::<()>().await;
            }
            stream.write_all(answer).await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let mut check = Check::new(probe);
        check.timeout = Duration::from_millis(500);
        let result = ask(address, &check, None).await;
        if !answer.is_empty() {
            let request = server.await.unwrap();
            let expected = format!("GET /up HTTP/1.1\r\nhost: {address}\r\n");
            assert!(request.starts_with(&expected), "{request}");
        }
        result
    }

    fn http() -> Probe {
        Probe::http("/up").unwrap()
    }

    fn fails(reason: &str) -> Result<(), String> {
        Err(format!("check http /up: {reason}"))
    }

    #[tokio::test]
    async fn a_status_below_400_passes() {
        let answer = |line| answered(http(), line);
        assert_eq!(answer(b"HTTP/1.1 204 No Content\r\n\r\n").await, Ok(()));
        assert_eq!(
            answer(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n").await,
            Ok(())
        );
        assert_eq!(
            answer(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await,
            fails("status 503")
        );
        assert_eq!(
            answer(b"HTTP/1.1 404 Not Found\r\n\r\n").await,
            fails("status 404")
        );
        assert!(answer(b"SSH-2.0-OpenSSH\r\n").await.is_err());
    }

    #[tokio::test]
    async fn silence_fails_after_the_timeout() {
        assert_eq!(answered(http(), b"").await, fails("no answer within 500ms"));
    }

    #[tokio::test]
    async fn a_port_that_accepts_passes_and_a_closed_one_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let check = Check::new(Probe::Tcp { port: None });
        assert_eq!(ask(address, &check, None).await, Ok(()));
        drop(listener);
        assert_eq!(
            ask(address, &check, None).await,
            Err("check tcp: connection refused".to_owned())
        );
    }

    #[tokio::test]
    async fn a_port_that_expects_a_proxy_header_gets_one_and_an_end_in_order() {
        for (version, header) in [
            (ProxyProtocol::V1, &b"PROXY UNKNOWN\r\n"[..]),
            (ProxyProtocol::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
        ] {
            for (probe, more) in [
                (Probe::Tcp { port: None }, &b""[..]),
                (http(), b"GET /up HTTP/1.1\r\n"),
            ] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let server = tokio::spawn(async move {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut begun = vec![0; header.len() + more.len()];
                    stream.read_exact(&mut begun).await.unwrap();
                    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                    begun
                });
                assert_eq!(
                    ask(address, &Check::new(probe), Some(version)).await,
                    Ok(())
                );
                assert_eq!(server.await.unwrap(), [header, more].concat());
            }
        }
    }
}
