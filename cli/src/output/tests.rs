use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarmlet_core::model::{
    FailureAction, LbPolicy, Node, NodeId, NodeState, Platform, PortMode, PortProblem, Problem,
    ProblemKind, Protocol, ProxyProtocol, Role, RuntimeKind, ServiceMode, Strategy, TaskPort,
    TaskState, Timestamp, UpdateOrder, UpdateState, UpdateStatus,
};

use swarmlet_proto::v1;

use super::samples::{NOW, node, service, task};
use super::*;

#[track_caller]
fn check(found: &str, expected: &str) {
    let expected: String = expected
        .trim_start_matches('\n')
        .lines()
        .map(|line| line.trim_start_matches('|').to_owned() + "\n")
        .collect();
    assert_eq!(found, expected, "found:\n{found}");
}

#[test]
fn nodes_are_listed() {
    let one = node(1, "host1", Role::Manager);
    let mut two = node(2, "host2", Role::Worker);
    two.status.state = NodeState::Down;
    two.description.engine_version = String::new();
    let mut ten = node(3, "host10", Role::Manager);
    ten.description.runtime = RuntimeKind::Process;
    let own = one.id.clone();
    let nodes = [
        (ten, "unreachable".to_owned()),
        (two, String::new()),
        (one, "leader".to_owned()),
    ];
    let rows = node_rows(&nodes, Some(&own));
    check(
        &list(&rows, Style::Table).unwrap(),
        r"
|ID               HOSTNAME   STATUS   AVAILABILITY   MANAGER STATUS   ENGINE VERSION
|000003ewfdnc *   host1      Ready    Active         Leader           20.10.24
|000006tsurao     host2      Down     Active                          unknown
|00000a8pa4y0     host10     Ready    Active         Unreachable      process",
    );
    let json = list(&rows[..1], Style::Json).unwrap();
    assert!(
        json.ends_with(
            "\"Self\":true,\"Hostname\":\"host1\",\"Status\":\"Ready\",\"Availability\":\"Active\",\
             \"ManagerStatus\":\"Leader\",\"EngineVersion\":\"20.10.24\",\"Problems\":[]}\n"
        ),
        "{json}"
    );
    assert_eq!(list(&rows[..1], Style::Ids).unwrap(), format!("{own}\n"));
}

#[test]
fn plans_are_listed() {
    let step = |action: &str, kind: &str, name: &str| v1::PlanStep {
        action: action.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        ..v1::PlanStep::default()
    };
    let steps = [
        step("update", "service", "ng"),
        v1::PlanStep {
            from: Some("host1".to_owned()),
            to: Some("host2".to_owned()),
            ..step("move", "task", "ng.1")
        },
        v1::PlanStep {
            reason: Some("no suitable node (insufficient resources on 2 nodes)".to_owned()),
            ..step("wait", "task", "ng.2")
        },
    ];
    let rows: Vec<PlanRow> = steps.into_iter().map(PlanRow::from).collect();
    check(
        &list(&rows, Style::Table).unwrap(),
        r"
|ACTION   OBJECT       FROM    TO      REASON
|update   service ng
|move     task ng.1    host1   host2
|wait     task ng.2                    no suitable node (insufficient resources on 2 nodes)",
    );
    assert_eq!(
        list(&rows[1..2], Style::Json).unwrap(),
        "{\"Action\":\"move\",\"Kind\":\"task\",\"Name\":\"ng.1\",\"From\":\"host1\",\
         \"To\":\"host2\"}\n"
    );
}

#[test]
fn services_are_listed_with_the_reason_to_wait() {
    let ng = service(1, "ng", 3);
    let api = service(2, "api", 1);
    let mut waiting = task(&ng, 11, 2, TaskState::Pending);
    waiting.status.error = Some("no suitable node (insufficient resources on 2 nodes)".to_owned());
    let tasks = [
        task(&ng, 10, 1, TaskState::Running),
        waiting,
        task(&api, 12, 1, TaskState::Running),
    ];
    check(
        &list(&service_rows(&[ng, api], &tasks), Style::Table).unwrap(),
        r"
|ID             NAME   MODE         REPLICAS                                                     IMAGE    PORTS
|000006tsurao   api    replicated   1/1                                                          whoami   *:8080->80/tcp
|000003ewfdnc   ng     replicated   1/3 (no suitable node (insufficient resources on 2 nodes))   whoami   *:8080->80/tcp",
    );
}

