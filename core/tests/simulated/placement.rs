//! Where tasks go, for random nodes and services: nothing is given out twice, limits hold, and
//! what is to be spread is spread.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use swarmlet_core::command::Command;
use swarmlet_core::model::{
    Node, NodeId, Preference, ServiceSpec, Strategy as Order, Task, TaskState,
};

use crate::cases;
use crate::objects::node;
use crate::options;
use crate::simulation::Simulation;

/// Long enough for every task that finds a node to run.
const A_WHILE: Duration = Duration::from_secs(3);

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let one = (1..8u64, 0..3u8, 0..3u64, 0..4usize);
    prop::collection::vec(one, 2..9).prop_map(|nodes| {
        let numbered = nodes.into_iter().zip(1u8..);
        numbered
            .map(|(parts, number)| described(number, parts))
            .collect()
    })
}

fn described(number: u8, (cpus, zone, discs, gpus): (u64, u8, u64, usize)) -> Node {
    let mut node = node(&format!("n{number}"), number, cpus, 16 << 30);
    let zone = format!("zone={}", ["a", "b", "c"][usize::from(zone)]);
    options::describe(&mut node, &zone);
    options::describe(&mut node, &format!("disc:{discs}"));
    if gpus > 0 {
        let names: Vec<&str> = ["x", "y", "z"].into_iter().take(gpus).collect();
        options::describe(&mut node, &format!("gpu:{}", names.join(",")));
    }
    node
}

/// What a service asks for.
#[derive(Debug, Clone)]
struct Demand {
    replicas: u32,
    cpus: u64,
    gpus: u64,
    discs: u64,
    max_per_node: u32,
    zones: bool,
    binpack: bool,
}

fn demand() -> impl Strategy<Value = Demand> {
    let amounts = (0..12u32, 0..3u64, 0..3u64, 0..2u64, 0..4u32);
    (amounts, any::<bool>(), any::<bool>()).prop_map(
        |((replicas, cpus, gpus, discs, max_per_node), zones, binpack)| Demand {
            replicas,
            cpus,
            gpus,
            discs,
            max_per_node,
            zones,
            binpack,
        },
    )
}

impl Demand {
    fn spec(&self, simulation: &mut Simulation, name: &str) -> ServiceSpec {
        let mut words = vec![
            format!("replicas={}", self.replicas),
            format!("cpus={}", self.cpus),
            format!("max-per-node={}", self.max_per_node),
        ];
        for (kind, amount) in [("gpu", self.gpus), ("disc", self.discs)] {
            if amount > 0 {
                words.push(format!("generic={kind}:{amount}"));
            }
        }
        if self.zones {
            words.push("pref=node.labels.zone".to_owned());
        }
        if self.binpack {
            words.push("strategy=binpack".to_owned());
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        options::service(simulation, name, &words)
    }
}

fn cluster(seed: u64, nodes: &[Node]) -> Simulation {
    let mut simulation = Simulation::new(seed, nodes[0].clone());
    for node in &nodes[1..] {
        simulation.join(node.clone());
    }
    simulation
}

fn create(simulation: &mut Simulation, spec: ServiceSpec) {
    let id = simulation.service_id();
    let spec = Box::new(spec);
    simulation
        .user(Command::CreateService { id, spec })
        .expect("the name is new");
}

fn placed(simulation: &Simulation) -> impl Iterator<Item = (&Task, &Node)> {
    let live = simulation.state.tasks().filter(|task| task.is_live());
    live.filter_map(|task| Some((task, simulation.state.node(task.node.as_ref()?)?)))
}

fn per_node<'a>(simulation: &'a Simulation, service: &str) -> BTreeMap<&'a NodeId, usize> {
    let mut counts: BTreeMap<_, _> = simulation.state.nodes().map(|n| (&n.id, 0)).collect();
    for (task, node) in placed(simulation) {
        if task.service_name == service {
            *counts.entry(&node.id).or_insert(0) += 1;
        }
    }
    counts
}

