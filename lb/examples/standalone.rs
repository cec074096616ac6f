//! The stand-alone balancer as a program: `standalone FILE`.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: standalone FILE");
        return ExitCode::FAILURE;
    };
    match swarmlet_lb::standalone::run(path, swarmlet_lb::standalone::Start::Alone).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
