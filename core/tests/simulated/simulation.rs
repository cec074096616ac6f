//! A cluster in one thread: the replicated state, a leader, and an agent per node. Every step
//! checks the invariants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use swarmlet_core::apply::{Outcome, apply};
use swarmlet_core::command::{Command, Proposal};
use swarmlet_core::drain::{self, Acks};
use swarmlet_core::model::{
    Node, NodeId, NodeSpec, Service, ServiceId, ServiceSpec, Task, TaskId, TaskState, TaskStatus,
    Timestamp, Version,
};
use swarmlet_core::random::Random;
use swarmlet_core::state::State;
use swarmlet_core::{endpoints, invariants, liveness, orchestrator, rebalance, scheduler};

use crate::agent::{Agent, Behaviour};
use crate::objects::cluster;

/// Time between two looks at the world.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Commands that may be repeated by `replay`.
const REMEMBERED: usize = 200;

/// The deciders come to rest within this many passes at one moment, or something swings.
const MOST_PASSES: usize = 20;

/// The simulated cluster.
pub(crate) struct Simulation {
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    pub(crate) agents: BTreeMap<NodeId, Agent>,
    pub(crate) behaviours: BTreeMap<String, Behaviour>,
    pub(crate) connections: BTreeMap<TaskId, u64>,
    random: Random,
    begin: Timestamp,
    // What only the leader's memory holds.
    leader_since: Timestamp,
    heard: BTreeMap<NodeId, Timestamp>,
    left: BTreeSet<NodeId>,
    acks: Acks,
    recent: VecDeque<Command>,
}

impl Simulation {
    /// A cluster with its first node. Clocks start at a moment that nobody expects.
    pub(crate) fn new(seed: u64, first: Node) -> Self {
        let begin = Timestamp(1_700_000_000_000);
        let mut simulation = Self {
            state: State::default(),
            now: begin,
            agents: BTreeMap::new(),
            behaviours: BTreeMap::new(),
            connections: BTreeMap::new(),
            random: Random::new(seed),
            begin,
            leader_since: begin,
            heard: BTreeMap::new(),
            left: BTreeSet::new(),
            acks: Acks::default(),
            recent: VecDeque::new(),
        };
        simulation
            .agents
            .insert(first.id.clone(), Agent::connected());
        simulation
            .user(Command::InitCluster {
                cluster: Box::new(cluster()),
                node: Box::new(first),
            })
            .expect("the first command makes the cluster");
        simulation
    }

    /// The node says that it leaves, and is silent from then on.
    pub(crate) fn leave(&mut self, id: &NodeId) {
        if let Some(agent) = self.agents.get_mut(id)
            && std::mem::take(&mut agent.connected)
        {
            self.left.insert(id.clone());
        }
    }

    /// Adds a node with a connected agent.
    pub(crate) fn join(&mut self, node: Node) {
        self.agents.insert(node.id.clone(), Agent::connected());
        self.user(Command::AddNode {
            node: Box::new(node),
        })
        .expect("the node is new");
    }

