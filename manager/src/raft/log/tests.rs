//! What becomes of a log whose bytes were changed, cut off or never written, tried at every byte.

mod disk;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use openraft::storage::RaftLogStorageExt;
use openraft::{CommittedLeaderId, EntryPayload};
use tempfile::TempDir;

use self::disk::{Disk, Operation};
use super::*;
use crate::raft::types::Payload;

const RAFT_ID: u64 = 1;
/// Entries that were acknowledged; those up to `PURGED` are in a snapshot only.
const ENTRIES: u64 = 6;
const PURGED: u64 = 1;
/// So many bytes are damaged together first.
const BLOCK: usize = 128;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(2, RAFT_ID), index)
}

fn entry(index: u64) -> Entry {
    let bytes = index.to_be_bytes().repeat(8);
    Entry {
        log_id: log_id(index),
        payload: EntryPayload::Normal(Payload(bytes.into())),
    }
}

fn vote() -> Vote {
    Vote::new_committed(3, 2)
}

/// A directory with a key and a witness, and the disk that its log is on.
struct Log {
    dir: TempDir,
    sealer: Arc<Sealer>,
    disk: Disk,
}

impl Log {
    /// Fills a log as a manager does, and leaves it open.
    async fn fill() -> (Self, LogStore) {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Arc::new(Sealer::create(&dir.path().join("key")).unwrap());
        let disk = Disk::default();
        let database = builder().create_with_backend(disk.clone()).unwrap();
        commit(&database, &sealer, &Head::default(), Change::Nothing).unwrap();
        let mut store = LogStore::read(database, dir.path(), &sealer, RAFT_ID).unwrap();
        store.save_vote(&vote()).await.unwrap();
        for index in 0..ENTRIES {
            store.blocking_append([entry(index)]).await.unwrap();
        }
        store.purge(log_id(PURGED)).await.unwrap();
        let log = Self { dir, sealer, disk };
        (log, store)
    }

    /// What a manager finds that starts with these bytes for its log.
    fn open(&self, bytes: Vec<u8>) -> Result<LogStore, RaftError> {
        let disk = Disk::from(bytes);
        let path = LogStore::path(self.dir.path());
        let database = builder().create_with_backend(disk);
        let database = database.map_err(|error| unopened(&path, error))?;
        LogStore::read(database, self.dir.path(), &self.sealer, RAFT_ID)
    }

    /// Whether a manager starts with these bytes. It has all that was acknowledged then, and
    /// otherwise the refusal names the file and says what to do.
    #[track_caller]
    fn starts(&self, bytes: Vec<u8>, what: &str) -> bool {
        let opened = catch_unwind(AssertUnwindSafe(|| self.open(bytes)));
        let opened = opened.unwrap_or_else(|_| panic!("{what}: the log panicked"));
        match opened {
            Ok(store) => {
                assert_eq!(last_of(&store, what), ENTRIES - 1, "{what}");
                true
            }
            Err(error) => {
                let text = error.to_string();
                let path = LogStore::path(self.dir.path());
                assert!(matches!(error, RaftError::Damaged { .. }), "{what}: {text}");
                assert!(text.contains(path.to_str().unwrap()), "{what}: {text}");
                assert!(
                    text.contains("restore the data directory"),
                    "{what}: {text}"
                );
                false
            }
        }
    }
}

/// The last entry of a log that has everything before it.
#[track_caller]
fn last_of(store: &LogStore, what: &str) -> u64 {
    assert_eq!(store.head.vote, Some(vote()), "{what}");
    assert_eq!(store.purged(), Some(log_id(PURGED)), "{what}");
    let last = store.last().unwrap().index;
    let all = (Bound::Unbounded, Bound::Unbounded);
    let found = store.reader.read_now(all, usize::MAX).unwrap();
    let expected: Vec<Entry> = (PURGED + 1..=last).map(entry).collect();
    assert_eq!(found, expected, "{what}");
    last
}

/// Flips each byte once, a different bit of each. A block of bytes that may all be wrong at once is
/// in no use, and its bytes need not be tried one by one.
fn flip_every_byte(log: &Log, bytes: &[u8]) {
    let flip = |range: Range<usize>| {
        let what = format!("a flipped bit in each of {range:?}");
        let mut damaged = bytes.to_vec();
        for at in range {
            damaged[at] ^= 1 << (at % 8);
        }
        log.starts(damaged, &what)
    };
    let (mut intact, mut refused) = (0, 0);
    for begin in (0..bytes.len()).step_by(BLOCK) {
        let block = begin..(begin + BLOCK).min(bytes.len());
        if flip(block.clone()) {
            intact += block.len();
            continue;
        }
        for at in block {
            match flip(at..at + 1) {
                true => intact += 1,
                false => refused += 1,
            }
        }
    }
    println!("one byte flipped: {intact} times intact, {refused} times refused");
    assert!(refused > 500, "only {refused} of these bytes are in use");
}

#[tokio::test]
async fn no_flipped_byte_of_a_log_that_was_closed_loses_anything_in_silence() {
    let (log, store) = Log::fill().await;
    drop(store);
    flip_every_byte(&log, &log.disk.bytes());
}

