//! A disk in memory that can be looked at, changed, and made to fail.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// What a store has asked of its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    Write(usize, Vec<u8>),
    Length(usize),
    Sync,
}

/// A disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    bytes: Vec<u8>,
    asked: Vec<Operation>,
    sync_fails: bool,
}

impl Disk {
    /// What is on it, whether or not it was synced.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.contents().bytes.clone()
    }

    /// What it was asked since the last call.
    pub(super) fn asked(&self) -> Vec<Operation> {
        std::mem::take(&mut self.contents().asked)
    }

    /// From now on no sync succeeds.
    pub(super) fn fail_syncs(&self) {
        self.contents().sync_fails = true;
    }

    /// Syncs succeed again.
    pub(super) fn mend_syncs(&self) {
        self.contents().sync_fails = false;
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Vec<u8>> for Disk {
    fn from(bytes: Vec<u8>) -> Self {
        let contents = Contents {
            bytes,
            ..Contents::default()
        };
        Self(Arc::new(Mutex::new(contents)))
    }
}

impl Operation {
    /// Does it to some bytes.
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => bytes[*at..at + data.len()].copy_from_slice(data),
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Sync => {}
        }
    }
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.contents().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = index(offset)?;
        let contents = self.contents();
        let found = contents.bytes.get(at..at.saturating_add(out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.contents().ask(Operation::Length(index(len)?))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut contents = self.contents();
        contents.ask(Operation::Sync)?;
        match contents.sync_fails {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let operation = Operation::Write(index(offset)?, data.to_vec());
        self.contents().ask(operation)
    }
}

impl Contents {
    fn ask(&mut self, operation: Operation) -> io::Result<()> {
        if let Operation::Write(at, data) = &operation
            && at + data.len() > self.bytes.len()
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        operation.apply(&mut self.bytes);
        self.asked.push(operation);
        Ok(())
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}
