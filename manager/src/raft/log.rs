//! The durable log: entries, vote and purge marker in one redb file.
//!
//! Every change is one transaction, on the disk before the library is told so, and rewrites
//! the `head` record along with the entries: what the log should look like and what it does
//! can never part. [`LogStore::open`] reads all of it once; a log that is not exactly what was
//! acknowledged does not start (see [`super::witness`] for the part that redb cannot tell).

use std::fmt::Debug;
use std::fs;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition,
};
use serde::{Deserialize, Serialize};

use super::durable;
use super::error::RaftError;
use super::seal::{Kind, Sealer};
use super::types::{Entry, LogId, StorageError, TypeConfig, Vote};
use super::witness::{Testimony, Witness};

/// Index → sealed entry.
const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
/// One record, the sealed [`Head`].
const HEAD: TableDefinition<'_, (), &[u8]> = TableDefinition::new("head");
/// Entries are written once and read once or twice soon after; redb's own 1 GiB is for others.
const CACHE_BYTES: usize = 16 << 20;
/// What one replication message may carry. Far below the 16 MiB that the receiver takes, and
/// enough for eight of the largest batches.
const READ_LIMIT_BYTES: usize = 4 << 20;
/// How long to wait for a predecessor to let go of the file.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Everything about the log but its entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// Number of this transaction.
    sequence: u64,
    /// The vote last given.
    vote: Option<Vote>,
    /// The last entry that was removed because a snapshot has it.
    purged: Option<LogId>,
    /// The last entry; `purged` where there is none.
    last: Option<LogId>,
}

/// A change of the entries, to go with a new head.
enum Change {
    Nothing,
    Append(Vec<Entry>),
    /// Removes this index and all after it.
    Truncate(u64),
    /// Removes this index and all before it.
    Purge(u64),
}

/// The log, for its only writer.
#[derive(Debug)]
pub(crate) struct LogStore {
    reader: LogReader,
    head: Head,
    witness: Witness,
    /// By which tests slow its disk down.
    #[cfg(test)]
    dir: PathBuf,
}

/// The log, for replication.
#[derive(Debug, Clone)]
pub(crate) struct LogReader {
    database: Arc<Database>,
    sealer: Arc<Sealer>,
}

/// Why the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
enum LogError {
    #[error("the store under the log failed: {0}")]
    Store(#[from] redb::Error),
    #[error("record {0}: {1}")]
    Seal(u64, super::seal::SealError),
    #[error("record {0} cannot be decoded: {1}")]
    Decode(u64, rmp_serde::decode::Error),
    #[error("record {0} cannot be encoded: {1}")]
    Encode(u64, rmp_serde::encode::Error),
    #[error("entry {found} is where entry {expected} should be")]
    Order { expected: u64, found: u64 },
    #[error("the log has no head record")]
    NoHead,
    #[error("the log ends at {found:?} instead of {expected:?}")]
    End {
        expected: Option<LogId>,
        found: Option<LogId>,
    },
    #[error("the log is at change {found}, but change {expected} had been acknowledged")]
    Behind { expected: u64, found: u64 },
    #[error("the witness cannot be written: {0}")]
    Witness(std::io::Error),
    #[error("the writer was stopped: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl LogStore {
    /// Where the log of a directory is.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("log")
    }

