//! Limits and the access log of the balancer: what flags say over what was.

use anyhow::{Result, bail};
use swarmlet_lb::access::AccessLog;
use swarmlet_lb::{Settings, SourceLimits};

use crate::args::{BalancerFlags, Wish};

/// Puts flags over the last run's settings.
///
/// # Errors
/// They contradict each other.
pub(super) fn settings(flags: &BalancerFlags, last: Settings) -> Result<Settings> {
    let access_log = access_log(flags, last.access_log)?;
    Ok(Settings {
        max_connections: over(flags.lb_max_connections, last.max_connections),
        max_buffered: over(flags.lb_max_buffered, last.max_buffered),
        per_source: SourceLimits {
            connections: over(
                flags.lb_max_connections_per_source,
                last.per_source.connections,
            ),
            rate: over(flags.lb_max_rate_per_source, last.per_source.rate),
        },
        access_log,
    })
}

fn over<T>(wish: Option<Wish<T>>, last: Option<T>) -> Option<T> {
    match wish {
        None => last,
        Some(Wish::Default) => None,
        Some(Wish::Value(value)) => Some(value),
    }
}

fn access_log(flags: &BalancerFlags, last: Option<AccessLog>) -> Result<Option<AccessLog>> {
    let format = flags.lb_access_log_format;
    let last_format = last.as_ref().map(|log| log.format);
    let path = over(flags.lb_access_log.clone(), last.map(|log| log.path));
    let Some(path) = path else {
        if flags.lb_access_log.is_none() && matches!(format, Some(Wish::Value(_))) {
            bail!(
                "--lb-access-log-format without an access log: name its file with --lb-access-log"
            );
        }
        return Ok(None);
    };
    let format = over(format, last_format).unwrap_or_default();
    Ok(Some(AccessLog { path, format }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: BalancerFlags,
    }

    /// Puts one command line after the other over the defaults.
    #[track_caller]
    fn check(lines: &[&str], expected: Result<&str, &str>) {
        let mut last = Ok(Settings::default());
        for line in lines {
            let line = Line::try_parse_from(["x"].into_iter().chain(line.split_whitespace()));
            last = settings(&line.unwrap().flags, last.unwrap());
        }
        let found = last
            .map(|settings| serde_json::to_string(&settings).unwrap())
            .map_err(|error| error.to_string());
        assert_eq!(
            found,
            expected.map(str::to_owned).map_err(str::to_owned),
            "{lines:?}"
        );
    }

    #[test]
    fn flags_go_over_the_last_run() {
        const NONE: &str = r#"{"max_connections":null,"max_buffered":null,"per_source":{"connections":null,"rate":null},"access_log":null}"#;
        let all = "--lb-max-connections 9 --lb-max-buffered 1m --lb-max-connections-per-source 3 \
                   --lb-max-rate-per-source 4 --lb-access-log /a --lb-access-log-format json";
        let set = r#"{"max_connections":9,"max_buffered":1048576,"per_source":{"connections":3,"rate":4},"access_log":{"path":"/a","format":"json"}}"#;
        check(&[], Ok(NONE));
        check(&[all], Ok(set));
        check(&[all, ""], Ok(set));
        check(
            &[
                all,
                "--lb-max-connections default --lb-max-buffered default \
                 --lb-max-connections-per-source default --lb-max-rate-per-source default \
                 --lb-access-log default --lb-access-log-format json",
            ],
            Ok(NONE),
        );
    }

    #[test]
    fn a_format_is_one_of_a_log() {
        let with = |log: &str| {
            format!(
                r#"{{"max_connections":null,"max_buffered":null,"per_source":{{"connections":null,"rate":null}},"access_log":{log}}}"#
            )
        };
        let (log, json, default) = (
            "--lb-access-log /a",
            "--lb-access-log-format json",
            "--lb-access-log-format default",
        );
        let in_json = with(r#"{"path":"/a","format":"json"}"#);
        check(&[log, json], Ok(&in_json));
        check(&[log, json, log], Ok(&in_json));
        check(
            &[log, json, default],
            Ok(&with(r#"{"path":"/a","format":"line"}"#)),
        );
        check(&[default], Ok(&with("null")));
        check(
            &[json],
            Err("--lb-access-log-format without an access log: name its file with --lb-access-log"),
        );
    }
}