fn check_limits(simulation: &Simulation) -> Result<(), TestCaseError> {
    for node in simulation.state.nodes() {
        let mut given: BTreeMap<&str, u64> = BTreeMap::new();
        let mut names = Vec::new();
        let mut cpus = 0;
        for (task, _) in placed(simulation).filter(|(_, on)| on.id == node.id) {
            let wanted = &task.spec.resources.reservations;
            cpus += wanted.nano_cpus;
            for (kind, amount) in &wanted.generic {
                *given.entry(kind).or_default() += amount;
                if kind == "gpu" {
                    prop_assert_eq!(task.generic_names[kind].len() as u64, *amount);
                    names.extend(&task.generic_names[kind]);
                }
            }
        }
        let capacity = &node.description.resources;
        prop_assert!(cpus <= capacity.nano_cpus);
        for (kind, amount) in given {
            prop_assert!(amount <= capacity.generic[kind], "{kind} on {}", node.id);
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        prop_assert_eq!(names.len(), count, "a name was given out twice");
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases::config(128))]

    /// Whatever is created and scaled, no resource is given out twice and no limit exceeded;
    /// and who waits could not have been placed.
    #[test]
    fn nothing_is_given_out_twice(
        seed in any::<u64>(),
        nodes in nodes(),
        demands in prop::collection::vec((demand(), 0..12u32), 1..4),
    ) {
        let mut simulation = cluster(seed, &nodes);
        for (number, (demand, _)) in demands.iter().enumerate() {
            let spec = demand.spec(&mut simulation, &format!("s{number}"));
            create(&mut simulation, spec);
        }
        simulation.run(A_WHILE);
        check_limits(&simulation)?;
        for (number, (_, replicas)) in demands.iter().enumerate() {
            simulation
                .update(&format!("s{number}"), |spec| {
                    spec.mode = swarmlet_core::model::ServiceMode::Replicated {
                        replicas: *replicas,
                    };
                })
                .expect("nobody else changes it");
        }
        simulation.run(A_WHILE);
        check_limits(&simulation)?;
        for (number, (demand, replicas)) in demands.iter().enumerate() {
            let counts = per_node(&simulation, &format!("s{number}"));
            if demand.max_per_node > 0 {
                let most = demand.max_per_node as usize;
                prop_assert!(counts.values().all(|&count| count <= most));
            }
            let placed: usize = counts.values().sum();
            let waiting = simulation.state.tasks().filter(|task| task.node.is_none());
            let waiting: Vec<&Task> = waiting
                .filter(|t| t.service_name == format!("s{number}") && t.is_live())
                .collect();
            prop_assert_eq!(placed + waiting.len(), *replicas as usize);
            for task in waiting {
                for node in simulation.state.nodes() {
                    let admitted = swarmlet_core::scheduler::admit(&simulation.state, node, task);
                    prop_assert!(admitted.is_err(), "{} fits {}", task.name(), node.id);
                }
            }
        }
    }

    /// With room everywhere, zones and the nodes in each zone differ by one task at most, also
    /// after the service was scaled up and down.
    #[test]
    fn zones_stay_balanced(
        seed in any::<u64>(),
        zones in prop::collection::vec(0..3u8, 2..10),
        sizes in prop::collection::vec(0..30u32, 1..6),
    ) {
        let numbered = zones.iter().zip(1u8..);
        let nodes: Vec<Node> = numbered.map(|(&z, n)| described(n, (8, z, 0, 0))).collect();
        let mut simulation = cluster(seed, &nodes);
        let spec = options::service(&mut simulation, "ng", &["replicas=0"]);
        let spec = ServiceSpec { drain_timeout: Duration::ZERO, ..spec };
        create(&mut simulation, spec);
        let preference = Preference::spread("node.labels.zone").expect("an attribute");
        let outcome = simulation.update("ng", |spec| {
            spec.task.placement.preferences = vec![preference];
        });
        prop_assert!(outcome.is_ok());
        for size in sizes {
            let mode = swarmlet_core::model::ServiceMode::Replicated { replicas: size };
            simulation.update("ng", |spec| spec.mode = mode).expect("nobody else changes it");
            simulation.run(A_WHILE);
            let counts = per_node(&simulation, "ng");
            let mut by_zone: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
            for node in simulation.state.nodes() {
                by_zone.entry(&node.spec.labels["zone"]).or_default().push(counts[&node.id]);
            }
            let sums: Vec<usize> = by_zone.values().map(|counts| counts.iter().sum()).collect();
            prop_assert_eq!(sums.iter().sum::<usize>(), size as usize);
            prop_assert!(is_even(&sums), "zones {:?}", by_zone);
            prop_assert!(by_zone.values().all(|counts| is_even(counts)), "{:?}", by_zone);
        }
    }

    /// On equal nodes a service that is packed uses as few of them as can be, and one that is
    /// spread all of them alike.
    #[test]
    fn strategies_pack_and_spread(
        seed in any::<u64>(),
        count in 2..8u8,
        replicas in 0..28u32,
    ) {
        let nodes: Vec<Node> = (1..=count).map(|n| described(n, (4, 0, 0, 0))).collect();
        let room = 4 * usize::from(count);
        for strategy in [Order::Binpack, Order::Spread] {
            let mut simulation = cluster(seed, &nodes);
            let words = [format!("replicas={replicas}"), "cpus=1".to_owned()];
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let mut spec = options::service(&mut simulation, "ng", &words);
            spec.task.placement.strategy = strategy;
            create(&mut simulation, spec);
            simulation.run(A_WHILE);
            let counts: Vec<usize> = per_node(&simulation, "ng").into_values().collect();
            let placed = (replicas as usize).min(room);
            prop_assert_eq!(counts.iter().sum::<usize>(), placed);
            match strategy {
                Order::Binpack => {
                    let used = counts.iter().filter(|&&count| count > 0).count();
                    prop_assert_eq!(used, placed.div_ceil(4), "{:?}", counts);
                }
                Order::Spread => prop_assert!(is_even(&counts), "{counts:?}"),
            }
        }
    }
}

