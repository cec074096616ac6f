//! Hosts to try things on: starts as many as the first argument says (3), with whoami
//! imported. With a command after it, runs that on host1, its engine named in
//! `SWARMLET_TEST_DOCKER_HOST`, and ends with its status; without one, says how to enter the
//! hosts, and removes them once Enter is pressed or standard input ends. Needs root and a
//! built workspace.

use std::process::ExitCode;
use std::{env, io};

use anyhow::{Context, Result};
use swarmlet_integration_tests::{Hosts, Image, swarmlet_binary};

fn main() -> Result<ExitCode> {
    let mut arguments = env::args().skip(1);
    let count = arguments
        .next()
        .map_or(Ok(3), |count| count.parse())
        .context("usage: hosts [COUNT [COMMAND [ARGUMENT]...]]")?;
    let hosts = Hosts::start(count, &Image::whoami()?)?;
    match arguments.next() {
        Some(program) => run(&hosts, &program, arguments),
        None => wait(&hosts),
    }
}

fn run(hosts: &Hosts, program: &str, arguments: impl Iterator<Item = String>) -> Result<ExitCode> {
    let host = hosts.iter().next().context("no host to run it on")?;
    let status = host
        .command(program)
        .args(arguments)
        .env(
            "SWARMLET_TEST_DOCKER_HOST",
            format!("unix://{}", host.engine().socket().display()),
        )
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn wait(hosts: &Hosts) -> Result<ExitCode> {
    eprintln!("swarmlet is {}", swarmlet_binary()?.display());
    for host in hosts {
        let command = host.command("bash");
        let words: Vec<_> = command
            .get_args()
            .map(|word| word.to_string_lossy())
            .collect();
        let variables: Vec<_> = command
            .get_envs()
            .filter_map(|(name, value)| {
                Some(format!(
                    "{}={}",
                    name.to_string_lossy(),
                    value?.to_string_lossy()
                ))
            })
            .collect();
        eprintln!(
            "\n{} at {}:\nenv {} nsenter {}",
            host.name(),
            host.address(),
            variables.join(" "),
            words.join(" ")
        );
    }
    let client = hosts.client();
    eprintln!(
        "\nclient:\nnsenter -t {} -n -m -u bash",
        client.holder().as_raw_nonzero()
    );
    eprintln!("\nEnter removes all of them.");
    io::stdin().read_line(&mut String::new())?;
    Ok(ExitCode::SUCCESS)
}
