//! A balancer in a process of its own, for what is counted by process:
//! descriptors, memory, limits.
//!
//! It is the test's own binary, started once more with one test to run, which
//! calls [`serve_if_asked`].

use std::{
    path::{Path, PathBuf},
    process::{Child, Command},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use swarmlet_lb::{Config, control::Client};

use super::{own_ip, until};

/// Set for the process that is the balancer.
const CONTROL: &str = "OUTSIDE_CONTROL";
const INGRESS: &str = "OUTSIDE_INGRESS";

/// The balancer's process, which ends with this.
pub(crate) struct Outside(Child);

/// What a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) descriptors: usize,
    pub(crate) resident: u64,
}

impl Outside {
    /// Starts it; `test` is the one that calls [`serve_if_asked`].
    pub(crate) async fn start(test: &str, control: &Path) -> (Self, Client) {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CONTROL, control)
            .env(INGRESS, own_ip().to_string())
            .spawn()
            .unwrap();
        let balancer = Self(child);
        until("the balancer answers", async || {
            Client::connect(control).await.is_ok()
        })
        .await;
        (balancer, Client::connect(control).await.unwrap())
    }

    pub(crate) fn held(&self) -> Held {
        let process = PathBuf::from(format!("/proc/{}", self.0.id()));
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line
            .and_then(|line| line.split_whitespace().nth(1))
            .unwrap();
        Held {
            descriptors: std::fs::read_dir(process.join("fd")).unwrap().count(),
            resident: kib.parse::<u64>().unwrap() * 1024,
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // It may have ended in order.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In the process that is to be the balancer it is one, to its end; elsewhere
/// there is nothing to do.
pub(crate) async fn serve_if_asked(adjust: impl FnOnce(&mut Config)) {
    let Ok(control) = std::env::var(CONTROL) else {
        return;
    };
    let mut config = Config::new(control);
    config.ingress = vec![std::env::var(INGRESS).unwrap().parse().unwrap()];
    adjust(&mut config);
    swarmlet_lb::run(config).await.unwrap();
}

/// Raises this process's limit of open files to what its test opens.
///
/// # Panics
///
/// Where that is not allowed: with fewer the test would show less than it says.
pub(crate) fn require_files(files: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= files) {
        return;
    }
    assert!(
        limit.maximum.is_none_or(|maximum| maximum >= files),
        "this test opens {files} files, and the hard limit of open files is {:?}: raise it \
         (ulimit -Hn {files}, or LimitNOFILE of the service that runs the tests)",
        limit.maximum
    );
    let raised = Rlimit {
        current: Some(files),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}
