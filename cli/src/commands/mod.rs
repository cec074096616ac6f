//! What each command does: arguments → a validated request → one call → something printed.

pub(crate) mod cluster;
mod create;
pub(crate) mod lb;
pub(crate) mod logs;
pub(crate) mod node;
mod plan;
mod rebalance;
mod resolve;
mod role;
pub(crate) mod service;
mod tasks;
mod update;

use anyhow::{Result, bail};
use swarmlet_proto::clock::now;

use crate::args::Filter;

/// Refuses filters that a list does not have; without this a typing error would show
/// everything or nothing.
fn check_filters(filters: &[Filter], known: &[&str]) -> Result<()> {
    for Filter { key, value } in filters {
        if !known.contains(&key.as_str()) {
            bail!("invalid filter '{key}': known are {}", known.join(", "));
        }
        let values = values_of(key);
        if !values.is_empty() && !values.contains(&value.as_str()) {
            let known = values.join(", ");
            bail!("invalid value '{value}' of filter '{key}': known are {known}");
        }
    }
    Ok(())
}

/// The values that a filter may have, where they are a few words.
fn values_of(key: &str) -> &'static [&'static str] {
    match key {
        "availability" => &["active", "pause", "drain"],
        "desired-state" => &["running", "ready", "accepted", "shutdown", "remove"],
        "membership" => &["accepted", "pending"],
        "mode" => &["replicated", "global", "replicated-job", "global-job"],
        "role" => &["manager", "worker"],
        _ => &[],
    }
}

/// Whether an object passes: filters of one key are alternatives, different keys must all hold.
fn passes(filters: &[Filter], matches: impl Fn(&str, &str) -> bool) -> bool {
    filters.iter().all(|filter| {
        filters
            .iter()
            .filter(|other| other.key == filter.key)
            .any(|other| matches(&other.key, &other.value))
    })
}

/// Whether labels fit `KEY` or `KEY=VALUE`.
fn label_matches(labels: &std::collections::BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}

/// Does something for each name, goes on after a failure, and reports all failures together, as
/// Docker does for lists of objects.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn note(&mut self, error: &impl std::fmt::Display) {
        self.0.push(error.to_string());
    }

    /// Whether nothing is left of what was asked for.
    fn are_all_of(&self, asked: &[String]) -> bool {
        !asked.is_empty() && self.0.len() == asked.len()
    }

    fn result(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        bail!("{}", self.0.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_one_key_are_alternatives() {
        let filters = |list: &[&str]| {
            list.iter()
                .map(|f| f.parse().unwrap())
                .collect::<Vec<Filter>>()
        };
        let matches = |key: &str, value: &str| matches!((key, value), ("name", "ng") | ("id", "1"));
        assert!(passes(&filters(&[]), matches));
        assert!(passes(&filters(&["name=x", "name=ng"]), matches));
        assert!(passes(&filters(&["name=ng", "id=1"]), matches));
        assert!(!passes(&filters(&["name=ng", "id=2"]), matches));
        let error = check_filters(&filters(&["colour=red"]), &["id", "name"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid filter 'colour': known are id, name"
        );
        let error = check_filters(&filters(&["role=boss"]), &["role"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid value 'boss' of filter 'role': known are manager, worker"
        );
    }
}
