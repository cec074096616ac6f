use std::collections::BTreeMap;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload, Membership, RaftLogReader, RaftSnapshotBuilder};
use swarmlet_core::apply;
use swarmlet_core::command::{Command, Proposal};
use swarmlet_core::model::{Cluster, Timestamp, Version};
use swarmlet_core::state::State;
use tempfile::TempDir;

use super::*;
use crate::raft::tests::commands::{has, payload};
use crate::raft::types::{
    Entry, LogId, Payload, Peer, SnapshotMeta, StorageError, TypeConfig, Vote,
};

struct Files;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Files {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let (log, machine) = open(dir.path(), 0, Expect::Anything).unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn the_librarys_own_suite_passes() {
    Suite::test_all(Files).unwrap();
}

const RAFT_ID: u64 = 1;
/// Entries in the filled log: the snapshot has those up to `PURGED`.
const ENTRIES: u64 = 24;
const PURGED: u64 = 7;
const COMMITTED: u64 = 20;

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(2, RAFT_ID), index)
}

fn entry(index: u64) -> Entry {
    let payload = match index {
        0 => {
            let nodes = BTreeMap::from([(RAFT_ID, Peer::default())]);
            EntryPayload::Membership(Membership::new(vec![[RAFT_ID].into()], nodes))
        }
        _ => EntryPayload::Normal(payload(index - 1)),
    };
    Entry {
        log_id: log_id(index),
        payload,
    }
}

fn vote() -> Vote {
    Vote::new_committed(3, 2)
}

/// Fills a directory the way a manager does, and leaves it open.
async fn fill(dir: &Path) -> (LogStore, Machine) {
    let (mut log, mut machine) = open(dir, RAFT_ID, Expect::Anything).unwrap();
    log.save_vote(&vote()).await.unwrap();
    log.blocking_append((0..=PURGED).map(entry)).await.unwrap();
    log.save_committed(Some(log_id(PURGED))).await.unwrap();
    machine.apply((0..=PURGED).map(entry)).await.unwrap();
    let mut builder = machine.get_snapshot_builder().await;
    builder.build_snapshot().await.unwrap();
    log.purge(log_id(PURGED)).await.unwrap();
    for index in PURGED + 1..ENTRIES {
        log.blocking_append([entry(index)]).await.unwrap();
        if index <= COMMITTED {
            log.save_committed(Some(log_id(index))).await.unwrap();
        }
    }
    (log, machine)
}

/// Opens the directory and compares everything with what [`fill`] was acknowledged.
async fn check_intact(dir: &Path) -> Result<(), RaftError> {
    let (at, expect) = (dir.to_owned(), Expect::Log);
    let opened = tokio::task::spawn_blocking(move || open(&at, RAFT_ID, expect)).await;
    let Ok(opened) = opened else {
        return Err(RaftError::damaged(dir, "it panicked"));
    };
    let (mut log, mut machine) = opened?;
    assert_eq!(log.read_vote().await.unwrap(), Some(vote()));
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(PURGED)));
    assert_eq!(state.last_log_id, Some(log_id(ENTRIES - 1)));
    let entries = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(
        entries,
        (PURGED + 1..ENTRIES).map(entry).collect::<Vec<_>>()
    );
    let (applied, _) = machine.applied_state().await.unwrap();
    assert_eq!(applied, Some(log_id(PURGED)));
    let state = machine.watch().borrow().clone();
    assert!((0..PURGED).all(|number| has(&state, number)));
    Ok(())
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

/// What [`fill`] left, once shut down and once killed.
async fn filled() -> [TempDir; 2] {
    let clean = tempfile::tempdir().unwrap();
    let held = fill(clean.path()).await;
    // The store writes once more when it is closed; a copy taken before that is what a killed
    // process leaves, with the last entry in the last transaction.
    let killed = copy(clean.path());
    drop(held);
    [clean, killed]
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    for dir in filled().await {
        check_intact(dir.path()).await.unwrap();
        let (mut log, _) = open(dir.path(), RAFT_ID, Expect::Log).unwrap();
        assert_eq!(
            log.read_committed().await.unwrap(),
            Some(log_id(COMMITTED)),
            "the committed index survives the process"
        );
        for name in ["key", "log", "witness", "snapshot"] {
            let mode = fs::metadata(dir.path().join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
            let bytes = fs::read(dir.path().join(name)).unwrap();
            let secret = b"a very secret root key";
            assert!(!bytes.windows(secret.len()).any(|w| w == secret), "{name}");
        }
    }
}

#[tokio::test]
async fn a_restarted_leader_has_to_be_elected_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, machine) = open(dir.path(), RAFT_ID, Expect::Anything).unwrap();
    log.save_vote(&Vote::new_committed(5, RAFT_ID))
        .await
        .unwrap();
    drop((log, machine));
    let (mut log, _) = open(dir.path(), RAFT_ID, Expect::Log).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(5, RAFT_ID)));
}

