//! What a container has written, as the engine keeps it.

use std::collections::{BTreeMap, HashMap};

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::{InspectContainerOptions, LogsOptions, LogsOptionsBuilder};
use bytes::Bytes;
use futures_util::future::{self, TryFutureExt};
use futures_util::stream::{BoxStream, StreamExt};
use swarmlet_core::model::TaskId;

use super::{CALL_DEADLINE, DockerRuntime};
use crate::runtime::log::{LogLine, LogQuery, LogStream, until};
use crate::runtime::{RuntimeError, Scope};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// The lines of a task's container. A driver that cannot be read is an error in the engine's
/// own words.
pub(super) fn stream(
    runtime: DockerRuntime,
    scope: &Scope,
    task: &TaskId,
    query: LogQuery,
) -> BoxStream<'static, Result<LogLine, RuntimeError>> {
    let (scope, task) = (scope.clone(), task.clone());
    async move {
        let Some(id) = runtime.find(&scope, &task).await? else {
            let reason = "the container was removed".to_owned();
            return Err(RuntimeError::Refused(reason));
        };
        let details = if query.details {
            details(&runtime, &id).await?
        } else {
            String::new()
        };
        let client = runtime.client(CALL_DEADLINE)?;
        let output = client.logs(&id, Some(options(&query)));
        Ok(lines(runtime.clone(), output.boxed(), query, details))
    }
    .try_flatten_stream()
    .boxed()
}

/// The engine takes whole seconds; what is too much by that is left out here.
fn options(query: &LogQuery) -> LogsOptions {
    let seconds = |ns: u64| i32::try_from(ns / SECOND).unwrap_or(i32::MAX);
    let mut options = LogsOptionsBuilder::new()
        .follow(query.follow)
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .since(seconds(query.since_ns));
    if let Some(until) = query.until_ns {
        options = options.until(seconds(until).saturating_add(1));
    }
    if let Some(tail) = query.tail {
        options = options.tail(&tail.to_string());
    }
    options.build()
}

fn lines(
    runtime: DockerRuntime,
    output: BoxStream<'static, Result<LogOutput, Error>>,
    query: LogQuery,
    details: String,
) -> BoxStream<'static, Result<LogLine, RuntimeError>> {
    let over = query.until_ns.filter(|_| query.follow).map(until);
    let read = output.filter_map(move |output| {
        let line = match output {
            Ok(LogOutput::StdErr { message }) => line(LogStream::Stderr, &message, &details),
            // A terminal has one stream for both.
            Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                line(LogStream::Stdout, &message, &details)
            }
            Ok(LogOutput::StdIn { .. }) => None,
            Err(error) => Some(Err(failure(&runtime, error))),
        };
        future::ready(line)
    });
    let (wanted, past) = (query.clone(), query);
    let bounded = read
        .take_while(move |line| {
            let past = matches!(line, Ok(line) if past.is_past(line.at_ns));
            future::ready(!past)
        })
        .filter(move |line| {
            let wanted = !matches!(line, Ok(line) if !wanted.wants(line.at_ns));
            future::ready(wanted)
        });
    match over {
        // Older engines go on although the moment has passed.
        Some(rest) => bounded.take_until(tokio::time::sleep(rest)).boxed(),
        None => bounded.boxed(),
    }
}

fn line(
    stream: LogStream,
    message: &Bytes,
    details: &str,
) -> Option<Result<LogLine, RuntimeError>> {
    match LogLine::parse(stream, message, details) {
        Some(line) => Some(Ok(line)),
        None => {
            tracing::debug!(bytes = message.len(), "a line of the engine has no moment");
            None
        }
    }
}

fn failure(runtime: &DockerRuntime, error: Error) -> RuntimeError {
    match error {
        Error::DockerResponseServerError { message, .. } => RuntimeError::Refused(message),
        error => runtime.away(&error),
    }
}

/// What the driver was told to add with `--log-opt labels=…` and `env=…`. The client library
/// has no word for the engine's own `details`, and they are made of nothing else.
async fn details(runtime: &DockerRuntime, id: &str) -> Result<String, RuntimeError> {
    let client = runtime.client(CALL_DEADLINE)?;
    let call = client.inspect_container(id, None::<InspectContainerOptions>);
    let found = runtime.call(CALL_DEADLINE, call).await?.value()?;
    let options = found
        .host_config
        .and_then(|host| host.log_config)
        .and_then(|log| log.config)
        .unwrap_or_default();
    let config = found.config.unwrap_or_default();
    Ok(attributes(
        &options,
        &config.labels.unwrap_or_default(),
        &config.env.unwrap_or_default(),
    ))
}

fn attributes(
    options: &HashMap<String, String>,
    labels: &HashMap<String, String>,
    env: &[String],
) -> String {
    let names = |option: &str| {
        let list = options.get(option).cloned().unwrap_or_default();
        let names = list.split(',').map(|name| name.trim().to_owned());
        names.filter(|name| !name.is_empty()).collect::<Vec<_>>()
    };
    let mut found = BTreeMap::new();
    for name in names("labels") {
        if let Some(value) = labels.get(&name) {
            found.insert(name, value.clone());
        }
    }
    for name in names("env") {
        let value = env.iter().find_map(|entry| match entry.split_once('=') {
            Some((key, value)) if key == name => Some(value.to_owned()),
            _ => None,
        });
        if let Some(value) = value {
            found.insert(name, value);
        }
    }
    let pairs: Vec<String> = found
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    }

    #[test]
    fn details_are_what_the_driver_was_told_to_add() {
        let labels = map(&[("tier", "web"), ("team", "a")]);
        let env = ["MODE=test".to_owned(), "SECRET=x".to_owned()];
        let check = |options: &[(&str, &str)], expected: &str| {
            assert_eq!(attributes(&map(options), &labels, &env), expected);
        };
        check(&[], "");
        check(&[("max-size", "10m")], "");
        check(&[("labels", "tier, none")], "tier=web");
        check(&[("labels", "tier"), ("env", "MODE")], "MODE=test,tier=web");
    }

    #[test]
    fn the_engine_is_asked_for_whole_seconds_around() {
        let query = LogQuery {
            since_ns: 1_500_000_000,
            until_ns: Some(2_500_000_000),
            tail: Some(3),
            ..LogQuery::default()
        };
        let options = options(&query);
        assert_eq!((options.since, options.until), (1, 3));
        assert_eq!((options.tail.as_str(), options.follow), ("3", false));
        assert_eq!(super::options(&LogQuery::default()).tail, "all");
    }
}
