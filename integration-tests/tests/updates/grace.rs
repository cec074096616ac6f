//! How long a task may take to end: its connections until the drain timeout, then the task itself
//! until the end of its grace period.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use swarmlet_integration_tests::{Output, measured::noted, wait_until};

use crate::cluster::{Cluster, LATER, SOON, at};

/// What Docker gives a container to end where nobody says otherwise.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// A service of one task, and the request that it is told to stop in.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    port: u16,
    /// Drain timeout, grace period, and what whoami gives its requests after SIGTERM.
    limits: [&'static str; 3],
    /// How long the answer takes.
    answer: Duration,
}

/// What became of the request, and how long after the command the container was gone.
struct Stopped {
    answer: Output,
    gone: Duration,
}

impl Case {
    fn run(self, cluster: &Cluster) -> Result<Stopped> {
        let [drain, grace, finish] = self.limits;
        let publish = format!("{}:80", self.port);
        let create = [
            ["--name", self.name, "--publish", &publish],
            ["--drain-timeout", drain, "--stop-grace-period", grace],
        ];
        cluster.create(&[&create.concat()[..], &["whoami", "--finish-within", finish]].concat())?;
        thread::scope(|scope| {
            let asked = scope.spawn(|| self.ask(cluster));
            self.wait_for_the_request(cluster)?;
            let begin = Instant::now();
            let scale = format!("{}=0", self.name);
            cluster.swarmlet(&["service", "scale", "--detach", &scale])?;
            self.wait_for_the_end(cluster)?;
            let gone = begin.elapsed();
            let answer = asked.join().map_err(|_| anyhow!("the client panicked"))??;
            Ok(Stopped { answer, gone })
        })
    }

    /// Sends the request to the second host, wherever the task is.
    fn ask(self, cluster: &Cluster) -> Result<Output> {
        let (to, ms) = (at(&cluster.hosts[1], self.port), self.answer.as_millis());
        let url = format!("http://{to}/slow?ms={ms}");
        cluster.hosts.client().run("curl", &["-sS", &url])
    }

    fn wait_for_the_request(self, cluster: &Cluster) -> Result<()> {
        let port = format!("sport = :{}", self.port);
        wait_until(SOON, "the request", || {
            let words = ["-Htn", "state", "established", &port];
            let open = cluster.hosts[1].run("ss", &words)?.success()?;
            Ok((!open.is_empty()).then_some(()))
        })
    }

    fn wait_for_the_end(self, cluster: &Cluster) -> Result<()> {
        let filter = format!("label=swarmlet.service.name={}", self.name);
        wait_until(LATER, &format!("the end of {}", self.name), || {
            for host in cluster.hosts.iter() {
                let words = ["ps", "--quiet", "--filter", &filter];
                let left = host.docker(&words)?.success()?;
                ensure!(left.is_empty(), "{left}");
            }
            Ok(Some(()))
        })
    }
}

#[test]
fn the_drain_timeout_and_the_grace_period_are_apart_and_of_any_length() {
    let cluster = Cluster::start(1).unwrap();
    let long_grace = Case {
        name: "grace",
        port: 80,
        limits: ["1s", "30s", "29s"],
        answer: Duration::from_secs(13),
    };
    let long_drain = Case {
        name: "drain",
        port: 81,
        limits: ["30s", "1s", "0s"],
        answer: Duration::from_secs(5),
    };
    let neither = Case {
        name: "neither",
        port: 82,
        limits: ["1s", "1s", "9s"],
        answer: Duration::from_secs(25),
    };
    let cluster = &cluster;
    let [grace, drain, cut] = thread::scope(|scope| {
        [long_grace, long_drain, neither]
            .map(|case| scope.spawn(move || case.run(cluster)))
            .map(|case| case.join().unwrap().unwrap())
    });
    for (what, stopped) in [("grace", &grace), ("drain", &drain), ("neither", &cut)] {
        noted(
            &format!("a task with a slow request is gone ({what})"),
            &format!("{:.1?}", stopped.gone),
        );
    }
    // Longer than the drain timeout and Docker's ten seconds together, and still answered.
    assert_eq!(grace.answer.code, Some(0), "{:?}", grace.answer);
    assert!(grace.gone > DEFAULT_GRACE, "{:?}", grace.gone);
    // Answered although it took five times the grace period, and no longer waited for than that.
    assert_eq!(drain.answer.code, Some(0), "{:?}", drain.answer);
    assert!(drain.gone < Duration::from_secs(25), "{:?}", drain.gone);
    // Where both are over the task ends, and its client is told so.
    assert_ne!(cut.answer.code, Some(0), "{:?}", cut.answer);
    assert!(cut.gone < neither.answer, "{:?}", cut.gone);
}
