//! Everything that the model can hold survives the wire, and nothing else comes in.

// Everything here is test code, but the lint knows it in `#[test]` functions only.
#![allow(clippy::unwrap_used)]

mod arbitrary;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost::Message;
use swarmlet_core::command::Command;
use swarmlet_core::diagnosis::{Observation, Peer};
use swarmlet_core::endpoints::Table;
use swarmlet_core::model::{Node, Service, Task};
use swarmlet_proto::convert::Malformed;
use swarmlet_proto::{decode_proposal, decode_snapshot, encode_proposal, encode_snapshot, v1};

/// How many variants [`Command`] has. A new one does not compile here until it is counted, and
/// then must get a strategy.
const fn variants() -> usize {
    const fn _counted(command: &Command) {
        match command {
            Command::InitCluster { .. }
            | Command::UpdateCluster { .. }
            | Command::RotateJoinSecret { .. }
            | Command::RaiseSchema { .. }
            | Command::AddNode { .. }
            | Command::UpdateNode { .. }
            | Command::DescribeNode { .. }
            | Command::ReportNode { .. }
            | Command::ReportPorts { .. }
            | Command::ReportProblems { .. }
            | Command::SetManager { .. }
            | Command::RemoveNode { .. }
            | Command::CreateService { .. }
            | Command::UpdateService { .. }
            | Command::RemoveService { .. }
            | Command::DeleteService { .. }
            | Command::RollbackService { .. }
            | Command::SetUpdateStatus { .. }
            | Command::CreateTask { .. }
            | Command::AssignTask { .. }
            | Command::ExplainTask { .. }
            | Command::DrainTask { .. }
            | Command::SetDesired { .. }
            | Command::ReportTask { .. }
            | Command::DeleteTask { .. }
            | Command::StartRebalance { .. }
            | Command::EndRebalance { .. }
            | Command::MoveTask { .. }
            | Command::KeepTask { .. } => {}
        }
    }
    29
}

#[test]
fn every_command_has_a_strategy() {
    let mut runner = TestRunner::deterministic();
    let mut seen: Vec<_> = arbitrary::commands::commands()
        .iter()
        .map(|strategy| std::mem::discriminant(&strategy.new_tree(&mut runner).unwrap().current()))
        .collect();
    seen.dedup();
    assert_eq!(seen.len(), variants());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn log_entries_read_back(proposal in arbitrary::commands::proposal()) {
        let bytes = encode_proposal(&proposal);
        prop_assert_eq!(decode_proposal(&bytes).unwrap(), proposal);
    }

    #[test]
    fn snapshots_read_back_and_are_the_same_bytes_whatever_came_first(
        parts in arbitrary::parts()
    ) {
        let state = arbitrary::restore(parts.clone());
        let bytes = encode_snapshot(&state);
        let read = decode_snapshot(&bytes).unwrap();
        prop_assert_eq!(&read, &state);
        prop_assert_eq!(encode_snapshot(&read), bytes.clone());

        let (version, cluster, mut nodes, mut services, mut tasks) = parts;
        nodes.reverse();
        services.reverse();
        tasks.reverse();
        let other = arbitrary::restore((version, cluster, nodes, services, tasks));
        prop_assert_eq!(encode_snapshot(&other), bytes);
    }

    #[test]
    fn tables_read_back(table in arbitrary::table()) {
        prop_assert_eq!(Table::try_from(v1::EndpointTable::from(&table)).unwrap(), table);
    }

    #[test]
    fn observations_and_peers_read_back(
        observation in arbitrary::observation(),
        peer in arbitrary::peer(),
    ) {
        let read = Observation::try_from(v1::Observation::from(&observation));
        prop_assert_eq!(read.unwrap(), observation);
        prop_assert_eq!(Peer::try_from(v1::NodePeer::from(&peer)).unwrap(), peer);
    }

    #[test]
    fn damage_is_an_error_and_no_panic(
        proposal in arbitrary::commands::proposal(),
        position in any::<prop::sample::Index>(),
        value in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode_proposal(&proposal).to_vec();
        if !bytes.is_empty() {
            let position = position.index(bytes.len());
            bytes[position] = value;
        }
        // It may still be a proposal, but then one that can be written and read again.
        for damaged in [&bytes[..], &bytes[..cut.index(bytes.len() + 1)]] {
            if let Ok(read) = decode_proposal(damaged) {
                prop_assert_eq!(decode_proposal(&encode_proposal(&read)).unwrap(), read);
            }
            if let Ok(state) = decode_snapshot(damaged) {
                prop_assert_eq!(decode_snapshot(&encode_snapshot(&state)).unwrap(), state);
            }
        }
    }
}

