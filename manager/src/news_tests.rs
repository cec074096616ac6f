use std::collections::BTreeMap;

use swarmlet_core::model::{
    NodeId, PortProblem, Protocol, TaskId, TaskState, TaskStatus, Timestamp,
};
use swarmlet_proto::v1;

use super::{Batch, NodeNews, TableNews, decode, encode};

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
    };
    let batch = Batch::from([
        (NodeId::from_random(1), news),
        // A heartbeat and nothing else.
        (NodeId::from_random(2), NodeNews::default()),
    ]);
    assert_eq!(decode(encode(&batch)), Ok(batch));
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
}

#[test]
fn malformed_reports_are_refused_as_a_whole() {
    let report = |node_id: &str, statuses: Vec<Vec<u8>>, table: Vec<u8>| v1::ReportRequest {
        nodes: vec![v1::NodeReport {
            node_id: node_id.to_owned(),
            description: Vec::new(),
            statuses,
            table,
        }],
    };
    let node = NodeId::from_random(1).to_string();
    assert!(decode(report(&node, Vec::new(), Vec::new())).is_ok());
    assert!(decode(report("n1", Vec::new(), Vec::new())).is_err());
    assert!(decode(report(&node, vec![vec![0xff; 3]], Vec::new())).is_err());
    assert!(decode(report(&node, Vec::new(), vec![0xff; 3])).is_err());
}
