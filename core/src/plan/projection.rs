//! A copy of the state that goes on by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::apply::{Rejection, apply};
use crate::command::{Command, Proposal};
use crate::event::Event;
use crate::model::{
    NodeState, ServiceId, Task, TaskId, TaskState, TaskStatus, Timestamp, UpdateConfig, Version,
};
use crate::state::State;
use crate::{next_deadline, orchestrator, rebalance, scheduler};

/// An update goes through in so many rounds at most. Each of them costs a few looks at all tasks,
/// and with ten thousand tasks one by one would take hours.
const MOST_ROUNDS: usize = 20;

/// The rounds of an update of very many tasks. Half the tasks at a time could meet nodes that
/// are full where a few at a time find room.
const LEAST_ROUNDS: usize = 5;

/// Between the two: so many tasks, those of each round counted, are looked at. It keeps the plan
/// of any update within seconds even where nothing is optimised.
const MOST_LOOKS: usize = 50_000;

/// So many passes and no more: the rounds of an update take about seven each, and a bug must
/// not hang a manager.
const MOST_PASSES: usize = 600;

/// A future of the state.
pub(super) struct Projection {
    pub(super) state: State,
    pub(super) now: Timestamp,
    /// Why tasks waited at some time, by service and slot. An update gives up in the end what
    /// found no place, and the reason would be gone with it.
    pub(super) waited: BTreeMap<(ServiceId, u32), String>,
    /// The tasks that have changed since their agents were asked; at first all of them. What an
    /// agent does next follows from the task itself, since no node comes or goes here.
    unseen: BTreeSet<TaskId>,
    seed: u64,
}

impl Projection {
    pub(super) fn new(state: &State, now: Timestamp, seed: u64) -> Self {
        Self {
            state: state.clone(),
            now,
            waited: BTreeMap::new(),
            unseen: state.tasks().map(|task| task.id.clone()).collect(),
            seed,
        }
    }

    /// Applies a user's command.
    ///
    /// # Errors
    /// It is refused.
    pub(super) fn submit(&mut self, command: Command) -> Result<(), Rejection> {
        let outcomes = self.apply(vec![command]);
        outcomes.into_iter().try_for_each(|outcome| outcome)
    }

    /// Lets deciders and agents work until they have nothing to do; says whether they came to
    /// that.
    pub(super) fn settle(&mut self) -> bool {
        let patience = self.hasten();
        let settled = self.run();
        for (id, (update, rollback)) in patience {
            if let Some(service) = self.state.service_mut(&id) {
                service.spec.update = update;
                service.spec.rollback = rollback;
            }
        }
        settled
    }

    fn run(&mut self) -> bool {
        for _ in 0..MOST_PASSES {
            let commands = self.decide();
            if !commands.is_empty() {
                for command in &commands {
                    self.note(command);
                }
                self.apply(commands);
                continue;
            }
            match next_deadline(&self.state, self.now) {
                Some(at) => self.now = at,
                None => return true,
            }
        }
        false
    }

    fn decide(&mut self) -> Vec<Command> {
        let unseen = std::mem::take(&mut self.unseen);
        let (state, now) = (&self.state, self.now);
        let mut commands: Vec<Command> = unseen
            .iter()
            .filter_map(|id| agent(state, state.task(id)?))
            .collect();
        if commands.is_empty() {
            commands = orchestrator::reconcile(state, now, self.seed);
            commands.extend(scheduler::schedule(state, now, self.seed));
            commands.extend(rebalance::advance(state));
        }
        commands
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Result<(), Rejection>> {
        let index = Version(self.state.version().0 + 1);
        let at = self.now;
        let outcomes = apply(&mut self.state, index, &Proposal { at, commands });
        let outcomes = outcomes.into_iter();
        outcomes
            .map(|outcome| outcome.map(|events| self.see(events)))
            .collect()
    }

    fn see(&mut self, events: Vec<Event>) {
        let tasks = events.into_iter().filter_map(|event| match event {
            Event::Task(id) => Some(id),
            _ => None,
        });
        self.unseen.extend(tasks);
    }

    fn note(&mut self, command: &Command) {
        if let Command::ExplainTask { id, reason, .. } = command
            && let Some(task) = self.state.task(id)
        {
            let slot = (task.service.clone(), task.slot);
            self.waited.insert(slot, reason.clone());
        }
    }

    /// Takes the waits out of updates, and gives back what was there: how long an update takes
    /// is not what is asked.
    fn hasten(&mut self) -> BTreeMap<ServiceId, (UpdateConfig, UpdateConfig)> {
        let ids: Vec<ServiceId> = self.state.services().map(|s| s.id.clone()).collect();
        let mut before = BTreeMap::new();
        for id in ids {
            let slots = self.state.tasks_of(&id).count();
            let Some(service) = self.state.service_mut(&id) else {
                continue;
            };
            let spec = &mut service.spec;
            before.insert(id, (spec.update, spec.rollback));
            for config in [&mut spec.update, &mut spec.rollback] {
                config.delay = Duration::ZERO;
                config.monitor = Duration::ZERO;
                if config.parallelism != 0 {
                    let rounds = MOST_LOOKS / slots.max(1);
                    let rounds = rounds.clamp(LEAST_ROUNDS, MOST_ROUNDS);
                    let least = u32::try_from(slots.div_ceil(rounds)).unwrap_or(u32::MAX);
                    config.parallelism = config.parallelism.max(least);
                }
            }
        }
        before
    }
}

/// What the agent of a task's node would do next; nothing where it cannot be heard.
fn agent(state: &State, task: &Task) -> Option<Command> {
    let node = state.node(task.node.as_ref()?)?;
    if !task.is_live() {
        return None;
    }
    if task.draining.is_some() && task.desired <= TaskState::Running {
        return Some(Command::SetDesired {
            id: task.id.clone(),
            desired: TaskState::Shutdown,
        });
    }
    let next = task.desired.min(TaskState::Shutdown);
    if node.status.state != NodeState::Ready || task.status.state >= next {
        return None;
    }
    Some(Command::ReportTask {
        id: task.id.clone(),
        by: Some(node.id.clone()),
        status: Box::new(TaskStatus {
            state: next,
            error: None,
            ..task.status.clone()
        }),
    })
}
