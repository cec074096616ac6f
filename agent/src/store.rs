//! What an agent keeps on disk, so that a node without any manager goes on as it was.
//!
//! Five small files, each replaced whole, each with the digest of its contents before them: a bit
//! that flipped could make another image or another port of what was kept. A file that is not as
//! it was written is set aside and the node starts without it: a manager sends everything again,
//! and until then containers are adopted and left alone.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use swarmlet_core::endpoints::Table;
use swarmlet_core::model::{PortMode, Protocol, Task, TaskId, TaskPort, Timestamp};
use swarmlet_proto::v1;
use tokio::sync::Mutex;

use crate::ports::{Resting, SavedPorts};

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub struct StoreError {
    path: PathBuf,
    source: io::Error,
}

/// The agent's folder.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    dir: Arc<Path>,
    ports: Arc<PortsWriter>,
}

/// Several tasks start at the same time and each wants its ports on disk first. Their writes
/// take turns, and one that comes after a later one has nothing left to write.
#[derive(Debug, Default)]
struct PortsWriter {
    /// Numbers of the writes, in the order in which they were asked for.
    asked: AtomicU64,
    /// Number of the latest write that is on disk.
    written: Mutex<u64>,
}

/// Everything that was kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) tasks: Vec<Task>,
    pub(crate) table: Option<Table>,
    pub(crate) managers: Vec<SocketAddr>,
    /// The greatest incarnation of the cluster that a manager has named.
    pub(crate) incarnation: u64,
    pub(crate) ports: SavedPorts,
}

const ASSIGNMENTS: &str = "assignments";
const TABLE: &str = "table";
const MANAGERS: &str = "managers";
const INCARNATION: &str = "incarnation";
const PORTS: &str = "ports";

impl Store {
    /// Opens the folder, making it where there is none.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be made.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        private_dir(dir).map_err(|source| StoreError {
            path: dir.to_owned(),
            source,
        })?;
        Ok(Self {
            dir: dir.into(),
            ports: Arc::default(),
        })
    }

    /// Reads what was kept.
    pub(crate) fn load(&self) -> Kept {
        Kept {
            tasks: self.read(ASSIGNMENTS, decode_tasks).unwrap_or_default(),
            table: self.read(TABLE, decode_table),
            managers: self.managers(),
            incarnation: self
                .read(INCARNATION, decode_incarnation)
                .unwrap_or_default(),
            ports: self.read(PORTS, decode_ports).unwrap_or_default(),
        }
    }

    /// The managers of the last session.
    pub(crate) fn managers(&self) -> Vec<SocketAddr> {
        self.read(MANAGERS, decode_managers).unwrap_or_default()
    }

    /// Keeps the node's tasks with the statuses that they have come to.
    pub(crate) async fn save_tasks(&self, tasks: Vec<Task>) -> Result<(), StoreError> {
        self.write(ASSIGNMENTS, move || {
            v1::Assignments {
                version: 0,
                complete: true,
                update: tasks.iter().map(v1::Task::from).collect(),
                remove: Vec::new(),
            }
            .encode_to_vec()
        })
        .await
    }

    /// Keeps the last table.
    pub(crate) async fn save_table(&self, table: Arc<Table>) -> Result<(), StoreError> {
        self.write(TABLE, move || {
            v1::EndpointTable::from(&*table).encode_to_vec()
        })
        .await
    }

    /// Keeps the managers' addresses.
    pub(crate) async fn save_managers(&self, managers: Vec<SocketAddr>) -> Result<(), StoreError> {
        self.write(MANAGERS, move || {
            let managers = managers
                .iter()
                .map(|address| v1::ManagerAddress {
                    node_id: String::new(),
                    address: address.to_string(),
                })
                .collect();
            v1::ManagerList { managers }.encode_to_vec()
        })
        .await
    }

    /// Keeps the greatest incarnation of the cluster that a manager has named.
    pub(crate) async fn save_incarnation(&self, incarnation: u64) -> Result<(), StoreError> {
        self.write(INCARNATION, move || incarnation.to_string().into_bytes())
            .await
    }

    /// Keeps which ports are given out. Of several writes under way at once the one asked for
    /// last stays, in whichever order they are polled.
    pub(crate) fn save_ports(
        &self,
        ports: SavedPorts,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let number = self.ports.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let store = self.clone();
        async move {
            let mut written = store.ports.written.lock().await;
            if *written < number {
                let encode = move || encode_ports(&ports).encode_to_vec();
                store.write(PORTS, encode).await?;
                *written = number;
            }
            Ok(())
        }
    }

    /// Removes everything, for a node that has left its cluster.
    pub(crate) fn wipe(&self) -> Result<(), StoreError> {
        match fs::remove_dir_all(&self.dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError {
                path: self.dir.to_path_buf(),
                source,
            }),
            _ => Ok(()),
        }
    }

    fn read<T>(&self, name: &str, decode: impl FnOnce(&[u8]) -> Result<T, String>) -> Option<T> {
        let path = self.dir.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a kept file cannot be read");
                return None;
            }
        };
        match contents(&bytes).and_then(decode) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(
                    path = %path.display(),
                    %error,
                    "a kept file is damaged and is set aside; a manager sends what was in it again"
                );
                if let Err(error) = fs::rename(&path, path.with_extension("damaged")) {
                    tracing::warn!(path = %path.display(), %error, "it could not be set aside");
                }
                None
            }
        }
    }

    async fn write(
        &self,
        name: &'static str,
        encode: impl FnOnce() -> Vec<u8> + Send + 'static,
    ) -> Result<(), StoreError> {
        let path = self.dir.join(name);
        let target = path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let contents = encode();
            let digest = digest(&SHA256, &contents);
            replace(&target, &[digest.as_ref(), &contents].concat())
        })
        .await;
        let result = match written {
            Ok(result) => result,
            Err(error) => Err(io::Error::other(error)),
        };
        result.map_err(|source| StoreError { path, source })
    }
}

