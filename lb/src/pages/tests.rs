use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::*;

/// Long enough for whatever is to happen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
struct Two;

impl Pages for Two {
    async fn page(&self, path: &str) -> Option<Answer> {
        match path {
            "/short" => Some(Answer::health(&[], &[])),
            // More than the sockets between two ends hold.
            "/long" => Some(Answer::plain(StatusCode::OK, "x".repeat(64 << 20))),
            _ => None,
        }
    }
}

/// No client comes to these in a test.
const WIDE: Bounds = Bounds {
    clients: 4,
    head: PATIENCE.saturating_mul(2),
    whole: PATIENCE.saturating_mul(2),
};
const SHORT: Duration = Duration::from_millis(200);

async fn start(bounds: Bounds) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_within(listener, Two, bounds));
    address
}

async fn connect(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// All that comes up to the end, be it an orderly one or a reset.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // What was sent behind the request, or is not read, makes a reset of the end.
    let _ = end.expect("the connection ends");
    String::from_utf8(bytes).unwrap()
}

async fn ask(address: SocketAddr, request: &str) -> String {
    rest(&mut connect(address, request).await).await
}

#[tokio::test]
async fn requests_are_answered_one_on_each_connection() {
    let address = start(WIDE).await;
    for (request, head, text) in [
        ("GET /short HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK", "ok\n"),
        ("GET /short?x=y HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK", "ok\n"),
        ("HEAD /short HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK", ""),
        (
            "GET / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 404 Not Found",
            "no such page\n",
        ),
        (
            "DELETE /short HTTP/1.1\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed",
            "only GET and HEAD\n",
        ),
        ("SSH-2.0-whatever\r\n\r\n", "HTTP/1.1 400 Bad Request", ""),
    ] {
        let answer = ask(address, request).await;
        let (found, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(found.starts_with(head), "{request}{answer}");
        assert_eq!(body, text, "{request}{answer}");
    }
    let huge = format!(
        "GET /short HTTP/1.1\r\nx: {}\r\n\r\n",
        "x".repeat(MAX_HEAD_LEN)
    );
    let answer = ask(address, &huge).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn whoever_sends_or_reads_too_slowly_is_hung_up_on() {
    let address = start(Bounds {
        head: SHORT,
        ..WIDE
    })
    .await;
    let begun = Instant::now();
    assert_eq!(ask(address, "GET /short HT").await, "");
    assert!(begun.elapsed() >= SHORT);

    let address = start(Bounds {
        whole: SHORT,
        ..WIDE
    })
    .await;
    let mut stream = connect(address, "GET /long HTTP/1.0\r\n\r\n").await;
    sleep(SHORT * 2).await;
    assert!(rest(&mut stream).await.len() < 64 << 20);
}

#[tokio::test]
async fn the_oldest_makes_room_where_there_are_too_many() {
    let address = start(WIDE).await;
    let mut silent = Vec::new();
    for _ in 0..WIDE.clients {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let answer = ask(address, "GET /short HTTP/1.0\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    assert_eq!(rest(&mut silent[0]).await, "");
    // There is room for one now.
    ask(address, "GET /short HTTP/1.0\r\n\r\n").await;
    let end = timeout(SHORT, silent[1].read_u8()).await;
    assert!(end.is_err(), "{end:?}");
}
