//! An engine's socket at which something else answers, or an engine that is sick: nothing follows
//! from what it says, least of all that a container is gone.

use std::sync::atomic::Ordering;

use super::fake_engine::{http, runtime};
use super::*;
use crate::worker::fake;

/// Whole HTTP answers that are no engine's, or not to what was asked.
const WELL_FORMED: [(&str, &str); 8] = [
    (
        "500 Internal Server Error",
        r#"{"message":"a driver is sick"}"#,
    ),
    ("500 Internal Server Error", "<html>sorry</html>"),
    ("502 Bad Gateway", ""),
    ("200 OK", "<html>welcome</html>"),
    ("200 OK", "null"),
    ("200 OK", "{}"),
    ("200 OK", "[{}]"),
    ("200 OK", r#"{"Id":7,"State":"fine","Config":[]}"#),
];

/// What is not even HTTP, or ends too early.
const BROKEN: [&str; 5] = [
    "",
    "SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/1.1 200 OK\r\nContent-Le",
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n[{\"Id\":",
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]",
];

fn strange_answers() -> impl Iterator<Item = String> {
    WELL_FORMED
        .into_iter()
        .map(http)
        .chain(BROKEN.map(str::to_owned))
}

/// Asks everything that an answer could follow from.
async fn learns_nothing(runtime: &DockerRuntime, answer: &str) {
    let scope = fake::scope("/tasks");
    let task = fake::task(5, |_| {});
    let listed = runtime.list(&scope).await;
    assert!(listed.is_err(), "{answer:?}: listed {listed:?}");
    let inspected = runtime.inspect(&scope, &task.id).await;
    assert!(inspected.is_err(), "{answer:?}: inspected {inspected:?}");
    let started = runtime.start(&scope, &task, &[]).await;
    assert!(started.is_err(), "{answer:?}: started {started:?}");
    for error in [listed.unwrap_err(), inspected.unwrap_err()] {
        let text = error.to_string();
        assert!(
            !text.is_empty() && !text.contains("cannot connect"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn nothing_follows_from_a_strange_answer() {
    for answer in strange_answers() {
        let given = answer.clone();
        let (runtime, _, _directory) = runtime(move |_| given.clone());
        learns_nothing(&runtime, &answer).await;
        let scope = fake::scope("/tasks");
        let task = TaskId::from_random(5);
        let described = runtime.describe().await;
        assert!(described.is_err(), "{answer:?}: {described:?}");
        let stopped = runtime.stop(&scope, &task, Duration::ZERO).await;
        assert!(stopped.is_err(), "{answer:?}: {stopped:?}");
        let removed = runtime.remove(&scope, &task).await;
        assert!(removed.is_err(), "{answer:?}: {removed:?}");
        let lines: Vec<_> = runtime
            .logs(&scope, &task, LogQuery::default())
            .take(2)
            .collect()
            .await;
        assert!(matches!(&lines[..], [Err(_)]), "{answer:?}: {lines:?}");
    }
}

#[tokio::test]
async fn nothing_follows_from_a_strange_answer_about_one_container() {
    for answer in strange_answers() {
        let given = answer.clone();
        let (runtime, _, _directory) = runtime(move |request| {
            if request.contains("/containers/json") {
                http(("200 OK", r#"[{"Id":"abc"}]"#))
            } else {
                given.clone()
            }
        });
        learns_nothing(&runtime, &answer).await;
    }
}

#[tokio::test]
async fn a_container_that_the_engine_does_not_have_is_gone() {
    let gone = r#"{"message":"No such container: abc"}"#;
    let (runtime, _, _directory) = runtime(move |request| {
        if request.contains("/containers/json") {
            http(("200 OK", r#"[{"Id":"abc"}]"#))
        } else {
            http(("404 Not Found", gone))
        }
    });
    let scope = fake::scope("/tasks");
    assert_eq!(runtime.list(&scope).await, Ok(Vec::new()));
    let inspected = runtime.inspect(&scope, &TaskId::from_random(5)).await;
    assert_eq!(inspected, Ok(None));
}

#[tokio::test]
async fn an_engine_without_sense_is_not_asked_for_events_without_end() {
    let (runtime, count, _directory) = runtime(|_| http(("200 OK", "{}")));
    let mut events = events::stream(runtime, &fake::scope("/tasks"));
    let told = tokio::time::timeout(Duration::from_millis(1_200), events.next()).await;
    assert!(told.is_err(), "{told:?}");
    let asked = count.load(Ordering::Relaxed);
    assert!((1..=4).contains(&asked), "asked {asked} times in 1.2 s");
}
