use super::*;
use crate::model::ManagerInfo;
use crate::testing::{World, node, node_id};

/// What a leader has heard of three nodes that are well; heartbeats are half a second old.
fn well() -> Heard {
    let nodes = || (1..=3).map(node_id);
    Heard {
        observations: nodes().map(|id| (id, Observation::default())).collect(),
        ages: nodes().map(|id| (id, Duration::from_millis(500))).collect(),
        clocks: nodes().map(|id| (id, 0)).collect(),
    }
}

/// Three nodes, of which the first is a manager; all of them answer attempts.
fn three() -> World {
    let mut world = World::new(3);
    for number in 1..=3 {
        let mut description = node(number).description;
        description.probe_port = 29_999;
        world.ok(Command::DescribeNode {
            id: node_id(number),
            description: Box::new(description),
        });
    }
    let raft_id = world.state.cluster().unwrap().next_raft_id;
    world.ok(Command::SetManager {
        id: node_id(1),
        manager: Some(ManagerInfo {
            raft_id,
            address: "10.0.0.1:2377".parse().unwrap(),
        }),
    });
    world
}

fn failing(node: u8, port: ProbedPort, seconds: f64) -> Failing {
    Failing {
        node: node_id(node),
        port,
        found: Closed::Dropped,
        lasting: Duration::from_secs_f64(seconds),
    }
}

/// Judges until nothing changes; all problems as people read them.
fn problems(world: &mut World, heard: &Heard) -> Vec<String> {
    let commands = judge(&world.state, heard, world.now);
    world.propose(commands);
    assert!(
        judge(&world.state, heard, world.now).is_empty(),
        "judged twice"
    );
    all(&world.state).iter().map(ToString::to_string).collect()
}

#[test]
fn a_closed_port_names_pair_range_and_direction_and_goes_away() {
    let mut world = three();
    let mut heard = well();
    assert!(problems(&mut world, &heard).is_empty());
    let sees = |heard: &mut Heard, failing| {
        heard.observations.get_mut(&node_id(2)).unwrap().failing = failing;
    };
    sees(&mut heard, vec![failing(3, ProbedPort::Tasks, 2.9)]);
    assert!(problems(&mut world, &heard).is_empty(), "too early");
    sees(&mut heard, vec![failing(3, ProbedPort::Tasks, 3.0)]);
    assert_eq!(
        problems(&mut world, &heard),
        [
            "n2 (10.0.0.2) cannot connect to n3 (10.0.0.3) on TCP 20000-29999: packets are dropped; \
          open TCP 20000-29999 from 10.0.0.2 to 10.0.0.3 (security group, firewall)"
        ]
    );
    let both = [ProbedPort::Tasks, ProbedPort::Cluster].map(|port| failing(1, port, 4.0));
    sees(&mut heard, both.to_vec());
    assert_eq!(
        problems(&mut world, &heard),
        [
            "n2 (10.0.0.2) cannot connect to n1 (10.0.0.1) on TCP 20000-29999 and 2377: packets are \
          dropped; open TCP 20000-29999 and 2377 from 10.0.0.2 to 10.0.0.1 (security group, \
          firewall)"
        ]
    );
    sees(&mut heard, Vec::new());
    assert!(problems(&mut world, &heard).is_empty());
}

