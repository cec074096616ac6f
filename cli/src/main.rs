//! `swarmlet`: the command line, the daemon that it talks to, and the processes beside it.
//!
//! This crate puts the others together and decides nothing about the cluster. Start reading at
//! [`args`] (what may be written), [`commands`] (what it does, by one call to the daemon) and
//! [`daemon`] (who answers).

mod args;
mod client;
mod commands;
mod daemon;
mod demo;
mod doctor;
mod edge;
mod install;
mod output;
mod progress;
mod spec;
mod values;

use std::process::ExitCode;

fn main() -> ExitCode {
    edge::main()
}
