//! A command line that makes no sense, told in one line.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Flags of Docker Swarm's that swarmlet does not have, without the `-add` and `-rm` of updates.
/// Whoever comes from there is told so, instead of being shown a flag that looks alike.
const DOCKERS_FLAGS: [&str; 32] = [
    "autolock",
    "cap-add",
    "cap-drop",
    "cert-expiry",
    "compose-file",
    "config",
    "credential-spec",
    "data-path-addr",
    "data-path-port",
    "default-addr-pool",
    "default-addr-pool-mask-length",
    "dispatcher-heartbeat",
    "dns",
    "dns-option",
    "dns-search",
    "endpoint-mode",
    "external-ca",
    "group",
    "host",
    "init",
    "isolation",
    "max-snapshots",
    "memory-swap",
    "memory-swappiness",
    "network",
    "oom-score-adj",
    "read-only",
    "secret",
    "snapshot-interval",
    "sysctl",
    "tty",
    "ulimit",
];

/// Commands of Docker's that have to do with a swarm.
const DOCKERS_COMMANDS: [&str; 6] = ["config", "exec", "network", "secret", "stack", "volume"];

/// Commands that others have, and what does their work here.
const ELSEWHERE: [(&str, &str); 5] = [
    ("run", "swarmlet service create"),
    ("start", "swarmlet service create"),
    ("status", "swarmlet info"),
    ("stop", "swarmlet service rm"),
    ("version", "swarmlet --version"),
];

/// Whether a switch was given a value, as in `--detach=true` or, by clap's reading an argument of
/// its own, `-d=true`.
pub(super) fn is_switch_with_value(error: &clap::Error) -> bool {
    match error.kind() {
        ErrorKind::TooManyValues => true,
        ErrorKind::UnknownArgument => named(error, ContextKind::InvalidArg) == Some("-="),
        _ => false,
    }
}

/// What is wrong with a command line.
pub(super) fn one_line(error: &clap::Error) -> String {
    let text = dockers(error)
        .or_else(|| meant(error))
        .or_else(|| token(error))
        .unwrap_or_else(|| in_claps_words(&error.to_string()));
    text + " (see --help)"
}

/// The text that clap gives of a part of a mistake.
fn named(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(name)) => Some(name),
        _ => None,
    }
}

/// What was meant by a command that is not there, or that lacks a word: `swarmlet ps`.
fn meant(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let name = named(error, ContextKind::InvalidSubcommand)?;
    let root = <crate::args::Cli as clap::CommandFactory>::command();
    let mut there: Vec<String> = root
        .get_subcommands()
        .filter(|group| !group.is_hide_set() && group.find_subcommand(name).is_some())
        .map(|group| format!("`swarmlet {} {name}`", group.get_name()))
        .collect();
    let elsewhere = ELSEWHERE.iter().filter(|(other, _)| *other == name);
    there.extend(elsewhere.map(|(_, here)| format!("`{here}`")));
    if there.is_empty() {
        return None;
    }
    Some(format!(
        "error: unrecognized subcommand '{name}'; there is {}",
        there.join(" and ")
    ))
}

/// What is to be said of that which Docker has.
fn dockers(error: &clap::Error) -> Option<String> {
    let named = |kind| named(error, kind);
    let lacking = |what: &str| {
        format!(
            "error: Docker Swarm has {what}, swarmlet has not: docs/docker-swarm.md says what \
             else there is not, and what differs"
        )
    };
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let flag = named(ContextKind::InvalidArg)?.strip_prefix("--")?;
            let flag = flag.split('=').next().unwrap_or_default();
            let base = flag
                .strip_suffix("-add")
                .or_else(|| flag.strip_suffix("-rm"));
            let known = |name: &str| DOCKERS_FLAGS.contains(&name);
            (known(flag) || base.is_some_and(known)).then(|| lacking(&format!("--{flag}")))
        }
        ErrorKind::InvalidValue
            if named(ContextKind::InvalidArg)?.starts_with("--format")
                && named(ContextKind::InvalidValue)?.contains("{{") =>
        {
            Some(
                "error: Docker has templates for --format, swarmlet has not: print `--format json` \
                 and take what you need from it, with jq for instance"
                    .to_owned(),
            )
        }
        ErrorKind::InvalidSubcommand => match named(ContextKind::InvalidSubcommand)? {
            "swarm" => Some(
                "error: what is `docker swarm init` with Docker is `swarmlet init` here, and so \
                 are join, leave and join-token"
                    .to_owned(),
            ),
            name if DOCKERS_COMMANDS.contains(&name) => Some(lacking(&format!("'{name}'"))),
            _ => None,
        },
        _ => None,
    }
}

/// What a `join` without a token is told. clap names the one flag that is required, and not the
/// other, which does as well and shows the token to nobody else.
fn token(error: &clap::Error) -> Option<String> {
    const FLAG: &str = "--token <TOKEN>";
    let missing = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(missing)) => missing,
        _ => return None,
    };
    if error.kind() != ErrorKind::MissingRequiredArgument || !missing.iter().any(|m| m == FLAG) {
        return None;
    }
    let both = format!("{FLAG} (or --token-file <PATH>)");
    let line = in_claps_words(&error.to_string()).replace(FLAG, &both);
    Some(format!(
        "{line}; a manager prints the token with `swarmlet join-token worker` (or manager)"
    ))
}