#[test]
fn tasks_are_listed_by_slot_with_their_history() {
    let ng = service(1, "ng", 10);
    let mut host = node(1, "host1", Role::Worker);
    host.port_problems = vec![PortProblem {
        port: 8080,
        protocol: Protocol::Tcp,
        reason: "address in use".to_owned(),
    }];
    let mut old = task(&ng, 1, 1, TaskState::Rejected);
    old.desired = TaskState::Shutdown;
    old.status.error = Some("No such image: nginx:of-another-world".to_owned());
    let mut new = task(&ng, 2, 1, TaskState::Running);
    new.node = Some(host.id.clone());
    let mut ten = task(&ng, 3, 10, TaskState::Starting);
    ten.status.ports = vec![TaskPort {
        target: 80,
        host: 32768,
        protocol: Protocol::Tcp,
        mode: PortMode::Host,
    }];
    let mut two = task(&ng, 4, 2, TaskState::Pending);
    two.restart.not_before = NOW.after(Duration::from_millis(6_500));
    let nodes: BTreeMap<NodeId, Node> = BTreeMap::from([(host.id.clone(), host)]);
    let jobs = BTreeSet::new();
    let tasks = vec![ten, old, new, two];
    let rows = tasks_by_slot(tasks, &nodes, &jobs, NOW, IdLength::Short);
    check(
        &list(&rows, Style::Table).unwrap(),
        r#"
|ID             NAME       IMAGE    NODE    DESIRED STATE   CURRENT STATE            ERROR                              PORTS
|000006tsurao   ng.1       whoami   host1   Running         Running 6 seconds ago    "port 8080/tcp: address in use"
|000003ewfdnc    \_ ng.1   whoami           Shutdown        Rejected 6 seconds ago   "No such image: nginx:of-anoth…"
|00000dnlpild   ng.2       whoami           Running         Pending 6 seconds ago    "back-off, starts in 7 s"
|00000a8pa4y0   ng.10      whoami           Running         Starting 6 seconds ago                                      *:32768->80/tcp"#,
    );
}

#[test]
fn a_digest_is_shown_where_there_is_room_for_it() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let (tagged, bare) = (format!("h:5000/ng:1@{digest}"), format!("ng@{digest}"));
    let (mut ng, mut api) = (service(1, "ng", 1), service(2, "api", 1));
    ng.spec.task.containers[0].image.clone_from(&tagged);
    api.spec.task.containers[0].image.clone_from(&bare);
    ng.spec.task.containers[0].platforms = ["amd64", "arm64"]
        .map(|arch| Platform {
            os: "linux".to_owned(),
            arch: arch.to_owned(),
        })
        .into();
    let rows = service_rows(&[ng.clone(), api], &[]);
    let listed = list(&rows, Style::Table).unwrap();
    assert!(listed.contains("   h:5000/ng:1   "), "{listed}");
    // As in Docker, what has no tag is not cut to a mere name.
    assert!(listed.contains(&bare), "{listed}");
    let json = list(&rows[1..], Style::Json).unwrap();
    assert!(json.contains(&tagged), "{json}");

    let rows = |length| {
        let tasks = vec![task(&ng, 1, 1, TaskState::Running)];
        let rows = tasks_by_slot(tasks, &BTreeMap::new(), &BTreeSet::new(), NOW, length);
        list(&rows, Style::Table).unwrap()
    };
    let short = rows(IdLength::Short);
    assert!(short.contains("   h:5000/ng:1   "), "{short}");
    assert!(rows(IdLength::Full).contains(&tagged));
    let pretty = pretty_service(&ng, NOW);
    let lines =
        format!(" Image:             {tagged}\n Platforms:         linux/amd64, linux/arm64\n");
    assert!(pretty.contains(&lines), "{pretty}");
}

#[test]
fn tasks_of_jobs_are_to_complete() {
    let job = service(1, "job", 2);
    let mut stopped = task(&job, 1, 2, TaskState::Shutdown);
    stopped.desired = TaskState::Shutdown;
    let tasks = vec![task(&job, 2, 1, TaskState::Complete), stopped];
    let jobs = BTreeSet::from([job.id]);
    let nodes = BTreeMap::new();
    let rows = tasks_by_slot(tasks, &nodes, &jobs, NOW, IdLength::Short);
    check(
        &list(&rows, Style::Table).unwrap(),
        r"
|ID             NAME    IMAGE    NODE   DESIRED STATE   CURRENT STATE            ERROR   PORTS
|000006tsurao   job.1   whoami          Complete        Complete 6 seconds ago
|000003ewfdnc   job.2   whoami          Shutdown        Shutdown 6 seconds ago",
    );
}

