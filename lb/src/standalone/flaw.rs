//! What is wrong in a configuration file, in a sentence with the key, its value and what is
//! allowed. The parser's own words are those of Rust's types (`expected u16`).

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue, Error},
};

/// What each key may be.
const ALLOWED: [(&str, &str); 30] = [
    (
        "accept_proxy",
        "networks, as in [\"10.0.0.0/8\", \"fd00::1\"]",
    ),
    (
        "access_log",
        "a table, as in { path = \"/var/log/lb.log\", format = \"line\" }",
    ),
    (
        "address",
        "an IP address and a port, as in \"10.0.0.1:8080\" or \"[fd00::1]:8080\"",
    ),
    ("connect_ms", MILLISECONDS),
    ("control", PATH),
    ("draining", YES_OR_NO),
    ("drain_timeout_ms", MILLISECONDS),
    (
        "endpoints",
        "tables, each of which begins with [[listeners.endpoints]]",
    ),
    ("format", "\"line\" or \"json\""),
    ("half_closed_ms", MILLISECONDS),
    ("id", TEXT),
    ("idle_ms", MILLISECONDS),
    ("ingress", "IP addresses, as in [\"0.0.0.0\", \"::\"]"),
    (
        "listeners",
        "tables, each of which begins with [[listeners]]",
    ),
    ("local", YES_OR_NO),
    ("max_buffered", "a whole number of bytes, 1 or more"),
    ("max_connections", ONE_OR_MORE),
    ("max_connections_per_source", UP_TO_32_BITS),
    ("max_rate_per_source", UP_TO_32_BITS),
    (
        "metrics",
        "an IP address and a port from 1, as in \"127.0.0.1:9900\"",
    ),
    ("path", PATH),
    (
        "policy",
        "\"round_robin\", \"least_conn\" or \"source_hash\"",
    ),
    ("port", "a whole number from 1 to 65535"),
    ("prefer_local", YES_OR_NO),
    ("proxy_header_ms", MILLISECONDS),
    ("proxy_protocol", "\"v1\" or \"v2\""),
    ("service", TEXT),
    ("threads", ONE_OR_MORE),
    ("timeouts", "a table that begins with [timeouts]"),
    ("weight", UP_TO_32_BITS),
];

const MILLISECONDS: &str = "a whole number of milliseconds, 0 or more";
const ONE_OR_MORE: &str = "a whole number, 1 or more";
const PATH: &str = "a path, in quotes";
const TEXT: &str = "a text, in quotes";
const UP_TO_32_BITS: &str = "a whole number from 1 to 4294967295";
const YES_OR_NO: &str = "true or false, without quotes";

/// The characters of a value that are shown at most.
const SHOWN: usize = 60;

/// The offset of a flaw that the parser found, and what it is.
pub(super) fn of(text: &str, error: &Error) -> (usize, String) {
    let Some(span) = error.span() else {
        return (0, error.message().to_owned());
    };
    (span.start, reason(text, &span, error.message()))
}

fn reason(text: &str, span: &Range<usize>, message: &str) -> String {
    let Ok(file) = DeTable::parse(text) else {
        return of_syntax(line_at(text, span.start), message);
    };
    if let Some(key) = quoted_after("missing field", message) {
        return match allowed(key) {
            Some(allowed) => format!("{key} is missing: {allowed}"),
            None => format!("{key} is missing"),
        };
    }
    let found = entry_at(file.get_ref(), span.start);
    match found.and_then(|(key, value)| Some((key, value, allowed(key)?))) {
        // These say themselves which key it is.
        _ if message.starts_with("unknown field") => message.to_owned(),
        Some((key, value, allowed)) => {
            let value = text.get(value).unwrap_or_default();
            format!("{key} = {}: expected {allowed}", shown(value))
        }
        None => message.to_owned(),
    }
}

/// What has the form of a setting is told as one: of `threads = two` the parser says that `true`
/// was expected.
fn of_syntax(line: &str, message: &str) -> String {
    let setting = line
        .split_once('=')
        .and_then(|(key, _)| allowed(key.trim()));
    match setting {
        Some(allowed) => format!("{}: expected {allowed}", shown(line)),
        None => format!("{}: {message}", shown(line)),
    }
}

fn allowed(key: &str) -> Option<&'static str> {
    let found = ALLOWED.iter().find(|(name, _)| *name == key);
    found.map(|(_, allowed)| *allowed)
}

/// `port` of "missing field `port`".
fn quoted_after<'a>(words: &str, message: &'a str) -> Option<&'a str> {
    message
        .strip_prefix(words)?
        .trim()
        .strip_prefix('`')?
        .strip_suffix('`')
}

/// The key whose value is at an offset, and where the value is: of a list the one entry.
fn entry_at<'a>(table: &'a DeTable<'_>, at: usize) -> Option<(&'a str, Range<usize>)> {
    table.iter().find_map(|(key, value)| {
        within(value, at).or_else(|| {
            let span = innermost(value, at)?;
            Some((key.get_ref().as_ref(), span))
        })
    })
}

/// The same in the tables that a value is or has.
fn within<'a>(value: &'a Spanned<DeValue<'_>>, at: usize) -> Option<(&'a str, Range<usize>)> {
    match value.get_ref() {
        DeValue::Table(table) => entry_at(table, at),
        DeValue::Array(values) => values.iter().find_map(|value| within(value, at)),
        _ => None,
    }
}

fn innermost(value: &Spanned<DeValue<'_>>, at: usize) -> Option<Range<usize>> {
    if let DeValue::Array(values) = value.get_ref()
        && let Some(span) = values.iter().find_map(|value| innermost(value, at))
    {
        return Some(span);
    }
    let span = value.span();
    span.contains(&at).then_some(span)
}

fn line_at(text: &str, at: usize) -> &str {
    let before = text.get(..at).unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    text[start..].lines().next().unwrap_or_default().trim()
}

/// The first line of a text, cut where it is long.
fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= SHOWN && line.len() == text.len() {
        return line.to_owned();
    }
    line.chars().take(SHOWN).chain(['…']).collect()
}
