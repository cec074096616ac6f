//! The edge of the program: arguments in, exit code out, errors as one line on stderr.
//!
//! 0 is success, 1 an error, 2 a command line that makes no sense. A dry run has codes of its own:
//! 0 nothing would change, 1 something would, 255 an error.

mod mistake;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, FromArgMatches};

use crate::args::{Cli, Command};
use crate::client::{Client, warn_of_stale};
use crate::{commands, daemon, demo, doctor, install, output};

/// A dry run that failed: nobody knows whether anything would change.
const FAILED_DRY_RUN: u8 = 255;

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let cli = match parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let failure = if cli.command.is_dry_run() {
        ExitCode::from(FAILED_DRY_RUN)
    } else {
        ExitCode::FAILURE
    };
    match run(cli) {
        Ok(code) => {
            warn_of_stale();
            code
        }
        Err(error) => {
            eprintln!("Error: {}", one_line(&error));
            failure
        }
    }
}

/// Reads a command line, and notes which settings of a daemon it names itself.
fn parse(line: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Cli, clap::Error> {
    let line: Vec<OsString> = line.into_iter().map(Into::into).collect();
    let command = with_negative_numbers(Cli::command());
    let matches = match command.clone().try_get_matches_from(&line) {
        // Only then, because help and mistakes would show every switch with a value.
        Err(error) if mistake::is_switch_with_value(&error) => {
            with_switch_values(command).try_get_matches_from(&line)?
        }
        matches => matches?,
    };
    let mut cli = Cli::from_arg_matches(&matches)?;
    let flags = match &mut cli.command {
        Command::Init(args) => Some(&mut args.daemon),
        Command::Join(args) => Some(&mut args.daemon),
        _ => None,
    };
    if let (Some(flags), Some((_, matches))) = (flags, matches.subcommand()) {
        flags.note_named(matches);
    }
    Ok(cli)
}

/// A value such as -1 is told to be a wrong value, not an unknown argument.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    });
    command.mut_subcommands(with_negative_numbers)
}

/// Docker's spelling of switches, `--detach=true` and `--detach=false`, is in many a script.
fn with_switch_values(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .value_parser(clap::value_parser!(bool))
            .value_name("BOOL")
            .default_value("false")
            .default_missing_value("true"),
        _ => arg,
    });
    command.mut_subcommands(with_switch_values)
}

