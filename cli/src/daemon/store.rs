//! What the daemon keeps on disk for itself: what kind of node this is and how it was started,
//! the lock against a second daemon, and the files that tell process ids.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{denied, sealed};

/// Where everything is, below the data directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of a data directory.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The data directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The node's certificate and key.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.root.join("certificates")
    }

    /// What kind of node this is; its presence means that it belongs to a cluster.
    fn node(&self) -> PathBuf {
        self.root.join("node.json")
    }

    /// The agent's part.
    pub(crate) fn agent(&self) -> PathBuf {
        self.root.join("agent")
    }

    /// The daemon's process id.
    pub(crate) fn daemon_pid(&self) -> PathBuf {
        self.root.join("daemon.pid")
    }

    /// The process id of the parent that keeps a detached daemon running.
    pub(crate) fn supervisor_pid(&self) -> PathBuf {
        self.root.join("supervisor.pid")
    }

    /// What a detached daemon says.
    pub(crate) fn daemon_log(&self) -> PathBuf {
        self.root.join("daemon.log")
    }

    /// The balancer's control socket.
    pub(crate) fn lb_socket(&self) -> PathBuf {
        self.root.join("lb.sock")
    }

    /// The control sockets of balancers that have made room for a successor: the balancer adds
    /// a number to its own.
    pub(crate) fn lb_sockets_aside(&self) -> Vec<PathBuf> {
        swarmlet_lb::control::aside(&self.lb_socket())
    }

    /// The balancer's process id.
    pub(crate) fn lb_pid(&self) -> PathBuf {
        self.root.join("lb.pid")
    }

    /// What the balancer says.
    pub(crate) fn lb_log(&self) -> PathBuf {
        self.root.join("lb.log")
    }

    /// Makes the data directory, readable by its owner only whatever the umask.
    ///
    /// # Errors
    /// The system's, with the path.
    pub(crate) fn create(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(|error| {
                let what = format!("cannot make the data directory {}", self.root.display());
                denied::failed(error, &what)
            })
    }

    /// Takes the data directory for this process, until the file returned is dropped.
    ///
    /// # Errors
    /// Another daemon has it, or the system's.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.root.join("daemon.lock");
        let file = private(
            &path,
            OpenOptions::new().create(true).write(true).truncate(false),
        )
        .map_err(|error| denied::failed(error, &format!("cannot open {}", path.display())))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => bail!(
                "another daemon runs on the data directory {}: stop it first, or give this one \
                 a --data-dir of its own",
                self.root.display()
            ),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// Reads what kind of node this is; `None` where it belongs to no cluster.
    ///
    /// # Errors
    /// The file cannot be read or makes no sense.
    pub(crate) fn load(&self) -> Result<Option<NodeRecord>> {
        let path = self.node();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(denied::failed(
                    error,
                    &format!("cannot read {}", path.display()),
                ));
            }
        };
        let record = sealed::open(&bytes)
            .map_err(str::to_owned)
            .and_then(|text| serde_json::from_str(text).map_err(|error| error.to_string()))
            .map_err(|reason| self.damaged(&path, &reason))?;
        Ok(Some(record))
    }

    /// Keeps what kind of node this is. From here on it belongs to the cluster.
    ///
    /// # Errors
    /// The system's, with the path.
    pub(crate) fn save(&self, record: &NodeRecord) -> Result<()> {
        let contents = serde_json::to_string_pretty(record)?;
        write_durably(&self.node(), sealed::seal(&contents).as_bytes())
    }

    /// Nothing is tried with what is left of the node's record: its certificate, log and tasks
    /// stay where they are until somebody has decided.
    fn damaged(&self, path: &Path, reason: &str) -> anyhow::Error {
        anyhow::anyhow!(
            "{} is damaged: {reason}; nothing was changed: restore this file alone from a copy \
             of it, or move {} aside, join again and remove the node that this was (`swarmlet node rm --force`)",
            path.display(),
            self.root.display()
        )
    }

    /// Forgets the node: its record first, so that a crash in between leaves no half node.
    ///
    /// # Errors
    /// The system's, with the path.
    pub(crate) fn wipe(&self) -> Result<()> {
        remove(&self.node(), |path| fs::remove_file(path))?;
        for directory in ["certificates", "raft", "agent"] {
            remove(&self.root.join(directory), |path| fs::remove_dir_all(path))?;
        }
        remove(&self.root.join("manager"), |path| fs::remove_dir_all(path))?;
        let mut files = self.lb_sockets_aside();
        files.extend([self.lb_pid(), self.lb_log(), self.lb_socket()]);
        for file in files {
            remove(&file, |path| fs::remove_file(path))?;
        }
        Ok(())
    }

    /// Removes what the node knows as a voter.
    ///
    /// # Errors
    /// The system's, with the path.
    pub(crate) fn forget_votes(&self) -> Result<()> {
        remove(&self.root.join("raft"), |path| fs::remove_dir_all(path))
    }

    /// Removes what a daemon leaves behind that will not come back; the directory goes as well
    /// where nothing else is in it.
    pub(crate) fn forget_daemon(&self) {
        // Whatever stays is harmless: an empty lock, a log of the past.
        let _ = fs::remove_file(self.root.join("daemon.lock"));
        let _ = fs::remove_file(self.daemon_pid());
        let _ = fs::remove_file(self.supervisor_pid());
        let _ = fs::remove_file(self.daemon_log());
        let _ = fs::remove_dir(&self.root);
    }
}

