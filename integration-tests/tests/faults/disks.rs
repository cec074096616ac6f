//! Disks of managers are full, or fail.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use swarmlet_integration_tests::{
    Host, Pid, Signal,
    measured::{at_most, noted, within},
    wait_until,
};

use crate::{
    cluster::{Cluster, LATER, SOON},
    history::{History, all_ready, replicas_agree},
    probe::{load, load_at, no_errors, nothing_restarted},
};

/// After which another manager leads and takes writes.
const NEW_LEADER: Duration = Duration::from_secs(3);

/// A node that is well again has everything after this long.
const RECOVERED: Duration = Duration::from_secs(30);

/// How long a disk stays full: long enough for elections, snapshots and reports to fail on it.
const FULL: Duration = Duration::from_secs(4);

/// Clients that ask one after the other.
const CLIENTS: usize = 2;

/// A file system under a host's state, taken away again whatever happens.
struct Disk<'a> {
    host: &'a Host,
    data: PathBuf,
}

impl<'a> Disk<'a> {
    /// A small one in memory.
    fn small(host: &'a Host) -> Result<Self> {
        let disk = Self::new(host);
        disk.mount(&["-t", "tmpfs", "-o", "size=200m,mode=0700", "none"])?;
        Ok(disk)
    }

    /// One with a journal, on a loop device.
    fn journaled(host: &'a Host) -> Result<Self> {
        let disk = Self::new(host);
        let image = disk.image();
        let image = image.to_string_lossy();
        host.run("truncate", &["--size", "256M", &image])?
            .success()?;
        host.run("mkfs.ext4", &["-q", "-F", &image])?.success()?;
        disk.mount(&["-o", "loop", &image])
            .context("no file system can be mounted from a file: are there loop devices?")?;
        Ok(disk)
    }

    fn new(host: &'a Host) -> Self {
        let data = host.data_directory();
        Self { host, data }
    }

    fn image(&self) -> PathBuf {
        self.data.with_extension("image")
    }

    fn mount(&self, words: &[&str]) -> Result<()> {
        let data = self.data.to_string_lossy();
        let mounted = self.host.run("mount", &[words, &[&data]].concat())?;
        mounted.success().map(drop)
    }

    fn unmount(&self, words: &[&str]) -> Result<()> {
        let data = self.data.to_string_lossy();
        let unmounted = self.host.run("umount", &[words, &[&data]].concat())?;
        unmounted.success().map(drop)
    }

    fn ballast(&self) -> PathBuf {
        self.data.join("ballast")
    }

    /// Leaves so many MiB, at once, as another program may.
    fn fill(&self, left_mib: u64) -> Result<()> {
        let free = self.free_mib()?;
        let taken = free.saturating_sub(left_mib);
        ensure!(taken > 0, "{free} MiB are free");
        let size = format!("{taken}M");
        let ballast = self.ballast();
        let ballast = ballast.to_string_lossy();
        self.host
            .run("fallocate", &["--length", &size, &ballast])?
            .success()?;
        Ok(())
    }

    /// Leaves nothing at all.
    fn fill_up(&self) -> Result<()> {
        let last = self.data.join("last");
        let last = last.to_string_lossy();
        self.fill(0)?;
        // Fails at the end, which is what is wanted.
        self.host
            .run("dd", &["if=/dev/zero", "bs=4k", &format!("of={last}")])?;
        let free = self.free_mib()?;
        ensure!(free == 0, "{free} MiB are free still");
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        for name in ["ballast", "last"] {
            let path = self.data.join(name);
            self.host
                .run("rm", &["--force", &path.to_string_lossy()])?
                .success()?;
        }
        Ok(())
    }

    fn free_mib(&self) -> Result<u64> {
        let data = self.data.to_string_lossy();
        let words = ["--file-system", "--format", "%a %S", &*data];
        let told = self.host.run("stat", &words)?.success()?;
        let (blocks, size) = told.trim().split_once(' ').context("no two numbers")?;
        Ok((blocks.parse::<u64>()? * size.parse::<u64>()?) >> 20)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // The reset that follows fails where this did, and says why.
        let _ = self.unmount(&["--lazy"]);
        let _ = fs::remove_file(self.image());
    }
}

/// Makes three managers, each on a disk, with a service of six tasks on port 80; the disks, in the
/// order of the hosts.
fn serving<'a>(cluster: &'a Cluster, disk: fn(&'a Host) -> Result<Disk<'a>>) -> Vec<Disk<'a>> {
    let disks = cluster.hosts.iter().map(disk);
    let disks = disks.collect::<Result<_>>().unwrap();
    cluster.make_swarm(3).unwrap();
    cluster.serve(6).unwrap();
    cluster.all_answer(80).unwrap();
    disks
}

/// The process that a file on a host's disk names: only the host sees what is on it.
fn process(host: &Host, file: &str) -> Result<Pid> {
    let path = host.data_directory().join(file);
    let text = host.run("cat", &[&path.to_string_lossy()])?.success()?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    pid.with_context(|| format!("no process id: {text:?}"))
}

/// The daemons, in the order of the hosts.
fn daemons(cluster: &Cluster) -> Vec<Pid> {
    let daemons = cluster.hosts.iter();
    let daemons = daemons.map(|host| process(host, "daemon.pid"));
    daemons.collect::<Result<_>>().unwrap()
}

/// Whether a process of the host runs still.
fn runs(host: &Host, pid: Pid) -> Result<bool> {
    Ok(host.guests()?.iter().any(|guest| guest.pid == pid))
}

