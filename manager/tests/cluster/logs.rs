//! Logs that agents bring, and those that they must not bring.

use std::time::{Duration, Instant};

use tonic::{Code, Status};

use swarmlet_core::model::Role;
use swarmlet_proto::v1;
use swarmlet_proto::v1::logs_client::LogsClient;
use swarmlet_proto::v1::publish_logs_request::Kind as Bring;
use swarmlet_proto::v1::read_logs_response::Kind as Shown;

use crate::agent::Agent;
use crate::harness::{Node, channel, join, until};

/// What a reader was shown.
#[derive(Debug, Default)]
struct Read {
    /// Tasks and texts.
    lines: Vec<(String, String)>,
    warnings: Vec<String>,
    end: Option<Status>,
    took: Duration,
}

/// Reads the log of `ng`.
async fn read(manager: &Node, follow: bool) -> Read {
    let began = Instant::now();
    let request = v1::ReadLogsRequest {
        target: "ng".to_owned(),
        kind: v1::LogTarget::ServiceOrTask.into(),
        query: Some(v1::LogQuery {
            follow,
            ..v1::LogQuery::default()
        }),
    };
    let mut client = LogsClient::new(manager.manager.local_routes());
    let mut stream = client.read_logs(request).await.unwrap().into_inner();
    let mut read = Read::default();
    loop {
        match stream.message().await {
            Ok(Some(message)) => match message.kind.unwrap() {
                Shown::Lines(lines) => {
                    let text = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
                    let lines = lines.lines.into_iter();
                    read.lines
                        .extend(lines.map(|line| (line.task_id, text(&line.data))));
                }
                Shown::Warning(text) => read.warnings.push(text),
                Shown::Source(_) | Shown::Header(_) => {}
            },
            Ok(None) => break,
            Err(status) => {
                read.end = Some(status);
                break;
            }
        }
    }
    read.took = began.elapsed();
    read
}

fn line(task: &str, at_ns: u64, text: &str) -> v1::LogLine {
    v1::LogLine {
        task_id: task.to_owned(),
        at_ns,
        stream: v1::LogStream::Stdout.into(),
        data: format!("{text}\n").into_bytes().into(),
        details: String::new(),
    }
}

/// The request that an agent got, once it has it.
async fn wanted(agent: &Agent) -> v1::LogsWanted {
    until("the agent is asked", async || {
        agent.seen.lock().unwrap().logs.pop()
    })
    .await
}

/// Brings lines and the end of a task to whoever asked.
async fn bring(
    agent: &Agent,
    wanted: &v1::LogsWanted,
    lines: Vec<v1::LogLine>,
) -> Result<(), Status> {
    let end = v1::TaskLogEnd {
        task_id: wanted.tasks[0].task_id.clone(),
        error: None,
    };
    let messages = [
        Bring::Ticket(wanted.ticket.clone()),
        Bring::Lines(v1::LogLines { lines }),
        Bring::End(end),
    ];
    let messages = messages.map(|kind| v1::PublishLogsRequest { kind: Some(kind) });
    let address = wanted.address.parse().unwrap();
    let mut client = LogsClient::new(channel(&agent.identity, address));
    let answer = client.publish_logs(tokio_stream::iter(messages)).await;
    answer.map(|_| ())
}