    /// Time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now.since(self.begin)
    }

    /// A new service identifier.
    pub(crate) fn service_id(&mut self) -> ServiceId {
        ServiceId::from_random(self.random.next_u128())
    }

    /// What a user (or a manager for him) proposes.
    pub(crate) fn user(&mut self, command: Command) -> Outcome {
        self.propose(vec![command]).remove(0)
    }

    /// Changes a service as the control API does: read, edit, write.
    pub(crate) fn update(&mut self, name: &str, edit: impl FnOnce(&mut ServiceSpec)) -> Outcome {
        let service = self.service(name);
        let mut spec = service.spec.clone();
        edit(&mut spec);
        let (id, expected) = (service.id.clone(), service.version);
        self.user(Command::UpdateService {
            id,
            expected,
            spec: Box::new(spec),
        })
    }

    /// The service of that name, which must exist.
    pub(crate) fn service(&self, name: &str) -> &Service {
        self.state
            .service_named(name)
            .unwrap_or_else(|| panic!("no service {name}"))
    }

    /// Changes what the user wants of a node; one that is not there is left alone.
    pub(crate) fn update_node(&mut self, id: &NodeId, edit: impl FnOnce(&mut NodeSpec)) -> Outcome {
        let Some(node) = self.state.node(id) else {
            return Ok(Vec::new());
        };
        let (expected, mut spec) = (node.version, node.spec.clone());
        edit(&mut spec);
        let id = id.clone();
        self.user(Command::UpdateNode { id, expected, spec })
    }

    /// Ends the container of a task, as `docker kill` and failing checks do.
    pub(crate) fn fail(&mut self, task: &TaskId, error: &str) -> bool {
        let now = self.now;
        let mut agents = self.agents.values_mut();
        agents.any(|agent| agent.fail(task, error, now))
    }

    /// Whether a task's checks fail from now on, and it runs on all the same.
    pub(crate) fn eject(&mut self, task: &TaskId, ejected: bool) -> bool {
        let mut agents = self.agents.values_mut();
        agents.any(|agent| agent.eject(task, ejected))
    }

    /// Another manager leads: all that was in the old one's memory is gone.
    pub(crate) fn change_leader(&mut self) {
        self.leader_since = self.now;
        self.heard.clear();
        self.left.clear();
        self.acks = Acks::default();
    }

    /// Commands of the past arrive once more, in any order.
    pub(crate) fn replay(&mut self, count: usize) {
        for _ in 0..count.min(self.recent.len()) {
            let position = self.random.below(self.recent.len() as u64);
            // Each by itself: together, the end of a task, its removal and its creation would
            // look like one step back.
            let again = self.recent.get(position as usize).cloned();
            self.propose(again.into_iter().collect());
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.now < end {
            self.tick();
        }
    }

    /// Lets time pass while nobody leads: agents do what they were told last, and what they
    /// report is heard by the next leader, who starts from the state alone.
    pub(crate) fn run_without_leader(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.now < end {
            self.now = self.now.after(TICK);
            let now = self.now;
            for agent in self.agents.values_mut() {
                agent.step(now, |task| behaviour(&self.behaviours, task));
            }
        }
        self.change_leader();
    }

    /// Lets time pass until what is is what was asked for; says how long that took.
    ///
    /// # Errors
    /// What is not as it should be after `limit`.
    pub(crate) fn converge(&mut self, limit: Duration) -> Result<Duration, String> {
        let begin = self.now;
        loop {
            let verdict = invariants::check_converged(&self.state)
                .map_err(|violation| violation.to_string())
                .and_then(|()| self.containers_match());
            match verdict {
                Ok(()) => return Ok(self.now.since(begin)),
                Err(reason) if self.now.since(begin) >= limit => return Err(reason),
                Err(_) => self.tick(),
            }
        }
    }

    /// One tick: agents act and report, then the leader decides until it has nothing to do.
    pub(crate) fn tick(&mut self) {
        self.now = self.now.after(TICK);
        let reports = self.agents_act();
        self.remember(&reports);
        self.propose(reports);
        for _ in 0..MOST_PASSES {
            let commands = self.decide();
            if commands.is_empty() {
                return;
            }
            self.remember(&commands);
            self.propose(commands);
        }
        panic!("the deciders do not come to rest: {:?}", self.decide());
    }

    fn agents_act(&mut self) -> Vec<Command> {
        let table = endpoints::derive(&self.state);
        let mut reports = Vec::new();
        for (id, agent) in &mut self.agents {
            let member = self.state.node(id).is_some();
            if agent.connected && member {
                let tasks = self.state.tasks_on(id).cloned().collect();
                agent.assign(tasks, self.now);
            }
            let behaviours = &self.behaviours;
            agent.step(self.now, |task| behaviour(behaviours, task));
            if !agent.connected || !member {
                continue;
            }
            self.heard.insert(id.clone(), self.now);
            self.left.remove(id);
            // What is acknowledged arrived in the tick before.
            if agent.table_version() > Version(0) {
                self.acks.nodes.insert(id.clone(), agent.ack().clone());
            }
            agent.route(&table, &self.connections);
            for (task, status) in agent.statuses(self.now) {
                let known = self.state.task(&task).map(|task| &task.status);
                // A report that brings no news is left out here to keep proposals readable;
                // `replay` sees to it that repeated ones are harmless.
                let is_news = |known: &TaskStatus| {
                    let same = known.state == status.state && !status.state.is_terminal();
                    known.state < status.state || same && known.container != status.container
                };
                if known.is_some_and(is_news) {
                    reports.push(Command::ReportTask {
                        id: task,
                        by: Some(id.clone()),
                        status: Box::new(status),
                    });
                }
            }
        }
        reports
    }

    fn decide(&mut self) -> Vec<Command> {
        let (state, now) = (&self.state, self.now);
        let mut heard: BTreeMap<_, _> = self
            .heard
            .iter()
            .map(|(id, &at)| (id.clone(), now.since(at)))
            .collect();
        heard.extend(self.left.iter().map(|id| (id.clone(), liveness::LEFT)));
        let ages = liveness::ages(state, &heard, now.since(self.leader_since));
        let mut commands = liveness::judge(state, &ages, now);
        if commands.is_empty() {
            commands = orchestrator::reconcile(state, now, self.random.next_u64());
            commands.extend(scheduler::schedule(state, now, self.random.next_u64()));
            commands.extend(rebalance::advance(state));
            commands.extend(drain::advance(state, &self.acks, now));
        }
        commands
    }

    fn remember(&mut self, commands: &[Command]) {
        self.recent.extend(commands.iter().cloned());
        let surplus = self.recent.len().saturating_sub(REMEMBERED);
        self.recent.drain(..surplus);
    }

    fn propose(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let before = self.state.clone();
        let proposal = Proposal {
            at: self.now,
            commands,
        };
        let index = Version(before.version().0 + 1);
        let outcomes = apply(&mut self.state, index, &proposal);
        let checked = invariants::check(&self.state)
            .and_then(|()| invariants::check_step(&before, &self.state));
        if let Err(violation) = checked {
            panic!("{violation}\nafter {:#?}", proposal.commands);
        }
        let mut replica = before;
        assert_eq!(apply(&mut replica, index, &proposal), outcomes);
        assert_eq!(replica, self.state, "replicas differ");
        outcomes
    }

    /// Whether exactly those containers run that should.
    fn containers_match(&self) -> Result<(), String> {
        for (id, agent) in &self.agents {
            for task in agent.running() {
                let wanted = self.state.task(task).is_some_and(Task::is_member);
                if !wanted {
                    return Err(format!("{task} runs on {id} although nobody wants it"));
                }
            }
        }
        for task in self.state.tasks() {
            let runs = |agent: &Agent| agent.running().any(|id| *id == task.id);
            let known = task.status.state == TaskState::Running;
            if known && !self.agents.values().any(runs) {
                return Err(format!("{} has lost its container", task.name()));
            }
        }
        Ok(())
    }
}

/// What becomes of a task's container: what its image does, or else what its service does.
fn behaviour(behaviours: &BTreeMap<String, Behaviour>, task: &Task) -> Behaviour {
    let image = &task.spec.containers[0].image;
    let known = behaviours
        .get(image)
        .or_else(|| behaviours.get(&task.service_name));
    known.copied().unwrap_or_default()
}