/// Starts a daemon whose log is not on its disk, in place of the one that runs.
fn replace_daemon(cluster: &Cluster, host: &Host) -> Pid {
    for file in ["supervisor.pid", "daemon.pid"] {
        let pid = process(host, file).unwrap();
        host.signal(pid, Signal::KILL).unwrap();
        wait_until(SOON, "end of the first daemon", || {
            Ok((!runs(host, pid)?).then_some(()))
        })
        .unwrap();
    }
    cluster.start_daemon(host).unwrap()
}

#[test]
fn a_full_disk_stops_writes_and_nothing_else_and_ends_without_a_restart() {
    let cluster = Cluster::without_swarm().unwrap();
    let disks = serving(&cluster, Disk::small);
    let (before, running_before) = (cluster.started().unwrap(), daemons(&cluster));
    let term = replicas_agree(&cluster).unwrap();
    let running = load(&cluster, 80, CLIENTS).unwrap();
    let history = History::new("w");
    let leader = cluster.leader(&cluster.hosts[0]).unwrap();
    let [leads, follower, other] = [0, 1, 2].map(|step| &cluster.hosts[(leader + step) % 3]);
    let [own, followers, _] = [0, 1, 2].map(|step| &disks[(leader + step) % 3]);

    own.fill(40).unwrap();
    for host in [leads, follower] {
        let refused = history.write(host).unwrap();
        assert_ne!(refused.code, Some(0), "{refused:?}");
        for words in ["writes are refused below 64 MiB", "free some space"] {
            assert!(refused.stderr.contains(words), "{refused:?}");
        }
    }
    let left = own.free_mib().unwrap();
    noted(
        "free on a disk on which writes have stopped",
        &format!("{left} MiB"),
    );
    assert!(left > 0, "writes went on until the disk was full");
    own.fill_up().unwrap();
    thread::sleep(FULL);
    own.make_room().unwrap();
    let back = history.back(other, Instant::now()).unwrap();
    within("writes again once there is room", back, NEW_LEADER);

    // A follower: the others go on without it.
    followers.fill_up().unwrap();
    let full = Instant::now();
    let mut written = 0;
    while full.elapsed() < FULL {
        let output = history.write([leads, other][written % 2]).unwrap();
        output.success().unwrap();
        written += 1;
    }
    noted(
        "writes while the disk of a follower is full",
        &written.to_string(),
    );
    followers.make_room().unwrap();
    let room = Instant::now();
    let now = replicas_agree(&cluster).unwrap();
    within(
        "the follower has them once there is room",
        room.elapsed(),
        RECOVERED,
    );
    at_most("growth of the term", now - term, 2);

    all_ready(&cluster).unwrap();
    history.check(follower).unwrap();
    no_errors("full disks", &running.stop().unwrap(), 0);
    nothing_restarted(&cluster, &before);
    let ended = daemons(&cluster);
    let ended = ended
        .iter()
        .zip(&running_before)
        .filter(|(now, then)| now != then);
    at_most("daemons that ended", ended.count() as u64, 0);
}

#[test]
fn a_manager_whose_disk_fails_ends_and_comes_back_with_all_that_was_durable() {
    let cluster = Cluster::without_swarm().unwrap();
    let disks = serving(&cluster, Disk::journaled);
    // Their logs would be on the disk that fails.
    let hosts = cluster.hosts.iter();
    let daemons = hosts.map(|host| {
        let daemon = replace_daemon(&cluster, host);
        all_ready(&cluster).unwrap();
        daemon
    });
    let daemons: Vec<_> = daemons.collect();
    let leader = cluster.leader(&cluster.hosts[0]).unwrap();
    let [failing, one, other] = [0, 1, 2].map(|step| &cluster.hosts[(leader + step) % 3]);
    let daemon = daemons[leader];
    let history = History::new("w");
    for host in [failing, one, other] {
        history.back(host, Instant::now()).unwrap();
    }
    let running = load(&cluster, 80, CLIENTS).unwrap();
    let disk = &disks[leader];

    // What the kernel does itself when a journal cannot be written.
    disk.mount(&["-o", "remount,abort"]).unwrap();
    let failed = Instant::now();
    let back = history.back(one, failed).unwrap();
    within("writes through the others", back, NEW_LEADER);
    wait_until(SOON, "end of the daemon whose disk failed", || {
        Ok((!runs(failing, daemon)?).then_some(()))
    })
    .unwrap();
    let ended = format!("{:.3?}", failed.elapsed());
    noted("the leader's daemon has ended", &ended);
    let said = fs::read_to_string(failing.log("daemon")).unwrap();
    for words in ["Raft has stopped on this manager", "Read-only file system"] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    thread::sleep(Duration::from_secs(1));
    no_errors("a disk that failed", &running.stop().unwrap(), 0);

    // The power goes, and what the journal has is what there is.
    let rest = cluster.targets(80);
    let rest = [1, 2].map(|step| rest[(leader + step) % 3]).to_vec();
    failing.pull_the_plug().unwrap();
    disk.unmount(&[]).unwrap();
    let image = disk.image();
    disk.mount(&["-o", "loop", &image.to_string_lossy()])
        .unwrap();
    failing.restart_engine().unwrap();
    history.back(other, Instant::now()).unwrap();
    cluster.start_daemon(failing).unwrap();
    let started = Instant::now();
    wait_until(LATER, "a manager that answers", || {
        failing.swarmlet(&["info"])?.success().map(Some)
    })
    .unwrap();
    replicas_agree(&cluster).unwrap();
    within("it has all that was written", started.elapsed(), RECOVERED);
    history.check(failing).unwrap();
    all_ready(&cluster).unwrap();
    let running = load_at(&cluster, rest, 1).unwrap();
    no_errors("afterwards", &running.stop().unwrap(), 0);
}
