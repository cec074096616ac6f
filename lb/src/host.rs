//! Hosts on which endpoints are, and one question after the other whether each
//! of them is there.
//!
//! A host that is lost takes all of its endpoints with it. Whoever waited for
//! clients' connects to find that out would lose two of them for each endpoint;
//! whoever asked each endpoint would ask nodes times endpoints. Here it is one
//! question to a host in each round, from each balancer, however many endpoints
//! it has; [`liveness`] has the rule.

mod liveness;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use self::liveness::{Change, Liveness, Round};
use crate::{
    balancer::WeakHandle,
    probe::connect,
    proxy,
    random::random,
    shared::Shared,
    socket::ConnectError,
    table::{EndpointState, Table},
};

/// Of endpoints asked in turn; more of one host would add nothing.
const MAX_WITNESSES: usize = 8;

/// What is told of endpoints whose host is lost.
pub(crate) const REASON: &str = "its host does not answer";

/// One host, shared by its endpoints and whoever asks it.
#[derive(Debug)]
pub(crate) struct Host {
    id: String,
    probe: SocketAddr,
    lost: AtomicBool,
    /// Connects that it answered.
    answers: AtomicU64,
    /// Endpoints that take connections.
    witnesses: Mutex<Vec<Witness>>,
}

/// An endpoint's address, and the PROXY header that it expects.
type Witness = (SocketAddr, Option<proxy::Version>);

impl Host {
    pub(crate) fn new(id: &str, probe: SocketAddr) -> Self {
        Self {
            id: id.to_owned(),
            probe,
            lost: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            witnesses: Mutex::default(),
        }
    }

    /// Counts it as lost, or as there.
    pub(crate) fn set_lost(&self, lost: bool) {
        self.lost.store(lost, Ordering::Relaxed);
    }

    /// Whether it counts as lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// A connect was answered, whatever the answer.
    pub(crate) fn note_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// The endpoint to ask in this round.
    fn witness(&self, round: usize) -> Option<Witness> {
        let witnesses = self.lock_witnesses();
        (!witnesses.is_empty()).then(|| witnesses[round % witnesses.len()])
    }

    fn lock_witnesses(&self) -> MutexGuard<'_, Vec<Witness>> {
        // Nothing that can panic leaves the list half changed.
        self.witnesses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hosts of the table in force.
#[derive(Debug, Default)]
pub(crate) struct Hosts(BTreeMap<String, Asked>);

#[derive(Debug)]
struct Asked {
    host: Arc<Host>,
    stop: CancellationToken,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Hosts {
    /// Begins to ask those that are new, and ends with those that are gone.
    pub(crate) fn take_over(&mut self, table: &Table, shared: &Arc<Shared>, told: &WeakHandle) {
        let listed: HashMap<&str, SocketAddr> = table
            .hosts
            .iter()
            .map(|host| (host.id.as_str(), host.probe))
            .collect();
        self.0
            .retain(|id, asked| listed.get(id.as_str()) == Some(&asked.host.probe));
        for (id, probe) in listed {
            if !self.0.contains_key(id) {
                self.0
                    .insert(id.to_owned(), ask(id, probe, shared, told.clone()));
            }
        }
        self.find_witnesses(table);
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Host>> {
        self.0.get(id).map(|asked| &asked.host)
    }

    fn find_witnesses(&self, table: &Table) {
        let mut found: HashMap<&str, Vec<Witness>> = HashMap::new();
        for endpoint in table.listeners.iter().flat_map(|one| &one.endpoints) {
            if let Some(host) = &endpoint.host
                && endpoint.state == EndpointState::Ready
            {
                let witnesses = found.entry(host).or_default();
                let witness = (endpoint.address, endpoint.proxy_protocol);
                if witnesses.len() < MAX_WITNESSES && !witnesses.contains(&witness) {
                    witnesses.push(witness);
                }
            }
        }
        for (id, asked) in &self.0 {
            *asked.host.lock_witnesses() = found.remove(id.as_str()).unwrap_or_default();
        }
    }
}

fn ask(id: &str, probe: SocketAddr, shared: &Arc<Shared>, told: WeakHandle) -> Asked {
    let host = Arc::new(Host::new(id, probe));
    let stop = shared.abort.child_token();
    let asking = ask_for_ever(Arc::clone(&host), shared.timeouts.host_round, told);
    let asking = stop.clone().run_until_cancelled_owned(asking);
    let probes = &shared.probes;
    probes.spawn_on(async move { asking.await.unwrap_or(()) }, &shared.runtime);
    Asked { host, stop }
}

async fn ask_for_ever(host: Arc<Host>, length: Duration, told: WeakHandle) {
    // Each balancer at its own time: a host must not be asked by all at once.
    let first = length * u32::try_from(random() % 100).unwrap_or(0) / 100;
    let mut rounds = interval_at(tokio::time::Instant::now() + first, length);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut liveness = Liveness::default();
    // What is left of a round pays for a clock that is late.
    let patience = length * 9 / 10;
    for number in 0_usize.. {
        rounds.tick().await;
        let witness = if liveness.wants_witness() {
            host.witness(number)
        } else {
            None
        };
        let Some(round) = play(&host, witness, patience).await else {
            continue;
        };
        let Some(change) = liveness.observe(round) else {
            continue;
        };
        let lost = change == Change::Lost;
        if lost {
            tracing::warn!(
                host = host.id,
                "host does not answer, leaving out its endpoints"
            );
        } else {
            tracing::info!(host = host.id, "host answers again");
        }
        host.set_lost(lost);
        told.host_changed(&host.id).await;
    }
}

/// One round. `None` if this machine itself could not ask, which says nothing.
async fn play(host: &Host, witness: Option<Witness>, patience: Duration) -> Option<Round> {
    let before = host.answers();
    let second = async {
        match witness {
            Some((address, greeting)) => answered(address, greeting, patience).await,
            None => Some(false),
        }
    };
    let (first, second) = tokio::join!(answered(host.probe, None, patience), second);
    if first == Some(true) || second == Some(true) || host.answers() != before {
        return Some(Round::Answered);
    }
    (first.is_some() && second.is_some()).then_some(Round::Silent)
}

async fn answered(
    address: SocketAddr,
    greeting: Option<proxy::Version>,
    patience: Duration,
) -> Option<bool> {
    match connect(address, greeting, patience).await {
        Ok(()) | Err(ConnectError::Refused) => Some(true),
        Err(ConnectError::TimedOut(_) | ConnectError::Unreachable(_)) => Some(false),
        Err(ConnectError::Local(_)) => None,
    }
}
