use std::time::Duration;

use super::*;
use crate::model::{
    JoinSecret, ManagerInfo, NodeDescription, NodeId, NodeSpec, NodeState, PortMode, Resources,
    Role, ServiceMode, Task, TaskId, TaskState,
};
use crate::testing::{World, cluster, ingress, node, node_id, observed, service_id, spec};

/// A world of three nodes with `ng` of one running task.
fn running() -> (World, Task) {
    let mut world = World::new(3);
    let mut ng = spec("ng", 1);
    ng.ports = vec![ingress(80, 8080)];
    world.create(1, ng);
    world.settle();
    world.run_all();
    let task = world.members().remove(0);
    (world, task)
}

fn create(number: u8, spec: crate::model::ServiceSpec) -> Command {
    Command::CreateService {
        id: service_id(number),
        spec: Box::new(spec),
    }
}

fn service(world: &World, number: u8) -> crate::model::Service {
    world.state.service(&service_id(number)).unwrap().clone()
}

#[test]
fn nothing_comes_before_the_cluster() {
    let mut state = State::default();
    let proposal = Proposal {
        at: Timestamp(1),
        commands: vec![
            create(1, spec("ng", 1)),
            Command::InitCluster {
                cluster: Box::new(cluster()),
                node: Box::new(node(1)),
            },
            create(1, spec("ng", 1)),
        ],
    };
    let outcomes = apply(&mut state, Version(5), &proposal);
    assert_eq!(outcomes[0], Err(Rejection::NoCluster));
    assert_eq!(outcomes[1].as_ref().unwrap().len(), 2);
    assert_eq!(outcomes[2], Ok(vec![Event::Service(service_id(1))]));
    assert_eq!(state.version(), Version(5));
    assert_eq!(state.cluster().unwrap().created_at, Timestamp(1));
}

#[test]
fn names_and_ports_are_taken_once() {
    let (mut world, _) = running();
    assert_eq!(
        world.refusal(create(2, spec("ng", 1))),
        "name conflicts with an existing object: service ng already exists"
    );
    let mut web = spec("web", 1);
    web.ports = vec![ingress(80, 80)];
    assert_eq!(
        world.refusal(create(2, web.clone())),
        "port '80' is already in use by service 'ng' (0000000000000000000000001)"
    );
    web.ports[0].mode = PortMode::Host;
    assert!(
        world
            .refusal(create(2, web.clone()))
            .starts_with("port '80'"),
        "an ingress port is taken on every node"
    );
    // A service on its way out holds neither.
    world.ok(Command::RemoveService { id: service_id(1) });
    web.name = "ng".to_owned();
    world.create(2, web);
    assert_eq!(world.state.service_named("ng").unwrap().id, service_id(2));
}

#[test]
fn open_ports_are_filled_in_and_kept() {
    let mut world = World::new(1);
    let open = |name: &str| {
        let mut spec = spec(name, 1);
        spec.ports = vec![ingress(0, 80), ingress(30_001, 81), ingress(0, 82)];
        spec
    };
    let published = |world: &World, number| -> Vec<u16> {
        let service = service(world, number);
        service
            .spec
            .ports
            .iter()
            .map(|port| port.published)
            .collect()
    };
    world.create(1, open("a"));
    assert_eq!(published(&world, 1), [30_000, 30_001, 30_002]);
    let version = service(&world, 1).spec_version;
    world.update(1, |spec| {
        spec.ports = vec![ingress(0, 82), ingress(30_001, 81), ingress(0, 80)];
    });
    assert_eq!(published(&world, 1), [30_002, 30_001, 30_000]);
    assert!(service(&world, 1).spec_version > version);
    world.ok(Command::RemoveService { id: service_id(1) });
    let mut late = spec("b", 1);
    late.ports = vec![ingress(0, 80)];
    world.create(2, late);
    assert_eq!(
        published(&world, 2),
        [30_003],
        "its last clients may be there"
    );
}

