use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use swarmlet_core::endpoints::{Endpoint, EndpointState, Listener};
use swarmlet_core::model::{LbPolicy, NodeId, RegistryAuth, ServiceId, TaskState, Version};

use super::*;
use crate::worker::fake;

fn table() -> Table {
    let endpoint = Endpoint {
        task: TaskId::from_random(1),
        node: NodeId::from_random(1),
        address: "10.0.0.1:20000".parse().unwrap(),
        local: Some("172.17.0.2:80".parse().unwrap()),
        weight: 1,
        proxy_protocol: None,
        state: EndpointState::Draining,
    };
    Table {
        version: Version(7),
        listeners: vec![Listener {
            port: 80,
            protocol: Protocol::Tcp,
            service: ServiceId::from_random(1),
            service_name: "ng".to_owned(),
            policy: LbPolicy::RoundRobin,
            prefer_local: false,
            accept_proxy: Vec::new(),
            endpoints: vec![endpoint],
        }],
    }
}

fn ports() -> SavedPorts {
    let port = |target, host, protocol, mode| TaskPort {
        target,
        host,
        protocol,
        mode,
    };
    let held = vec![
        port(80, 20_000, Protocol::Tcp, PortMode::Ingress),
        port(53, 53, Protocol::Udp, PortMode::Host),
    ];
    let resting = Resting {
        task: TaskId::from_random(2),
        since: Timestamp(12_345),
        acknowledged: true,
    };
    SavedPorts {
        held: BTreeMap::from([(TaskId::from_random(1), held)]),
        resting: BTreeMap::from([(20_001, resting)]),
    }
}

#[tokio::test]
async fn everything_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("agent")).unwrap();
    let mut task = fake::task(1, |task| task.status.state = TaskState::Running);
    task.spec.containers[0].registry_auth = Some(RegistryAuth("c2VjcmV0".to_owned()));
    let managers = vec![
        "10.0.0.1:2377".parse().unwrap(),
        "[::1]:2377".parse().unwrap(),
    ];
    store.save_tasks(vec![task.clone()]).await.unwrap();
    store.save_table(Arc::new(table())).await.unwrap();
    store.save_managers(managers.clone()).await.unwrap();
    store.save_ports(ports()).await.unwrap();

    let kept = Store::open(&dir.path().join("agent")).unwrap().load();
    assert_eq!(kept.tasks, [task]);
    assert_eq!(kept.table, Some(table()));
    assert_eq!(kept.managers, managers);
    assert_eq!(kept.ports, ports());
}

#[tokio::test]
async fn ports_saved_at_the_same_time_are_all_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let writes: Vec<_> = (0..50)
        .map(|count| {
            let held = (0..=count)
                .map(|id| (TaskId::from_random(id), Vec::new()))
                .collect();
            let resting = BTreeMap::from([(
                20_000,
                Resting {
                    task: TaskId::from_random(count),
                    since: Timestamp(0),
                    acknowledged: false,
                },
            )]);
            store.save_ports(SavedPorts { held, resting })
        })
        .collect();
    // The first asked for is polled last: what counts is the order of asking.
    let mut jobs = tokio::task::JoinSet::new();
    for write in writes.into_iter().rev() {
        jobs.spawn(write);
    }
    for result in jobs.join_all().await {
        result.unwrap();
    }
    let kept = Store::open(dir.path()).unwrap().load().ports;
    assert_eq!(kept.resting[&20_000].task, TaskId::from_random(49));
}

#[tokio::test]
async fn nobody_else_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent");
    let store = Store::open(&path).unwrap();
    store.save_tasks(Vec::new()).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join(ASSIGNMENTS)), 0o600);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_the_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.save_table(Arc::new(table())).await.unwrap();
    let unknown = b"\x1a\x03\x0a\x01x";
    let sealed = [digest(&SHA256, unknown).as_ref(), unknown].concat();
    for damage in [b"\xff\xff\xff".to_vec(), unknown.to_vec(), sealed] {
        fs::write(dir.path().join(ASSIGNMENTS), &damage).unwrap();
        let kept = store.load();
        assert_eq!((kept.tasks, kept.table), (Vec::new(), Some(table())));
        assert_eq!(
            fs::read(dir.path().join("assignments.damaged")).unwrap(),
            damage
        );
        assert!(!dir.path().join(ASSIGNMENTS).exists());
    }
}

#[tokio::test]
async fn no_flipped_byte_and_no_cut_is_taken_for_what_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let task = fake::task(1, |task| task.status.state = TaskState::Running);
    let managers = vec!["10.0.0.1:2377".parse().unwrap()];
    store.save_tasks(vec![task]).await.unwrap();
    store.save_table(Arc::new(table())).await.unwrap();
    store.save_managers(managers).await.unwrap();
    store.save_incarnation(16).await.unwrap();
    store.save_ports(ports()).await.unwrap();
    let nothing = Store::open(&dir.path().join("empty")).unwrap().load();
    let nothing = format!("{nothing:?}");

    let files = [ASSIGNMENTS, TABLE, MANAGERS, INCARNATION, PORTS];
    let whole: Vec<_> = files
        .map(|name| fs::read(dir.path().join(name)).unwrap())
        .into();
    let longest = whole.iter().map(Vec::len).max().unwrap();
    // A change of each file at a time: the five are read independently of one another.
    let damage = |change: &dyn Fn(&mut Vec<u8>), what: String| {
        for (name, bytes) in files.iter().zip(&whole) {
            let mut damaged = bytes.clone();
            change(&mut damaged);
            fs::write(dir.path().join(name), damaged).unwrap();
        }
        assert_eq!(format!("{:?}", store.load()), nothing, "{what}");
        for name in files {
            assert!(!dir.path().join(name).exists(), "{what}: {name}");
        }
    };
    for at in 0..longest {
        let flip = |bytes: &mut Vec<u8>| {
            let at = at % bytes.len();
            bytes[at] ^= 1 << (at % 8);
        };
        damage(&flip, format!("a flipped bit in byte {at}"));
        let cut = |bytes: &mut Vec<u8>| bytes.truncate(at % bytes.len());
        damage(&cut, format!("cut off after {at} bytes"));
    }
    for (name, bytes) in files.iter().zip(&whole) {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    assert_eq!(store.load().incarnation, 16);
}

#[test]
fn nothing_kept_is_no_error_and_wiping_it_neither() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("agent")).unwrap();
    let kept = store.load();
    assert_eq!((kept.tasks.len(), kept.table), (0, None));
    store.wipe().unwrap();
    store.wipe().unwrap();
    assert!(!dir.path().join("agent").exists());
}
