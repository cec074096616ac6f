//! Hosts to try things on by hand: starts as many as the argument says (3),
//! with whoami imported, says how to enter them, and removes them once Enter
//! is pressed or standard input ends. Needs root and a built workspace.

use std::{env, io};

use anyhow::{Context, Result};
use swarmlet_integration_tests::{Hosts, Image, swarmlet_binary};

fn main() -> Result<()> {
    let count = env::args()
        .nth(1)
        .map_or(Ok(3), |count| count.parse())
        .context("usage: hosts [COUNT]")?;
    let hosts = Hosts::start(count, &Image::whoami()?)?;
    eprintln!("swarmlet is {}", swarmlet_binary()?.display());
    for host in &hosts {
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
    Ok(())
}
