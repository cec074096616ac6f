//! Whether the leader can be called from here.
//!
//! A port that is closed one way leaves a manager that hears its leader and cannot call it: raft
//! goes on, and the heartbeats of all nodes with sessions here are lost, so that the leader would
//! take them for dead. A delivery that takes long is therefore doubted, and the leader's port is
//! tried; where it does not answer, the sessions end, for another manager may reach the leader. A
//! leader that is only slow answers on its port, and nothing ends.
//!
//! ```text
//!   delivered ──a delivery has waited 500 ms──▶ doubted ──1 s without an answer──▶ lost
//!       ▲                                         │                                  │
//!       └──────── the port answers, a delivery succeeds, another leader ─────────────┘
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// A delivery takes milliseconds. One that has taken this long is doubted.
const DOUBT: Duration = Duration::from_millis(500);

/// For so long the leader's port must not have answered. With the doubt before it this leaves a
/// node the time for a heartbeat through another manager before it counts as unknown, and is
/// longer than a leader that died stays the known one.
const SILENT: Duration = Duration::from_secs(1);

/// How long an attempt at the port may take.
const ATTEMPT: Duration = Duration::from_millis(500);

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// A cheap handle; the work is done by [`watch`](Self::watch).
#[derive(Clone, Default)]
pub(crate) struct Reach(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The leader that is called, and since when nothing was delivered to it.
    waiting: watch::Sender<Option<(SocketAddr, Instant)>>,
    /// The leader that cannot be called.
    lost: watch::Sender<Option<SocketAddr>>,
}

impl Reach {
    /// Notes that a delivery begins.
    pub(crate) fn calling(&self, leader: SocketAddr) {
        self.0.waiting.send_if_modified(|waiting| {
            let news = waiting.is_none_or(|(called, _)| called != leader);
            if news {
                *waiting = Some((leader, Instant::now()));
            }
            news
        });
    }

    /// Notes that there is nothing to doubt: it was delivered, or there is nobody to call.
    pub(crate) fn clear(&self) {
        self.0
            .waiting
            .send_if_modified(|waiting| waiting.take().is_some());
    }

    /// Returns once the leader cannot be called from here, with its address.
    pub(crate) async fn lost(&self) -> SocketAddr {
        let mut lost = self.0.lost.subscribe();
        loop {
            if let Some(leader) = *lost.borrow_and_update() {
                return leader;
            }
            if lost.changed().await.is_err() {
                // The sender lives as long as this handle.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Doubts, tries and tells, for ever.
    pub(crate) async fn watch(&self) {
        self.watch_by(answers).await;
    }

    async fn watch_by<F: Future<Output = bool>>(&self, answers: impl Fn(SocketAddr) -> F) {
        let mut waiting = self.0.waiting.subscribe();
        loop {
            let now = *waiting.borrow_and_update();
            let Some((leader, since)) = now else {
                if waiting.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                _ = waiting.changed() => {}
                () = sleep_until(since + DOUBT) => {
                    tokio::select! {
                        _ = waiting.changed() => {}
                        () = self.doubted(leader, &answers) => {}
                    }
                    self.0.lost.send_if_modified(|lost| lost.take().is_some());
                }
            }
        }
    }

    /// Tries the port, and tells where it is lost; returns once it has answered after that.
    async fn doubted<F: Future<Output = bool>>(
        &self,
        leader: SocketAddr,
        answers: &impl Fn(SocketAddr) -> F,
    ) {
        let mut silent_since = None;
        loop {
            if answers(leader).await {
                silent_since = None;
                if self.0.lost.borrow().is_some() {
                    tracing::info!(%leader, "the leader can be called again");
                    self.clear();
                    return;
                }
            } else {
                let since = *silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= SILENT && self.0.lost.borrow().is_none() {
                    tracing::warn!(%leader, "the leader cannot be called from here: the sessions of this manager end");
                    self.0.lost.send_replace(Some(leader));
                }
            }
            sleep(PAUSE).await;
        }
    }
}

/// Whether a port takes a connection.
async fn answers(leader: SocketAddr) -> bool {
    let connected = timeout(ATTEMPT, TcpStream::connect(leader)).await;
    matches!(connected, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn leader(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 2377))
    }

    /// A watch over a port that answers where it is told to, and the switch for it.
    fn watched(answering: bool) -> (Reach, Arc<AtomicBool>) {
        let reach = Reach::default();
        let port = Arc::new(AtomicBool::new(answering));
        let (watch, switch) = (reach.clone(), port.clone());
        tokio::spawn(async move {
            let answers = |_| {
                let answers = switch.load(Ordering::Relaxed);
                async move { answers }
            };
            watch.watch_by(answers).await;
        });
        (reach, port)
    }

    /// How long it takes until the leader is lost, a minute at most.
    async fn lost_after(reach: &Reach) -> Option<Duration> {
        let start = Instant::now();
        let lost = timeout(Duration::from_secs(60), reach.lost()).await;
        lost.ok().map(|_| start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_port_is_lost_in_time_for_the_next_heartbeat() {
        let (reach, _) = watched(false);
        assert_eq!(lost_after(&reach).await, None, "nothing waits");
        reach.calling(leader(1));
        let took = lost_after(&reach).await.unwrap();
        assert!(took >= DOUBT + SILENT, "{took:?}");
        assert!(took <= DOUBT + SILENT + 2 * PAUSE, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_leader_that_answers_on_its_port_is_not_lost() {
        let (reach, _) = watched(true);
        reach.calling(leader(1));
        assert_eq!(lost_after(&reach).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delivery_or_another_leader_ends_the_doubt() {
        let (reach, _) = watched(false);
        for _ in 0..10 {
            reach.calling(leader(1));
            sleep(DOUBT + SILENT / 2).await;
            reach.clear();
            reach.calling(leader(2));
            sleep(DOUBT + SILENT / 2).await;
        }
        assert!(reach.0.lost.borrow().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_answers_again_is_not_lost_any_more() {
        let (reach, port) = watched(false);
        reach.calling(leader(1));
        assert!(lost_after(&reach).await.is_some());
        // Deliveries that go on failing change nothing.
        reach.calling(leader(1));
        sleep(Duration::from_secs(5)).await;
        assert!(reach.0.lost.borrow().is_some());
        port.store(true, Ordering::Relaxed);
        sleep(2 * PAUSE).await;
        assert!(reach.0.lost.borrow().is_none());
        assert_eq!(lost_after(&reach).await, None);
    }
}
