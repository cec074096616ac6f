//! What `--check-*` does to a container's specification.

use anyhow::{Result, bail};
use swarmlet_core::model::{Check, ContainerSpec};

use super::settings::set;
use crate::args::CheckFlags;

/// Sets what was given. Another probe keeps the intervals and thresholds of the one before.
///
/// # Errors
/// Where there is nothing that an interval or a threshold could be for.
pub(super) fn set_check(container: &mut ContainerSpec, flags: &CheckFlags) -> Result<()> {
    set(
        &mut container.unhealthy_action,
        flags.unhealthy_action.map(Into::into),
    );
    let timing = flags.check_interval.is_some()
        || flags.check_timeout.is_some()
        || flags.check_rise.is_some()
        || flags.check_fall.is_some()
        || flags.check_start_period.is_some();
    if flags.no_check {
        if timing {
            bail!("--no-check conflicts with --check-* options");
        }
        container.check = None;
        return Ok(());
    }
    if let Some(probe) = flags.check_http.as_ref().or(flags.check_tcp.as_ref()) {
        match &mut container.check {
            Some(check) => check.probe = probe.clone(),
            None => container.check = Some(Check::new(probe.clone())),
        }
    }
    let Some(check) = &mut container.check else {
        if timing {
            bail!("there is no check to time: name one with --check-http or --check-tcp");
        }
        return Ok(());
    };
    set(&mut check.interval, flags.check_interval);
    set(&mut check.timeout, flags.check_timeout);
    set(&mut check.rise, flags.check_rise);
    set(&mut check.fall, flags.check_fall);
    set(&mut check.start_period, flags.check_start_period);
    Ok(())
}
