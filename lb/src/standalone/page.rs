//! The page for Prometheus of a balancer by itself, and the one for a load balancer in front.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::task::AbortOnDropHandle;
use toml::Spanned;

use super::Start;
use crate::{
    balancer::Handle,
    control, metrics,
    pages::{self, Answer, Pages},
    run::End,
};

/// Between two tries to bind an address that somebody has. A predecessor lets go of it within
/// milliseconds.
const RETRY: Duration = Duration::from_millis(100);
/// Tries after which somebody else must have it, and it is told: five seconds.
const TRIES_UNTOLD: u32 = 50;

/// The key `metrics`: an address with a port that is one.
pub(super) fn address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Spanned<SocketAddr>>, D::Error> {
    let address = Spanned::<SocketAddr>::deserialize(deserializer)?;
    if address.get_ref().port() == 0 {
        return Err(D::Error::custom("a page has no port 0"));
    }
    Ok(Some(address))
}

/// An address that is not to be had.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) address: SocketAddr,
    pub(super) source: io::Error,
}

/// Where the page begins to answer.
#[derive(Debug)]
pub(super) enum Place {
    Nowhere,
    Here(SocketAddr, TcpListener),
    /// The balancer before has it, and lets go of it.
    Soon(SocketAddr),
}

impl Place {
    pub(super) async fn take(address: Option<SocketAddr>, start: Start) -> Result<Self, Taken> {
        let Some(address) = address else {
            return Ok(Self::Nowhere);
        };
        match bind(address).await {
            Ok(listener) => Ok(Self::Here(address, listener)),
            Err(taken) if start == Start::TakeOver && taken.is_in_use() => Ok(Self::Soon(address)),
            Err(taken) => Err(taken),
        }
    }

    /// There is no balancer before.
    pub(super) async fn or_never(self) -> Result<Self, Taken> {
        match self {
            Self::Soon(address) => Self::take(Some(address), Start::Alone).await,
            place => Ok(place),
        }
    }
}

impl Taken {
    fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Taken> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| Taken { address, source })
}

/// Answers at one address at a time, or at none. Dropped, it answers no more.
pub(super) struct Page {
    content: Content,
    end: End,
    serving: Option<(SocketAddr, AbortOnDropHandle<()>)>,
}

impl Page {
    /// Of a balancer that lets go of the address once its end was asked for: its successor needs it.
    pub(super) fn new(balancer: Handle, control: Option<PathBuf>, end: End, place: Place) -> Self {
        let mut page = Self {
            content: Content { balancer, control },
            end,
            serving: None,
        };
        page.be_at(place);
        page
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.serving.as_ref().map(|(address, _)| *address)
    }

    /// Moves to another address. Where that is not to be had it stays, or returns to where it was.
    pub(super) async fn move_to(&mut self, next: Option<SocketAddr>) -> Result<(), Taken> {
        let before = self.address();
        if next == before {
            return Ok(());
        }
        let place = match (Place::take(next, Start::Alone).await, next, before) {
            (Err(taken), Some(next), Some(before))
                if taken.is_in_use() && next.port() == before.port() =>
            {
                // It may be this page itself that is in the way: 0.0.0.0 of 127.0.0.1.
                self.close().await;
                let again = Place::take(Some(next), Start::Alone).await;
                again.inspect_err(|_| self.be_at(Place::Soon(before)))?
            }
            (place, ..) => place?,
        };
        self.close().await;
        self.be_at(place);
        Ok(())
    }

    fn be_at(&mut self, place: Place) {
        let content = self.content.clone();
        match place {
            Place::Nowhere => {}
            Place::Here(address, listener) => self.run(address, serve(listener, address, content)),
            Place::Soon(address) => self.run(address, async move {
                serve(bind_patiently(address).await, address, content).await;
            }),
        }
    }

    fn run(&mut self, address: SocketAddr, pages: impl Future<Output = ()> + Send + 'static) {
        let end = self.end.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = pages => {}
                () = end.asked() => {}
            }
        });
        self.serving = Some((address, AbortOnDropHandle::new(task)));
    }

    /// Once this returns, the address is free.
    async fn close(&mut self) {
        if let Some((_, task)) = self.serving.take() {
            task.abort();
            // That it was aborted is no news.
            let _ = task.await;
        }
    }
}

async fn serve(listener: TcpListener, address: SocketAddr, content: Content) {
    tracing::info!(%address, "serving /metrics and /healthz");
    pages::serve(listener, content).await;
}

async fn bind_patiently(address: SocketAddr) -> TcpListener {
    let mut tries = 0_u32;
    loop {
        match bind(address).await {
            Ok(listener) => return listener,
            Err(taken) if tries == TRIES_UNTOLD => {
                tracing::warn!(%address, error = %taken.source, "cannot serve /metrics yet, trying on");
            }
            Err(_) => {}
        }
        tries = tries.saturating_add(1);
        sleep(RETRY).await;
    }
}

#[derive(Debug, Clone)]
struct Content {
    balancer: Handle,
    control: Option<PathBuf>,
}

impl Pages for Content {
    async fn page(&self, path: &str) -> Option<Answer> {
        match path {
            "/healthz" => Some(Answer::health(&self.complaints().await, &[])),
            "/metrics" => Some(self.metrics().await),
            _ => None,
        }
    }
}

impl Content {
    /// Why it does not forward all that it should.
    async fn complaints(&self) -> Vec<String> {
        let Ok(summary) = self.balancer.summary().await else {
            return vec!["the balancer is down".to_owned()];
        };
        let errors = summary.port_errors.iter();
        errors
            .map(|error| format!("port {} is not served: {}", error.port, error.reason))
            .collect()
    }

    async fn metrics(&self) -> Answer {
        let mut page = metrics::Page::new();
        let current = self.balancer.status().await;
        page.balancer_up(current.is_ok());
        if let Ok(current) = current {
            let mut generations = vec![current];
            if let Some(control) = &self.control {
                generations.extend(control::replaced(control).await);
            }
            page.balancers(&generations);
        }
        Answer::metrics(&page)
    }
}