    /// Makes an empty log.
    pub(crate) fn create(dir: &Path, sealer: &Sealer) -> Result<(), RaftError> {
        let path = Self::path(dir);
        // Made under another name: a log that is half made must not look like a damaged one.
        let new = durable::new_name(&path);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(RaftError::file("remove", &new, &error));
            }
            _ => {}
        }
        let made = Database::create(&new)
            .map_err(redb::Error::from)
            .map_err(LogError::from)
            .and_then(|database| commit(&database, sealer, &Head::default(), Change::Nothing));
        made.map_err(|error| RaftError::damaged(&new, error))?;
        restrict(&new)
            .and_then(|()| fs::File::open(&new)?.sync_all())
            .and_then(|()| durable::publish(&new, &path))
            .map_err(|error| RaftError::file("make", &path, &error))
    }

    /// Opens the log of manager `raft_id` and reads all of it once. This blocks.
    ///
    /// # Errors
    ///
    /// [`RaftError::Damaged`] where it is not what was acknowledged, [`RaftError::Locked`]
    /// where another process has it open.
    pub(crate) fn open(dir: &Path, sealer: &Arc<Sealer>, raft_id: u64) -> Result<Self, RaftError> {
        Self::read(open_database(&Self::path(dir))?, dir, sealer, raft_id)
    }

    /// Reads all of the log of `dir` once, on whatever it is stored.
    fn read(
        database: Database,
        dir: &Path,
        sealer: &Arc<Sealer>,
        raft_id: u64,
    ) -> Result<Self, RaftError> {
        let path = Self::path(dir);
        let reader = LogReader {
            database: Arc::new(database),
            sealer: Arc::clone(sealer),
        };
        let mut head = reader
            .verify()
            .map_err(|error| RaftError::damaged(&path, error))?;
        let witness = Witness::open(dir, Arc::clone(sealer))
            .map_err(|error| RaftError::file("open", &Witness::path(dir), &error))?;
        if head.sequence < witness.said().sequence {
            let error = LogError::Behind {
                expected: witness.said().sequence,
                found: head.sequence,
            };
            return Err(RaftError::damaged(&path, error));
        }
        // The library lets a restarted leader lead on without an election. It would then
        // take what it knows to be committed for all that is, and serve reads that are older
        // than writes which it acknowledged itself. To forget one's own election is always
        // safe; the next one begins with an entry of its own.
        if let Some(vote) = head.vote.as_mut()
            && vote.leader_id.voted_for() == Some(raft_id)
        {
            vote.committed = false;
        }
        Ok(Self {
            reader,
            head,
            witness,
            #[cfg(test)]
            dir: dir.to_owned(),
        })
    }

    /// The last entry that is only in a snapshot.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.head.purged
    }

    /// The last entry, in the log or in a snapshot.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.head.last
    }

    /// All entries after one of them, known to be committed or not. This blocks.
    ///
    /// # Errors
    ///
    /// [`RaftError::Damaged`], although opening the log has read them once.
    pub(crate) fn entries_after(
        &self,
        dir: &Path,
        last: Option<LogId>,
    ) -> Result<Vec<Entry>, RaftError> {
        let after = last.map_or(Bound::Unbounded, |last| Bound::Excluded(last.index));
        let range = (after, Bound::Unbounded);
        self.reader
            .read_now(range, usize::MAX)
            .map_err(|error| RaftError::damaged(&Self::path(dir), error))
    }

    /// Puts a change on the disk, together with the head that it leads to.
    async fn commit(&mut self, mut head: Head, change: Change) -> Result<(), LogError> {
        head.sequence = self.head.sequence + 1;
        let reader = self.reader.clone();
        #[cfg(test)]
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || {
            #[cfg(test)]
            super::tests::slow::wait(&dir);
            commit(&reader.database, &reader.sealer, &head, change)
        })
        .await??;
        self.head = head;
        let committed = self.witness.said().committed;
        self.say(committed)
    }

    fn say(&mut self, committed: Option<LogId>) -> Result<(), LogError> {
        self.witness
            .say(Testimony {
                sequence: self.head.sequence,
                committed,
            })
            .map_err(LogError::Witness)
    }
}

impl LogReader {
    /// Reads everything and compares it with the head.
    fn verify(&self) -> Result<Head, LogError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction.open_table(HEAD).map_err(redb::Error::from)?;
        let sealed = table.get(()).map_err(redb::Error::from)?;
        let sealed = sealed.ok_or(LogError::NoHead)?;
        let plain = self
            .sealer
            .open(Kind::Head, 0, sealed.value())
            .map_err(|error| LogError::Seal(0, error))?;
        let head: Head =
            rmp_serde::from_slice(&plain).map_err(|error| LogError::Decode(0, error))?;

        let mut last = head.purged;
        let table = transaction.open_table(ENTRIES).map_err(redb::Error::from)?;
        for item in table.iter().map_err(redb::Error::from)? {
            let (key, sealed) = item.map_err(redb::Error::from)?;
            let expected = last.map_or(0, |last| last.index + 1);
            let entry = self.decode(key.value(), sealed.value())?;
            if key.value() != expected || entry.log_id.index != expected {
                return Err(LogError::Order {
                    expected,
                    found: key.value(),
                });
            }
            last = Some(entry.log_id);
        }
        if last != head.last {
            return Err(LogError::End {
                expected: head.last,
                found: last,
            });
        }
        Ok(head)
    }

    fn decode(&self, index: u64, sealed: &[u8]) -> Result<Entry, LogError> {
        let plain = self
            .sealer
            .open(Kind::Entry, index, sealed)
            .map_err(|error| LogError::Seal(index, error))?;
        rmp_serde::from_slice(&plain).map_err(|error| LogError::Decode(index, error))
    }

    /// Entries of a range in order, at least one where there is one, and then until `limit`
    /// bytes are reached.
    async fn read(
        &self,
        range: (Bound<u64>, Bound<u64>),
        limit: usize,
    ) -> Result<Vec<Entry>, LogError> {
        let reader = self.clone();
        tokio::task::spawn_blocking(move || reader.read_now(range, limit)).await?
    }

    /// The same; this blocks.
    fn read_now(
        &self,
        range: (Bound<u64>, Bound<u64>),
        limit: usize,
    ) -> Result<Vec<Entry>, LogError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction.open_table(ENTRIES).map_err(redb::Error::from)?;
        let mut entries = Vec::new();
        let mut size = 0;
        for item in table.range(range).map_err(redb::Error::from)? {
            let (key, sealed) = item.map_err(redb::Error::from)?;
            size += sealed.value().len();
            if size > limit && !entries.is_empty() {
                break;
            }
            entries.push(self.decode(key.value(), sealed.value())?);
        }
        Ok(entries)
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        if is_empty(bounds) {
            return Ok(Vec::new());
        }
        self.read(bounds, usize::MAX).await.map_err(read_failed)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        if is_empty(bounds) {
            return Ok(Vec::new());
        }
        self.read(bounds, READ_LIMIT_BYTES)
            .await
            .map_err(read_failed)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        self.reader.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        self.reader.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        Ok(LogState {
            last_purged_log_id: self.head.purged,
            last_log_id: self.head.last,
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let head = Head {
            vote: Some(*vote),
            ..self.head
        };
        self.commit(head, Change::Nothing)
            .await
            .map_err(|error| StorageIOError::write_vote(AnyError::error(error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.head.vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.say(committed).map_err(write_failed)
    }

    /// The committed index that the witness knows, if the log has that very entry: after a
    /// power cut the log may be an older one, whose entry of that index is another.
    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let Some(committed) = self.witness.said().committed else {
            return Ok(None);
        };
        if Some(committed) <= self.head.purged {
            return Ok(self.head.purged);
        }
        let index = committed.index;
        let found = self.try_get_log_entries(index..=index).await?;
        let known = found.first().is_some_and(|entry| entry.log_id == committed);
        Ok(known.then_some(committed))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let head = Head {
            last: entries.last().map_or(self.head.last, |e| Some(e.log_id)),
            ..self.head
        };
        // The library waits for the callback before it does anything else, so there is
        // nothing to gain from returning before the entries are on the disk.
        self.commit(head, Change::Append(entries))
            .await
            .map_err(write_failed)?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let before = match log_id.index.checked_sub(1) {
            Some(index) => self.try_get_log_entries(index..=index).await?.pop(),
            None => None,
        };
        let head = Head {
            last: before.map(|entry| entry.log_id).or(self.head.purged),
            ..self.head
        };
        self.commit(head, Change::Truncate(log_id.index))
            .await
            .map_err(write_failed)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let head = Head {
            purged: Some(log_id),
            // A snapshot from the leader may reach further than the log did.
            last: self.head.last.max(Some(log_id)),
            ..self.head
        };
        self.commit(head, Change::Purge(log_id.index))
            .await
            .map_err(write_failed)
    }
}

/// Opens with every page checked.
fn builder() -> Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true);
    builder
}