#[tokio::test]
async fn truncate_and_purge_are_durable() {
    let [dir, _] = filled().await;
    let (mut log, machine) = open(dir.path(), RAFT_ID, Expect::Log).unwrap();
    log.truncate(log_id(22)).await.unwrap();
    drop((log, machine));
    let (mut log, _) = open(dir.path(), RAFT_ID, Expect::Log).unwrap();
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id, Some(log_id(21)));
    // A snapshot from the leader that reaches further than the log.
    log.purge(log_id(40)).await.unwrap();
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(40)));
    assert_eq!(state.last_log_id, Some(log_id(40)));
    assert!(log.try_get_log_entries(..).await.unwrap().is_empty());
}

/// Changes `name` in a copy of `from` and says whether it started with everything there.
async fn survives(from: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
    let dir = copy(from);
    let path = dir.path().join(name);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    match check_intact(dir.path()).await {
        Ok(()) => true,
        Err(RaftError::Damaged { .. } | RaftError::Missing { .. }) => false,
        Err(other) => panic!("not a clear refusal: {other}"),
    }
}

/// Positions spread over the bytes of a file that are not zero, and all of its first ones:
/// the store's header is there.
fn positions(path: &Path, all_up_to: usize, count: usize) -> Vec<usize> {
    let bytes = fs::read(path).unwrap();
    let used: Vec<usize> = (all_up_to..bytes.len())
        .filter(|at| bytes[*at] != 0)
        .collect();
    let step = (used.len() / count).max(1);
    let first = 0..all_up_to.min(bytes.len());
    first.chain(used.into_iter().step_by(step)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_bit_in_the_log_loses_anything_in_silence() {
    let [clean, killed] = filled().await;
    for dir in [clean, killed] {
        let (mut intact, mut refused) = (0, 0);
        for at in positions(&dir.path().join("log"), 320, 150) {
            match survives(dir.path(), "log", |bytes| bytes[at] ^= 1 << (at % 8)).await {
                true => intact += 1,
                false => refused += 1,
            }
        }
        println!("log, one bit flipped: {intact} times intact, {refused} times refused");
        assert!(refused > 100, "most of these bits are in use");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cut_of_the_log_loses_anything_in_silence() {
    let [clean, killed] = filled().await;
    for dir in [clean, killed] {
        let length = fs::metadata(dir.path().join("log")).unwrap().len();
        let length = usize::try_from(length).unwrap();
        let (mut intact, mut refused) = (0, 0);
        for cut in (0..length).step_by(length / 100) {
            match survives(dir.path(), "log", |bytes| bytes.truncate(cut)).await {
                true => intact += 1,
                false => refused += 1,
            }
        }
        println!("log, cut: {intact} times intact, {refused} times refused");
        assert!(refused > 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_damage_to_the_other_files_loses_anything_in_silence() {
    let [dir, _] = filled().await;
    for at in positions(&dir.path().join("snapshot"), 64, 100) {
        let whole = survives(dir.path(), "snapshot", |bytes| bytes[at] ^= 1).await;
        assert!(!whole, "bit in byte {at} of the snapshot");
    }
    for cut in (0..fs::metadata(dir.path().join("snapshot")).unwrap().len()).step_by(17) {
        let cut = usize::try_from(cut).unwrap();
        assert!(!survives(dir.path(), "snapshot", |bytes| bytes.truncate(cut)).await);
    }
    for at in positions(&dir.path().join("key"), 67, 1) {
        let whole = survives(dir.path(), "key", |bytes| bytes[at] ^= 1).await;
        // The line's end is all that may change without changing the key.
        assert!(!whole || at >= 66, "byte {at} of the key file");
    }
    for at in positions(&dir.path().join("witness"), 128, 1) {
        let whole = survives(dir.path(), "witness", |bytes| bytes[at] ^= 1).await;
        assert!(whole, "a log that is sound needs no witness");
    }
}

#[tokio::test]
async fn a_log_that_falls_behind_its_witness_is_refused() {
    let [dir, _] = filled().await;
    let before = copy(dir.path());
    let (mut log, machine) = open(dir.path(), RAFT_ID, Expect::Log).unwrap();
    log.blocking_append([entry(ENTRIES)]).await.unwrap();
    drop((log, machine));

    // The log without its last entry, which nothing in it betrays.
    fs::copy(before.path().join("log"), dir.path().join("log")).unwrap();
    let error = open(dir.path(), RAFT_ID, Expect::Log).unwrap_err();
    assert!(
        error.to_string().contains("had been acknowledged"),
        "{error}"
    );
    // With the older witness it is what a power cut before the commit leaves.
    fs::copy(before.path().join("witness"), dir.path().join("witness")).unwrap();
    check_intact(dir.path()).await.unwrap();
}

#[tokio::test]
async fn a_missing_file_is_refused() {
    let [dir, _] = filled().await;
    for (missing, rest) in [
        (vec!["log"], "witness and snapshot are there"),
        (vec!["log", "witness", "snapshot"], "it was a manager"),
        (vec!["snapshot"], "the log begins after it"),
        (vec!["key"], "nothing opens"),
    ] {
        let dir = copy(dir.path());
        for name in &missing {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        let error = open(dir.path(), RAFT_ID, Expect::Log).unwrap_err();
        assert!(
            matches!(error, RaftError::Damaged { .. } | RaftError::Missing { .. }),
            "{missing:?} although {rest}: {error}"
        );
    }
    // Without the identity of a manager an empty directory is a first start.
    let dir = tempfile::tempdir().unwrap();
    assert!(open(dir.path(), RAFT_ID, Expect::Log).is_err());
    open(dir.path(), RAFT_ID, Expect::Anything).unwrap();
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let _held = open(dir.path(), RAFT_ID, Expect::Anything).unwrap();
    let error = open(dir.path(), RAFT_ID, Expect::Log).unwrap_err();
    assert!(matches!(error, RaftError::Locked { .. }), "{error}");
}

#[tokio::test]
async fn replication_reads_a_bounded_amount() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _machine) = open(dir.path(), RAFT_ID, Expect::Anything).unwrap();
    let large = |index| Entry {
        log_id: log_id(index),
        payload: EntryPayload::Normal(Payload(vec![7; 1 << 20].into())),
    };
    log.blocking_append((0..10).map(large)).await.unwrap();
    let mut reader = log.get_log_reader().await;
    let read = reader.limited_get_log_entries(2, 10).await.unwrap();
    assert_eq!(read.first().map(|entry| entry.log_id.index), Some(2));
    assert_eq!(read.len(), 3, "just below 4 MiB");
    assert_eq!(reader.try_get_log_entries(2..10).await.unwrap().len(), 8);
}

#[tokio::test]
async fn an_older_snapshot_never_replaces_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, mut machine) = open(dir.path(), RAFT_ID, Expect::Anything).unwrap();
    machine.apply([entry(0), entry(1)]).await.unwrap();
    let mut slow = machine.get_snapshot_builder().await;
    machine.apply([entry(2)]).await.unwrap();
    let mut quick = machine.get_snapshot_builder().await;
    quick.build_snapshot().await.unwrap();
    slow.build_snapshot().await.unwrap();
    let current = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, Some(log_id(2)));
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_an_error_and_not_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, mut machine) = open(dir.path(), RAFT_ID, Expect::Anything).unwrap();
    machine.apply([entry(0), entry(1)]).await.unwrap();
    let garbage = Entry {
        log_id: log_id(2),
        payload: EntryPayload::Normal(Payload(vec![0xff; 9].into())),
    };
    let error = machine.apply([garbage]).await.unwrap_err().to_string();
    assert!(error.contains("log entry 2 cannot be applied"), "{error}");
    assert!(error.contains("update this manager"), "{error}");
    let (applied, _) = machine.applied_state().await.unwrap();
    assert_eq!(applied, Some(log_id(1)));
}

#[tokio::test]
async fn a_schema_that_this_program_does_not_know_stops_the_replica() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, mut machine) = open(dir.path(), RAFT_ID, Expect::Anything).unwrap();
    machine.apply([entry(0), entry(1)]).await.unwrap();
    let schema = Cluster::SCHEMA + 1;
    let raise = Proposal {
        at: Timestamp(2),
        commands: vec![Command::RaiseSchema { schema }],
    };
    let mut newer = State::clone(&machine.watch().borrow());
    apply::apply(&mut newer, Version(2), &raise);

    let payload = Payload(swarmlet_proto::encode_proposal(&raise));
    let entry = Entry {
        log_id: log_id(2),
        payload: EntryPayload::Normal(payload),
    };
    let applied = machine.apply([entry]).await.unwrap_err().to_string();
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(2)),
        ..Default::default()
    };
    let snapshot = Box::new(Cursor::new(swarmlet_proto::encode_snapshot(&newer)));
    let installed = machine.install_snapshot(&meta, snapshot).await;
    for error in [applied, installed.unwrap_err().to_string()] {
        let expected = format!(
            "schema {schema}, and this swarmlet knows {}",
            Cluster::SCHEMA
        );
        assert!(error.contains(&expected), "{error}");
        assert!(error.contains("update this manager"), "{error}");
    }
    let (applied, _) = machine.applied_state().await.unwrap();
    assert_eq!(applied, Some(log_id(1)));
}