/// An example of what a strategy makes, the same in every run.
fn example<T: std::fmt::Debug>(accept: impl Fn(&Command) -> Option<T>) -> T {
    let mut runner = TestRunner::deterministic();
    for _ in 0..1000 {
        for strategy in arbitrary::commands::commands() {
            let command = strategy.new_tree(&mut runner).unwrap().current();
            if let Some(found) = accept(&command) {
                return found;
            }
        }
    }
    panic!("no strategy makes what the test needs");
}

fn task() -> v1::Task {
    example(|command| match command {
        Command::CreateTask { task } if !task.ports.is_empty() && task.node.is_some() => {
            Some(v1::Task::from(task.as_ref()))
        }
        _ => None,
    })
}

fn node() -> v1::Node {
    example(|command| match command {
        Command::AddNode { node } if node.manager.is_some() => Some(v1::Node::from(node.as_ref())),
        _ => None,
    })
}

fn service() -> v1::Service {
    let spec = example(|command| match command {
        Command::CreateService { spec, .. }
            if spec.task.containers.iter().any(|c| c.health.is_some()) =>
        {
            Some(v1::ServiceSpec::from(spec.as_ref()))
        }
        _ => None,
    });
    v1::Service {
        id: "0000000000000000000000001".to_owned(),
        spec: Some(spec),
        ..v1::Service::default()
    }
}

#[track_caller]
fn refused<W, M>(mut message: W, edit: impl FnOnce(&mut W), expected: &str)
where
    W: Clone,
    M: TryFrom<W, Error = Malformed> + std::fmt::Debug,
{
    // Only what the edit broke may be the reason.
    M::try_from(message.clone()).unwrap();
    edit(&mut message);
    let error = M::try_from(message).unwrap_err();
    assert_eq!(error.to_string(), format!("malformed {expected}"));
    assert_eq!(
        tonic::Status::from(error).code(),
        tonic::Code::InvalidArgument
    );
}

#[test]
fn malformed_tasks_are_refused() {
    let refused = |edit: fn(&mut v1::Task), expected| {
        refused::<_, Task>(task(), edit, expected);
    };
    refused(
        |task| task.id = "NODE".to_owned(),
        "id: invalid id \"NODE\": expected 25 characters of 0-9a-z",
    );
    refused(
        |task| task.node_id = Some(String::new()),
        "node_id: invalid id \"\": expected 25 characters of 0-9a-z",
    );
    refused(|task| task.spec = None, "spec: missing");
    refused(|task| task.desired = 0, "desired: missing");
    refused(|task| task.desired = 513, "desired: unknown value 513");
    refused(
        |task| task.ports[0].target = 65_536,
        "ports[0].target: 65536 is no port",
    );
    refused(
        |task| task.ports[0].protocol = 9,
        "ports[0].protocol: unknown value 9",
    );
    refused(
        |task| task.status.as_mut().unwrap().state = -1,
        "status.state: unknown value -1",
    );
    refused(
        |task| {
            task.status.as_mut().unwrap().container = Some(v1::ContainerStatus {
                address: Some("10.0.0.1:80".to_owned()),
                ..v1::ContainerStatus::default()
            });
        },
        "status.container.address: invalid address \"10.0.0.1:80\"",
    );
}

#[test]
fn malformed_nodes_are_refused() {
    let refused = |edit: fn(&mut v1::Node), expected| {
        refused::<_, Node>(node(), edit, expected);
    };
    refused(|node| node.description = None, "description: missing");
    refused(
        |node| node.description.as_mut().unwrap().address = "host1".to_owned(),
        "description.address: invalid address \"host1\"",
    );
    refused(
        |node| node.manager.as_mut().unwrap().address = "10.0.0.1".to_owned(),
        "manager.address: invalid address \"10.0.0.1\"",
    );
    refused(
        |node| node.spec.as_mut().unwrap().role = 0,
        "spec.role: missing",
    );
    refused(
        |node| node.description.as_mut().unwrap().last_task_port = 70_000,
        "description.last_task_port: 70000 is no port",
    );
}

#[test]
fn malformed_services_are_refused() {
    let refused = |edit: fn(&mut v1::ServiceSpec), expected| {
        let edit = |service: &mut v1::Service| edit(service.spec.as_mut().unwrap());
        refused::<_, Service>(service(), edit, expected);
    };
    refused(|spec| spec.mode = None, "spec.mode: missing, or unknown");
    refused(|spec| spec.lb_policy = 0, "spec.lb_policy: missing");
    refused(
        |spec| spec.update.as_mut().unwrap().order = 0,
        "spec.update.order: missing",
    );
    refused(
        |spec| spec.rollback.as_mut().unwrap().max_failure_ratio = 1_000_001,
        "spec.rollback.max_failure_ratio: 1000001 millionths are more than the whole",
    );
    refused(
        |spec| spec.task.as_mut().unwrap().restart = None,
        "spec.task.restart: missing",
    );
    refused(
        |spec| {
            let containers = &mut spec.task.as_mut().unwrap().containers;
            containers.retain(|container| container.health.is_some());
            containers[0].health.as_mut().unwrap().test = None;
        },
        "spec.task.containers[0].health.test: missing, or unknown",
    );
}