/// Opens the file, and waits a little for a predecessor to leave it.
fn open_database(path: &Path) -> Result<Database, RaftError> {
    let began = Instant::now();
    loop {
        match builder().open(path) {
            Ok(database) => return Ok(database),
            Err(DatabaseError::DatabaseAlreadyOpen) if began.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(RaftError::Locked {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(unopened(path, error)),
        }
    }
}

/// What the system refuses, a full disk for one, is no damage. What has a number of the system is
/// its refusal; the store's own errors, such as a file that is too short, have none.
fn unopened(path: &Path, error: DatabaseError) -> RaftError {
    match error {
        DatabaseError::Storage(redb::StorageError::Io(error)) if error.raw_os_error().is_some() => {
            RaftError::file("open", path, &error)
        }
        error => RaftError::damaged(path, error),
    }
}

fn commit(
    database: &Database,
    sealer: &Sealer,
    head: &Head,
    change: Change,
) -> Result<(), LogError> {
    let mut transaction = database.begin_write().map_err(redb::Error::from)?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(redb::Error::from)?;
    {
        let mut table = transaction.open_table(ENTRIES).map_err(redb::Error::from)?;
        match change {
            Change::Nothing => {}
            Change::Append(entries) => {
                for entry in entries {
                    let index = entry.log_id.index;
                    let plain = rmp_serde::to_vec(&entry)
                        .map_err(|error| LogError::Encode(index, error))?;
                    let sealed = sealer
                        .seal(Kind::Entry, index, &plain)
                        .map_err(|error| LogError::Seal(index, error))?;
                    table
                        .insert(index, sealed.as_slice())
                        .map_err(redb::Error::from)?;
                }
            }
            Change::Truncate(from) => table
                .retain_in(from.., |_, _| false)
                .map_err(redb::Error::from)?,
            Change::Purge(upto) => table
                .retain_in(..=upto, |_, _| false)
                .map_err(redb::Error::from)?,
        }
        let plain = rmp_serde::to_vec(head).map_err(|error| LogError::Encode(0, error))?;
        let sealed = sealer
            .seal(Kind::Head, 0, &plain)
            .map_err(|error| LogError::Seal(0, error))?;
        let mut table = transaction.open_table(HEAD).map_err(redb::Error::from)?;
        table
            .insert((), sealed.as_slice())
            .map_err(redb::Error::from)?;
    }
    transaction.commit().map_err(redb::Error::from)?;
    Ok(())
}

fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

/// redb panics on a range that ends before it begins.
fn is_empty((start, end): (Bound<u64>, Bound<u64>)) -> bool {
    match (start, end) {
        (Bound::Included(start), Bound::Excluded(end)) => start >= end,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Excluded(start), Bound::Excluded(end) | Bound::Included(end)) => start >= end,
        _ => false,
    }
}

fn read_failed(error: LogError) -> StorageError {
    StorageIOError::read_logs(AnyError::error(error)).into()
}

fn write_failed(error: LogError) -> StorageError {
    StorageIOError::write_logs(AnyError::error(error)).into()
}

#[cfg(test)]
mod tests;
