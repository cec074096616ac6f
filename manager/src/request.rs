//! The size of requests: a call that only the leader answers is kept whole until somebody has
//! answered it, so what is too large is refused by the length that it announces, before any of
//! it is kept.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::timeout;
use tonic::Status;

use swarmlet_proto::REQUEST_LIMIT_BYTES;

/// The largest request to the certificate authority. It holds a signing request and a node's
/// description, a few kilobytes in all, and anybody may send one who reaches the port.
pub(crate) const CA_LIMIT_BYTES: usize = 64 << 10;

/// What comes before a message: whether it is compressed (1), and its length (4, big endian).
const PREFIX_BYTES: usize = 5;

/// How large a request for a path may be.
fn limit(path: &str) -> usize {
    match path.starts_with("/swarmlet.v1.Ca/") {
        true => CA_LIMIT_BYTES,
        false => REQUEST_LIMIT_BYTES,
    }
}

/// How long a request may take to arrive. The largest has a mebibyte, and a manager holds what has
/// come of each until its end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads a request's only message, with its prefix.
///
/// # Errors
/// `out_of_range` as soon as it is known to be larger than a request for that path may be,
/// `cancelled` where the caller ended in the middle of it, and `deadline_exceeded` where its end
/// does not come.
pub(crate) async fn read(parts: &Parts, body: Body) -> Result<Bytes, Status> {
    let late = |_| {
        let seconds = PATIENCE.as_secs();
        Status::deadline_exceeded(format!("the request did not end within {seconds} s"))
    };
    timeout(PATIENCE, read_whole(parts, body))
        .await
        .map_err(late)?
}

async fn read_whole(parts: &Parts, body: Body) -> Result<Bytes, Status> {
    let limit = limit(parts.uri.path());
    let announced = parts.headers.get(CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if let Some(bytes) = announced {
        check(bytes.saturating_sub(PREFIX_BYTES), limit)?;
    }
    let mut stream = body.into_data_stream();
    let mut read = BytesMut::new();
    while let Some(data) = stream.next().await {
        let data = data.map_err(|error| {
            Status::cancelled(format!("the request ended before its message: {error}"))
        })?;
        // Before it is copied: one piece may be as large as the connection lets through.
        check(
            (read.len() + data.len()).saturating_sub(PREFIX_BYTES),
            limit,
        )?;
        read.extend_from_slice(&data);
        if let Some([_, length @ ..]) = read.first_chunk::<PREFIX_BYTES>() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            check(length, limit)?;
        }
    }
    Ok(read.freeze())
}

fn check(bytes: usize, limit: usize) -> Result<(), Status> {
    if bytes <= limit {
        return Ok(());
    }
    Err(Status::out_of_range(format!(
        "the request is too large: it has {bytes} bytes or more, and at most {limit} are taken"
    )))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::{Request, StatusCode};
    use futures_util::stream;

    use super::*;

    const GIB: usize = 1 << 30;
    const PIECE: usize = 16 << 10;

    /// Sends a body of a gibibyte in pieces, as HTTP/2 does, which begins with `first`. Gives the
    /// refusal, and how many bytes were taken.
    async fn flood(path: &str, length: Option<usize>, first: &'static [u8]) -> (Status, usize) {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let pieces = stream::once(async move { Bytes::from_static(first) })
            .chain(stream::repeat(Bytes::from_static(&[0; PIECE])).take(GIB / PIECE))
            .map(move |piece| {
                count.fetch_add(piece.len(), Ordering::Relaxed);
                Ok::<_, std::io::Error>(piece)
            });
        let mut request = Request::post(path);
        if let Some(length) = length {
            request = request.header(CONTENT_LENGTH, length);
        }
        let (parts, body) = request
            .body(Body::from_stream(pieces))
            .unwrap()
            .into_parts();
        let refused = read(&parts, body).await.unwrap_err();
        (refused, taken.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_gibibyte_is_refused_before_it_is_kept() {
        let create = "/swarmlet.v1.Control/CreateService";
        let join = "/swarmlet.v1.Ca/Join";
        let announces: &[u8] = &[0, 0x40, 0, 0, 0];
        let lies: &[u8] = &[0, 0, 0, 0, 1];
        for (path, length, first, at_most) in [
            (create, Some(GIB), announces, 0),
            (create, None, announces, 5),
            // Whoever lies about the length is cut off once the limit is passed.
            (create, None, lies, REQUEST_LIMIT_BYTES + PIECE + 5),
            (join, Some(GIB), announces, 0),
            (join, None, announces, 5),
            (join, None, lies, CA_LIMIT_BYTES + PIECE + 5),
        ] {
            let (refused, taken) = flood(path, length, first).await;
            assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused}");
            assert!(refused.message().contains("too large"), "{refused}");
            assert!(taken <= at_most, "{path}: {taken} bytes taken");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_end_is_not_waited_for() {
        let begin = stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(&[0; 9])) });
        let endless = Body::from_stream(begin.chain(stream::pending()));
        let request = Request::post("/swarmlet.v1.Ca/Join").body(endless).unwrap();
        let (parts, body) = request.into_parts();
        let begun = tokio::time::Instant::now();
        let refused = read(&parts, body).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::DeadlineExceeded, "{refused}");
        assert_eq!(begun.elapsed(), PATIENCE);
    }

    #[tokio::test]
    async fn what_fits_is_read_whole() {
        for size in [0, 1, REQUEST_LIMIT_BYTES] {
            let mut message = vec![0];
            message.extend_from_slice(&u32::try_from(size).unwrap().to_be_bytes());
            message.resize(PREFIX_BYTES + size, 7);
            let request = Request::post("/swarmlet.v1.Control/CreateService");
            let request = request.body(Body::from(message.clone())).unwrap();
            let (parts, body) = request.into_parts();
            assert_eq!(read(&parts, body).await.unwrap(), message);
        }
        let one_more = vec![0; PREFIX_BYTES + REQUEST_LIMIT_BYTES + 1];
        let request = Request::post("/swarmlet.v1.Control/CreateService");
        let (parts, body) = request.body(Body::from(one_more)).unwrap().into_parts();
        let refused = read(&parts, body).await.unwrap_err();
        assert_eq!(refused.into_http::<Body>().status(), StatusCode::OK);
    }
}
