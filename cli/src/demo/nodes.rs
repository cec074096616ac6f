//! The demo's three nodes: their settings, the commands on them, and their end.

use std::fs::{self, DirBuilder};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::output::print;

/// How many nodes there are.
pub(super) const COUNT: usize = 3;

/// Their addresses; Linux answers on all of 127.0.0.0/8 without being told to.
pub(super) const ADDRESSES: [[u8; 4]; COUNT] = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]];

/// Time for a node to leave: its tasks get their grace period.
const LEAVE_DEADLINE: Duration = Duration::from_secs(60);

/// All nodes, and the directory that holds everything of theirs.
pub(super) struct Nodes {
    dir: PathBuf,
    program: PathBuf,
    runtime: &'static str,
    cluster_port: u16,
    http_port: u16,
}

impl Nodes {
    /// Makes the directory; nothing runs yet.
    pub(super) fn new(runtime: &'static str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("swarmlet-demo-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self {
            dir,
            program: std::env::current_exe().context("the path of this program is unknown")?,
            runtime,
            cluster_port: free_port(2377)?,
            http_port: free_port(2378)?,
        })
    }

    /// A node's address.
    pub(super) fn ip(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::from(ADDRESSES[node])
    }

    /// A node's address as text.
    pub(super) fn address(&self, node: usize) -> String {
        self.ip(node).to_string()
    }

    /// Where the first node is joined.
    pub(super) fn manager(&self) -> String {
        format!("{}:{}", self.ip(0), self.cluster_port)
    }

    fn home(&self, node: usize) -> PathBuf {
        self.dir.join(format!("node{}", node + 1))
    }

    fn socket(&self, node: usize) -> PathBuf {
        self.home(node).join("swarmlet.sock")
    }

    fn command(&self, node: usize, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let ip = self.ip(node);
        command
            .args(args)
            .env("SWARMLET_SOCKET", self.socket(node))
            .env("SWARMLET_DATA_DIR", self.home(node).join("data"))
            .env("SWARMLET_HOSTNAME", format!("node{}", node + 1))
            .env(
                "SWARMLET_LISTEN_ADDR",
                format!("{ip}:{}", self.cluster_port),
            )
            .env("SWARMLET_HTTP_ADDR", format!("{ip}:{}", self.http_port))
            .env("SWARMLET_INGRESS_ADDR", ip.to_string())
            .env("SWARMLET_RUNTIME", self.runtime)
            .stdin(Stdio::null())
            // A group of its own: Ctrl-C is for the demo, which then ends the command.
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Shows a command and runs it on a node.
    pub(super) async fn run(&self, node: usize, args: &[&str]) -> Result<()> {
        print(&format!(
            "\nnode{}$ swarmlet {}\n",
            node + 1,
            args.join(" ")
        ))?;
        let status = self
            .command(node, args)
            .status()
            .await
            .context("cannot run swarmlet")?;
        if !status.success() {
            bail!("`swarmlet {}` failed ({status})", args.join(" "));
        }
        Ok(())
    }

    /// Runs a command on a node for what it prints.
    pub(super) async fn read(&self, node: usize, args: &[&str]) -> Result<String> {
        print(&format!(
            "\nnode{}$ swarmlet {}\n",
            node + 1,
            args.join(" ")
        ))?;
        let output = self
            .command(node, args)
            .output()
            .await
            .context("cannot run swarmlet")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        print(&text)?;
        Ok(text)
    }

    /// What the user may try now.
    pub(super) fn invitation(&self, port: u16) -> String {
        let port = if port == 80 {
            String::new()
        } else {
            format!(":{port}")
        };
        let mut text = "\nThe demo stays up until Ctrl-C. In another terminal, try:\n\n".to_owned();
        for node in 0..COUNT {
            text += &format!("    curl http://{}{port}/\n", self.ip(node));
        }
        text += &format!(
            "    curl http://{}:{}/healthz\n",
            self.ip(0),
            self.http_port
        );
        text += &format!("    export SWARMLET_SOCKET={}\n", self.socket(0).display());
        for command in [
            "node ls",
            "service ls",
            "service scale ng=3",
            "service ps ng",
        ] {
            text += &format!("    {} {command}\n", self.program.display());
        }
        text
    }

    /// Takes all nodes out of the swarm, workers first, ends their daemons and removes their
    /// files.
    pub(super) async fn remove(&mut self) -> Result<()> {
        for node in (0..COUNT).rev() {
            if !self.socket(node).exists() {
                continue;
            }
            let leaving = self.command(node, &["leave", "--force"]).output();
            // Where it fails, what is left is ended below.
            if let Err(error) = tokio::time::timeout(LEAVE_DEADLINE, leaving).await {
                eprintln!("node{} does not leave: {error}", node + 1);
            }
        }
        for pid in processes_of(&self.dir) {
            // Found by the demo's own directory in their arguments; they may have ended by now.
            let _ = kill_process(pid, Signal::KILL);
        }
        fs::remove_dir_all(&self.dir)
            .with_context(|| format!("cannot remove {}", self.dir.display()))
    }
}

/// Processes that have the directory among their arguments.
fn processes_of(dir: &Path) -> Vec<Pid> {
    let needle = dir.to_string_lossy().into_owned();
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|&pid| u32::try_from(pid) != Ok(own))
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&needle))
        })
        .filter_map(Pid::from_raw)
        .collect()
}

/// The port, or the first one above that is free on all of the nodes' addresses.
fn free_port(wish: u16) -> Result<u16> {
    let free = |port: u16| {
        ADDRESSES
            .iter()
            .all(|&ip| TcpListener::bind((Ipv4Addr::from(ip), port)).is_ok())
    };
    // Steps of two keep the search for 2377 off the one for 2378.
    (0..100)
        .map(|step| wish + 2 * step)
        .find(|&port| free(port))
        .with_context(|| format!("no port from {wish} on is free on 127.0.0.1-3"))
}
