//! Which pulls of an engine go on at the same time, and how often the same one is tried.
//!
//! Tasks that wait for the same image share one pull and what came of it. After one that was
//! refused the registry has a pause, however many tasks ask and however often they are replaced.
//! A task that comes within the pause waits for its end and is not told the old reason again:
//! the image may have been pushed meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use swarmlet_core::model::{ImageReference, RegistryAuth};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::runtime::RuntimeError;

/// How long an image that was refused is not asked for.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// Pulls from one registry at the same time. Others are not counted: a registry that stalls must
/// not hold up what comes from elsewhere.
const CONCURRENT_PULLS: usize = 4;

/// An image, and the credentials it is asked for with: others may be granted it.
type Key = (String, Option<RegistryAuth>);

/// The pulls of one engine.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulls {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    images: HashMap<Key, Arc<tokio::sync::Mutex<Option<Ended>>>>,
    registries: HashMap<String, Arc<Semaphore>>,
}

/// A pull that came to an end.
#[derive(Debug)]
struct Ended {
    at: Instant,
    result: Result<(), RuntimeError>,
}

impl Ended {
    /// When the next one may begin.
    fn next(&self) -> Instant {
        match self.result {
            Err(RuntimeError::Rejected(_)) => self.at + REFUSED_PAUSE,
            _ => self.at,
        }
    }
}

impl Pulls {
    /// Pulls an image, or waits for a pull of it that goes on already, and says what came of it.
    ///
    /// # Errors
    /// Those of the pull.
    pub(super) async fn share<F>(
        &self,
        image: &str,
        auth: Option<&RegistryAuth>,
        pull: impl FnOnce() -> F,
    ) -> Result<(), RuntimeError>
    where
        F: Future<Output = Result<(), RuntimeError>>,
    {
        let asked = Instant::now();
        let (last, registry) = self.known(image, auth);
        let mut last = last.lock().await;
        if let Some(ended) = last.as_ref() {
            if ended.at > asked {
                return ended.result.clone();
            }
            tokio::time::sleep_until(ended.next()).await;
        }
        let _place = place(&registry).await?;
        let result = pull().await;
        *last = Some(Ended {
            at: Instant::now(),
            result: result.clone(),
        });
        result
    }

    /// What is known of an image and its registry; what nobody waits for any more is forgotten.
    fn known(
        &self,
        image: &str,
        auth: Option<&RegistryAuth>,
    ) -> (Arc<tokio::sync::Mutex<Option<Ended>>>, Arc<Semaphore>) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.images.retain(|_, last| {
            let pauses = |last: &Option<Ended>| last.as_ref().is_some_and(|it| it.next() > now);
            Arc::strong_count(last) > 1 || last.try_lock().is_ok_and(|last| pauses(&last))
        });
        known
            .registries
            .retain(|_, places| Arc::strong_count(places) > 1);
        let registry = match image.parse::<ImageReference>() {
            Ok(reference) => reference.registry().to_owned(),
            // The engine will say what is wrong with it.
            Err(_) => String::new(),
        };
        let key = (image.to_owned(), auth.cloned());
        let places = || Arc::new(Semaphore::new(CONCURRENT_PULLS));
        (
            known.images.entry(key).or_default().clone(),
            known
                .registries
                .entry(registry)
                .or_insert_with(places)
                .clone(),
        )
    }
}

async fn place(registry: &Semaphore) -> Result<SemaphorePermit<'_>, RuntimeError> {
    let closed = |_| RuntimeError::Unavailable("this node is ending".to_owned());
    registry.acquire().await.map_err(closed)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A registry that counts how often it is asked, takes a second to answer, and answers so.
    #[derive(Clone)]
    struct Registry {
        pulls: Pulls,
        asked: Arc<AtomicUsize>,
        answer: Result<(), RuntimeError>,
    }

    impl Registry {
        fn new(answer: Result<(), RuntimeError>) -> Self {
            Self {
                pulls: Pulls::default(),
                asked: Arc::default(),
                answer,
            }
        }

        async fn pull(&self, image: &str, auth: Option<&str>) -> Result<(), RuntimeError> {
            let auth = auth.map(|auth| RegistryAuth(auth.to_owned()));
            let answer = async || {
                self.asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.answer.clone()
            };
            self.pulls.share(image, auth.as_ref(), answer).await
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    fn missing() -> RuntimeError {
        RuntimeError::Rejected("No such image: ng:1 (manifest unknown)".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_wait_for_one_image_share_its_pull() {
        for answer in [Ok(()), Err(missing())] {
            let registry = Registry::new(answer.clone());
            let one = || registry.pull("ng:1", None);
            let begun = Instant::now();
            let (a, b, c) = tokio::join!(one(), one(), one());
            assert_eq!([a, b, c], [answer.clone(), answer.clone(), answer]);
            assert_eq!((registry.asked(), begun.elapsed().as_secs()), (1, 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_that_was_refused_is_asked_for_again_after_a_pause() {
        let registry = Registry::new(Err(missing()));
        let begun = Instant::now();
        for (asked, seconds) in [(1, 1), (2, 12), (3, 23)] {
            assert_eq!(registry.pull("ng:1", None).await, Err(missing()));
            assert_eq!(registry.asked(), asked);
            assert_eq!(begun.elapsed().as_secs(), seconds);
        }
        // Other images and other credentials have nothing to do with it.
        registry.pull("ng:2", None).await.unwrap_err();
        registry.pull("ng:1", Some("secret")).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 25);
        tokio::time::sleep(Duration::from_secs(10)).await;
        registry.pull("ng:3", None).await.unwrap_err();
        assert_eq!(registry.pulls.known.lock().unwrap().images.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_did_not_come_from_the_registry_has_no_pause() {
        let away = RuntimeError::Unavailable("the engine is away".to_owned());
        for answer in [Ok(()), Err(away)] {
            let registry = Registry::new(answer);
            let begun = Instant::now();
            for _ in 0..3 {
                // What came of the first is told to nobody else.
                let _ = registry.pull("ng:1", None).await;
            }
            assert_eq!((registry.asked(), begun.elapsed().as_secs()), (3, 3));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_stalls_holds_up_no_other_one() {
        let registry = Registry::new(Ok(()));
        let stalled: Vec<_> = (0..2 * CONCURRENT_PULLS)
            .map(|number| {
                let pulls = registry.pulls.clone();
                let image = format!("slow.example/ng:{number}");
                tokio::spawn(async move { pulls.share(&image, None, std::future::pending).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        registry.pull("quick.example/ng:1", None).await.unwrap();
        let more = registry.pull("slow.example/ng:1000", None);
        let waits = tokio::time::timeout(Duration::from_secs(60), more).await;
        assert!(waits.is_err(), "more than {CONCURRENT_PULLS} at a time");
        // Tasks that are not wanted any more make room.
        for pull in stalled {
            pull.abort();
        }
        registry.pull("slow.example/ng:1000", None).await.unwrap();
    }
}
