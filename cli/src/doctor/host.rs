//! The machine: kernel settings, limits, disks, ports, time.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use swarmlet_core::diagnosis::{DiskSpace, is_full};
use swarmlet_core::model::DiskUser;

use super::{Case, Finding};

/// Descriptors that a busy node needs: two for each connection that it forwards.
const DESCRIPTORS: u64 = 65_536;

/// Where the engine keeps images and containers, unless its own settings say otherwise.
const ENGINE_STORAGE: &str = "/var/lib/docker";

/// Everything about the machine. A daemon that runs holds its own ports.
pub(super) fn look(case: &Case, daemon_runs: bool) -> Vec<Finding> {
    let proc = Proc(PathBuf::from("/proc"));
    let mut findings = vec![
        user(),
        proc.time_wait(daemon_runs),
        proc.outgoing_ports(case.settings.stored.task_ports),
        proc.descriptors(),
        own_limit(),
    ];
    findings.push(disk("state disk", DiskUser::State, case.layout.root()));
    if Path::new(ENGINE_STORAGE).is_dir() {
        let path = Path::new(ENGINE_STORAGE);
        findings.push(disk("engine disk", DiskUser::Engine, path));
    }
    findings.push(control_groups(Path::new("/sys/fs/cgroup")));
    findings.push(time_service(Path::new("/")));
    if !daemon_runs {
        let stored = &case.settings.stored;
        findings.push(port("cluster port", stored.listen, "--listen-addr"));
        findings.push(port("health page", stored.http, "--http-addr"));
    }
    findings
}

fn user() -> Finding {
    if rustix::process::geteuid().is_root() {
        return Finding::ok("user", "root");
    }
    Finding::warning(
        "user",
        "not root: what only root may read is left out",
        "run it with sudo",
    )
}

/// The kernel's files.
struct Proc(PathBuf);

impl Proc {
    fn read(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.0.join(name)).ok()?;
        Some(text.trim().to_owned())
    }

    fn time_wait(&self, daemon_runs: bool) -> Finding {
        const SUBJECT: &str = "tcp_tw_reuse";
        match self.read("sys/net/ipv4/tcp_tw_reuse").as_deref() {
            Some("1") => Finding::ok(SUBJECT, "1"),
            Some(value) if !daemon_runs => Finding::ok(
                SUBJECT,
                format!("{value}; the daemon sets it to 1 when it starts, where it may"),
            ),
            value => Finding::warning(
                SUBJECT,
                format!(
                    "{}: a node can make only about 470 connections a second to one endpoint",
                    value.unwrap_or("unknown")
                ),
                "sysctl -w net.ipv4.tcp_tw_reuse=1, and keep it in /etc/sysctl.d",
            ),
        }
    }

    /// Outgoing connections must not take ports that tasks are to have.
    fn outgoing_ports(&self, tasks: (u16, u16)) -> Finding {
        const SUBJECT: &str = "task ports";
        let (first, last) = tasks;
        let range = self.read("sys/net/ipv4/ip_local_port_range");
        let range = range.as_deref().and_then(|text| {
            let mut ends = text.split_whitespace().map(str::parse::<u16>);
            Some((ends.next()?.ok()?, ends.next()?.ok()?))
        });
        match range {
            Some((low, high)) if low <= last && first <= high => Finding::warning(
                SUBJECT,
                format!(
                    "{first}-{last} overlaps the ports of outgoing connections ({low}-{high}): \
                     some tasks will not get theirs"
                ),
                format!(
                    "sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\", or choose others \
                     with --task-ports below {low}"
                ),
            ),
            _ => Finding::ok(SUBJECT, format!("{first}-{last}")),
        }
    }

    /// The whole machine's open files.
    fn descriptors(&self) -> Finding {
        const SUBJECT: &str = "open files";
        let text = self.read("sys/fs/file-nr").unwrap_or_default();
        let numbers: Vec<u64> = text
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        match numbers.as_slice() {
            [open, _, most] if open.saturating_add(most / 20) >= *most => Finding::problem(
                SUBJECT,
                format!("{open} of {most} that this machine can have"),
                "find who holds them (lsof), or raise fs.file-max",
            ),
            [open, ..] => Finding::ok(SUBJECT, format!("{open} on this machine")),
            [] => Finding::warning(SUBJECT, "unknown", "is /proc mounted?"),
        }
    }
}