fn is_even(counts: &[usize]) -> bool {
    let (least, most) = (counts.iter().min(), counts.iter().max());
    least
        .zip(most)
        .is_none_or(|(least, most)| most - least <= 1)
}

proptest! {
    #![proptest_config(cases::config(48))]

    /// However tasks came to be where they are, a rebalance ends, moves no more than it may,
    /// never has fewer tasks running than there should be, and leaves nothing to move.
    #[test]
    fn a_rebalance_ends_in_balance(
        seed in any::<u64>(),
        zones in prop::collection::vec(0..3u8, 2..7),
        replicas in 1..16u32,
        parallelism in 0..3u32,
        zoned in any::<bool>(),
        joined in 1..4usize,
    ) {
        let numbered = zones.iter().zip(1u8..);
        let nodes: Vec<Node> = numbered.map(|(&z, n)| described(n, (8, z, 0, 0))).collect();
        let (first, late) = nodes.split_at(nodes.len().saturating_sub(joined).max(1));
        let mut simulation = cluster(seed, first);
        let mut spec = options::service(&mut simulation, "ng", &["port=80:80", "drain=1s"]);
        spec.mode = swarmlet_core::model::ServiceMode::Replicated { replicas };
        spec.update.parallelism = parallelism;
        if zoned {
            let preference = Preference::spread("node.labels.zone").expect("an attribute");
            spec.task.placement.preferences = vec![preference];
        }
        create(&mut simulation, spec);
        simulation.run(A_WHILE);
        for node in late {
            simulation.join(node.clone());
        }
        simulation.run(A_WHILE);
        let id = simulation.service("ng").id.clone();
        let made = simulation.state.tasks().count();
        let Some((command, moves)) = swarmlet_core::rebalance::start(&simulation.state, &id) else {
            return Ok(());
        };
        simulation.user(command).expect("nothing else is under way");
        for _ in 0..2000 {
            simulation.tick();
            let serving = simulation.state.tasks().filter(|task| {
                task.status.state == TaskState::Running && task.is_member()
            });
            prop_assert!(serving.count() >= replicas as usize);
            if simulation.service("ng").rebalance.is_none() {
                break;
            }
        }
        prop_assert!(simulation.service("ng").rebalance.is_none(), "it does not end");
        prop_assert!(simulation.state.tasks().count() <= made + 2 * moves as usize);
        let again = swarmlet_core::rebalance::start(&simulation.state, &id);
        prop_assert!(again.is_none(), "{again:?} is left");
        let counts: Vec<usize> = per_node(&simulation, "ng").into_values().collect();
        prop_assert!(zoned || is_even(&counts), "{counts:?}");
    }
}