/// What clap says before it shows the usage, and what it takes for meant.
fn in_claps_words(text: &str) -> String {
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let words: Vec<&str> = paragraph.split_whitespace().collect();
        words.join(" ")
    });
    let mut line = paragraphs.next().unwrap_or_default();
    if let Some(tips) = paragraphs.find(|text| text.starts_with("tip: ")) {
        // The first one is the likeliest. That a flag may be a value as well helps nobody.
        let mut tips = tips.split("tip: ").skip(1);
        if let Some(tip) = tips.find(|tip| !tip.starts_with("to pass ")) {
            line = format!("{line}; {}", tip.trim_end());
        }
    }
    line.replace("invalid digit found in string", "expected a whole number")
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn mistakes_of_usage_are_one_line() {
        let line = ["swarmlet", "service", "create", "-p", "80:x", "i"];
        let error = parse(line).unwrap_err();
        assert_eq!(
            one_line(&error),
            "error: invalid value '80:x' for '--publish <PORT>': invalid containerPort: x: expected 1 to 65535 (see --help)"
        );
        for (word, expected) in [
            (
                "--nam=x",
                "error: unexpected argument '--nam' found; a similar argument exists: '--name' (see --help)",
            ),
            (
                "--limit-pids=x",
                "error: invalid value 'x' for '--limit-pids <N>': expected a whole number (see --help)",
            ),
        ] {
            let error = parse(["swarmlet", "service", "create", word, "i"]).unwrap_err();
            assert_eq!(one_line(&error), expected);
        }
        let error = parse(["swarmlet", "service", "create", "--replicas", "-1", "i"]).unwrap_err();
        assert_eq!(
            one_line(&error),
            "error: invalid value '-1' for '--replicas <N>': -1 is not in 0..=4294967295 (see --help)"
        );
        let error = parse(["swarmlet", "service", "create"]).unwrap_err();
        assert_eq!(
            one_line(&error),
            "error: the following required arguments were not provided: <IMAGE> [ARG]... (see --help)"
        );
    }

    #[test]
    fn a_join_without_a_token_is_told_where_tokens_are() {
        let check = |line: &[&str], missing: &str| {
            let error = parse(["swarmlet", "join"].iter().chain(line)).unwrap_err();
            let expected = format!(
                "error: the following required arguments were not provided: {missing}; a manager \
                 prints the token with `swarmlet join-token worker` (or manager) (see --help)"
            );
            assert_eq!(one_line(&error), expected);
        };
        check(&["host"], "--token <TOKEN> (or --token-file <PATH>)");
        check(
            &[],
            "--token <TOKEN> (or --token-file <PATH>) <HOST[:PORT]>...",
        );
        let error = parse(["swarmlet", "join", "--token", "x"]).unwrap_err();
        assert_eq!(
            one_line(&error),
            "error: the following required arguments were not provided: <HOST[:PORT]>... (see --help)"
        );
    }

    #[test]
    fn what_docker_has_is_told_to_be_missing() {
        let check = |line: &str, expected: &str| {
            let error = parse(line.split_whitespace()).unwrap_err();
            let found = one_line(&error);
            assert!(found.starts_with(expected), "{found}");
            assert!(found.ends_with(" (see --help)"), "{found}");
        };
        check(
            "swarmlet service create --secret=x i",
            "error: Docker Swarm has --secret, swarmlet has not: docs/docker-swarm.md",
        );
        check(
            "swarmlet service update --network-add x ng",
            "error: Docker Swarm has --network-add, ",
        );
        check("swarmlet stack deploy", "error: Docker Swarm has 'stack', ");
        check("swarmlet swarm init", "error: what is `docker swarm init` ");
        check(
            "swarmlet service update --bogus ng",
            "error: unexpected argument '--bogus' found (see",
        );
        check(
            "swarmlet serivce ls",
            "error: unrecognized subcommand 'serivce'; a similar subcommand exists: 'service' (see",
        );
        check(
            "swarmlet ps",
            "error: unrecognized subcommand 'ps'; there is `swarmlet node ps` and `swarmlet service ps` (see",
        );
        check(
            "swarmlet version",
            "error: unrecognized subcommand 'version'; there is `swarmlet --version` (see",
        );
        check(
            "swarmlet node ls --format {{.ID}}",
            "error: Docker has templates for --format, swarmlet has not: print `--format json`",
        );
        check(
            "swarmlet node ls --format yaml",
            "error: invalid value 'yaml' for '--format <FORMAT>' [possible values: table, json] (see",
        );
    }

    /// A flag that comes to swarmlet leaves the list.
    #[test]
    fn nothing_that_there_is_is_told_to_be_missing() {
        fn look(command: &clap::Command, found: &mut Vec<String>) {
            found.extend(
                command
                    .get_arguments()
                    .filter_map(|arg| arg.get_long())
                    .map(str::to_owned),
            );
            command
                .get_subcommands()
                .for_each(|command| look(command, found));
        }
        let command = <crate::args::Cli as clap::CommandFactory>::command();
        let service = command.find_subcommand("service").unwrap();
        let mut there = Vec::new();
        look(service, &mut there);
        for name in ["init", "join"] {
            look(command.find_subcommand(name).unwrap(), &mut there);
        }
        for flag in DOCKERS_FLAGS {
            assert!(
                !there.iter().any(|there| there == flag),
                "--{flag} is there"
            );
        }
        for name in DOCKERS_COMMANDS {
            assert!(command.find_subcommand(name).is_none(), "{name} is there");
        }
    }
}