/// Removes something that may be gone already.
fn remove(path: &Path, how: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    match how(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn private(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.mode(0o600).open(path)
}

/// Opens a log for what comes after what is in it.
///
/// # Errors
/// The system's, with the path.
pub(crate) fn open_log(path: &Path) -> Result<File> {
    private(path, OpenOptions::new().create(true).append(true))
        .map_err(|error| denied::failed(error, &format!("cannot open the log {}", path.display())))
}

/// Writes a small file that tells a process id; it is for people and scripts, and rewritten
/// with each start.
///
/// # Errors
/// The system's, with the path.
pub(crate) fn write_pid(path: &Path, pid: u32) -> Result<()> {
    let mut file = private(
        path,
        OpenOptions::new().create(true).write(true).truncate(true),
    )
    .with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(file, "{pid}").with_context(|| format!("cannot write {}", path.display()))
}

/// Replaces a file so that a crash leaves the old one or the new one, and never half of it.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let options = &mut OpenOptions::new();
        let mut file = private(&temporary, options.create(true).write(true).truncate(true))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// What kind of node this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    /// Where other nodes reach it.
    pub(crate) advertise: SocketAddr,
    /// Its number among the voters, where it is a manager.
    pub(crate) raft_id: Option<u64>,
    /// Whether it has been a voter under this number, so that its log must be there.
    pub(crate) votes: bool,
    /// The incarnation of the cluster that it has joined; zero in files of versions that did not
    /// know it.
    #[serde(default)]
    pub(crate) incarnation: u64,
    /// Managers to turn to first.
    pub(crate) managers: Vec<SocketAddr>,
    /// What runs its containers; decided once.
    pub(crate) runtime: StoredRuntime,
    /// How the daemon was started last.
    pub(crate) settings: StoredSettings,
}

/// What runs the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoredRuntime {
    /// A Docker engine.
    Docker,
    /// Plain processes.
    Process,
}

/// Settings that a daemon keeps unless it is told otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredSettings {
    pub(crate) hostname: String,
    pub(crate) listen: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) ingress: Vec<IpAddr>,
    pub(crate) docker_host: Option<String>,
    pub(crate) task_ports: (u16, u16),
    pub(crate) reserve_nano_cpus: u64,
    pub(crate) reserve_memory_bytes: u64,
    /// Absent in files of versions that did not know it.
    #[serde(default)]
    pub(crate) generic_resources: Vec<String>,
    pub(crate) raft_heartbeat_ms: u64,
    pub(crate) raft_election_ms: (u64, u64),
    /// Absent in files of versions that did not know it.
    #[serde(default)]
    pub(crate) balancer: swarmlet_lb::Settings,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn record() -> NodeRecord {
        NodeRecord {
            advertise: "10.0.0.1:2377".parse().unwrap(),
            raft_id: Some(1),
            votes: true,
            incarnation: 0,
            managers: Vec::new(),
            runtime: StoredRuntime::Process,
            settings: StoredSettings {
                hostname: "host1".to_owned(),
                listen: "0.0.0.0:2377".parse().unwrap(),
                http: "0.0.0.0:2378".parse().unwrap(),
                ingress: vec!["::".parse().unwrap()],
                docker_host: None,
                task_ports: (20000, 29999),
                reserve_nano_cpus: 0,
                reserve_memory_bytes: 0,
                generic_resources: Vec::new(),
                raft_heartbeat_ms: 150,
                raft_election_ms: (400, 800),
                balancer: swarmlet_lb::Settings::default(),
            },
        }
    }

    #[test]
    fn a_node_is_kept_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("a/b"));
        layout.create().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(layout.root()), 0o700);
        assert_eq!(layout.load().unwrap(), None);
        layout.save(&record()).unwrap();
        assert_eq!(mode(&layout.node()), 0o600);
        assert_eq!(layout.load().unwrap(), Some(record()));
        fs::create_dir(layout.agent()).unwrap();
        layout.wipe().unwrap();
        layout.wipe().unwrap();
        assert_eq!(layout.load().unwrap(), None);
        assert_eq!(fs::read_dir(layout.root()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        layout.save(&record()).unwrap();
        let written = fs::read_to_string(layout.node()).unwrap();
        let refused = |file: &str, reason: &str| {
            fs::write(layout.node(), file).unwrap();
            let error = layout.load().unwrap_err().to_string();
            let (path, root) = (layout.node(), layout.root().display().to_string());
            let expected = format!("{} is damaged: {reason}; nothing was", path.display());
            assert!(error.starts_with(&expected), "{error}");
            assert!(error.contains(&format!("move {root} aside")), "{error}");
            assert_eq!(fs::read_to_string(path).unwrap(), file, "it stays");
        };
        refused("", "it is empty");
        refused(
            &written[..written.len() / 2],
            "it is cut off, or not written by swarmlet",
        );
        let flipped = written.replace("10.0.0.1:2377", "10.0.0.3:2377");
        refused(&flipped, "its contents do not match their digest");
        refused(
            &sealed::seal("{}"),
            "missing field `advertise` at line 1 column 2",
        );
        fs::write(layout.node(), written).unwrap();
        assert_eq!(layout.load().unwrap(), Some(record()));
    }

    #[test]
    fn one_daemon_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        let lock = layout.lock().unwrap();
        let error = layout.lock().unwrap_err().to_string();
        assert!(
            error.starts_with("another daemon runs on the data directory"),
            "{error}"
        );
        drop(lock);
        layout.lock().unwrap();
    }
}
