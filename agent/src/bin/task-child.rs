//! Stands in for the `swarmlet` program in this crate's tests: the process runtime starts its
//! own program again as a shim and as `whoami`, and a test's program is the test.

use std::env;
use std::process::ExitCode;

use swarmlet_agent::runtime::process::shim;
use swarmlet_agent::whoami;

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let subcommand = args.next().unwrap_or_default();
    match subcommand.to_str() {
        Some("shim") => shim::main(args),
        Some("whoami") => {
            let served = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .and_then(|runtime| runtime.block_on(whoami::serve(None, whoami::FINISH_WITHIN)));
            match served {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        _ => ExitCode::from(2),
    }
}
