//! A machine that boots: this machine's own system behind an overlay, with systemd as its first
//! process, in namespaces and a control group of its own. It has a host's network and engine.

use std::{env, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use swarmlet_integration_tests::{Host, Output, Pid, Signal, cleanup, wait_until};

/// A package is unpacked within seconds, and a daemon that is stopped finishes within 20.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// How long a boot may take; it has one unit of its own beside the journal.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// The variable of a machine that is known not to be able to run systemd.
const SKIP: &str = "SWARMLET_TEST_SKIP_SYSTEMD";

/// Makes the disk: what is installed on this machine, without its services. All of it is mounted
/// in the host's own mount namespace, so that it is still there after a reboot.
const MAKE: &str = r#"
    mount -t tmpfs tmpfs "$1"
    mkdir "$1/upper" "$1/work" "$1/root" "$1/group"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
    cd "$1/root"
    if [ -e usr/bin/swarmlet ] || [ -e usr/local/bin/swarmlet ] || [ -e etc/swarmlet ]; then
        echo "swarmlet is installed on the machine that runs this test" >&2
        exit 1
    fi
    rm -rf etc/systemd/system usr/lib/systemd/system/*.target.wants usr/sbin/policy-rc.d
    rm -rf var/lib/swarmlet etc/machine-id
    wants=usr/lib/systemd/system/sysinit.target.wants
    mkdir -p etc/systemd/system "$wants"
    ln -s ../systemd-journald.service "$wants/"
    ln -s /usr/lib/systemd/system/multi-user.target etc/systemd/system/default.target
    : >etc/fstab
    : >etc/machine-id
"#;

/// Mounts the hierarchy of control groups that systemd needs, where the kernel has it.
const GROUPS: &str = r#"mount -t cgroup2 cgroup2 "$1/group" && mkdir -p "$1/group/$2""#;

/// Switches on: enters a control group and namespaces, and becomes the first process there.
const SWITCH_ON: &str = r#"
    echo $$ >"$1/group/$2/cgroup.procs"
    exec unshare --mount --pid --fork --kill-child --cgroup --ipc --propagation private \
        sh -ec "$4" sh "$1/root" "$3"
"#;

/// What the first process does before it is systemd: a root of its own, with little in `/dev`.
const BOOT: &str = r#"
    mount --bind "$1" "$1"
    cd "$1"
    mount -t proc proc proc
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs tmpfs tmp
    mount -t tmpfs -o mode=755 tmpfs dev
    for device in null zero full random urandom tty; do
        touch "dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    touch run/docker.sock
    mount --bind "$2" run/docker.sock
    pivot_root . mnt
    umount -l /mnt
    exec env -i container=swarmlet-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /usr/lib/systemd/systemd --show-status=false
"#;

/// A machine on a host's network.
pub(crate) struct System<'a> {
    host: &'a Host,
    directory: String,
    group: String,
    /// The first process, as the outside knows it.
    init: Option<Pid>,
}

impl<'a> System<'a> {
    /// Puts a machine together; nothing where systemd cannot run here and [`SKIP`] says that this
    /// is known, with the reason on standard error.
    pub(crate) fn make(host: &'a Host, run: &str) -> Result<Option<Self>> {
        ensure!(
            Path::new("/usr/lib/systemd/systemd").exists(),
            "systemd is not installed; run integration-tests/install-prerequisites"
        );
        let directory = host.namespace().directory().join("system");
        fs::create_dir_all(&directory)?;
        let directory = directory.display().to_string();
        host.run("sh", &["-ec", MAKE, "sh", &directory])?
            .success()?;
        let group = format!("{}/system", cleanup::control_group(run));
        let groups = host.run("sh", &["-ec", GROUPS, "sh", &directory, &group])?;
        if groups.code != Some(0) {
            let reason = format!(
                "systemd needs a hierarchy of control groups of version 2, and this machine gives \
                 none: {}",
                groups.stderr.trim()
            );
            // A test that skips itself in silence shows nothing for as long as nobody reads.
            ensure!(
                env::var_os(SKIP).is_some(),
                "{reason}; {SKIP}=1 leaves this test out"
            );
            eprintln!("SKIPPED, as {SKIP} says: {reason}");
            return Ok(None);
        }
        Ok(Some(Self {
            host,
            directory,
            group,
            init: None,
        }))
    }

    /// Switches the machine on and waits until everything that starts with it has started.
    pub(crate) fn boot(&mut self) -> Result<()> {
        let socket = self.host.engine().socket().display().to_string();
        let arguments = [
            "-ec",
            SWITCH_ON,
            "sh",
            &self.directory,
            &self.group,
            &socket,
            BOOT,
        ];
        let switch = self.host.spawn("boot", "sh", &arguments)?;
        let children = format!("/proc/{0}/task/{0}/children", switch.as_raw_nonzero());
        let booted = wait_until(BOOT_LIMIT, "a machine that has booted", || {
            let child = fs::read_to_string(&children)?;
            self.init = Pid::from_raw(child.trim().parse()?);
            let state = self.run("systemctl is-system-running")?;
            ensure!(state.stdout.trim() == "running", "{state:?}");
            Ok(Some(()))
        });
        booted.with_context(|| {
            let log = fs::read_to_string(self.host.log("boot"));
            format!("its log: {}", log.unwrap_or_default())
        })
    }

    /// Pulls the machine's plug.
    pub(crate) fn pull_the_plug(&mut self) -> Result<()> {
        let init = self.init.take().context("the machine is not on")?;
        self.host.signal(init, Signal::KILL)?;
        wait_until(BOOT_LIMIT, "end of everything on the machine", || {
            let left = self.host.guests()?;
            Ok(left.is_empty().then_some(()))
        })
    }

    /// Types a line of shell on the machine.
    pub(crate) fn run(&self, line: &str) -> Result<Output> {
        let init = self.init.context("the machine is not on")?;
        let target = format!("--target={}", init.as_raw_nonzero());
        let words = [
            target.as_str(),
            "--mount",
            "--pid",
            "--ipc",
            "--cgroup",
            "env",
            "-i",
            "LC_ALL=C",
            "DEBIAN_FRONTEND=noninteractive",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "sh",
            "-ec",
            line,
        ];
        self.host.run_within(COMMAND_LIMIT, "nsenter", &words)
    }

    /// As [`run`](Self::run), for a line that must succeed; what it wrote, without the newline.
    pub(crate) fn done(&self, line: &str) -> Result<String> {
        Ok(self.run(line)?.success()?.trim_end().to_owned())
    }

    /// Copies a file onto the machine, on or off.
    pub(crate) fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let target = format!("{}/root{to}", self.directory);
        let from = from.display().to_string();
        self.host.run("cp", &[&from, &target])?.success().map(drop)
    }
}
