//! The leader is stopped for a while and wakes up in the belief that it leads.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use swarmlet_integration_tests::{
    Host, Signal,
    measured::{at_most, noted, within},
    wait_until,
};

use crate::{
    cluster::{Cluster, LATER, json_lines, text},
    history::{History, all_ready, replicas_agree},
    probe::{load, no_errors, nothing_restarted},
};

/// After which another manager leads and takes writes.
const NEW_LEADER: Duration = Duration::from_secs(3);

/// How long before the leader wakes up reads are put before it, so that they are the first
/// things that it finds.
const EARLIER: Duration = Duration::from_millis(400);

/// How long reads go on after it woke up.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// Clients that ask one after the other.
const CLIENTS: u64 = 2;

/// Reads at the same time.
const READERS: usize = 3;

/// Writes that are begun while nobody leads, and the pause between them.
const WRITERS: u32 = 4;
const BETWEEN: Duration = Duration::from_millis(400);

/// What reads through the woken manager were answered.
#[derive(Debug, Default)]
struct Reads {
    /// Complete, as of the moment at which they began.
    current: u64,
    /// Said to be possibly stale, or refused.
    warned: u64,
    /// Without a warning, and without something that was acknowledged before they began.
    stale: Vec<String>,
}

/// Reads once through a host, and judges the answer by what was acknowledged before.
fn read(host: &Host, history: &History, reads: &Mutex<Reads>) -> Result<()> {
    let acknowledged = history.acknowledged();
    let listed = host.swarmlet(&["service", "ls", "--format", "json"])?;
    let mut reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
    if listed.code != Some(0) || !listed.stderr.is_empty() {
        reads.warned += 1;
        return Ok(());
    }
    let there: BTreeSet<_> = json_lines(&listed.stdout)?
        .iter()
        .map(|service| text(service, "Name"))
        .collect();
    let missing: Vec<_> = acknowledged.difference(&there).cloned().collect();
    if missing.is_empty() {
        reads.current += 1;
    } else {
        reads.stale.push(format!("without {missing:?}"));
    }
    Ok(())
}

/// How long after `start` the first write was acknowledged. One that was passed on to the paused
/// leader fails only after seconds, so others are begun meanwhile.
fn first_write(host: &Host, start: Instant) -> Duration {
    let history = History::new("b");
    let acknowledged = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..WRITERS {
            let (history, acknowledged) = (&history, &acknowledged);
            scope.spawn(move || {
                thread::sleep(BETWEEN * number);
                let back = history.back(host, start).unwrap();
                let mut acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                acknowledged.push(back);
            });
        }
    });
    let acknowledged = acknowledged
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    acknowledged.into_iter().min().unwrap()
}

/// Stops the threads of a scope however it is left: one that panics waits for them.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Stops the leader for a while; writes go on elsewhere, and reads wait for it to wake up.
fn pause(cluster: &Cluster, history: &History, lasting: Duration) -> Reads {
    let leader = cluster.leader(&cluster.hosts[0]).unwrap();
    let [paused, one, other] = [0, 1, 2].map(|step| &cluster.hosts[(leader + step) % 3]);
    let daemon = paused.daemon().unwrap();
    let (reads, stop) = (Mutex::default(), AtomicBool::new(false));
    paused.signal(daemon, Signal::STOP).unwrap();
    let stopped = Instant::now();
    thread::scope(|scope| {
        let _stopping = Stopping(&stop);
        scope.spawn(|| history.go_on(&[one, other], &stop));
        if lasting > NEW_LEADER {
            let back = first_write(one, stopped);
            within("writes without the paused leader", back, NEW_LEADER);
        }
        thread::sleep(
            lasting
                .saturating_sub(EARLIER)
                .saturating_sub(stopped.elapsed()),
        );
        for _ in 0..READERS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    read(paused, history, &reads).unwrap();
                }
            });
        }
        thread::sleep(lasting.saturating_sub(stopped.elapsed()));
        paused.signal(daemon, Signal::CONT).unwrap();
        let woken = Instant::now();
        if lasting > NEW_LEADER {
            wait_until(LATER, "another leader, as the woken one says", || {
                ensure!(cluster.leader(paused)? != leader, "it still leads");
                Ok(Some(()))
            })
            .unwrap();
            within(
                "the woken leader follows another one",
                woken.elapsed(),
                NEW_LEADER,
            );
        }
        let label = format!("woken={}", lasting.as_millis());
        cluster.wait_for_write(paused, &label).unwrap();
        within(
            "a write through the woken manager",
            woken.elapsed(),
            NEW_LEADER,
        );
        thread::sleep(AFTERWARDS.saturating_sub(woken.elapsed()));
    });
    reads.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_leader_that_was_paused_steps_down_and_no_read_is_stale() {
    let cluster = Cluster::serving(3, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    let history = History::new("w");
    // In the longest its tasks are given up; those who were asking them may notice.
    for (seconds, in_flight) in [(0.5, 0), (5.0, 0), (30.0, CLIENTS)] {
        let running = load(&cluster, 80, CLIENTS as usize).unwrap();
        let term = replicas_agree(&cluster).unwrap();
        if seconds > 10.0 {
            // From here on its tasks are given up, and others take their place.
            nothing_restarted(&cluster, &before);
        }
        let reads = pause(&cluster, &history, Duration::from_secs_f64(seconds));
        eprintln!("paused for {seconds} s: {reads:?}");
        at_most("stale reads", reads.stale.len() as u64, 0);
        assert!(reads.current > 0, "nothing was read: {reads:?}");
        noted(
            &format!("paused for {seconds} s: reads, and those with a warning"),
            &format!("{}, {}", reads.current, reads.warned),
        );
        all_ready(&cluster).unwrap();
        let report = running.stop().unwrap();
        no_errors(&format!("paused for {seconds} s"), &report, in_flight);
        let now = replicas_agree(&cluster).unwrap();
        at_most("growth of the term", now - term, 2);
    }
    history.check(&cluster.hosts[0]).unwrap();
    cluster.all_answer(80).unwrap();
}
