use std::sync::Mutex;

use futures_util::FutureExt;
use swarmlet_core::endpoints::{Endpoint, Listener};
use swarmlet_core::model::{ServiceId, Version};

use super::*;
use crate::worker::{Worker, fake};

fn endpoint(task: u128, node: u128, state: EndpointState) -> Endpoint {
    Endpoint {
        task: TaskId::from_random(task),
        node: NodeId::from_random(node),
        address: format!("10.0.0.{node}:20000").parse().unwrap(),
        local: Some("172.17.0.2:80".parse().unwrap()),
        weight: 1,
        proxy_protocol: None,
        state,
    }
}

fn table(version: u64, endpoints: Vec<Endpoint>) -> Table {
    Table {
        version: Version(version),
        listeners: vec![Listener {
            port: 80,
            protocol: Protocol::Tcp,
            service: ServiceId::from_random(1),
            service_name: "ng".to_owned(),
            policy: LbPolicy::RoundRobin,
            prefer_local: false,
            accept_proxy: Vec::new(),
            endpoints,
        }],
    }
}

#[test]
fn own_tasks_are_reached_by_their_own_address() {
    let without_local = Endpoint {
        local: None,
        ..endpoint(3, 1, EndpointState::Ready)
    };
    let table = table(
        9,
        vec![
            endpoint(1, 1, EndpointState::Ready),
            endpoint(2, 2, EndpointState::Draining),
            without_local,
        ],
    );
    let own = Own {
        complete: true,
        serving: BTreeMap::from([
            (TaskId::from_random(1), Some("172.17.0.2".parse().unwrap())),
            (TaskId::from_random(3), None),
        ]),
        ..Own::default()
    };
    let routed = route(&table, &NodeId::from_random(1), &own);
    assert_eq!((routed.version, routed.listeners.len()), (9, 1));
    assert_eq!(routed.listeners[0].service, "ng");
    let endpoints: Vec<(String, bool)> = routed.listeners[0]
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.address.to_string(), endpoint.draining))
        .collect();
    assert_eq!(
        endpoints,
        [
            ("172.17.0.2:80".to_owned(), false),
            ("10.0.0.2:20000".to_owned(), true),
            ("10.0.0.1:20000".to_owned(), false),
        ]
    );
}

#[test]
fn own_tasks_count_as_they_were_seen() {
    let table = table(
        9,
        vec![
            endpoint(1, 1, EndpointState::Ready),
            endpoint(2, 1, EndpointState::Ready),
            endpoint(3, 2, EndpointState::Ready),
        ],
    );
    let addresses = |serving: &[(u128, &str)]| -> Vec<String> {
        let serving = serving
            .iter()
            .map(|(task, address)| (TaskId::from_random(*task), Some(address.parse().unwrap())));
        let own = Own {
            complete: true,
            serving: serving.collect(),
            ..Own::default()
        };
        let routed = route(&table, &NodeId::from_random(1), &own);
        routed.listeners[0]
            .endpoints
            .iter()
            .map(|endpoint| endpoint.address.to_string())
            .collect()
    };
    assert_eq!(
        addresses(&[]),
        ["10.0.0.2:20000"],
        "ended, and no manager knows"
    );
    assert_eq!(
        addresses(&[(2, "172.17.0.9")]),
        ["172.17.0.9:80", "10.0.0.2:20000"],
        "started again, with another address"
    );
}

/// A balancer that refuses a number of tables and then acknowledges each.
struct FakeSink {
    refusals: Mutex<u32>,
    applied: Mutex<Vec<u64>>,
    reports: watch::Sender<SinkReport>,
}

impl FakeSink {
    fn new(refusals: u32) -> Arc<Self> {
        Arc::new(Self {
            refusals: Mutex::new(refusals),
            applied: Mutex::default(),
            reports: watch::channel(SinkReport::default()).0,
        })
    }
}

impl TableSink for FakeSink {
    fn apply(&self, table: RoutedTable) -> BoxFuture<'_, Result<(), SinkError>> {
        async move {
            let mut refusals = self.refusals.lock().unwrap();
            if *refusals > 0 {
                *refusals -= 1;
                return Err(SinkError("not yet".to_owned()));
            }
            self.applied.lock().unwrap().push(table.version);
            self.reports
                .send_modify(|report| report.version = table.version);
            Ok(())
        }
        .boxed()
    }

    fn reports(&self) -> watch::Receiver<SinkReport> {
        self.reports.subscribe()
    }
}

#[tokio::test(start_paused = true)]
async fn tables_are_offered_until_taken_and_kept_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let scope = fake::scope("/tasks");
    let ports = crate::ports::Ports::new(
        &scope.node,
        scope.advertise,
        (43_200, 43_299),
        crate::ports::SavedPorts::default(),
    );
    let runtime = Arc::new(fake::FakeRuntime::new());
    let (_session, connected) = watch::channel(crate::session::Connection::default());
    let (worker, handle, _told) =
        Worker::new(scope, runtime, store.clone(), ports, Vec::new(), connected);
    let sink = FakeSink::new(5);
    let router = Router {
        node: NodeId::from_random(1),
        store: store.clone(),
        sink: sink.clone(),
        worker: handle,
    };
    // What was on disk is applied before any manager has spoken.
    let (tables, table_in) = watch::channel(Some(Arc::new(table(3, Vec::new()))));
    let (reports, mut acknowledged) = watch::channel(SinkReport::default());
    let stop = CancellationToken::new();
    let parts = [
        tokio::spawn(worker.run(stop.clone())),
        tokio::spawn(router.run(table_in, reports, stop.clone())),
    ];
    acknowledged
        .wait_for(|report| report.version == 3)
        .await
        .unwrap();
    assert_eq!(*sink.applied.lock().unwrap(), [3]);

    let newer = table(4, vec![endpoint(1, 1, EndpointState::Ready)]);
    tables.send_replace(Some(Arc::new(newer.clone())));
    acknowledged
        .wait_for(|report| report.version == 4)
        .await
        .unwrap();
    assert_eq!(store.load().table, Some(newer));
    stop.cancel();
    for part in parts {
        part.await.unwrap();
    }
}