#[test]
fn an_update_needs_the_version_it_was_made_from() {
    let (mut world, _) = running();
    let before = service(&world, 1);
    let update = |edit: &dyn Fn(&mut crate::model::ServiceSpec)| {
        let mut spec = before.spec.clone();
        edit(&mut spec);
        Command::UpdateService {
            id: service_id(1),
            expected: before.version,
            spec: Box::new(spec),
        }
    };
    assert_eq!(
        world.refusal(update(&|spec| spec.name = "web".to_owned())),
        "renaming services is not supported"
    );
    let scale = update(&|spec| spec.mode = ServiceMode::Replicated { replicas: 4 });
    world.ok(scale.clone());
    assert_eq!(world.refusal(scale), "update out of sequence");
    let scaled = service(&world, 1);
    assert!(scaled.version > before.version);
    assert_eq!(scaled.spec_version, before.spec_version);
    world.update(1, |spec| spec.task.containers[0].env.push("A=1".to_owned()));
    assert_eq!(service(&world, 1).spec_version, world.state.version());
    // Without a difference nothing changes.
    let version = service(&world, 1).version;
    world.update(1, |_| {});
    assert_eq!(service(&world, 1).version, version);
}

#[test]
fn a_removed_service_is_not_found_but_may_be_removed_twice() {
    let (mut world, task) = running();
    let delete = Command::DeleteService { id: service_id(1) };
    assert!(world.refusal(delete.clone()).contains("not being removed"));
    let remove = Command::RemoveService { id: service_id(1) };
    world.ok(remove.clone());
    assert_eq!(world.try_one(remove), Ok(vec![]));
    assert!(world.refusal(delete).contains("tasks left"));
    let update = Command::UpdateService {
        id: service_id(1),
        expected: world.state.version(),
        spec: Box::new(spec("ng", 2)),
    };
    assert_eq!(
        world.refusal(update),
        format!("service {} not found", service_id(1))
    );
    assert_eq!(
        world.refusal(Command::DeleteTask {
            id: task.id.clone()
        }),
        format!("task {} has not ended", task.id)
    );
}

#[test]
fn observed_states_only_grow() {
    let (mut world, task) = running();
    let report = |state, by: Option<NodeId>| Command::ReportTask {
        id: task.id.clone(),
        by,
        status: Box::new(observed(&task, state)),
    };
    let own = task.node.clone();
    assert_eq!(
        world.try_one(report(TaskState::Preparing, own.clone())),
        Ok(vec![])
    );
    assert_eq!(
        world.try_one(report(TaskState::Running, own.clone())),
        Ok(vec![])
    );
    world.ok(report(TaskState::Failed, own.clone()));
    assert_eq!(world.try_one(report(TaskState::Running, own)), Ok(vec![]));
    let now = world.state.task(&task.id).unwrap();
    assert_eq!(now.status.state, TaskState::Failed);
    assert_eq!(now.status.at, world.now, "times are the leader's");
}

#[test]
fn nodes_report_on_their_own_tasks_only() {
    let (mut world, task) = running();
    let report = |state, by: Option<NodeId>| Command::ReportTask {
        id: task.id.clone(),
        by,
        status: Box::new(observed(&task, state)),
    };
    let own = task.node.clone().unwrap();
    let other = (1..=3).map(node_id).find(|id| *id != own).unwrap();
    let refusal = world.refusal(report(TaskState::Failed, Some(other.clone())));
    assert_eq!(
        refusal,
        format!(
            "task {}: failed cannot be reported by node {other}",
            task.id
        )
    );
    for state in [TaskState::Orphaned, TaskState::Remove, TaskState::Assigned] {
        world.refusal(report(state, Some(own.clone())));
    }
    world.refusal(report(TaskState::Orphaned, None));
    world.refusal(report(TaskState::Failed, None));
    let number = (1..=3).find(|&n| node_id(n) == own).unwrap();
    world.node_is(number, NodeState::Down);
    world.refusal(report(TaskState::Failed, None));
    world.ok(report(TaskState::Orphaned, None));
}

#[test]
fn a_placement_is_checked_again() {
    let mut world = World::new(2);
    let mut ng = spec("ng", 2);
    ng.task.resources.reservations.nano_cpus = 3_000_000_000;
    world.create(1, ng);
    let commands = crate::orchestrator::reconcile(&world.state, world.now, 1);
    world.propose(commands);
    let tasks = world.members();
    let assign = |task: &Task, node| Command::AssignTask {
        id: task.id.clone(),
        expected: task.version,
        node: node_id(node),
    };
    world.ok(assign(&tasks[0], 1));
    assert_eq!(
        world.refusal(assign(&tasks[0], 2)),
        "update out of sequence"
    );
    assert!(
        world
            .refusal(assign(&tasks[1], 1))
            .ends_with("insufficient resources")
    );
    world.node_is(2, NodeState::Unknown);
    assert!(
        world
            .refusal(assign(&tasks[1], 2))
            .ends_with("not available for new tasks")
    );
    assert!(world.refusal(assign(&tasks[1], 9)).ends_with("not found"));
}

