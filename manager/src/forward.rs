//! Sends calls that only the leader can answer to the leader, as the raw HTTP requests that
//! they are: no message is decoded on the way, so a new RPC needs nothing here.
//!
//! Roles have been checked before, against the original caller. A header keeps requests from
//! going in circles while two managers take each other for the leader. What the headers say of the
//! original caller counts where a node has written them that the state knows as a manager: a
//! certificate says so for months after its node was demoted.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State as Injected};
use axum::http::HeaderValue;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tonic::Status;
use tower::ServiceExt;

use swarmlet_core::model::{NodeId, Role};
use swarmlet_core::state::State;
use swarmlet_proto::identity::PeerIdentity;
use swarmlet_proto::transport::Caller;

use crate::access::Refusal;
use crate::dialer::Dialer;
use crate::raft::{Leadership, Raft};
use crate::request;
use crate::status::{NO_LEADER, NOT_LEADER_KEY};

/// Marks a forwarded request; it is answered or refused, never forwarded again. From anybody but a
/// manager it means nothing.
const FORWARDED: &str = "x-swarmlet-forwarded";

/// Carries the original caller's address, which the rate limit of joins counts by.
const SOURCE: &str = "x-swarmlet-source";

/// Carry who made the call, which the leader cannot see from the connection any more.
const NODE: &str = "x-swarmlet-node";
const ROLE: &str = "x-swarmlet-role";

/// How long a request waits for a leader. An election takes less than this; a user who waits
/// longer wants to know why, and within two seconds.
const LEADER_WAIT: Duration = Duration::from_millis(1700);

/// How long it waits where an earlier one has waited in vain, and no leader has been seen since.
const LEADERLESS_WAIT: Duration = Duration::from_millis(100);

/// Calls that only read. Without a leader they are answered from this manager's own replica,
/// and the answer says so.
const READS: [&str; 3] = [
    "/swarmlet.v1.Control/ListNodes",
    "/swarmlet.v1.Control/ListServices",
    "/swarmlet.v1.Control/ListTasks",
];

/// Present in answers that may be stale.
const STALE: &str = "x-swarmlet-stale";

/// Marks a request, inside of this process, that may be answered from what the replica has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MayBeStale;

/// How long the leader may take to begin its answer. Its own proposals give up after 2 s.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// The same for changes of the voters, where a new manager first catches up.
const VOTER_WAIT: Duration = Duration::from_secs(120);

/// Pause before a manager that is not the leader any more is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Services that only the leader answers.
const LEADER_ONLY: [&str; 4] = [
    "/swarmlet.v1.Ca/",
    "/swarmlet.v1.Control/",
    "/swarmlet.v1.Peer/AddVoter",
    "/swarmlet.v1.Peer/RemoveVoter",
];

/// What the middleware needs.
#[derive(Clone)]
pub(crate) struct Forwarder {
    /// Says who leads.
    pub(crate) raft: Raft,
    /// Reaches it.
    pub(crate) dialer: Dialer,
    /// Whether a request has waited for a leader in vain.
    pub(crate) leaderless: Arc<AtomicBool>,
}

/// Marks a request, inside of this process, that another manager has passed on: its headers count.
#[derive(Debug, Clone, Copy)]
struct PassedOn;

/// The address that a call came from first, however it was forwarded.
pub(crate) fn source<T>(request: &tonic::Request<T>) -> Option<IpAddr> {
    let caller = request.extensions().get::<Caller>()?;
    let passed_on = request.extensions().get::<PassedOn>();
    let named = |_| request.metadata().get(SOURCE)?.to_str().ok()?.parse().ok();
    passed_on.and_then(named).or(Some(caller.address.ip()))
}