#[test]
fn objects_are_shown_to_people() {
    let mut host = node(1, "host1", Role::Manager);
    host.port_problems = vec![PortProblem {
        port: 80,
        protocol: Protocol::Tcp,
        reason: "address in use".to_owned(),
    }];
    let generic = &mut host.description.resources.generic;
    generic.extend([("disc".to_owned(), 4), ("gpu".to_owned(), 2)]);
    let names = vec!["GPU-1".to_owned(), "GPU-2".to_owned()];
    host.description
        .generic_names
        .insert("gpu".to_owned(), names);
    host.problems = vec![Problem {
        since: NOW,
        kind: ProblemKind::Clock { ahead_ms: 5000 },
    }];
    let text = pretty_node(&host, "leader", NOW);
    for part in [
        "Hostname:                host1\n",
        " State:                  Ready\n",
        " Raft Status:            Leader\n",
        " CPUs:                   2.00\n",
        " disc:                   4\n gpu:                    2 (GPU-1, GPU-2)\n",
        " - 80/tcp:               address in use\n",
        "Problems:\n - the clock of host1 (10.99.0.1) is about 5 s ahead of the other nodes';\n   set it",
    ] {
        assert!(text.contains(part), "{part:?} in:\n{text}");
    }
    let mut ng = service(1, "ng", 3);
    ng.update_status = Some(UpdateStatus {
        state: UpdateState::Paused,
        started_at: Timestamp(NOW.0 - 60_000),
        completed_at: Some(Timestamp(NOW.0 - 6000)),
        message: "update paused due to failure or early termination of task x".to_owned(),
        slots: 3,
        failures: 1,
        failed_task: None,
    });
    ng.spec.ports[0].proxy_protocol = Some(ProxyProtocol::V2);
    ng.spec.ports[0].accept_proxy = vec!["10.0.0.0/8".parse().unwrap()];
    ng.spec.update.delay = Duration::from_secs(90);
    ng.spec.update.order = UpdateOrder::StartFirst;
    ng.spec.update.max_failure_ratio = "0.25".parse().unwrap();
    ng.spec.update.failure_action = FailureAction::Rollback;
    ng.spec.rollback.min_healthy_percent = Some(50);
    ng.spec.rollback.max_percent = Some(200);
    ng.spec.rollback.progress_deadline = Duration::ZERO;
    ng.spec.lb_policy = LbPolicy::LeastConn;
    ng.spec.lb_prefer_local = true;
    let task = &mut ng.spec.task;
    task.placement.preferences = vec!["spread=node.labels.zone".parse().unwrap()];
    task.placement.max_replicas = 2;
    task.placement.strategy = Strategy::Binpack;
    task.resources.limits.pids = 100;
    task.resources
        .reservations
        .generic
        .insert("gpu".to_owned(), 2);
    let text = pretty_service(&ng, NOW);
    for part in [
        "Placement:\n Preferences:       spread=node.labels.zone\n",
        "\nUpdateConfig:\n Parallelism:       1\n Delay:             1m30s\n On failure:        rollback\n Monitoring Period: 5s\n Max failure ratio: 0.25\n Update order:      start-first\n Progress deadline: 10m0s\n",
        "\nRollbackConfig:\n Parallelism:       1\n On failure:        pause\n Monitoring Period: 5s\n Max failure ratio: 0\n Rollback order:    stop-first\n Min healthy percent: 50\n Max percent:       200\nContainerSpec:\n",
        " Max Replicas Per Node: 2\n Strategy:          binpack\n",
        " Limits:            100 pids\n Reservations:      2 gpu\n",
        "Name:               ng\n",
        " Replicas:          3\n",
        "UpdateStatus:\n State:             paused\n Started:           About a minute ago\n",
        " Started:           About a minute ago\n Message:           update paused due to failure",
        " *:8080->80/tcp     ingress\n  PROXY protocol:   v2\n  Accept PROXY:     10.0.0.0/8\n",
        "Balancing:          least-conn, local tasks first\n",
    ] {
        assert!(text.contains(part), "{part:?} in:\n{text}");
    }
    let status = ng.update_status.as_mut().unwrap();
    status.state = UpdateState::Completed;
    let text = pretty_service(&ng, NOW);
    assert!(
        text.contains(" Completed:         6 seconds ago\n"),
        "{text}"
    );
    ng.spec.mode = ServiceMode::GlobalJob {};
    let text = pretty_service(&ng, NOW);
    assert!(!text.contains("UpdateConfig"), "a job is never updated");
}
