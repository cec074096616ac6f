//! A server of small pages over HTTP/1, for whoever looks after the balancer: monitoring, and a
//! load balancer in front.
//!
//! Nobody has to prove who he is, so nobody gets much: one request on each connection, and a
//! limit to how long it may take. There are so many connections at once; whoever comes then takes
//! the place of the one that has been there for longest, which has asked nothing yet or does not
//! take its answer. To let him wait instead would be worse: that queue is finite, too, and other
//! nodes take a node for lost to whose page they cannot connect.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{sleep, timeout},
};

/// What clients may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Connections at once.
    clients: usize,
    /// For the whole of a request's head.
    head: Duration,
    /// For a connection from its begin to its end.
    whole: Duration,
}

const BOUNDS: Bounds = Bounds {
    // Hundreds of nodes ask whether this one is there, by connects that end at once, and may do so
    // in the same moment.
    clients: 512,
    // It comes in one packet.
    head: Duration::from_secs(5),
    // The longest page has some megabytes.
    whole: Duration::from_secs(30),
};
/// A request's head; those of browsers have a kilobyte or two.
const MAX_HEAD_LEN: usize = 16 * 1024;
/// Pause after an accept that failed, mostly for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";

/// What is on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it is.
    pub status: StatusCode,
    /// What kind of text it is.
    pub content_type: &'static str,
    /// The text.
    pub text: String,
}

impl Answer {
    /// Text for people.
    #[must_use]
    pub fn plain(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            content_type: PLAIN,
            text: text.into(),
        }
    }

    /// Whether all is well, as a load balancer asks for it: each reason why it is not, and what
    /// else people should know, in a line.
    #[must_use]
    pub fn health(reasons: &[String], warnings: &[String]) -> Self {
        let (status, mut lines) = if reasons.is_empty() {
            (StatusCode::OK, vec!["ok".to_owned()])
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, reasons.to_vec())
        };
        lines.extend_from_slice(warnings);
        Self::plain(status, lines.join("\n") + "\n")
    }

    /// A page of series.
    #[must_use]
    pub fn metrics(page: &crate::metrics::Page) -> Self {
        match page.text() {
            Ok(text) => Self {
                status: StatusCode::OK,
                content_type: crate::metrics::CONTENT_TYPE,
                text,
            },
            Err(error) => Self::plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("cannot write the metrics: {error}\n"),
            ),
        }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.text));
        *response.status_mut() = self.status;
        let content_type = HeaderValue::from_static(self.content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }
}

/// What the pages are made of.
pub trait Pages: Clone + Send + Sync + 'static {
    /// The page at a path such as `/metrics`; `None` where there is none.
    fn page(&self, path: &str) -> impl Future<Output = Option<Answer>> + Send;
}

/// Answers until it is dropped. Connections that there are then are still answered.
pub async fn serve(listener: TcpListener, pages: impl Pages) {
    serve_within(listener, pages, BOUNDS).await;
}

async fn serve_within(listener: TcpListener, pages: impl Pages, bounds: Bounds) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(MAX_HEAD_LEN)
        .keep_alive(false);
    // In the order in which they came.
    let mut clients: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                clients.retain(|client| !client.is_finished());
                if clients.len() >= bounds.clients
                    && let Some(oldest) = clients.pop_front()
                {
                    tracing::debug!("too many clients of the pages, hanging up on the oldest");
                    oldest.abort();
                }
                let converse = timeout(bounds.whole, converse(http.clone(), stream, pages.clone()));
                clients.push_back(tokio::spawn(converse).abort_handle());
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client of the pages, pausing");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(http: http1::Builder, stream: TcpStream, pages: impl Pages) {
    let service = service_fn(|request: Request<Incoming>| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(answer(&request, &pages).await) }
    });
    // A client that goes away, or that speaks no HTTP, is its own business.
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a client of the pages was not answered");
    }
}

async fn answer(request: &Request<Incoming>, pages: &impl Pages) -> Response<Full<Bytes>> {
    // Of an answer to HEAD the text is not sent, by hyper itself.
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let refused = Answer::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let mut response = refused.into_response();
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    let found = pages.page(request.uri().path()).await;
    let none = || Answer::plain(StatusCode::NOT_FOUND, "no such page\n");
    found.unwrap_or_else(none).into_response()
}

#[cfg(test)]
mod tests;
