//! The leader's control loop: state and reports in, decisions of core out, as proposals.
//!
//! ```text
//! follower ── becomes leader ──► catch up ──► decide ──► propose ──► decide …
//!    ▲                                          │ nothing to do
//!    │                                          ▼
//!    └────────── loses leadership ─────────── wait (state, reports, time)
//! ```
//!
//! The loop keeps no decision of its own: whatever it knows is in the state or in
//! [`memory`], whose clocks start anew with each leadership. It decides on what has been
//! applied only, so that it never acts twice on the same need.

pub(crate) mod intake;
pub(crate) mod memory;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use swarmlet_core::apply::Rejection;
use swarmlet_core::command::Command;
use swarmlet_core::model::{Node, Problem, Timestamp};
use swarmlet_core::state::State;
use swarmlet_core::{
    diagnosis, drain, liveness, next_deadline, orchestrator, reason, rebalance, scheduler, schema,
};

use crate::raft::{ProposeError, Raft};
use crate::{clock, propose, random};
use memory::Memory;

/// A round at least this often: heartbeats that stay away wake nobody.
const MAX_WAIT: Duration = Duration::from_millis(250);

/// Rounds at most this often. Changes that come close together are decided on together.
const MIN_PAUSE: Duration = Duration::from_millis(5);

/// First pause after a round that failed or that the state refused; it doubles to the last.
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);

/// Last pause of that kind: a leader without a quorum should notice one soon.
const LAST_BACK_OFF: Duration = Duration::from_secs(1);

/// Runs until it is cancelled.
pub(crate) async fn run(raft: Raft, memory: Arc<Memory>, stop: CancellationToken) {
    let work = async {
        loop {
            let mut leadership = raft.watch_leadership();
            if leadership.wait_for(|now| now.is_self).await.is_err() {
                return;
            }
            memory.begin(Instant::now());
            lead(&raft, &memory).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => tracing::warn!("the control loop ended because Raft stopped"),
    }
}

/// Decides for as long as this manager leads.
async fn lead(raft: &Raft, memory: &Memory) {
    let mut back_off = BackOff::default();
    // Entries of earlier leaders may be committed and not applied yet. Deciding before they
    // are would place tasks a second time.
    while let Err(error) = raft.linearizable().await {
        if !leads(raft) {
            return;
        }
        tracing::debug!(%error, "waiting for the state to be current");
        back_off.pause().await;
    }
    tracing::info!(version = %raft.state().version(), "this manager leads");
    back_off.reset();
    let mut states = raft.watch_state();
    while leads(raft) {
        let state = states.borrow_and_update().clone();
        let now = clock::now();
        let commands = decide(&state, memory, now);
        if commands.is_empty() {
            back_off.reset();
            let idle = async {
                tokio::select! {
                    // An error is the end of Raft; leadership ends with it.
                    _ = states.changed() => {}
                    () = memory.changed() => {}
                }
            };
            // Running out of time is the usual end of this wait.
            let _ = timeout(until_next(&state, now), idle).await;
            sleep(MIN_PAUSE).await;
            continue;
        }
        match propose(raft, &state, commands).await {
            Ok(0) => back_off.pause().await,
            Ok(_) => {
                back_off.reset();
                sleep(MIN_PAUSE).await;
            }
            Err(ProposeError::NotLeader { .. } | ProposeError::Stopped) => break,
            Err(error) => {
                tracing::warn!(%error, "decisions could not be committed");
                back_off.pause().await;
            }
        }
    }
    tracing::info!("this manager does not lead any more");
}

fn leads(raft: &Raft) -> bool {
    raft.watch_leadership().borrow().is_self
}

/// One round of decisions on one state.
fn decide(state: &State, memory: &Memory, now: Timestamp) -> Vec<Command> {
    // Without random numbers decisions are still right, only less evenly spread.
    let seed = random::seed().unwrap_or(now.0);
    let ages = memory.ages(state, Instant::now());
    let mut commands = liveness::judge(state, &ages, now);
    let heard = memory.heard(state, ages, Instant::now());
    commands.extend(diagnosis::judge(state, &heard, now));
    commands.extend(orchestrator::reconcile(state, now, seed));
    commands.extend(scheduler::schedule(state, now, seed));
    commands.extend(rebalance::advance(state));
    commands.extend(drain::advance(state, &memory.acks(), now));
    commands.extend(schema::advance(state));
    commands
}

/// How long nothing will change by time alone.
fn until_next(state: &State, now: Timestamp) -> Duration {
    next_deadline(state, now).map_or(MAX_WAIT, |at| at.since(now).min(MAX_WAIT))
}

/// Proposes decisions in order; returns how many of them were taken.
async fn propose(
    raft: &Raft,
    state: &State,
    commands: Vec<Command>,
) -> Result<usize, ProposeError> {
    let mut taken = 0;
    propose::in_order(raft, commands, |command, result| {
        taken += usize::from(result.is_ok());
        log(state, command, result.err());
    })
    .await?;
    Ok(taken)
}

/// One line for each decision that somebody may ask about later.
fn log(state: &State, command: &Command, refused: Option<&Rejection>) {
    if let Some(rejection) = refused {
        // The state changed between the decision and its turn; the next round decides anew.
        tracing::debug!(?command, reason = %rejection, "decision overtaken");
        return;
    }
    if let Some(decision) = reason::explain(state, command) {
        let node = decision.node.as_ref().and_then(|id| state.node(id));
        let hostname = node.map(|node| node.description.hostname.as_str());
        tracing::info!(
            service = %decision.service, task = %decision.task, name = decision.name,
            node = decision.node.as_ref().map(tracing::field::display), hostname,
            reason = decision.reason, "{}", decision.deed
        );
        return;
    }
    match command {
        Command::EndRebalance { id } => {
            let name = state.service(id).map(|service| &service.spec.name);
            tracing::info!(service = %id, name, "rebalance ended");
        }
        Command::SetUpdateStatus {
            id,
            state: now,
            message,
            ..
        } => {
            let name = state.service(id).map(|service| &service.spec.name);
            tracing::info!(service = %id, name, state = %now, reason = message, "update ended");
        }
        Command::RollbackService { id, message, .. } => {
            let name = state.service(id).map(|service| &service.spec.name);
            tracing::info!(service = %id, name, reason = message, "service rolls back");
        }
        Command::ReportProblems { id, problems } => {
            if let Some(node) = state.node(id) {
                log_problems(node, problems);
            }
        }
        Command::ReportNode {
            id,
            state: now,
            message,
        } => {
            tracing::info!(node = %id, state = %now, reason = message, "node changed");
        }
        _ => tracing::debug!(?command, "decided"),
    }
}

/// What is new of a node's problems, and what is over.
fn log_problems(node: &Node, now: &[Problem]) {
    let at = diagnosis::place(node);
    for Problem { kind, .. } in now.iter().filter(|p| !node.problems.contains(p)) {
        tracing::warn!(node = %node.id, what = kind.what(&at), remedy = kind.remedy(&at), "problem");
    }
    for Problem { kind, .. } in node.problems.iter().filter(|p| !now.contains(p)) {
        tracing::info!(node = %node.id, what = kind.what(&at), "problem solved");
    }
}

/// Pauses that double.
#[derive(Debug, Default)]
struct BackOff {
    last: Option<Duration>,
}

impl BackOff {
    fn reset(&mut self) {
        self.last = None;
    }

    async fn pause(&mut self) {
        let next = self
            .last
            .map_or(FIRST_BACK_OFF, |last| last * 2)
            .min(LAST_BACK_OFF);
        self.last = Some(next);
        sleep(next).await;
    }
}