#[tokio::test]
async fn no_flipped_byte_of_a_log_that_was_killed_loses_anything_in_silence() {
    let (log, _open) = Log::fill().await;
    flip_every_byte(&log, &log.disk.bytes());
}

#[tokio::test]
async fn no_cut_of_a_log_loses_anything_in_silence() {
    let (log, store) = Log::fill().await;
    let killed = log.disk.bytes();
    drop(store);
    for bytes in [log.disk.bytes(), killed] {
        // A log of no bytes at all is a missing one, which is refused before it is opened.
        let intact = (1..bytes.len()).filter(|&length| {
            let what = format!("cut off after {length} of {} bytes", bytes.len());
            log.starts(bytes[..length].to_vec(), &what)
        });
        let intact = intact.count();
        println!("cut: {intact} of {} times intact", bytes.len());
        // A page at the end that was made for what comes next may be missing.
        assert!(intact < 8, "{intact}");
    }
}

/// Every state in which a power cut may leave the disk while operations are under way: those up to
/// the last sync are there, of the others any may be, and one of them in part.
fn power_cuts(before: &[u8], asked: &[Operation]) -> Vec<Vec<u8>> {
    let mut states = Vec::new();
    let mut synced = before.to_vec();
    for part in asked.split_inclusive(|operation| *operation == Operation::Sync) {
        assert!(part.len() <= 12, "{} operations without a sync", part.len());
        for kept in 0_u32..1 << part.len() {
            let chosen = part.iter().enumerate();
            let chosen = chosen.filter(|(number, _)| kept & (1 << number) != 0);
            let mut state = synced.clone();
            let mut last = None;
            for (_, operation) in chosen {
                let whole = state.clone();
                operation.apply(&mut state);
                last = Some((whole, operation));
            }
            states.push(state);
            if let Some((state, Operation::Write(at, data))) = last {
                states.extend(torn(&state, *at, data));
            }
        }
        for operation in part {
            operation.apply(&mut synced);
        }
    }
    states
}

/// A write of which only the first sectors reached the disk; one within a sector, after any byte.
fn torn(before: &[u8], at: usize, data: &[u8]) -> Vec<Vec<u8>> {
    let step = if data.len() > SECTOR { SECTOR } else { 1 };
    let lengths = (step..data.len()).step_by(step);
    let states = lengths.map(|length| {
        let mut state = before.to_vec();
        state.resize(state.len().max(at + length), 0);
        state[at..at + length].copy_from_slice(&data[..length]);
        state
    });
    states.collect()
}

#[tokio::test]
async fn a_power_cut_during_an_append_leaves_all_that_was_acknowledged_before() {
    let (log, mut store) = Log::fill().await;
    let before = log.disk.bytes();
    log.disk.asked();
    // What a power cut can leave of a witness that nobody has synced.
    let witness = fs::read(Witness::path(log.dir.path())).unwrap();
    store.blocking_append([entry(ENTRIES)]).await.unwrap();
    fs::write(Witness::path(log.dir.path()), witness).unwrap();

    let states = power_cuts(&before, &log.disk.asked());
    let (mut with, mut without) = (0, 0);
    for (number, state) in states.into_iter().enumerate() {
        let what = format!("power cut {number}");
        let found = log
            .open(state)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        match last_of(&found, &what) {
            ENTRIES => with += 1,
            last => {
                assert_eq!(last, ENTRIES - 1, "{what}");
                without += 1;
            }
        }
    }
    println!("power cut: {with} times with the entry under way, {without} times without it");
    assert!(with > 0 && without > 100, "{with} {without}");
}

#[test]
fn a_disk_that_is_full_when_a_manager_starts_is_no_damage() {
    let full = std::io::Error::from_raw_os_error(28);
    let refused = unopened(Path::new("log"), redb::StorageError::Io(full).into());
    let text = refused.to_string();
    assert!(matches!(refused, RaftError::File { .. }), "{text}");
    assert!(text.starts_with("cannot open log: No space left"), "{text}");
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_written_and_no_sync_is_tried_again() {
    let (log, mut store) = Log::fill().await;
    let durable = log.disk.bytes();
    log.disk.asked();
    log.disk.fail_syncs();
    let refused = store.blocking_append([entry(ENTRIES)]).await.unwrap_err();
    assert!(
        refused.to_string().contains("Input/output error"),
        "{refused}"
    );
    let syncs = |asked: &[Operation]| {
        let syncs = asked.iter().filter(|one| **one == Operation::Sync);
        syncs.count()
    };
    assert_eq!(syncs(&log.disk.asked()), 1);

    // The pages of the failed sync may be gone although a second one would succeed.
    log.disk.mend_syncs();
    store.save_vote(&Vote::new(9, 3)).await.unwrap_err();
    store.blocking_append([entry(ENTRIES)]).await.unwrap_err();
    drop(store);
    let asked = log.disk.asked();
    assert_eq!(asked, [], "nothing more is written, not even at the end");
    let found = log.open(durable).unwrap();
    assert_eq!(last_of(&found, "after the failed sync"), ENTRIES - 1);
}
