//! Random checks that agents run.

use proptest::option;
use proptest::prelude::*;
use swarmlet_core::model::{Check, Probe, UnhealthyAction};

use super::{duration, one_of, text};

pub(super) fn check() -> impl Strategy<Value = Check> {
    let port = || option::of(any::<u16>());
    let probe = prop_oneof![
        (port(), text()).prop_map(|(port, path)| Probe::Http { port, path }),
        port().prop_map(|port| Probe::Tcp { port }),
    ];
    let thresholds = (any::<u32>(), any::<u32>());
    (probe, duration(), duration(), thresholds, duration()).prop_map(
        |(probe, interval, timeout, (rise, fall), start_period)| Check {
            probe,
            interval,
            timeout,
            rise,
            fall,
            start_period,
        },
    )
}

pub(super) fn unhealthy_action() -> impl Strategy<Value = UnhealthyAction> {
    one_of(&[UnhealthyAction::Restart, UnhealthyAction::Eject])
}