/// What is in a file, once it is known to be what was written.
fn contents(bytes: &[u8]) -> Result<&[u8], String> {
    let cut = || format!("it is cut off after {} bytes", bytes.len());
    let (sum, contents) = bytes.split_at_checked(SHA256_OUTPUT_LEN).ok_or_else(cut)?;
    match digest(&SHA256, contents).as_ref() == sum {
        true => Ok(contents),
        false => Err("its contents do not match their digest".to_owned()),
    }
}

/// Makes a folder that only its owner may enter, whatever the umask.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// Replaces a file whole: after a crash it is the old or the new one, never a torn one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn decode_tasks(bytes: &[u8]) -> Result<Vec<Task>, String> {
    let assignments = v1::Assignments::decode(bytes).map_err(|error| error.to_string())?;
    assignments
        .update
        .into_iter()
        .map(|task| Task::try_from(task).map_err(|error| error.to_string()))
        .collect()
}

fn decode_table(bytes: &[u8]) -> Result<Table, String> {
    let table = v1::EndpointTable::decode(bytes).map_err(|error| error.to_string())?;
    Table::try_from(table).map_err(|error| error.to_string())
}

fn decode_managers(bytes: &[u8]) -> Result<Vec<SocketAddr>, String> {
    let list = v1::ManagerList::decode(bytes).map_err(|error| error.to_string())?;
    list.managers
        .iter()
        .map(|manager| manager.address.parse().map_err(|_| manager.address.clone()))
        .collect()
}

fn decode_incarnation(bytes: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    text.parse().map_err(|_| format!("no number: {text:?}"))
}

/// The one file that no message of the wire fits.
#[derive(Clone, PartialEq, Message)]
struct PortsFile {
    #[prost(message, repeated, tag = "1")]
    held: Vec<HeldPort>,
    #[prost(message, repeated, tag = "2")]
    resting: Vec<RestingPort>,
}

#[derive(Clone, PartialEq, Message)]
struct HeldPort {
    #[prost(string, tag = "1")]
    task: String,
    #[prost(uint32, tag = "2")]
    target: u32,
    #[prost(uint32, tag = "3")]
    host: u32,
    #[prost(bool, tag = "4")]
    udp: bool,
    #[prost(bool, tag = "5")]
    host_mode: bool,
}

#[derive(Clone, PartialEq, Message)]
struct RestingPort {
    #[prost(uint32, tag = "1")]
    port: u32,
    #[prost(string, tag = "2")]
    task: String,
    #[prost(uint64, tag = "3")]
    since_ms: u64,
    #[prost(bool, tag = "4")]
    acknowledged: bool,
}

fn encode_ports(ports: &SavedPorts) -> PortsFile {
    let held = ports.held.iter().flat_map(|(task, ports)| {
        ports.iter().map(|port| HeldPort {
            task: task.to_string(),
            target: port.target.into(),
            host: port.host.into(),
            udp: port.protocol == Protocol::Udp,
            host_mode: port.mode == PortMode::Host,
        })
    });
    let resting = ports.resting.iter().map(|(&port, resting)| RestingPort {
        port: port.into(),
        task: resting.task.to_string(),
        since_ms: resting.since.0,
        acknowledged: resting.acknowledged,
    });
    PortsFile {
        held: held.collect(),
        resting: resting.collect(),
    }
}

fn decode_ports(bytes: &[u8]) -> Result<SavedPorts, String> {
    let file = PortsFile::decode(bytes).map_err(|error| error.to_string())?;
    let task = |text: &str| TaskId::parse(text).map_err(|error| error.to_string());
    let port = |number: u32| u16::try_from(number).map_err(|_| format!("no port: {number}"));
    let mut ports = SavedPorts::default();
    for held in file.held {
        let port = TaskPort {
            target: port(held.target)?,
            host: port(held.host)?,
            protocol: if held.udp {
                Protocol::Udp
            } else {
                Protocol::Tcp
            },
            mode: if held.host_mode {
                PortMode::Host
            } else {
                PortMode::Ingress
            },
        };
        ports.held.entry(task(&held.task)?).or_default().push(port);
    }
    for resting in file.resting {
        let entry = Resting {
            task: task(&resting.task)?,
            since: Timestamp(resting.since_ms),
            acknowledged: resting.acknowledged,
        };
        ports.resting.insert(port(resting.port)?, entry);
    }
    Ok(ports)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
