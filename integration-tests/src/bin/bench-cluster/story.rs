//! What is measured, from the moment a command is typed or a fault happens:
//!
//! | measure | until |
//! |---|---|
//! | create | the service's one container runs |
//! | scale 1→10, 10→50 | as many run |
//! | attached scale 1→2 | the command, which waits until the service has converged, has ended |
//! | host lost | six containers run on the hosts that are left |
//! | leader killed | another manager has accepted a change |

use std::{
    collections::BTreeMap,
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use swarmlet_integration_tests::{Host, Hosts, wait_until};

use crate::system::{LIMIT, System, running};

/// Between two phases: nothing of the one before is under way any more.
const REST: Duration = Duration::from_secs(1);

/// Replicas while a host is lost.
const SPREAD: usize = 6;

/// One measured time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    Create,
    ScaleToTen,
    ScaleToFifty,
    AttachedScale,
    HostLost,
    LeaderKilled,
}

impl Measure {
    pub(crate) const ALL: [Self; 6] = [
        Self::Create,
        Self::ScaleToTen,
        Self::ScaleToFifty,
        Self::AttachedScale,
        Self::HostLost,
        Self::LeaderKilled,
    ];
}

impl fmt::Display for Measure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Create => "create",
            Self::ScaleToTen => "scale 1→10",
            Self::ScaleToFifty => "scale 10→50",
            Self::AttachedScale => "attached scale 1→2",
            Self::HostLost => "host lost",
            Self::LeaderKilled => "leader killed",
        })
    }
}

/// All measures of one system on fresh hosts, in seconds.
pub(crate) fn tell(hosts: &Hosts, system: System) -> Result<BTreeMap<Measure, f64>> {
    system.begin(hosts)?;
    let first = &hosts[0];
    let mut times = BTreeMap::new();
    let mut note = |measure: Measure, begun: Instant| {
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!("{}: {measure}: {seconds:.2} s", system.name());
        times.insert(measure, seconds);
    };
    thread::sleep(REST);

    let begun = Instant::now();
    system.create(first)?;
    reach(hosts, 1)?;
    note(Measure::Create, begun);
    for (measure, replicas) in [(Measure::ScaleToTen, 10), (Measure::ScaleToFifty, 50)] {
        thread::sleep(REST);
        let begun = Instant::now();
        system.scale(first, replicas)?.success()?;
        reach(hosts, replicas)?;
        note(measure, begun);
    }

    to_rest(hosts, system, 1)?;
    let begun = Instant::now();
    system.scale_attached(first, 2)?;
    note(Measure::AttachedScale, begun);
    ensure!(
        running(hosts)? == 2,
        "the command ended before both were running"
    );

    to_rest(hosts, system, SPREAD)?;
    let leader = system.leader(hosts)?;
    let lost = hosts
        .iter()
        .rev()
        .find(|host| host.name() != leader.name())
        .unwrap_or(first);
    let left: Vec<&Host> = hosts
        .iter()
        .filter(|host| host.name() != lost.name())
        .collect();
    let there = running(left.iter().copied())?;
    ensure!(there < SPREAD, "nothing runs on {}", lost.name());
    let begun = Instant::now();
    hosts.disconnect(lost)?;
    reach(left.iter().copied(), SPREAD)?;
    note(Measure::HostLost, begun);
    hosts.connect(lost)?;
    wait_until(LIMIT, "the lost host", || {
        Ok((system.ready(leader)? == hosts.iter().count()).then_some(()))
    })?;

    to_rest(hosts, system, SPREAD)?;
    let leader = system.leader(hosts)?;
    let other = hosts
        .iter()
        .find(|host| host.name() != leader.name())
        .unwrap_or(first);
    let begun = Instant::now();
    system.kill_manager(leader)?;
    wait_until(LIMIT, "another leader", || {
        // Whatever is wrong, it may be since there is no leader yet.
        system.scale(other, SPREAD + 1)?.success().map(Some)
    })?;
    note(Measure::LeaderKilled, begun);
    Ok(times)
}

/// Waits until exactly so many containers run.
fn reach<'a>(hosts: impl IntoIterator<Item = &'a Host> + Clone, count: usize) -> Result<()> {
    wait_until(LIMIT, &format!("{count} containers"), || {
        let now = running(hosts.clone())?;
        ensure!(now == count, "{now} run");
        Ok(Some(()))
    })
}

/// So many replicas, and a rest.
fn to_rest(hosts: &Hosts, system: System, replicas: usize) -> Result<()> {
    let scaled = |host: &Host| system.scale(host, replicas)?.success();
    wait_until(LIMIT, "a scale", || scaled(&hosts[0]).map(Some))?;
    reach(hosts, replicas)?;
    thread::sleep(REST);
    Ok(())
}
