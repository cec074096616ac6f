use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::*;

async fn server() -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = serve_on(listener, "host1".to_owned(), FINISH_WITHIN, async {
        stopped.await.unwrap();
    });
    (address, stop, tokio::spawn(serving))
}

/// Reads one answer with its length, as keep-alive needs it.
async fn ask(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: example\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    loop {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).await.unwrap();
        assert_ne!(count, 0, "closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        if let Some((head, body)) = answer.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return body.to_owned();
            }
        }
    }
}

#[tokio::test]
async fn the_first_line_is_the_host_name() {
    let (address, _stop, _serving) = server().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let local = stream.local_addr().unwrap();
    let expected =
        format!("host1\nHostname: host1\nRemote: {local}\nHost: example\nRequest: GET /a?b\n");
    assert_eq!(ask(&mut stream, "/a?b").await, expected);
    assert_eq!(
        ask(&mut stream, "/health").await,
        "ok\n",
        "on the same connection"
    );
}

/// The status line of one answer.
async fn status(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn it_can_be_told_to_be_unwell() {
    let (address, _stop, _serving) = server().await;
    let path = "/status?code=404";
    assert_eq!(status(address, path).await, "HTTP/1.0 404 Not Found");
    assert_eq!(status(address, "/health").await, "HTTP/1.0 200 OK");
    let path = "/health?set=503&ms=300000";
    assert_eq!(status(address, path).await, "HTTP/1.0 200 OK");
    let unwell = "HTTP/1.0 503 Service Unavailable";
    assert_eq!(status(address, "/health").await, unwell);
    status(address, "/health?set=503&ms=0").await;
    while status(address, "/health").await == unwell {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_slow_answer_holds_up_nobody_and_is_finished() {
    let (address, stop, serving) = server().await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    ask(&mut idle, "/").await;
    let slow = tokio::spawn(async move { ask(&mut slow, "/slow?ms=300").await });
    sleep(Duration::from_millis(50)).await;
    ask(&mut idle, "/").await;
    assert!(!slow.is_finished());
    stop.send(()).unwrap();
    assert!(slow.await.unwrap().starts_with("host1\n"));
    serving.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

/// Reads what there is until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_kept_connection_is_told_before_it_is_closed() {
    let (address, stop, serving) = server().await;
    let mut busy = TcpStream::connect(address).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    for stream in [&mut busy, &mut idle] {
        ask(stream, "/").await;
    }
    // Connected, and not yet accepted for all that it knows.
    let mut late = TcpStream::connect(address).await.unwrap();
    let begin = Instant::now();
    stop.send(()).unwrap();
    while TcpStream::connect(address).await.is_ok() {}
    for stream in [&mut busy, &mut late] {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n")
            .await
            .unwrap();
        let text = rest(stream).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("connection: close\r\n"), "{text}");
    }
    assert_eq!(rest(&mut idle).await, "");
    assert!(begin.elapsed() >= SILENCE, "{:?}", begin.elapsed());
    serving.await.unwrap();
}

#[tokio::test]
async fn without_connections_it_ends_at_once() {
    let (_, stop, serving) = server().await;
    let begin = Instant::now();
    stop.send(()).unwrap();
    serving.await.unwrap();
    assert!(begin.elapsed() < SILENCE, "{:?}", begin.elapsed());
}
