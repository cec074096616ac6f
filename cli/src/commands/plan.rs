//! `--dry-run`: what a command would do, asked of the leader and printed.

use std::process::ExitCode;

use anyhow::Result;
use swarmlet_proto::v1;
use swarmlet_proto::v1::planned_change::Change;

use crate::args::{DryRunFlags, Format};
use crate::client::{Client, call};
use crate::output::{PlanRow, Style, list, print};

/// Something would change.
const CHANGES: u8 = 1;

/// Asks what changes would do and prints it; the exit code says whether there is anything.
///
/// # Errors
/// One of the changes would be refused, or the cluster cannot be asked.
pub(super) async fn show(
    changes: Vec<Change>,
    flags: &DryRunFlags,
    client: &Client,
) -> Result<ExitCode> {
    let changes = changes
        .into_iter()
        .map(|change| v1::PlannedChange {
            change: Some(change),
        })
        .collect();
    let plan = call(client.control().plan(v1::PlanRequest { changes })).await?;
    if plan.steps.is_empty() {
        eprintln!("Nothing would change.");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<PlanRow> = plan.steps.into_iter().map(PlanRow::from).collect();
    let format = flags.format.unwrap_or(Format::Table);
    print(&list(&rows, Style::new(false, format))?)?;
    if plan.cut_short {
        eprintln!(
            "WARNING: the plan was not followed to its end; more would happen than is listed"
        );
    }
    eprintln!("This is a plan. Nothing was changed.");
    Ok(ExitCode::from(CHANGES))
}
