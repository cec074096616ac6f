//! `--check-*`: the check that a task's node runs, and what follows when it fails.

use std::time::Duration;

use clap::{Args, ValueEnum};
use swarmlet_core::model::{Probe, UnhealthyAction};

use crate::values::duration;

/// How nodes find out whether a task takes connections, without a shell in its image.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CheckFlags {
    /// Ask each task over HTTP from its node: /PATH or PORT/PATH; 200 to 399 passes
    #[arg(long, value_name = "[PORT]/PATH", value_parser = Probe::http, group = "check")]
    pub(crate) check_http: Option<Probe>,
    /// Connect to each task from its node; the first published port where none is given
    #[arg(
        long,
        value_name = "PORT",
        value_parser = tcp,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        group = "check"
    )]
    pub(crate) check_tcp: Option<Probe>,
    /// Time from one such check to the next [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) check_interval: Option<Duration>,
    /// Time one such check may take [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) check_timeout: Option<Duration>,
    /// Passes in a row that make a task healthy [default: 2]
    #[arg(long, value_name = "N")]
    pub(crate) check_rise: Option<u32>,
    /// Failures in a row that make a task unhealthy [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) check_fall: Option<u32>,
    /// Failures do not count this long after the start of a task that never passed [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) check_start_period: Option<Duration>,
    /// Run no such check any more
    #[arg(long, conflicts_with = "check")]
    pub(crate) no_check: bool,
    /// What happens to a task that ran and turned unhealthy [default: restart]
    #[arg(long, value_enum, value_name = "ACTION")]
    pub(crate) unhealthy_action: Option<UnhealthyActionArg>,
}

fn tcp(text: &str) -> Result<Probe, String> {
    let port = match text {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| format!("invalid port {text}: expected 1 to 65535"))?,
        ),
    };
    Ok(Probe::Tcp { port })
}

/// What happens to an unhealthy task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UnhealthyActionArg {
    /// It is stopped and replaced
    Restart,
    /// It runs on, and gets no connections until it is healthy again
    Eject,
}

impl From<UnhealthyActionArg> for UnhealthyAction {
    fn from(arg: UnhealthyActionArg) -> Self {
        match arg {
            UnhealthyActionArg::Restart => Self::Restart,
            UnhealthyActionArg::Eject => Self::Eject,
        }
    }
}
