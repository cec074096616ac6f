//! What commands print: rows made of the cluster's objects, as columns or as JSON.
//!
//! The rows are pure functions of what the cluster answered and the time, so that each screen
//! has a golden test. Data goes to stdout, messages go to stderr.

mod ago;
mod balancer;
mod columns;
mod counts;
mod log;
mod natural;
mod node;
mod plan;
mod service;
mod task;
mod update;

use std::io::{self, Write};

use serde::Serialize;
use swarmlet_core::model::ImageReference;

use crate::args::Format;

pub(crate) use ago::ago;
pub(crate) use balancer::{balancers, balancers_json};
pub(crate) use columns::columns;
pub(crate) use log::{LogForm, LogLines, LogStyle, Out};
pub(crate) use natural::natural;
pub(crate) use node::{node_rows, pretty_node};
pub(crate) use plan::PlanRow;
pub(crate) use service::{pretty_service, service_rows};
pub(crate) use task::{IdLength, tasks_by_slot};

/// Something that is one line of a table.
pub(crate) trait Row: Serialize {
    /// The columns' names.
    const HEADERS: &'static [&'static str];
    /// The line, one text for each column.
    fn cells(&self) -> Vec<String>;
    /// What `-q` prints.
    fn id(&self) -> &str;
}

/// How a list is to be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Identifiers only.
    Ids,
    /// Columns.
    Table,
    /// One JSON object to a line.
    Json,
}

impl Style {
    /// What `-q` and `--format` ask for together.
    pub(crate) fn new(quiet: bool, format: Format) -> Self {
        match (quiet, format) {
            (true, _) => Self::Ids,
            (false, Format::Table) => Self::Table,
            (false, Format::Json) => Self::Json,
        }
    }
}

/// A list as text.
pub(crate) fn list<R: Row>(rows: &[R], style: Style) -> Result<String, serde_json::Error> {
    match style {
        Style::Ids => Ok(rows.iter().map(|row| format!("{}\n", row.id())).collect()),
        Style::Table => {
            let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
            Ok(columns(R::HEADERS, &cells))
        }
        Style::Json => rows
            .iter()
            .map(|row| serde_json::to_string(row).map(|line| line + "\n"))
            .collect(),
    }
}

/// Writes data to stdout.
///
/// # Errors
/// The system's, but for a reader that has gone away (`swarmlet node ls | head -1`).
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// `text` in title case: the states and roles of tables.
pub(crate) fn title(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

/// An image as tables show it: where a tag names it, without the digest that it is pinned to.
pub(crate) fn without_digest(image: &str) -> String {
    match image.parse::<ImageReference>() {
        Ok(reference) if reference.has_digest() => reference.unpinned().to_string(),
        _ => image.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
