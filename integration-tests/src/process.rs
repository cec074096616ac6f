//! What runs on this machine, as `/proc` tells it.

use std::{fs, io, os::unix::fs::MetadataExt};

use rustix::process::Pid;

/// One process, as it was when [`processes`] looked.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number in the machine's own process namespace.
    pub pid: Pid,
    /// Its parent's number; 0 for none.
    pub parent: i32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Start time in clock ticks since boot: with the number it is unique.
    pub start_time: u64,
    /// The inode of its network namespace; none where it may not be read.
    pub network: Option<u64>,
    /// Whether it is dead and waits for its parent to take notice.
    pub zombie: bool,
    environment: Vec<u8>,
}

impl Process {
    /// Reads one process; none if there is no such one (any more).
    #[must_use]
    pub fn read(pid: Pid) -> Option<Self> {
        let directory = format!("/proc/{}", pid.as_raw_nonzero());
        let stat = fs::read_to_string(format!("{directory}/stat")).ok()?;
        // The name is in parentheses and may itself contain some, and blanks.
        let (head, tail) = stat.rsplit_once(") ")?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split(' ').collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            name,
            start_time: fields.get(19)?.parse().ok()?,
            network: network_of(pid).ok(),
            zombie: fields.first() == Some(&"Z"),
            environment: fs::read(format!("{directory}/environ")).unwrap_or_default(),
        })
    }

    /// Whether it was started with this environment variable, or by a process
    /// that was and passed it on.
    #[must_use]
    pub fn was_started_with(&self, name: &str, value: &str) -> bool {
        self.environment.split(|byte| *byte == 0).any(|entry| {
            entry.strip_prefix(name.as_bytes()) == Some(format!("={value}").as_bytes())
        })
    }
}

/// All processes of the machine.
///
/// # Errors
///
/// When `/proc` cannot be read; processes that end meanwhile are left out.
pub fn processes() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw);
        found.extend(pid.and_then(Process::read));
    }
    Ok(found)
}

/// The inode of the network namespace that a process is in.
pub(crate) fn network_of(pid: Pid) -> io::Result<u64> {
    Ok(fs::metadata(format!("/proc/{}/ns/net", pid.as_raw_nonzero()))?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_is_found() {
        let own = rustix::process::getpid();
        let found = processes()
            .unwrap()
            .into_iter()
            .find(|process| process.pid == own)
            .unwrap();
        assert_eq!(
            found.network,
            Some(fs::metadata("/proc/self/ns/net").unwrap().ino())
        );
        assert!(!found.zombie);
        assert!(found.was_started_with("PATH", &std::env::var("PATH").unwrap()));
        assert!(!found.was_started_with("PATH", "/nowhere"));
    }
}