fn run(cli: Cli) -> Result<ExitCode> {
    let socket = cli.global.socket;
    match cli.command {
        Command::Shim(args) => return Ok(swarmlet_agent::runtime::process::shim::main(args.args)),
        Command::Completion(args) => completion(args.shell)?,
        Command::Daemon(args) => return daemon::run(*args, &socket),
        Command::Lb(args) => match args.command {
            Some(command) => one_thread()?.block_on(commands::lb::run(command, &socket))?,
            None => daemon::balancer::process::run(&args)?,
        },
        // One of many on a host, and answers cost next to nothing: threads would only wake each other.
        Command::Whoami(args) => {
            one_thread()?.block_on(swarmlet_agent::whoami::serve(args.port, args.finish_within))?
        }
        Command::Demo(args) => return one_thread()?.block_on(demo::run(&args)),
        Command::Install(args) => one_thread()?.block_on(install::install(&args))?,
        Command::Uninstall(args) => one_thread()?.block_on(install::uninstall(&args))?,
        Command::Halt => one_thread()?.block_on(install::halt())?,
        Command::Init(args) => one_thread()?.block_on(commands::cluster::init(*args, &socket))?,
        Command::Join(args) => one_thread()?.block_on(commands::cluster::join(*args, &socket))?,
        Command::Leave(args) => one_thread()?.block_on(async {
            let client = Client::connect(&socket).await?;
            commands::cluster::leave(&args, &client, &socket).await
        })?,
        Command::JoinToken(args) => one_thread()?.block_on(async {
            commands::cluster::join_token(&args, &Client::connect(&socket).await?).await
        })?,
        Command::Info(args) => one_thread()?.block_on(async {
            commands::cluster::info(&args, &Client::connect(&socket).await?).await
        })?,
        Command::Doctor(args) => return one_thread()?.block_on(doctor::run(*args, &socket)),
        Command::Node(command) => {
            return one_thread()?.block_on(async {
                commands::node::run(command, &Client::connect(&socket).await?).await
            });
        }
        Command::Task(command) => {
            return one_thread()?.block_on(async {
                commands::logs::run(command, &Client::connect(&socket).await?).await
            });
        }
        Command::Service(command) => {
            return one_thread()?.block_on(async {
                commands::service::run(command, &Client::connect(&socket).await?).await
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A command waits for one answer; threads would only cost time to start.
fn one_thread() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// The runtime of what runs for long.
pub(crate) fn many_threads() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

fn completion(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "swarmlet", &mut script);
    output::print(&String::from_utf8(script)?)?;
    Ok(())
}

/// Help goes to stdout as clap writes it; a mistake is told in one line.
fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has gone away does not make the help an error.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            eprintln!("{}", mistake::one_line(error));
            ExitCode::from(2)
        }
    }
}

/// An error with its causes, in one line; a cause that only repeats what is above it is left
/// out.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let cause = cause.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_line() {
        let error = anyhow::anyhow!("connection refused").context("cannot ask\nthe cluster");
        assert_eq!(
            one_line(&error),
            "cannot ask the cluster: connection refused"
        );
        let error = anyhow::anyhow!("refused").context("connection refused");
        assert_eq!(one_line(&error), "connection refused");
    }

    #[test]
    fn switches_take_a_value_as_dockers_do() {
        let check = |line: &str, expected: Result<[bool; 2], &str>| {
            let line = format!("swarmlet service create {line}");
            let found = match parse(line.split_whitespace()) {
                Ok(cli) => match cli.command {
                    Command::Service(crate::args::ServiceCommand::Create(args)) => {
                        Ok([args.flags.detach, args.flags.quiet])
                    }
                    other => panic!("{other:?}"),
                },
                Err(error) => Err(mistake::one_line(&error)),
            };
            assert_eq!(found, expected.map_err(str::to_owned), "{line}");
        };
        check("i", Ok([false, false]));
        check("--detach=true i", Ok([true, false]));
        check("-d=true -q i", Ok([true, true]));
        check("--detach=false --quiet i", Ok([false, true]));
        check("-dp 80 --quiet=false i", Ok([true, false]));
        // Behind the image everything is the container's.
        check("-d i --quiet=true", Ok([true, false]));
        check("--detach=false i -d --quiet", Ok([false, false]));
        check(
            "--detach=no i",
            Err(
                "error: invalid value 'no' for '--detach[=<BOOL>]' [possible values: true, false] (see --help)",
            ),
        );
    }

    #[test]
    fn settings_of_the_command_line_become_variables_of_the_daemon() {
        let line = "swarmlet init --task-ports 21000-21999 --ingress-addr 10.0.0.1 \
                    --ingress-addr ::1 --reserve-system-memory 512m --runtime docker";
        let cli = parse(line.split_whitespace()).unwrap();
        let Command::Init(args) = cli.command else {
            panic!("{:?}", cli.command);
        };
        let variables: Vec<String> = args
            .daemon
            .named_environment()
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            variables,
            [
                "SWARMLET_INGRESS_ADDR=10.0.0.1,::1",
                "SWARMLET_RUNTIME=docker",
                "SWARMLET_TASK_PORTS=21000-21999",
                "SWARMLET_RESERVE_SYSTEM_MEMORY=536870912",
            ]
        );
        // What the daemon reads from them is what the flags said.
        let flags = args.daemon.to_environment().len();
        assert_eq!(flags, variables.len(), "nothing else was set");
    }
}
