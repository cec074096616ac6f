//! The clients that no update may lose: some open a connection for each request, and some keep
//! theirs for as long as the server does.

use std::time::Duration;

use anyhow::Result;
use swarmlet_integration_tests::{
    Load, LoadReport, RunningLoad,
    measured::{at_least, at_most, noted},
    wait_until,
};

use crate::cluster::{Cluster, SOON};

/// New connections a second that a promise is kept under, through all hosts together.
pub(crate) const RATE: u32 = 500;

/// Connections that are tried a second. What is above the promised rate is room for the moments
/// before the first and after the last request, in which the report's clock runs as well.
const TRIED: u32 = 600;

/// Requests on new connections that may be under way at once: a second of a machine that starts
/// containers and answers nobody is made up for.
const AT_ONCE: usize = 64;

/// Kept connections: enough for some on each of ten containers through each of three hosts.
pub(crate) const KEPT: usize = 30;

/// Clients of both kinds, while a cluster changes.
pub(crate) struct Traffic {
    new: RunningLoad,
    kept: RunningLoad,
}

impl Traffic {
    /// Puts the load on a published port of all hosts, and returns once it is on.
    pub(crate) fn start(cluster: &Cluster, port: u16) -> Result<Self> {
        let targets = cluster.targets(port);
        let load = Load {
            requests: None,
            ..Load::new(targets[0], 0)
        };
        let new = Load {
            targets: targets.clone(),
            concurrency: AT_ONCE,
            rate: Some(TRIED),
            ..load.clone()
        };
        let kept = Load {
            targets,
            concurrency: KEPT,
            pause: Duration::from_millis(300),
            kept: true,
            ..load
        };
        let client = cluster.hosts.client();
        let traffic = Self {
            new: new.start(client)?,
            kept: kept.start(client)?,
        };
        wait_until(SOON, "clients of both kinds", || {
            let on = traffic.new.begun() > u64::from(RATE) && traffic.kept.begun() > 100;
            Ok(on.then_some(()))
        })?;
        Ok(traffic)
    }

    /// Ends the load, in which containers have ended; how many new connections there were a second.
    /// Panics where one was lost.
    #[track_caller]
    pub(crate) fn lost_nothing(self, what: &str) -> u64 {
        let (new, kept) = self.end(what);
        // Containers that end close what clients have kept: without that nothing was shown.
        let opened = format!("{what}: kept connections that were opened");
        at_least(&opened, kept.connections, KEPT as u64 + 1);
        new.rate() as u64
    }

    /// Ends the load, in which no container has ended: as [`lost_nothing`](Self::lost_nothing),
    /// and each client still has its first connection.
    #[track_caller]
    pub(crate) fn untouched(self, what: &str) {
        let (_, kept) = self.end(what);
        assert_eq!(kept.connections, KEPT as u64, "{what}: {}", kept.to_json());
    }

    #[track_caller]
    fn end(self, what: &str) -> (LoadReport, LoadReport) {
        let new = self.new.stop().unwrap();
        let kept = self.kept.stop().unwrap();
        for report in [&new, &kept] {
            if report.failed() > 0 {
                eprintln!("{what}: {}", report.to_json());
            }
        }
        noted(
            &format!("{what}: clients"),
            &format!(
                "{} new connections, {:.0} a second, answered within {:.0?}; \
                 {} requests on kept ones, of which {} were opened",
                new.connections,
                new.rate(),
                new.latency(1.0).unwrap_or_default(),
                kept.answered(),
                kept.connections
            ),
        );
        let lost = |kind: &str| format!("{what}: requests lost on {kind} connections");
        at_most(&lost("new"), new.failed(), 0);
        at_most(&lost("kept"), kept.failed(), 0);
        (new, kept)
    }
}
