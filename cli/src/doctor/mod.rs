//! `swarmlet doctor`: what is wrong with this host, its node and its cluster, and what to do
//! about it.
//!
//! It works in any state: the host is looked at by the command itself, the daemon is asked as
//! long as it answers, and each question has a deadline. Start reading at [`run`]; [`host`]
//! looks at the machine, [`engine`] at the container engine, [`node`] asks the daemon, and
//! [`joining`] tries the way to a cluster that is to be joined.

mod engine;
mod host;
mod joining;
mod node;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::{DoctorArgs, Format};
use crate::daemon::{Layout, NodeRecord, Settings, advertise, data_dir};
use crate::output::{Row, Style, columns, list, print};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// It is as it should be.
    Ok,
    /// It works, and will not in some case that the text names.
    Warning,
    /// It does not work.
    Problem,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) level: Level,
    /// What was looked at.
    pub(crate) subject: &'static str,
    /// What was found.
    pub(crate) found: String,
    /// What to do; empty where all is well.
    pub(crate) remedy: String,
}

impl Finding {
    pub(crate) fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, found, "")
    }

    pub(crate) fn warning(
        subject: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Level::Warning, subject, found, remedy)
    }

    pub(crate) fn problem(
        subject: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Level::Problem, subject, found, remedy)
    }

    fn new(
        level: Level,
        subject: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            level,
            subject,
            found: found.into(),
            remedy: remedy.into(),
        }
    }
}

impl Row for Finding {
    const HEADERS: &'static [&'static str] = &["", "CHECK", "FOUND"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.level.name().to_owned(),
            self.subject.to_owned(),
            self.found.clone(),
        ]
    }

    fn id(&self) -> &str {
        self.subject
    }
}

/// What all checks work with.
struct Case {
    /// What the daemon is, or would be, started with.
    settings: Settings,
    /// The node on disk, where this host belongs to a cluster and its files can be read.
    record: Option<NodeRecord>,
    layout: Layout,
    /// The address to advertise, where the command line names one.
    advertise: String,
}

impl Case {
    /// At which address a cluster whose manager is at `towards` would reach this host: as `join`
    /// would decide, or as it was decided already.
    fn address(&self, towards: SocketAddr) -> Result<SocketAddr> {
        match &self.record {
            Some(record) if self.advertise.is_empty() => Ok(record.advertise),
            _ => advertise(&self.advertise, self.settings.stored.listen, Some(towards)),
        }
    }
}

/// Looks at everything and prints what it found; the exit code is 1 where something does not
/// work.
///
/// # Errors
/// The command line makes no sense, or nothing can be printed.
pub(crate) async fn run(args: DoctorArgs, socket: &Path) -> Result<ExitCode> {
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(path)) => Some(
            std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the token from {}", path.display()))?,
        ),
        (None, None) => None,
    };
    let token = token.map(|token| token.trim().parse()).transpose()?;
    let layout = Layout::new(data_dir(&args.daemon));
    // What cannot be read is a finding of its own, below.
    let record = layout.load().unwrap_or_default();
    let case = Case {
        settings: Settings::new(&args.daemon, record.as_ref())?,
        record,
        layout,
        advertise: args.advertise_addr.unwrap_or_default(),
    };
    let asked = node::ask(socket).await;
    let mut findings = host::look(&case, asked.is_some());
    findings.push(engine::look(&case).await);
    findings.extend(match &asked {
        Some(found) => found.clone(),
        None => node::absent(&case, socket).await,
    });
    findings.extend(joining::look(&case, &args.join, token.as_ref()).await);
    match args.format {
        Format::Json => print(&list(&findings, Style::Json)?)?,
        Format::Table => print(&table(&findings))?,
    }
    let broken = findings.iter().any(|found| found.level == Level::Problem);
    Ok(if broken {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// A line for each finding, and below it what to do.
fn table(findings: &[Finding]) -> String {
    let mut rows = Vec::new();
    for finding in findings {
        rows.push(finding.cells());
        if !finding.remedy.is_empty() {
            rows.push(vec![
                String::new(),
                String::new(),
                format!("-> {}", finding.remedy),
            ]);
        }
    }
    let count = |level| findings.iter().filter(|found| found.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    let plural = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        count => format!("{count} {word}s"),
    };
    format!(
        "{}\n{}, {}\n",
        columns(Finding::HEADERS, &rows),
        plural(problems, "problem"),
        plural(warnings, "warning")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_stand_below_what_they_are_for() {
        let findings = [
            Finding::ok("disk", "10 GiB free"),
            Finding::problem("clock", "5 s behind", "set it"),
        ];
        assert_eq!(
            table(&findings),
            "          CHECK   FOUND\n\
             ok        disk    10 GiB free\n\
             problem   clock   5 s behind\n                  \
             -> set it\n\n1 problem, 0 warnings\n"
        );
    }
}
