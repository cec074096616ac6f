//! Progress on a terminal (bars that change in place) or in a file (a line for each change).

use std::io::IsTerminal;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use swarmlet_core::model::TaskState;

use super::tally::{Job, Progress, Slot};
use super::{STABLE, Show};

/// Tasks that get a line of their own; a screen holds no more, and Docker shows as many.
const MAX_LINES: usize = 20;

/// Width of a bar without its arrow head.
const BAR: usize = 50;

/// What has been shown so far.
pub(super) struct Display {
    output: Output,
    last: Option<Progress>,
    verifying: bool,
}

enum Output {
    Terminal(Terminal),
    Lines,
    Nothing,
}

struct Terminal {
    bars: MultiProgress,
    lines: Vec<ProgressBar>,
}

impl Display {
    /// Finds out what stderr is.
    pub(super) fn new(show: Show) -> Self {
        let output = match show {
            Show::Nothing => Output::Nothing,
            Show::Progress if std::io::stderr().is_terminal() => Output::Terminal(Terminal {
                bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
                lines: Vec::new(),
            }),
            Show::Progress => Output::Lines,
        };
        Self {
            output,
            last: None,
            verifying: false,
        }
    }

    /// Shows the newest progress.
    pub(super) fn update(&mut self, progress: &Progress) {
        if self.last.as_ref() == Some(progress) {
            return;
        }
        let verifying = progress.is_complete() && !progress.is_done();
        match &mut self.output {
            Output::Nothing => {}
            Output::Terminal(terminal) => terminal.show(&screen(progress)),
            Output::Lines => {
                for line in changes(self.last.as_ref(), progress) {
                    eprintln!("{line}");
                }
                if verifying && !self.verifying {
                    eprintln!("{}", waiting());
                }
            }
        }
        self.verifying = verifying;
        self.last = Some(progress.clone());
    }

    /// Says that everything runs.
    pub(super) fn converged(&mut self) {
        let verdict = match &self.last {
            Some(progress) if progress.is_done() => "job complete".to_owned(),
            Some(progress) => format!("verify: Service {} converged", progress.name),
            None => "verify: Service converged".to_owned(),
        };
        match &mut self.output {
            Output::Nothing => {}
            Output::Lines => eprintln!("{verdict}"),
            Output::Terminal(terminal) => {
                let mut lines = self.last.as_ref().map(screen).unwrap_or_default();
                if self.verifying {
                    lines.pop();
                }
                lines.push(verdict);
                terminal.show(&lines);
            }
        }
        self.end();
    }

    /// Leaves what is on the terminal as it is.
    pub(super) fn end(&mut self) {
        if let Output::Terminal(terminal) = &self.output {
            for line in &terminal.lines {
                line.abandon();
            }
        }
    }
}

