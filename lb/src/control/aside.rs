//! Balancers that were replaced: where their control sockets are, and how they are.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::Client;
use crate::status::Status;

/// Time for a balancer that was replaced to say how it is.
const STATUS_DEADLINE: Duration = Duration::from_secs(1);
/// Of them that are asked at most.
const MOST: usize = 32;

/// The path that the balancer at `control` moves its socket to when it steps aside: with the
/// number of the socket's file, which no other balancer has.
pub(super) fn path(control: &Path, number: u64) -> PathBuf {
    let mut aside = control.as_os_str().to_owned();
    aside.push(format!(".{number}"));
    aside.into()
}

/// Whether it is such a path already.
pub(super) fn is(control: &Path, number: u64) -> bool {
    let ending = format!(".{number}");
    control.as_os_str().to_string_lossy().ends_with(&ending)
}

/// The control sockets of balancers that have stepped aside from `control`. Some may be those of
/// balancers that were killed.
#[must_use]
pub fn aside(control: &Path) -> Vec<PathBuf> {
    let Some(name) = control.file_name() else {
        return Vec::new();
    };
    let directory = match control.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut start = name.to_owned();
    start.push(".");
    // A directory that cannot be read has no sockets in it that could be connected to.
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| has_number(&entry.file_name(), &start))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// How those are that have stepped aside from `control` and finish their connections. One that
/// hangs is left out.
pub async fn replaced(control: &Path) -> Vec<Status> {
    let sockets = aside(control);
    let asked = sockets.iter().take(MOST).map(|path| async move {
        let status = async { Client::connect(path).await?.status().await };
        timeout(STATUS_DEADLINE, status).await.ok()?.ok()
    });
    let answers = join_all(asked).await.into_iter().flatten();
    answers.filter(|status| status.shutting_down).collect()
}

fn has_number(name: &OsString, start: &OsString) -> bool {
    let number = name
        .as_encoded_bytes()
        .strip_prefix(start.as_encoded_bytes());
    number.is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_stepped_aside_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("lb.sock");
        let there = [12, 3].map(|number| path(&control, number));
        for file in &there {
            assert!(is(file, 12) != is(file, 3), "{file:?}");
            std::fs::write(file, "").unwrap();
        }
        for other in [
            "lb.sock",
            "lb.sock.",
            "lb.sock.new",
            "lb.sock.1x",
            "lb.sockx.1",
        ] {
            std::fs::write(directory.path().join(other), "").unwrap();
        }
        assert_eq!(aside(&control), there);
        assert!(aside(&directory.path().join("none/lb.sock")).is_empty());
        assert!(aside(Path::new("/")).is_empty());
    }
}