#[test]
fn secrets_of_the_wrong_length_are_refused_and_not_repeated() {
    let command = v1::RotateJoinSecret {
        role: v1::Role::Worker.into(),
        secret: Some(v1::JoinSecret {
            salt: vec![0x5a; 15],
            sha256: vec![0; 32],
        }),
    };
    let error = decode(v1::command::Kind::RotateJoinSecret(command)).unwrap_err();
    let expected = "malformed commands[0].secret.salt: 15 bytes instead of 16";
    assert_eq!(error.to_string(), expected);
}

fn decode(kind: v1::command::Kind) -> Result<Command, Malformed> {
    let proposal = v1::Proposal {
        at_ms: 1,
        commands: vec![v1::Command { kind: Some(kind) }],
    };
    decode_proposal(&proposal.encode_to_vec()).map(|mut read| read.commands.remove(0))
}

/// What a newer program would write: a command with a number that is not in the .proto file.
#[test]
fn unknown_commands_are_an_error_of_their_own() {
    let known = v1::Command {
        kind: Some(v1::command::Kind::RaiseSchema(v1::RaiseSchema {
            schema: 1,
        })),
    };
    let known = known.encode_to_vec();
    // Field 99, length-delimited, empty.
    let unknown = [0x9a, 0x06, 0x00];
    let mut entry = vec![0x12, u8::try_from(known.len()).unwrap()];
    entry.extend(known);
    assert_eq!(decode_proposal(&entry).unwrap().commands.len(), 1);
    entry.extend([0x12, 0x03]);
    entry.extend(unknown);
    let error = decode_proposal(&entry).unwrap_err();
    assert_eq!(error, Malformed::UnknownCommand { position: 1 });
    assert!(error.to_string().contains("upgrade"), "{error}");
}

#[test]
fn what_is_no_message_is_an_error() {
    let bytes = Bytes::from_static(&[0xff; 12]);
    let error = decode_proposal(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "undecodable log entry");
    let error = decode_snapshot(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "undecodable snapshot");
    // An empty entry is what Raft's own entries look like, and is well-formed.
    assert!(decode_proposal(&[]).unwrap().commands.is_empty());
}

#[test]
fn snapshots_hold_each_object_once() {
    let snapshot = v1::Snapshot {
        version: 1,
        nodes: vec![node(), node()],
        ..v1::Snapshot::default()
    };
    let error = decode_snapshot(&snapshot.encode_to_vec()).unwrap_err();
    let expected = "malformed nodes: identifiers are not in order, or double";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn secrets_are_not_in_debug_output() {
    let canary = "c4n4ry";
    let bytes = canary.as_bytes().to_vec();
    let texts = [
        format!(
            "{:?}",
            v1::RegistryAuth {
                header: canary.to_owned()
            }
        ),
        format!(
            "{:?}",
            v1::ContainerSpec {
                registry_auth: Some(v1::RegistryAuth {
                    header: canary.to_owned()
                }),
                ..v1::ContainerSpec::default()
            }
        ),
        format!(
            "{:?}",
            v1::Cluster {
                root_ca: Some(v1::RootCa {
                    certificate: vec![1],
                    key: bytes.clone()
                }),
                worker_secret: Some(v1::JoinSecret {
                    salt: bytes.clone(),
                    sha256: bytes.clone()
                }),
                ..v1::Cluster::default()
            }
        ),
        format!(
            "{:?}",
            v1::JoinRequest {
                secret: canary.to_owned(),
                ..v1::JoinRequest::default()
            }
        ),
        format!(
            "{:?}",
            v1::LocalJoinRequest {
                token: canary.to_owned(),
                ..v1::LocalJoinRequest::default()
            }
        ),
        format!(
            "{:?}",
            v1::JoinTokenResponse {
                token: canary.to_owned(),
                ..v1::JoinTokenResponse::default()
            }
        ),
        format!(
            "{:?}",
            v1::InitResponse {
                worker_token: canary.to_owned(),
                ..v1::InitResponse::default()
            }
        ),
        format!(
            "{:?}",
            v1::RaftMessage {
                body: bytes.clone().into()
            }
        ),
    ];
    for text in texts {
        assert!(!text.contains(canary), "{text}");
        assert!(!text.contains(&format!("{bytes:?}")), "{text}");
        assert!(text.contains("(…)"), "{text}");
    }
}