/// A manager with a task of `ng` on each of two workers.
async fn two_workers() -> (Node, Agent, Agent) {
    let manager = Node::first().await;
    let one = Agent::worker("w1", &manager, &[&manager]).await;
    let two = Agent::worker("w2", &manager, &[&manager]).await;
    for agent in [&one, &two] {
        agent.is_ready(&manager).await;
    }
    manager.create("ng", 2, 8080).await.unwrap();
    manager.runs(2).await;
    (manager, one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_several_agents_come_in_the_order_of_time() {
    let (manager, one, two) = two_workers().await;
    let bringing = async {
        let (first, second) = (wanted(&one).await, wanted(&two).await);
        let (a, b) = (&first.tasks[0].task_id, &second.tasks[0].task_id);
        let (odd, even) = (
            vec![line(a, 1, "1"), line(a, 3, "3"), line(a, 5, "5")],
            vec![line(b, 2, "2"), line(b, 4, "4")],
        );
        let (one, two) = tokio::join!(bring(&one, &first, odd), bring(&two, &second, even));
        one.unwrap();
        two.unwrap();
    };
    let (read, ()) = tokio::join!(read(&manager, false), bringing);
    let texts: Vec<&str> = read.lines.iter().map(|(_, text)| text.trim_end()).collect();
    assert_eq!(texts, ["1", "2", "3", "4", "5"], "{read:?}");
    assert!(read.warnings.is_empty() && read.end.is_none(), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rogue_worker_brings_nothing_that_is_not_its_own() {
    let (manager, honest, rogue) = two_workers().await;
    let bringing = async {
        let (first, second) = (wanted(&honest).await, wanted(&rogue).await);
        let task = &first.tasks[0].task_id;
        // With a ticket of its own making, and with another node's.
        let invented = v1::LogsWanted {
            ticket: "0".repeat(32),
            ..first.clone()
        };
        let refused = bring(&rogue, &invented, Vec::new()).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
        let forged = vec![line(task, 1, "forged")];
        let refused = bring(&rogue, &first, forged.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        // With its own ticket, but lines of the other node's task.
        bring(&rogue, &second, forged).await.unwrap();
        // The other one's ticket is still good.
        let own = vec![line(task, 2, "own")];
        bring(&honest, &first, own).await.unwrap();
    };
    let (read, ()) = tokio::join!(read(&manager, false), bringing);
    let texts: Vec<&str> = read.lines.iter().map(|(_, text)| text.trim_end()).collect();
    assert_eq!(texts, ["own"], "{read:?}");
    assert_eq!(
        read.warnings,
        ["node w2 is not available (it sent what it was not asked for)"]
    );

    // Nor does a worker read, or have others asked.
    let mut client = LogsClient::new(channel(&rogue.identity, manager.address));
    let refused = client.read_logs(v1::ReadLogsRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let refused = client.ask_agents(v1::AskAgentsRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_come_is_told_within_two_seconds() {
    let (manager, one, _silent) = two_workers().await;
    let bringing = async {
        let first = wanted(&one).await;
        let lines = vec![line(&first.tasks[0].task_id, 1, "here")];
        bring(&one, &first, lines).await.unwrap();
    };
    let (read, ()) = tokio::join!(read(&manager, false), bringing);
    assert_eq!(read.lines.len(), 1, "{read:?}");
    assert_eq!(
        read.warnings,
        ["node w2 is not available (it does not answer)"]
    );
    assert!(read.took < Duration::from_secs(2), "{read:?}");
    eprintln!("a partial result after {:?}", read.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_asked_through_the_manager_that_has_their_session() {
    let manager = Node::first().await;
    let worker = Agent::worker("w1", &manager, &[&manager]).await;
    let other = manager.another().await;
    worker.is_ready(&manager).await;
    manager.create("ng", 1, 8080).await.unwrap();
    manager.runs(1).await;
    let bringing = async {
        let asked = wanted(&worker).await;
        assert_eq!(asked.address, other.address.to_string());
        let lines = vec![line(&asked.tasks[0].task_id, 1, "from afar")];
        bring(&worker, &asked, lines).await.unwrap();
    };
    let (read, ()) = tokio::join!(read(&other, false), bringing);
    assert_eq!(read.lines[0].1, "from afar\n", "{read:?}");
    assert!(read.warnings.is_empty(), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_stop_reading_when_their_reader_has_gone() {
    let (manager, one, _two) = two_workers().await;
    let reader = tokio::spawn(async move { read(&manager, true).await });
    let first = wanted(&one).await;
    // Lines without an end, as of a task that writes on and on.
    let task = first.tasks[0].task_id.clone();
    let ticket = std::iter::once(Bring::Ticket(first.ticket.clone()));
    let lines = (1..).map(move |at| {
        Bring::Lines(v1::LogLines {
            lines: vec![line(&task, at, "on and on")],
        })
    });
    let messages = ticket
        .chain(lines)
        .map(|kind| v1::PublishLogsRequest { kind: Some(kind) });
    let address = first.address.parse().unwrap();
    let mut client = LogsClient::new(channel(&one.identity, address));
    let bringing = tokio::spawn(async move {
        let answer = client.publish_logs(tokio_stream::iter(messages)).await;
        answer.map(|_| ())
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        !bringing.is_finished(),
        "it is read for as long as somebody reads"
    );
    reader.abort();
    let ended = tokio::time::timeout(Duration::from_secs(10), bringing).await;
    // Told, or cut off in the middle of a message: it depends on who was faster.
    let _either = ended.expect("the agent stops").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_nobody_brings_nothing() {
    let (manager, one, _two) = two_workers().await;
    let token = manager.token(Role::Worker).await;
    let stranger = join(manager.address, &token, "").await.unwrap().identity;
    let reading = read(&manager, false);
    let bringing = async {
        let first = wanted(&one).await;
        let mut client = LogsClient::new(channel(&stranger, manager.address));
        let ticket = v1::PublishLogsRequest {
            kind: Some(Bring::Ticket(first.ticket)),
        };
        client.publish_logs(tokio_stream::iter([ticket])).await
    };
    let (_, refused) = tokio::join!(reading, bringing);
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}