/// What a daemon that is started from this shell would have; a unit has a limit of its own.
fn own_limit() -> Finding {
    const SUBJECT: &str = "descriptor limit";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    limit_finding(SUBJECT, limit)
}

fn limit_finding(subject: &'static str, limit: Option<u64>) -> Finding {
    match limit {
        Some(limit) if limit < DESCRIPTORS => Finding::warning(
            subject,
            format!(
                "{limit}: a node forwards at most {} connections with it",
                limit / 2
            ),
            "ulimit -Hn 1048576 before a daemon is started by hand (the systemd unit has its own)",
        ),
        Some(limit) => Finding::ok(subject, limit.to_string()),
        None => Finding::ok(subject, "none"),
    }
}

fn disk(subject: &'static str, user: DiskUser, path: &Path) -> Finding {
    // Before a node is made its folder is not there; its disk is.
    let there = path.ancestors().find(|path| path.exists());
    let found = there.map(rustix::fs::statvfs);
    let Some(Ok(found)) = found else {
        let shown = path.display();
        return Finding::problem(
            subject,
            format!("cannot look at {shown}"),
            "run it as root, and see whether the disk is mounted",
        );
    };
    let space = DiskSpace {
        user,
        path: path.display().to_string(),
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
    };
    disk_finding(subject, &space)
}

fn disk_finding(subject: &'static str, space: &DiskSpace) -> Finding {
    let percent = space.free_bytes.saturating_mul(100) / space.total_bytes.max(1);
    let found = format!(
        "{}: {} MiB free ({percent} %)",
        space.path,
        space.free_bytes >> 20
    );
    let remedy = match space.user {
        DiskUser::State => {
            "make room: without it tasks cannot be kept, and managers refuse changes"
        }
        DiskUser::Engine => "make room: `docker system prune` removes what no container needs",
    };
    if is_full(space) {
        Finding::problem(subject, found, remedy)
    } else if percent < 10 {
        Finding::warning(subject, found, remedy)
    } else {
        Finding::ok(subject, found)
    }
}

/// Who enforces limits of tasks that are plain processes; an engine brings its own way.
fn control_groups(root: &Path) -> Finding {
    const SUBJECT: &str = "control groups";
    match fs::read_to_string(root.join("cgroup.controllers")) {
        Ok(text) => {
            let missing: Vec<&str> = ["cpu", "memory", "pids"]
                .into_iter()
                .filter(|wanted| !text.split_whitespace().any(|found| found == *wanted))
                .collect();
            if missing.is_empty() {
                return Finding::ok(SUBJECT, "version 2");
            }
            Finding::warning(
                SUBJECT,
                format!(
                    "version 2 without {}: limits on it do not hold",
                    missing.join(", ")
                ),
                "add them to the kernel's command line (cgroup_enable=)",
            )
        }
        Err(_) if root.join("memory").is_dir() => Finding::ok(SUBJECT, "version 1"),
        Err(_) => Finding::warning(
            SUBJECT,
            "none: limits of tasks do not hold",
            "mount them (mount -t cgroup2 none /sys/fs/cgroup)",
        ),
    }
}