#[test]
fn a_slot_takes_one_task() {
    let (mut world, task) = running();
    let again = |world: &World| {
        let mut copy = task.clone();
        copy.id = TaskId::from_random(u128::from(world.state.version().0));
        copy.node = None;
        copy.status = observed(&task, TaskState::New);
        Command::CreateTask {
            task: Box::new(copy),
        }
    };
    let command = again(&world);
    assert_eq!(
        world.refusal(command),
        format!("slot 1 of service {} is taken", service_id(1))
    );
    let number = (1..=3).find(|&n| Some(node_id(n)) == task.node).unwrap();
    world.node_is(number, NodeState::Down);
    let command = again(&world);
    world.ok(command.clone());
    assert!(world.refusal(command).ends_with("already exists"));
    let command = again(&world);
    assert!(world.refusal(command).ends_with("is taken"));
    // A task made from an older specification is not wanted any more.
    world.update(1, |spec| spec.task.containers[0].image = "new".to_owned());
    let command = again(&world);
    assert_eq!(world.refusal(command), "update out of sequence");
}

#[test]
fn desired_states_only_grow_and_unplaced_tasks_end_at_once() {
    let (mut world, task) = running();
    let set = |id: &TaskId, desired| Command::SetDesired {
        id: id.clone(),
        desired,
    };
    world.ok(set(&task.id, TaskState::Shutdown));
    assert!(
        world
            .refusal(set(&task.id, TaskState::Running))
            .contains("cannot go back from desired state shutdown to running")
    );
    assert!(world.state.task(&task.id).unwrap().is_live());
    world.availability(1, crate::model::Availability::Pause);
    world.availability(2, crate::model::Availability::Pause);
    world.availability(3, crate::model::Availability::Pause);
    world.settle();
    let waiting = world.members().remove(0);
    world.ok(set(&waiting.id, TaskState::Shutdown));
    let ended = world.state.task(&waiting.id).unwrap();
    assert_eq!(ended.status.state, TaskState::Shutdown);
}

#[test]
fn removing_a_node_orphans_its_tasks() {
    let (mut world, task) = running();
    let node = task.node.clone().unwrap();
    world.ok(Command::RemoveNode { id: node.clone() });
    let orphan = world.state.task(&task.id).unwrap();
    assert_eq!(orphan.status.state, TaskState::Orphaned);
    assert!(
        world
            .refusal(Command::RemoveNode { id: node })
            .ends_with("not found")
    );
}

#[test]
fn a_stable_run_makes_up_for_failures() {
    for (seconds, expected) in [(59, 1), (60, 0)] {
        let (mut world, task) = running();
        world.report(&task.id, TaskState::Failed);
        world.settle();
        world.run_all();
        let second = world.members().remove(0);
        assert_eq!(second.restart.failures, 1);
        world.pass(Duration::from_secs(seconds));
        world.report(&second.id, TaskState::Failed);
        let ended = world.state.task(&second.id).unwrap();
        assert_eq!(ended.restart.failures, expected, "after {seconds} s");
    }
}

#[test]
fn manager_numbers_are_given_out_once() {
    let mut world = World::new(2);
    let set = |number, raft_id: Option<u64>| Command::SetManager {
        id: node_id(number),
        manager: raft_id.map(|raft_id| ManagerInfo {
            raft_id,
            address: "10.0.0.1:2377".parse().unwrap(),
        }),
    };
    world.ok(set(1, Some(1)));
    assert_eq!(world.state.cluster().unwrap().next_raft_id, 2);
    assert_eq!(world.try_one(set(1, Some(1))), Ok(vec![]));
    world.refusal(set(2, Some(1)));
    world.ok(set(1, None));
    assert_eq!(
        world.refusal(set(1, Some(1))),
        "manager number 1 has been given out already"
    );
    world.ok(set(2, Some(7)));
    let mut third = node(3);
    third.manager = Some(ManagerInfo {
        raft_id: 7,
        address: "10.0.0.3:2377".parse().unwrap(),
    });
    world.refusal(Command::AddNode {
        node: Box::new(third.clone()),
    });
    third.manager.as_mut().unwrap().raft_id = 8;
    world.ok(Command::AddNode {
        node: Box::new(third),
    });
    assert_eq!(world.state.cluster().unwrap().next_raft_id, 9);
}

