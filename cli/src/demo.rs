//! `swarmlet demo`
use std::process::ExitCode;
use crate::args::DemoArgs;
pub(crate) async fn run(_: &DemoArgs) -> anyhow::Result<ExitCode> { anyhow::bail!("not yet") }
