//! `swarmlet demo`: three nodes on one machine, ten tasks behind one port, requests through
//! every node. Each step is the command that a user would type; whatever the demo made is
//! removed at its end, however that comes.

mod image;
mod nodes;
mod requests;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use swarmlet_agent::runtime::{self, Choice};
use swarmlet_core::model::RuntimeKind;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{DemoArgs, RuntimeArg};
use crate::output::print;
use image::Image;
use nodes::Nodes;

/// Tasks in the end.
const REPLICAS: u32 = 10;

/// Runs the demo.
///
/// # Errors
/// A step failed; what was made is removed all the same.
pub(crate) async fn run(args: &DemoArgs) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to signals")?;
    let port = choose_port(args.port)?;
    let docker = find_docker(args.runtime).await?;
    let mut nodes = Nodes::new(if docker.is_some() {
        "docker"
    } else {
        "process"
    })?;
    let mut image = None;
    let result = tokio::select! {
        result = show(args, port, &nodes, docker.as_deref(), &mut image) => result,
        _ = interrupt.recv() => Ok(Shown::Interrupted),
        _ = terminate.recv() => Ok(Shown::Interrupted),
    };
    if let Ok(Shown::Complete) = &result
        && !args.exit
    {
        print(&nodes.invitation(port))?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    print("\nRemoving everything that the demo made…\n")?;
    let cleaned = nodes.remove().await;
    let unimaged = match image {
        Some(image) => image.remove().await,
        None => Ok(()),
    };
    let shown = result?;
    cleaned?;
    unimaged?;
    print("Nothing is left of it.\n")?;
    Ok(match shown {
        Shown::Complete | Shown::Interrupted => ExitCode::SUCCESS,
        Shown::Uneven => ExitCode::FAILURE,
    })
}

/// What came of the steps.
enum Shown {
    /// Every node answered for every task.
    Complete,
    /// The user has seen enough.
    Interrupted,
    /// Some answer was missing.
    Uneven,
}

async fn show(
    args: &DemoArgs,
    port: u16,
    nodes: &Nodes,
    docker: Option<&str>,
    image: &mut Option<Image>,
) -> Result<Shown> {
    let name = match docker {
        Some(host) => {
            print("A Docker engine answers: the tasks will be containers.\n")?;
            let imported = image.insert(Image::new(host)?);
            imported.import().await?;
            imported.name().to_owned()
        }
        None => {
            print("The tasks will be plain processes.\n")?;
            "whoami".to_owned()
        }
    };
    nodes
        .run(0, &["init", "--advertise-addr", &nodes.address(0)])
        .await?;
    let token = nodes.read(0, &["join-token", "-q", "worker"]).await?;
    for node in 1..nodes::COUNT {
        nodes
            .run(node, &["join", "--token", token.trim(), &nodes.manager()])
            .await?;
    }
    let publish = format!("{port}:80");
    nodes
        .run(
            0,
            &[
                // The image is on this machine and in no registry.
                "service",
                "create",
                "--no-resolve-image",
                "--name",
                "ng",
                "-p",
                &publish,
                &name,
            ],
        )
        .await?;
    nodes
        .run(0, &["service", "scale", &format!("ng={REPLICAS}")])
        .await?;
    nodes.run(0, &["node", "ls"]).await?;
    nodes.run(0, &["service", "ps", "ng"]).await?;
    let mut complete = true;
    for node in 0..nodes::COUNT {
        let address = SocketAddr::new(nodes.ip(node).into(), port);
        print(&format!(
            "\n{} requests to http://{address}/\n",
            args.requests
        ))?;
        let counts = requests::count(address, args.requests).await;
        print(&counts.table())?;
        let expected = usize::try_from(args.requests.min(REPLICAS)).unwrap_or_default();
        complete &= counts.errors.is_empty() && counts.answers.len() == expected;
    }
    Ok(if complete {
        Shown::Complete
    } else {
        Shown::Uneven
    })
}

/// The engine's address, where the tasks are to be containers.
async fn find_docker(wish: RuntimeArg) -> Result<Option<String>> {
    let host = std::env::var("DOCKER_HOST")
        .ok()
        .filter(|host| !host.is_empty());
    let choice = match wish {
        RuntimeArg::Auto => Choice::Auto,
        RuntimeArg::Docker => Choice::Docker,
        RuntimeArg::Process => Choice::Process,
    };
    let found = runtime::detect(choice, host.as_deref()).await?;
    let host = host.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    Ok((found.kind() == RuntimeKind::Docker).then_some(host))
}

/// The published port: the one that was asked for, or the first of 80 and 8080 and above that
/// is free here.
fn choose_port(wish: Option<u16>) -> Result<u16> {
    let free = |port: u16| {
        nodes::ADDRESSES
            .iter()
            .all(|&ip| TcpListener::bind((Ipv4Addr::from(ip), port)).is_ok())
    };
    if let Some(port) = wish {
        if !free(port) {
            bail!("port {port} cannot be used on 127.0.0.1-3: choose another with --port");
        }
        return Ok(port);
    }
    let first = rustix::process::geteuid().is_root().then_some(80);
    first
        .into_iter()
        .chain(8080..8180)
        .find(|&port| free(port))
        .context("no port of 8080-8179 is free on 127.0.0.1-3: choose one with --port")
}
