use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use swarmlet_proto::v1::publish_logs_request::Kind;

use super::*;
use crate::runtime::RuntimeError;
use crate::worker::fake::{self, FakeRuntime};

fn task(id: u128) -> TaskId {
    TaskId::from_random(id)
}

fn all(id: u128) -> Wanted {
    Wanted {
        task: task(id),
        query: LogQuery::default(),
    }
}

/// What is brought, a text for each line and end.
async fn brought(runtime: &FakeRuntime, wanted: Vec<Wanted>) -> Vec<String> {
    let (sender, messages) = mpsc::channel(WAITING);
    let scope = fake::scope("/nowhere");
    let read = async {
        let mut outbox = Outbox::new(sender);
        reading::read(runtime, &scope, wanted, &mut outbox)
            .await
            .unwrap();
    };
    let collect = async {
        let messages: Vec<_> = ReceiverStream::new(messages).collect().await;
        messages.into_iter().flat_map(texts).collect()
    };
    tokio::join!(read, collect).1
}

fn texts(message: v1::PublishLogsRequest) -> Vec<String> {
    let digits = |id: &str| id.trim_start_matches('0').to_owned();
    match message.kind.unwrap() {
        Kind::Ticket(ticket) => vec![ticket],
        Kind::End(end) => vec![format!(
            "{} ends{}",
            digits(&end.task_id),
            end.error
                .map(|error| format!(": {error}"))
                .unwrap_or_default()
        )],
        Kind::Lines(lines) => lines
            .lines
            .into_iter()
            .map(|line| {
                let text = String::from_utf8(line.data.to_vec()).unwrap();
                format!("{} {}", digits(&line.task_id), text.trim_end())
            })
            .collect(),
    }
}

#[tokio::test(start_paused = true)]
async fn lines_of_all_tasks_come_in_the_order_of_time() {
    let runtime = FakeRuntime::new();
    let lines = brought(&runtime, vec![all(1), all(2)]).await;
    let mut expected: Vec<String> = (1..=10)
        .flat_map(|line| [format!("1 line {line}"), format!("2 line {line}")])
        .collect();
    expected.extend(["1 ends".to_owned(), "2 ends".to_owned()]);
    assert_eq!(lines.len(), expected.len());
    assert_eq!(lines[..19], expected[..19]);
    assert!(
        expected.iter().all(|line| lines.contains(line)),
        "{lines:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_read_keeps_no_other_back() {
    let runtime = FakeRuntime::new();
    let unreadable = "configured logging driver does not support reading";
    runtime.fail("logs", RuntimeError::Refused(unreadable.to_owned()), 1);
    let lines = brought(&runtime, vec![all(1), all(2)]).await;
    assert_eq!(lines[0], format!("1 ends: {unreadable}"));
    assert_eq!(lines.len(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_makes_reading_stop() {
    let runtime = FakeRuntime::new();
    let (sender, mut messages) = mpsc::channel(WAITING);
    let endless = Wanted {
        task: task(1),
        query: LogQuery {
            follow: true,
            ..LogQuery::default()
        },
    };
    let read = Arc::new(AtomicUsize::new(0));
    let reading = tokio::spawn({
        let read = read.clone();
        async move {
            let mut outbox = Outbox::new(sender);
            let scope = fake::scope("/nowhere");
            let ended = reading::read(&runtime, &scope, vec![endless], &mut outbox).await;
            read.store(1, Ordering::Relaxed);
            ended
        }
    });
    // Long enough for a reader that reads ahead to fill the memory.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(read.load(Ordering::Relaxed), 0);
    let mut waiting = 0;
    while let Ok(message) = messages.try_recv() {
        let Some(Kind::Lines(lines)) = message.kind else {
            panic!("not a line");
        };
        waiting += lines
            .lines
            .iter()
            .map(|line| line.data.len())
            .sum::<usize>();
    }
    assert!(waiting < WAITING * (64 << 10), "{waiting} bytes wait");
    drop(messages);
    assert_eq!(reading.await.unwrap(), Err(outbox::Closed));
}

#[test]
fn requests_are_read() {
    let mut request = v1::LogsWanted {
        ticket: "t".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        tasks: vec![v1::TaskLog {
            task_id: task(1).to_string(),
            since_ns: 5,
            tail: Some(3),
        }],
        query: Some(v1::LogQuery {
            follow: true,
            until_ns: 9,
            ..v1::LogQuery::default()
        }),
    };
    let expected = Wanted {
        task: task(1),
        query: LogQuery {
            follow: true,
            since_ns: 5,
            until_ns: Some(9),
            tail: Some(3),
            details: false,
        },
    };
    assert_eq!(wanted(&request), Some(vec![expected]));
    request.tasks[0].task_id = "../x".to_owned();
    assert_eq!(wanted(&request), None);
}