#[test]
fn the_schema_rises_once_every_manager_knows_it() {
    let mut world = World::new(1);
    world.ok(Command::SetManager {
        id: node_id(1),
        manager: Some(ManagerInfo {
            raft_id: 1,
            address: "10.0.0.1:2377".parse().unwrap(),
        }),
    });
    assert!(
        world
            .refusal(Command::RaiseSchema { schema: 2 })
            .ends_with("does not know it")
    );
    let mut description = node(1).description;
    description.schema = 2;
    world.ok(Command::DescribeNode {
        id: node_id(1),
        description: Box::new(description),
    });
    world.ok(Command::RaiseSchema { schema: 2 });
    assert!(
        world
            .refusal(Command::RaiseSchema { schema: 1 })
            .contains("schema 2 is in use")
    );
}

#[test]
fn an_older_program_becomes_no_manager() {
    let mut world = World::new(1);
    let manager = |raft_id| ManagerInfo {
        raft_id,
        address: "10.0.0.1:2377".parse().unwrap(),
    };
    let described = |schema| NodeDescription {
        schema,
        ..node(1).description
    };
    world.ok(Command::RaiseSchema { schema: 2 });
    let expected = format!(
        "{} cannot be a manager: its swarmlet knows schema 1 of the swarm's state, and 2 is in \
         use: update swarmlet there first",
        node(2).description.hostname
    );

    let mut joining = node(2);
    joining.manager = Some(manager(2));
    let refused = world.refusal(Command::AddNode {
        node: Box::new(joining.clone()),
    });
    assert_eq!(refused, expected);
    // Workers decide on nothing.
    joining.manager = None;
    world.ok(Command::AddNode {
        node: Box::new(joining),
    });
    let promoted = |world: &World| Command::UpdateNode {
        id: node_id(2),
        expected: world.state.node(&node_id(2)).unwrap().version,
        spec: NodeSpec {
            role: Role::Manager,
            ..node(2).spec
        },
    };
    assert_eq!(world.refusal(promoted(&world)), expected);
    let placed = || Command::SetManager {
        id: node_id(2),
        manager: Some(manager(2)),
    };
    assert_eq!(world.refusal(placed()), expected);

    world.ok(Command::DescribeNode {
        id: node_id(2),
        description: Box::new(described(2)),
    });
    world.ok(promoted(&world));
    world.ok(placed());
}

#[test]
fn settings_secrets_and_nodes_change_by_command() {
    let mut world = World::new(2);
    let secret = JoinSecret {
        salt: [1; 16],
        sha256: [2; 32],
    };
    world.ok(Command::RotateJoinSecret {
        role: Role::Worker,
        secret: secret.clone(),
    });
    let cluster = world.state.cluster().unwrap().clone();
    assert_eq!(cluster.join_secret(Role::Worker), &secret);
    assert_ne!(cluster.join_secret(Role::Manager), &secret);
    let mut settings = cluster.spec.clone();
    settings.task_history_limit = 1;
    let stale = Command::UpdateCluster {
        expected: Version(1),
        spec: settings.clone(),
    };
    assert_eq!(world.refusal(stale), "update out of sequence");
    world.ok(Command::UpdateCluster {
        expected: cluster.version,
        spec: settings,
    });
    assert_eq!(world.state.cluster().unwrap().spec.task_history_limit, 1);

    world.pass(Duration::from_secs(1));
    world.node_is(2, NodeState::Unknown);
    let since = world.state.node(&node_id(2)).unwrap().status.since;
    world.pass(Duration::from_secs(1));
    world.node_is(2, NodeState::Unknown);
    assert_eq!(world.state.node(&node_id(2)).unwrap().status.since, since);
    let mut description = node(2).description;
    description.resources = Resources::default();
    world.ok(Command::DescribeNode {
        id: node_id(2),
        description: Box::new(description.clone()),
    });
    let described = Command::DescribeNode {
        id: node_id(2),
        description: Box::new(description),
    };
    assert_eq!(world.try_one(described), Ok(vec![]));
    assert!(
        world
            .refusal(Command::AddNode {
                node: Box::new(node(2))
            })
            .ends_with("already exists")
    );
}

#[test]
fn refusals_have_a_kind() {
    let (mut world, task) = running();
    let mut kind = |command| world.try_one(command).unwrap_err().kind();
    assert_eq!(kind(create(2, spec("ng", 1))), RejectionKind::AlreadyExists);
    assert_eq!(
        kind(Command::RemoveNode { id: node_id(9) }),
        RejectionKind::NotFound
    );
    assert_eq!(
        kind(Command::DeleteTask { id: task.id }),
        RejectionKind::FailedPrecondition
    );
}