/// Something has to keep the clock.
fn time_service(root: &Path) -> Finding {
    const SUBJECT: &str = "time service";
    let signs = [
        ("systemd-timesyncd", "run/systemd/timesync/synchronized"),
        ("chrony", "run/chrony/chronyd.pid"),
        ("chrony", "run/chronyd.pid"),
        ("chrony", "var/run/chrony/chronyd.pid"),
        ("ntpd", "run/ntpd.pid"),
        ("ntpsec", "run/ntpsec/ntpd.pid"),
    ];
    match signs.iter().find(|(_, file)| root.join(file).exists()) {
        Some((name, _)) => Finding::ok(SUBJECT, *name),
        None => Finding::warning(
            SUBJECT,
            "none was found: the clock may drift away from the other nodes'",
            "let one keep it (chrony, or `timedatectl set-ntp true`)",
        ),
    }
}

/// A port that the daemon is going to take.
fn port(subject: &'static str, address: SocketAddr, flag: &str) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(subject, format!("{address} is free")),
        Err(error) => Finding::problem(
            subject,
            format!("{address} cannot be taken: {error}"),
            format!("end who has it (ss -ltnp), or choose another with {flag}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn kernel_settings_are_judged() {
        let dir = tempfile::tempdir().unwrap();
        let proc = Proc(dir.path().to_owned());
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let levels = |daemon| {
            [
                proc.time_wait(daemon).level,
                proc.outgoing_ports((20_000, 29_999)).level,
                proc.descriptors().level,
            ]
        };
        use Level::{Ok, Problem, Warning};
        assert_eq!(levels(true), [Warning, Ok, Warning], "nothing is known");
        write("sys/net/ipv4/tcp_tw_reuse", "2\n");
        write("sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
        write("sys/fs/file-nr", "1000\t0\t100000\n");
        assert_eq!(levels(true), [Warning, Ok, Ok]);
        assert_eq!(levels(false), [Ok, Ok, Ok], "the daemon will set it");
        write("sys/net/ipv4/tcp_tw_reuse", "1\n");
        write("sys/net/ipv4/ip_local_port_range", "29999\t60999\n");
        write("sys/fs/file-nr", "95000\t0\t100000\n");
        assert_eq!(levels(true), [Ok, Warning, Problem]);
        let found = proc.outgoing_ports((20_000, 29_999)).found;
        assert!(
            found.contains("20000-29999") && found.contains("29999-60999"),
            "{found}"
        );
    }

    #[test]
    fn disks_limits_and_ports_are_judged() {
        let level = |free_bytes, total_bytes| {
            let space = DiskSpace {
                user: DiskUser::State,
                path: "/".to_owned(),
                free_bytes,
                total_bytes,
            };
            disk_finding("disk", &space).level
        };
        const GIB: u64 = 1 << 30;
        assert_eq!(level(50 * GIB, 100 * GIB), Level::Ok);
        assert_eq!(level(9 * GIB, 100 * GIB), Level::Warning);
        assert_eq!(level(GIB - 1, 100 * GIB), Level::Problem);

        assert_eq!(limit_finding("limit", Some(1024)).level, Level::Warning);
        assert_eq!(limit_finding("limit", Some(65_536)).level, Level::Ok);
        assert_eq!(limit_finding("limit", None).level, Level::Ok);

        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(port("port", address, "--x").level, Level::Problem);
        drop(taken);
        assert_eq!(port("port", address, "--x").level, Level::Ok);
    }

    #[test]
    fn control_groups_and_time_services_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(control_groups(dir.path()).level, Level::Warning);
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io\n").unwrap();
        let found = control_groups(dir.path());
        assert_eq!(found.level, Level::Warning);
        assert!(found.found.contains("memory, pids"), "{found:?}");
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        assert_eq!(control_groups(dir.path()).level, Level::Ok);

        assert_eq!(time_service(dir.path()).level, Level::Warning);
        fs::create_dir_all(dir.path().join("run/chrony")).unwrap();
        fs::write(dir.path().join("run/chrony/chronyd.pid"), "1").unwrap();
        assert_eq!(time_service(dir.path()).found, "chrony");
    }
}