/// The node that a call came from first, however it was forwarded.
///
/// [`Ca::renew`](swarmlet_proto::v1::ca_server::Ca::renew) needs it: a forwarded request comes
/// with the certificate of the manager that passed it on.
pub(crate) fn caller<T>(request: &tonic::Request<T>) -> Option<PeerIdentity> {
    let direct = request.extensions().get::<PeerIdentity>()?;
    if request.extensions().get::<PassedOn>().is_none() {
        return Some(direct.clone());
    }
    let node = request.metadata().get(NODE)?.to_str().ok()?;
    let role = match request.metadata().get(ROLE)?.to_str().ok()? {
        "worker" => Role::Worker,
        "manager" => Role::Manager,
        _ => return None,
    };
    Some(PeerIdentity {
        node: NodeId::parse(node).ok()?,
        role,
        ..direct.clone()
    })
}

/// The middleware between the access check and the services.
pub(crate) async fn forward(
    Injected(forwarder): Injected<Forwarder>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if !LEADER_ONLY.iter().any(|prefix| path.starts_with(prefix)) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<PeerIdentity>();
    if let Some(peer) = peer.filter(|peer| peer.role == Role::Manager)
        && request.headers().contains_key(FORWARDED)
    {
        if !forwarder.leadership().is_self {
            return crate::status::not_leader().into_http();
        }
        if let Err(refusal) = may_pass_on(peer, &forwarder.raft.state()) {
            return Status::from(refusal).into_http();
        }
        request.extensions_mut().insert(PassedOn);
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    // All of these calls are unary, so the whole body can be kept and sent again where a
    // manager answers that it is not the leader any more.
    match request::read(&parts, body).await {
        Ok(body) => forwarder.answer(parts, body, next).await,
        Err(refused) => refused.into_http(),
    }
}

/// Whether a node with a manager's certificate may say for whom it calls.
///
/// # Errors
/// It was a manager. Its own call it may well be, but one that has not heard of its demotion passes
/// on others', and would be answered in their place.
fn may_pass_on(peer: &PeerIdentity, state: &State) -> Result<(), Refusal> {
    match state.node(&peer.node) {
        Some(node) if node.manager.is_some() => Ok(()),
        _ => Err(Refusal::NotManager(peer.node.to_string())),
    }
}

impl Forwarder {
    fn leadership(&self) -> Leadership {
        *self.raft.watch_leadership().borrow()
    }

    /// Has the leader answer, or this replica where there is none and that will do.
    async fn answer(&self, parts: Parts, body: Bytes, next: Next) -> Response {
        if let Some(response) = self.ask_leader(&parts, &body, &next).await {
            return response;
        }
        if !READS.contains(&parts.uri.path()) {
            return Status::unavailable(NO_LEADER).into_http();
        }
        let mut request = Request::from_parts(parts, Body::from(body));
        request.extensions_mut().insert(MayBeStale);
        let mut response = next.run(request).await;
        response
            .headers_mut()
            .insert(STALE, HeaderValue::from_static("1"));
        response
    }

    /// Asks whoever leads until one who does answers; `None` where nobody does.
    async fn ask_leader(&self, parts: &Parts, body: &Bytes, next: &Next) -> Option<Response> {
        let wait = if self.leaderless.load(Ordering::Relaxed) {
            LEADERLESS_WAIT
        } else {
            LEADER_WAIT
        };
        let deadline = Instant::now() + wait;
        loop {
            let Some(leadership) = self.leader(deadline).await else {
                self.leaderless.store(true, Ordering::Relaxed);
                return None;
            };
            let mut request = Request::from_parts(parts.clone(), Body::from(body.clone()));
            let response = match leadership.leader {
                _ if leadership.is_self => next.clone().run(request).await,
                Some(leader) => {
                    mark(&mut request);
                    let lost = self.lost(deadline);
                    match self.send(leader.address, request, lost).await {
                        Ok(response) => response,
                        Err(Unsent::Lost) => {
                            self.leaderless.store(true, Ordering::Relaxed);
                            return None;
                        }
                        Err(Unsent::Retry) => crate::status::not_leader().into_http(),
                        Err(Unsent::Failed(status)) => return Some(status.into_http()),
                    }
                }
                None => crate::status::not_leader().into_http(),
            };
            // Whoever answers so has done nothing, so asking again repeats nothing.
            if !response.headers().contains_key(NOT_LEADER_KEY) {
                self.leaderless.store(false, Ordering::Relaxed);
                return Some(response);
            }
            if Instant::now() + RETRY_PAUSE >= deadline {
                return None;
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn leader(&self, deadline: Instant) -> Option<Leadership> {
        let mut leadership = self.raft.watch_leadership();
        let known = leadership.wait_for(|now| now.is_self || now.leader.is_some());
        match timeout_at(deadline, known).await {
            Ok(Ok(known)) => Some(*known),
            // The deadline passed, or Raft stopped.
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Resolves at the deadline or later, once this manager hears of no leader any more. One
    /// that is cut off does not answer, and its connection takes seconds to break.
    async fn lost(&self, deadline: Instant) {
        let mut leadership = self.raft.watch_leadership();
        sleep_until(deadline).await;
        // An error is the end of Raft, after which there is no leader either.
        let _ = leadership.wait_for(|now| now.leader.is_none()).await;
    }

    async fn send(
        &self,
        address: std::net::SocketAddr,
        request: Request,
        lost: impl Future<Output = ()>,
    ) -> Result<Response, Unsent> {
        let changes_voters = request.uri().path().starts_with("/swarmlet.v1.Peer/");
        let wait = if changes_voters {
            VOTER_WAIT
        } else {
            ANSWER_WAIT
        };
        let channel = self.dialer.channel(address);
        let sent = channel.oneshot(request.map(tonic::body::Body::new));
        let sent = tokio::select! {
            sent = timeout(wait, sent) => sent,
            // The voters are changed by the node itself, which has the time.
            () = lost, if !changes_voters => return Err(Unsent::Lost),
        };
        match sent {
            Ok(Ok(response)) => Ok(response.map(Body::new)),
            Ok(Err(error)) => {
                let status = Status::from_error(Box::new(error));
                tracing::debug!(%address, %status, "leader not reached");
                if never_connected(&status) {
                    return Err(Unsent::Retry);
                }
                Err(Unsent::Failed(Status::unavailable(
                    "the connection to the leader broke; whether the change was made is unknown",
                )))
            }
            Err(_) => Err(Unsent::Failed(Status::deadline_exceeded(
                "the leader does not answer; whether the change was made is unknown",
            ))),
        }
    }
}

/// Why there is no answer of the leader.
enum Unsent {
    /// There was no connection at all: nothing can have happened.
    Retry,
    /// It is unknown what happened.
    Failed(Status),
    /// It is unknown, too, and there is no leader any more.
    Lost,
}

/// Writes down what the leader cannot see: that the request was forwarded, and for whom. What
/// the caller may have written there itself goes.
fn mark(request: &mut Request) {
    let extensions = request.extensions();
    let source = extensions
        .get::<Caller>()
        .map(|caller| caller.address.ip().to_string());
    let peer = extensions.get::<PeerIdentity>();
    let (node, role) = (
        peer.map(|peer| peer.node.to_string()),
        peer.map(|peer| peer.role.to_string()),
    );
    let headers = request.headers_mut();
    for (name, value) in [(SOURCE, source), (NODE, node), (ROLE, role)] {
        headers.remove(name);
        if let Some(value) = value.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(name, value);
        }
    }
    headers.insert(FORWARDED, HeaderValue::from_static("1"));
}

/// Whether a connection was refused or timed out before it carried anything.
fn never_connected(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tonic::transport::Endpoint;

    use super::*;

    /// Sends a request to an address and tells what [`never_connected`] makes of the failure.
    async fn check(address: std::net::SocketAddr) -> bool {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let request = Request::new(Body::empty()).map(tonic::body::Body::new);
        let error = endpoint.connect_lazy().oneshot(request).await.unwrap_err();
        never_connected(&Status::from_error(Box::new(error)))
    }

    #[tokio::test]
    async fn only_a_connection_that_never_was_makes_asking_again_safe() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taken = std::thread::spawn(move || {
            // Takes the connection and closes it: a request may have been read.
            drop(listener.accept().unwrap());
        });
        assert!(!check(address).await);
        taken.join().unwrap();
        assert!(check(address).await);
    }
}