impl Terminal {
    fn show(&mut self, texts: &[String]) {
        while self.lines.len() > texts.len() {
            if let Some(line) = self.lines.pop() {
                self.bars.remove(&line);
            }
        }
        while self.lines.len() < texts.len() {
            let line = self.bars.add(ProgressBar::new_spinner());
            // The template is a constant that indicatif accepts; its own default is no worse.
            line.set_style(
                ProgressStyle::with_template("{wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            self.lines.push(line);
        }
        for (line, text) in self.lines.iter().zip(texts) {
            line.set_message(text.clone());
        }
    }
}

/// Everything there is to see, line by line.
fn screen(progress: &Progress) -> Vec<String> {
    let mut lines: Vec<String> = rollback(progress).into_iter().collect();
    lines.push(overall(progress));
    lines.extend(progress.job.as_ref().map(|job| active(progress, job)));
    if progress.total <= MAX_LINES {
        for index in 0..progress.total {
            lines.push(task_line(progress, index));
        }
    }
    if progress.is_complete() && !progress.is_done() {
        lines.push(waiting());
    }
    lines
}

/// What a log should say that it has not yet said.
fn changes(last: Option<&Progress>, now: &Progress) -> Vec<String> {
    let mut lines = Vec::new();
    if last.is_none_or(|last| last.rolling_back != now.rolling_back) {
        lines.extend(rollback(now));
    }
    if last.map(overall).as_ref() != Some(&overall(now)) {
        lines.push(overall(now));
    }
    for (index, slot) in now.tasks.iter().enumerate() {
        let before = last
            .and_then(|last| last.tasks.get(index))
            .and_then(|s| s.error.as_ref());
        if slot.error.is_some() && slot.error.as_ref() != before {
            lines.push(task_line(now, index));
        }
    }
    lines
}

/// Why the tasks of an update are being taken back.
fn rollback(progress: &Progress) -> Option<String> {
    let message = progress.rolling_back.as_ref()?;
    Some(format!("rollback: {message}"))
}

fn overall(progress: &Progress) -> String {
    if progress.by_node && progress.total == 0 {
        return "overall progress: waiting for new tasks".to_owned();
    }
    if let Some(job) = &progress.job {
        let (completed, total) = (job.completed, progress.total);
        return format!("job progress: {completed} out of {total} complete");
    }
    // Docker's words are about tasks that run, and one that is to be replaced does until then.
    let replaced = match progress.relieving {
        0 => String::new(),
        count => format!(" ({count} being replaced)"),
    };
    format!(
        "overall progress: {} out of {} tasks{replaced}",
        progress.running + progress.relieving,
        progress.total
    )
}

/// How many tasks of a job run, of those that could.
fn active(progress: &Progress, job: &Job) -> String {
    let left = progress.total.saturating_sub(job.completed);
    let most = job.at_once.min(left);
    format!("active tasks: {} out of {most} tasks", progress.running)
}

fn waiting() -> String {
    let seconds = STABLE.as_secs();
    format!("verify: Waiting {seconds} second to verify that tasks are stable...")
}

fn task_line(progress: &Progress, index: usize) -> String {
    let width = progress.total.to_string().len();
    let new = Slot {
        node: None,
        state: TaskState::New,
        relieves: false,
        error: None,
    };
    let slot = progress.tasks.get(index).unwrap_or(&new);
    let number = match &slot.node {
        Some(node) => node.clone(),
        None => format!("{:>width$}/{}", index + 1, progress.total),
    };
    if let Some(error) = &slot.error {
        let line: String = error.split_whitespace().collect::<Vec<_>>().join(" ");
        return format!("{number}: {line}");
    }
    let last = match progress.job {
        Some(_) => TaskState::Complete,
        None => TaskState::Running,
    };
    // A task that should run and has ended begins from the start with its successor.
    let steps = if slot.state > last {
        0
    } else {
        step(slot.state)
    };
    let filled = steps * BAR / step(last);
    format!(
        "{number}: {:<9} [{}>{}]",
        slot.state,
        "=".repeat(filled),
        " ".repeat(BAR - filled)
    )
}

/// How many steps a task has behind it, as Docker counts them.
fn step(state: TaskState) -> usize {
    match state {
        TaskState::New => 1,
        TaskState::Pending => 3,
        TaskState::Assigned => 4,
        TaskState::Accepted => 5,
        TaskState::Preparing => 6,
        TaskState::Ready => 7,
        TaskState::Starting => 8,
        TaskState::Running => 9,
        TaskState::Complete => 10,
        // The task has failed; whatever comes next begins from the start.
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(states: &[(TaskState, Option<&str>)], total: usize) -> Progress {
        let tasks: Vec<Slot> = states
            .iter()
            .map(|(state, error)| Slot {
                node: None,
                state: *state,
                relieves: false,
                error: error.map(str::to_owned),
            })
            .collect();
        Progress {
            name: "ng".to_owned(),
            total,
            running: tasks
                .iter()
                .filter(|slot| slot.state == TaskState::Running)
                .count(),
            relieving: 0,
            surplus: 0,
            tasks,
            updating: false,
            rolling_back: None,
            by_node: false,
            given_up: 0,
            job: None,
        }
    }

    #[test]
    fn the_screen_is_dockers() {
        let running = (TaskState::Running, None);
        let some = progress(
            &[
                running,
                (TaskState::Preparing, None),
                (
                    TaskState::Pending,
                    Some("no suitable node\n(insufficient resources on 2 nodes)"),
                ),
            ],
            4,
        );
        let expected = [
            "overall progress: 1 out of 4 tasks",
            "1/4: running   [==================================================>]",
            "2/4: preparing [=================================>                 ]",
            "3/4: no suitable node (insufficient resources on 2 nodes)",
            "4/4: new       [=====>                                             ]",
        ];
        assert_eq!(screen(&some), expected);
        let all = progress(&[running], 1);
        assert_eq!(
            screen(&all)[2],
            "verify: Waiting 1 second to verify that tasks are stable..."
        );
    }

    #[test]
    fn a_task_counts_until_its_successor_runs() {
        let states = [(TaskState::Running, None), (TaskState::Preparing, None)];
        let mut moving = progress(&states, 2);
        moving.relieving = 1;
        assert_eq!(
            screen(&moving)[0],
            "overall progress: 2 out of 2 tasks (1 being replaced)"
        );
        assert!(!moving.is_complete());
    }

    #[test]
    fn many_tasks_are_summed_up() {
        assert_eq!(
            screen(&progress(&[], 21)),
            ["overall progress: 0 out of 21 tasks"]
        );
        let ten = progress(&[(TaskState::Running, None)], 10);
        assert!(screen(&ten)[1].starts_with(" 1/10: running"));
    }

    #[test]
    fn a_log_gets_each_change_once() {
        let first = progress(&[(TaskState::Pending, None)], 1);
        assert_eq!(
            changes(None, &first),
            ["overall progress: 0 out of 1 tasks"]
        );
        let second = progress(&[(TaskState::Rejected, Some("No such image: x"))], 1);
        assert_eq!(changes(Some(&first), &second), ["1/1: No such image: x"]);
        let third = progress(&[(TaskState::Preparing, Some("No such image: x"))], 1);
        assert_eq!(changes(Some(&second), &third), [""; 0]);
    }
    #[test]
    fn jobs_show_what_has_completed() {
        let states = [
            (TaskState::Complete, None),
            (TaskState::Running, None),
            (TaskState::Failed, Some("task: non-zero exit (1)")),
        ];
        let mut some = progress(&states, 5);
        some.job = Some(Job {
            completed: 1,
            at_once: 2,
        });
        let expected = [
            "job progress: 1 out of 5 complete",
            "active tasks: 1 out of 2 tasks",
            "1/5: complete  [==================================================>]",
            "2/5: running   [=============================================>     ]",
            "3/5: task: non-zero exit (1)",
            "4/5: new       [=====>                                             ]",
            "5/5: new       [=====>                                             ]",
        ];
        assert_eq!(screen(&some), expected);
        let mut all = progress(&[(TaskState::Complete, None)], 1);
        all.job = Some(Job {
            completed: 1,
            at_once: 1,
        });
        assert_eq!(screen(&all).len(), 3, "there is nothing to verify");
    }

    #[test]
    fn nodes_are_named() {
        let mut none = progress(&[], 0);
        none.by_node = true;
        assert_eq!(screen(&none), ["overall progress: waiting for new tasks"]);
        let mut one = progress(&[(TaskState::Running, None)], 1);
        one.by_node = true;
        one.tasks[0].node = Some("1uubz3hcx3oh".to_owned());
        assert_eq!(
            screen(&one)[1],
            "1uubz3hcx3oh: running   [==================================================>]"
        );
    }
}
