//! A machine to install on: this machine's own system behind an overlay, so that dpkg, its
//! database and its scripts are real, and nothing of it stays.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use swarmlet_integration_tests::{Host, Output, Pid, swarmlet_binary, wait_until};

/// Unpacking a package of this size, and a daemon that ends, take seconds.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// How long a daemon may take to be there.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Makes the machine's root from a directory of the host, the engine's socket, and the
/// stand-in for systemctl. Everything is mounted in the host's own mount namespace.
const MAKE: &str = r#"
    mount -t tmpfs tmpfs "$1"
    mkdir "$1/upper" "$1/work" "$1/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
    cd "$1/root"
    if [ -e usr/bin/swarmlet ] || [ -e usr/local/bin/swarmlet ] || [ -e etc/swarmlet ]; then
        echo "swarmlet is installed on the machine that runs this test" >&2
        exit 1
    fi
    mount -t proc proc proc
    mount --rbind /dev dev
    mount -t tmpfs tmpfs run
    mount -t tmpfs tmpfs tmp
    touch run/docker.sock
    mount --bind "$2" run/docker.sock
    rm -f usr/sbin/policy-rc.d usr/bin/systemctl
    rm -rf var/lib/swarmlet
    cp "$3" usr/bin/systemctl
    chmod 755 usr/bin/systemctl
"#;

/// A chroot on a host, whose engine it uses.
pub(crate) struct Machine<'a> {
    host: &'a Host,
    root: String,
}

impl<'a> Machine<'a> {
    pub(crate) fn make(host: &'a Host) -> Result<Self> {
        let directory = host.namespace().directory().join("machine");
        fs::create_dir_all(&directory)?;
        let systemctl = host.namespace().directory().join("systemctl");
        fs::write(&systemctl, include_str!("systemctl"))?;
        let socket = host.engine().socket();
        let arguments = [&directory, &socket, &systemctl].map(|path| path.display().to_string());
        let [directory, socket, systemctl] = &arguments;
        host.run("sh", &["-ec", MAKE, "sh", directory, socket, systemctl])?
            .success()?;
        Ok(Self {
            host,
            root: format!("{directory}/root"),
        })
    }

    /// Types a line of shell on the machine.
    pub(crate) fn run(&self, line: &str) -> Result<Output> {
        // The host's own settings are for a swarmlet that lives outside of the machine.
        let environment = [
            "env",
            "-u",
            "SWARMLET_SOCKET",
            "-u",
            "SWARMLET_DATA_DIR",
            "-u",
            "DOCKER_HOST",
            "-u",
            "DOCKER_CONFIG",
            "LC_ALL=C",
            "DEBIAN_FRONTEND=noninteractive",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ];
        let mut arguments = vec![self.root.as_str()];
        arguments.extend(environment);
        arguments.extend(["sh", "-ec", line]);
        self.host.run_within(COMMAND_LIMIT, "chroot", &arguments)
    }

    /// As [`run`](Self::run), for a line that must succeed; what it wrote, without the newline.
    pub(crate) fn done(&self, line: &str) -> Result<String> {
        Ok(self.run(line)?.success()?.trim_end().to_owned())
    }

    /// Copies a file onto the machine.
    pub(crate) fn copy(&self, from: &Path, to: &str) -> Result<()> {
        // The path is the same in the host's mount namespace, and hidden in the chroot.
        let target = format!("{}{to}", self.root);
        let from = from.display().to_string();
        self.host.run("cp", &[&from, &target])?.success()?;
        Ok(())
    }

    /// Makes a shell script think that systemd runs, or does not.
    pub(crate) fn with_systemd(&self, runs: bool) -> Result<()> {
        let line = if runs {
            "mkdir -p /run/systemd/system"
        } else {
            "rm -rf /run/systemd"
        };
        self.done(line).map(drop)
    }

    /// The process whose id is in a file, if it runs.
    pub(crate) fn process(&self, file: &str) -> Result<Pid> {
        // One that has ended may wait for its parent to look.
        let line =
            format!("pid=$(cat {file}); grep -q '^State:.[^Z]' /proc/$pid/status; echo $pid");
        let text = self.done(&line)?;
        Pid::from_raw(text.parse()?).context("no process id")
    }

    pub(crate) fn daemon(&self) -> Result<Pid> {
        self.process("/var/lib/swarmlet/daemon.pid")
    }

    pub(crate) fn balancer(&self) -> Result<Pid> {
        self.process("/var/lib/swarmlet/lb.pid")
    }

    /// Makes sure that neither a daemon, a balancer nor a task is there.
    pub(crate) fn nothing_runs(&self) -> Result<()> {
        let processes: Vec<_> = self
            .host
            .guests()?
            .into_iter()
            .filter(|process| process.name == "swarmlet")
            .map(|process| process.pid)
            .collect();
        ensure!(processes.is_empty(), "there are processes: {processes:?}");
        let containers = self.containers()?;
        ensure!(
            containers.is_empty(),
            "there are containers: {containers:?}"
        );
        Ok(())
    }

    /// Waits until the daemon answers.
    pub(crate) fn daemon_answers(&self) -> Result<()> {
        wait_until(SOON, "answer of the daemon", || {
            self.done("swarmlet info").map(Some)
        })
        .map(drop)
        .with_context(|| {
            let log = self.done("tail -n 20 /var/log/swarmlet.log");
            format!("its log: {}", log.unwrap_or_default())
        })
    }

    /// Containers of the engine, with their start times.
    pub(crate) fn containers(&self) -> Result<Vec<String>> {
        let ids = self.host.docker(&["ps", "-aq", "--no-trunc"])?.success()?;
        let mut found = Vec::new();
        for id in ids.lines() {
            let format = "{{.Id}} {{.State.Running}} {{.State.StartedAt}}";
            let line = self.host.docker(&["inspect", "--format", format, id])?;
            found.push(line.success()?.trim().to_owned());
        }
        found.sort();
        Ok(found)
    }

    /// What of swarmlet is in the places where an installation puts things.
    pub(crate) fn remains(&self) -> Result<Vec<String>> {
        let line = "find /etc /usr/bin /usr/local/bin /usr/lib/systemd /usr/share/doc \
             /usr/share/lintian /var/lib/swarmlet /var/lib/systemd /run \
             -name '*swarmlet*' 2>/dev/null || true";
        Ok(self.done(line)?.lines().map(str::to_owned).collect())
    }
}

/// Makes the package with the binary under test, as `make deb` does with an optimised one.
pub(crate) fn build(version: &str, directory: &Path) -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/Cargo.toml");
    // cargo-deb packs optimised builds only: the binary is laid where one would be.
    let target = directory.join(format!("target-{version}"));
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let release = target.join(&triple).join("release");
    fs::create_dir_all(&release)?;
    symlink(swarmlet_binary()?, release.join("swarmlet"))?;
    let package = directory.join(format!("swarmlet-{version}.deb"));
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["deb", "--no-build", "--no-dbgsym", "--fast"])
        .args(["--deb-version", version, "--target", &triple])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--output")
        .arg(&package)
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "`cargo deb` failed (where it is missing: cargo install cargo-deb --locked): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(package)
}
