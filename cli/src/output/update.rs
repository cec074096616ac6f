//! How a service is updated and rolled back, as `service inspect --pretty` shows it.

use swarmlet_core::model::UpdateConfig;

use crate::values::shown_duration;

/// Docker's lines, and below them what Docker does not have.
pub(super) fn lines(config: &UpdateConfig, order: &'static str) -> Vec<(&'static str, String)> {
    let percent = |share: Option<u32>| share.map(|share| share.to_string());
    let time = |time| (time != std::time::Duration::ZERO).then(|| shown_duration(time));
    [
        (" Parallelism:", Some(config.parallelism.to_string())),
        (" Delay:", time(config.delay)),
        (" On failure:", Some(config.failure_action.to_string())),
        (" Monitoring Period:", time(config.monitor)),
        (
            " Max failure ratio:",
            Some(config.max_failure_ratio.to_string()),
        ),
        (order, Some(config.order.to_string())),
        (" Min healthy percent:", percent(config.min_healthy_percent)),
        (" Max percent:", percent(config.max_percent)),
        (" Progress deadline:", time(config.progress_deadline)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}
