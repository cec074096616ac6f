//! A socket that answers as the test says, for a runtime to ask.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::DockerRuntime;

/// An answer: status line and body.
pub(super) fn http((status, body): (&str, &str)) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

/// Answers every request, and counts them.
fn engine(
    socket: &Path,
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(socket).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            // A client that has gone meanwhile is none that waits for the answer.
            let _ = reply(stream, &answer).await;
        }
    });
    count
}

async fn reply(mut stream: UnixStream, answer: impl Fn(&str) -> String) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&part[..read]);
    }
    let request = String::from_utf8_lossy(&request);
    stream.write_all(answer(&request).as_bytes()).await
}

/// A runtime of an engine that answers so, by request line and headers.
pub(super) fn runtime(
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> (DockerRuntime, Arc<AtomicUsize>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let count = engine(&socket, answer);
    let host = format!("unix://{}", socket.display());
    (DockerRuntime::new(Some(&host)).unwrap(), count, directory)
}