#[test]
fn of_five_managers_every_pair_and_direction_is_named() {
    let mut world = World::new(5);
    for number in 1..=5 {
        let raft_id = world.state.cluster().unwrap().next_raft_id;
        world.ok(Command::SetManager {
            id: node_id(number),
            manager: Some(ManagerInfo {
                raft_id,
                address: format!("10.0.0.{number}:2377").parse().unwrap(),
            }),
        });
    }
    let ids = || (1..=5).map(node_id);
    let well = Heard {
        observations: ids().map(|id| (id, Observation::default())).collect(),
        ages: ids().map(|id| (id, Duration::from_millis(500))).collect(),
        clocks: ids().map(|id| (id, 0)).collect(),
    };
    let ways = (1..=5).flat_map(|from| (1..=5).map(move |to| (from, to)));
    let sentence = |from: u8, to: u8| {
        format!(
            "n{from} (10.0.0.{from}) cannot connect to n{to} (10.0.0.{to}) on TCP 2377: packets \
             are dropped; open TCP 2377 from 10.0.0.{from} to 10.0.0.{to} (security group, firewall)"
        )
    };
    let mut closed = well.clone();
    let mut all = Vec::new();
    for (from, to) in ways.filter(|(from, to)| from != to) {
        let mut heard = well.clone();
        for heard in [&mut heard, &mut closed] {
            let seen = heard.observations.get_mut(&node_id(from)).unwrap();
            seen.failing.push(failing(to, ProbedPort::Cluster, 3.0));
        }
        assert_eq!(problems(&mut world, &heard), [sentence(from, to)]);
        all.push(sentence(from, to));
    }
    // All of them at once, as well.
    let mut found = problems(&mut world, &closed);
    found.sort();
    all.sort();
    assert_eq!(found, all);
    assert!(problems(&mut world, &well).is_empty());
}

#[test]
fn a_node_that_is_gone_is_no_closed_port() {
    let mut world = three();
    let mut heard = well();
    // Its heartbeats and its answers stopped at the same moment.
    for tenths in 0..80 {
        let seconds = f64::from(tenths) / 10.0;
        for observer in [1, 2] {
            let seen = heard.observations.get_mut(&node_id(observer)).unwrap();
            seen.failing = vec![failing(3, ProbedPort::Tasks, seconds)];
            seen.failing.retain(|failing| failing.lasting >= SUSPECT);
        }
        // The last heartbeat was up to a second before.
        heard
            .ages
            .insert(node_id(3), Duration::from_secs_f64(seconds + 0.01));
        world.pass(Duration::from_millis(100));
        world.propose(crate::liveness::judge(&world.state, &heard.ages, world.now));
        assert_eq!(problems(&mut world, &heard), [""; 0], "after {seconds} s");
    }
    assert_eq!(
        world.state.node(&node_id(3)).unwrap().status.state,
        NodeState::Down
    );
}

#[test]
fn a_node_that_leaves_is_neither_closed_nor_cut_off() {
    let mut world = three();
    let mut heard = well();
    heard.ages.insert(node_id(3), LEFT);
    let seen = heard.observations.get_mut(&node_id(1)).unwrap();
    seen.failing = vec![failing(3, ProbedPort::Tasks, 3.0)];
    assert_eq!(problems(&mut world, &heard), [""; 0]);
    world.propose(crate::liveness::judge(&world.state, &heard.ages, world.now));
    assert_eq!(
        world.state.node(&node_id(3)).unwrap().status.state,
        NodeState::Down
    );
    let seen = heard.observations.get_mut(&node_id(1)).unwrap();
    seen.failing.clear();
    assert_eq!(problems(&mut world, &heard), [""; 0]);
}

#[test]
fn a_silent_node_that_answers_the_others_is_cut_off_from_the_managers() {
    let mut world = three();
    let heard = well();
    world.node_is(3, NodeState::Unknown);
    assert_eq!(
        problems(&mut world, &heard),
        [
            "n3 (10.0.0.3) is alive, but its heartbeats do not reach the managers (n1 (10.0.0.1)) on \
          TCP 2377; open TCP 2377 from 10.0.0.3 to 10.0.0.1 (security group, firewall)"
        ]
    );
    world.node_is(3, NodeState::Ready);
    assert!(problems(&mut world, &heard).is_empty());

    // One that has joined a moment ago and was never heard.
    world.node_is(3, NodeState::Unknown);
    let mut joining = well();
    joining.observations.remove(&node_id(3));
    assert!(problems(&mut world, &joining).is_empty());

    // Who has just begun to lead has heard nobody, and does not know.
    world.node_is(3, NodeState::Unknown);
    let nothing = Heard::default();
    assert!(problems(&mut world, &nothing).is_empty());
}

