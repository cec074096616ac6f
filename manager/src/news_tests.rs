use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use swarmlet_core::diagnosis::{Failing, Observation, ProbedPort};
use swarmlet_core::model::{
    Closed, NodeId, PortProblem, Protocol, TaskId, TaskState, TaskStatus, Timestamp,
};
use swarmlet_proto::v1;

use super::{Batch, NodeNews, Seen, TableNews, decode, encode};

fn status(state: TaskState, message: &str) -> TaskStatus {
    TaskStatus {
        state,
        at: Timestamp(5),
        message: message.to_owned(),
        error: None,
        container: None,
        ports: Vec::new(),
    }
}

fn table(version: u64) -> TableNews {
    TableNews {
        version,
        draining: BTreeMap::from([(TaskId::from_random(1), 3)]),
        port_problems: vec![PortProblem {
            port: 80,
            protocol: Protocol::Tcp,
            reason: "address in use".to_owned(),
        }],
    }
}

const NOW: Timestamp = Timestamp(1_000_000);

#[test]
fn clocks_are_added_up_on_their_way_to_the_leader() {
    let check = |node_ahead: Option<i64>, sent_at: u64, expected: Option<i64>| {
        let news = NodeNews {
            clock_ahead_ms: node_ahead,
            ..NodeNews::default()
        };
        let batch = Batch::from([(NodeId::from_random(1), news)]);
        let read = decode(encode(&batch, Timestamp(sent_at)), NOW).unwrap();
        assert_eq!(read[&NodeId::from_random(1)].clock_ahead_ms, expected);
    };
    // The follower's clock is 300 ms ahead of ours, the node's another 5 s.
    check(Some(5000), NOW.0 + 300, Some(5300));
    check(Some(-5000), NOW.0 - 300, Some(-5300));
    check(None, NOW.0, None);
    // One that does not tell its clock.
    check(Some(5000), 0, None);
}

#[test]
fn what_fails_goes_on_failing_on_its_way_to_the_leader() {
    let observation = |lasting| Observation {
        failing: vec![Failing {
            node: NodeId::from_random(2),
            port: ProbedPort::Tasks,
            found: Closed::Dropped,
            lasting,
        }],
        ..Observation::default()
    };
    let then = Instant::now();
    let news = NodeNews {
        observation: Some(Seen::now(observation(Duration::from_secs(2)))),
        ..NodeNews::default()
    };
    let batch = Batch::from([(NodeId::from_random(1), news)]);
    std::thread::sleep(Duration::from_millis(30));
    let read = decode(encode(&batch, NOW), NOW).unwrap();
    let seen = read[&NodeId::from_random(1)].observation.as_ref().unwrap();
    let lasting = seen.by(Instant::now()).failing[0].lasting;
    // Encoded in milliseconds.
    let (least, most) = (
        Duration::from_millis(2029),
        Duration::from_secs(2) + then.elapsed(),
    );
    assert!((least..=most).contains(&lasting), "{lasting:?}");
}

#[test]
fn that_nothing_is_wrong_any_more_is_news() {
    let news = NodeNews {
        observation: Some(Seen::now(Observation::default())),
        ..NodeNews::default()
    };
    let batch = Batch::from([(NodeId::from_random(1), news)]);
    let read = decode(encode(&batch, NOW), NOW).unwrap();
    let seen = read[&NodeId::from_random(1)].observation.as_ref().unwrap();
    assert_eq!(seen.by(Instant::now()), Observation::default());
}

#[test]
fn a_batch_survives_the_way_to_another_manager() {
    let news = NodeNews {
        description: None,
        statuses: BTreeMap::from([
            (
                TaskId::from_random(1),
                status(TaskState::Running, "started"),
            ),
            (TaskId::from_random(2), status(TaskState::Failed, "ended")),
        ]),
        table: Some(table(7)),
        observation: None,
        clock_ahead_ms: None,
        leaving: true,
    };
    let batch = Batch::from([
        (NodeId::from_random(1), news),
        // A heartbeat and nothing else.
        (NodeId::from_random(2), NodeNews::default()),
    ]);
    assert_eq!(decode(encode(&batch, NOW), NOW), Ok(batch));
}

#[test]
fn later_news_replace_earlier_ones() {
    let task = TaskId::from_random(1);
    let mut news = NodeNews {
        statuses: BTreeMap::from([(task.clone(), status(TaskState::Starting, "earlier"))]),
        table: Some(table(7)),
        ..NodeNews::default()
    };
    news.merge(NodeNews {
        statuses: BTreeMap::from([(task.clone(), status(TaskState::Running, "later"))]),
        ..NodeNews::default()
    });
    assert_eq!(news.statuses[&task].message, "later");
    assert_eq!(news.table, Some(table(7)));
    news.merge(NodeNews {
        table: Some(table(8)),
        ..NodeNews::default()
    });
    assert_eq!(news.table, Some(table(8)));
    // One that has not left after all is heard again.
    let leaving = NodeNews {
        leaving: true,
        ..NodeNews::default()
    };
    news.merge(leaving);
    assert!(news.leaving);
    news.merge(NodeNews::default());
    assert!(!news.leaving);
}

#[test]
fn malformed_reports_are_refused_as_a_whole() {
    let report = |node_id: &str, statuses: Vec<Vec<u8>>, table: Vec<u8>| v1::ReportRequest {
        nodes: vec![v1::NodeReport {
            node_id: node_id.to_owned(),
            description: Vec::new(),
            statuses,
            table,
            ..v1::NodeReport::default()
        }],
        ..v1::ReportRequest::default()
    };
    let decode = |request| decode(request, NOW);
    let node = NodeId::from_random(1).to_string();
    assert!(decode(report(&node, Vec::new(), Vec::new())).is_ok());
    assert!(decode(report("n1", Vec::new(), Vec::new())).is_err());
    assert!(decode(report(&node, vec![vec![0xff; 3]], Vec::new())).is_err());
    assert!(decode(report(&node, Vec::new(), vec![0xff; 3])).is_err());
}