#[test]
fn a_new_leader_keeps_what_is_known_until_it_has_heard_the_node() {
    let mut world = three();
    let mut heard = well();
    let seen = heard.observations.get_mut(&node_id(2)).unwrap();
    seen.engine = Some("it hangs".to_owned());
    let expected = [
        "the container engine of n2 (10.0.0.2) does not answer: it hangs; start it \
        (`systemctl restart docker`), and see `journalctl -u docker` for why it ended or hangs",
    ];
    assert_eq!(problems(&mut world, &heard), expected);
    assert_eq!(problems(&mut world, &Heard::default()), expected);
    assert!(problems(&mut world, &well()).is_empty());
}

#[test]
fn the_odd_clock_is_named_also_where_it_is_the_leaders() {
    let check = |clocks: [i64; 3], expected: &[&str]| {
        let mut world = three();
        let mut heard = well();
        heard.clocks = (1..=3).map(node_id).zip(clocks).collect();
        let found: Vec<String> = problems(&mut world, &heard)
            .iter()
            .map(|text| text.split(" the other").next().unwrap().to_owned())
            .collect();
        assert_eq!(found, expected, "{clocks:?}");
    };
    check([0, 0, 1000], &[]);
    check(
        [0, -40, 1001],
        &["the clock of n3 (10.0.0.3) is about 2 s ahead of"],
    );
    check(
        [0, -9000, 0],
        &["the clock of n2 (10.0.0.2) is about 9 s behind"],
    );
    check(
        [0, 9000, 9000],
        &["the clock of n1 (10.0.0.1) is about 9 s behind"],
    );
}

#[test]
fn of_two_clocks_the_leaders_is_believed_and_the_limit_does_not_flap() {
    let mut world = three();
    let mut heard = well();
    heard.clocks = BTreeMap::from([(node_id(1), 0), (node_id(2), -1200)]);
    assert_eq!(problems(&mut world, &heard).len(), 1);
    assert_eq!(world.state.node(&node_id(2)).unwrap().problems.len(), 1);
    heard.clocks.insert(node_id(2), -900);
    assert_eq!(problems(&mut world, &heard).len(), 1);
    heard.clocks.insert(node_id(2), -800);
    assert!(problems(&mut world, &heard).is_empty());
    heard.clocks.insert(node_id(2), -900);
    assert!(problems(&mut world, &heard).is_empty());
}

#[test]
fn disks_and_descriptors_have_limits() {
    let disk = |free_bytes: u64, total_bytes: u64| {
        is_full(&DiskSpace {
            user: DiskUser::State,
            path: "/".to_owned(),
            free_bytes,
            total_bytes,
        })
    };
    const GIB: u64 = 1 << 30;
    assert!(
        disk(GIB - 1, 1000 * GIB),
        "a large disk has an absolute limit"
    );
    assert!(!disk(GIB, 1000 * GIB));
    assert!(disk(GIB / 2 - 1, 10 * GIB), "a small one a twentieth");
    assert!(!disk(GIB / 2, 10 * GIB));
    assert!(
        disk((128 << 20) - 1, GIB),
        "and none less than managers need"
    );

    let descriptors = |open, limit| {
        let observation = Observation {
            descriptors: vec![DescriptorUse {
                process: "daemon".to_owned(),
                open,
                limit,
            }],
            ..Observation::default()
        };
        own(&observation, RuntimeKind::Docker).len()
    };
    assert_eq!(descriptors(949, 1000), 0);
    assert_eq!(descriptors(950, 1000), 1);
    assert_eq!(descriptors(1000, 1000), 1);
}

#[test]
fn without_a_session_the_managers_that_do_not_answer_are_named() {
    let observation = Observation {
        failing: vec![
            failing(1, ProbedPort::Cluster, 3.0),
            failing(3, ProbedPort::Tasks, 9.0),
        ],
        ..Observation::default()
    };
    let manager = place(&node(1));
    let found = alone(&observation, &[(manager.clone(), 2377)]);
    assert_eq!(
        found,
        [ProblemKind::Closed {
            to: manager,
            ports: vec![(2377, 2377)],
            found: Closed::Dropped,
        }]
    );
}
