//! Processes by id and start time: an id alone may belong to somebody else by now.

use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

/// When a process started, in clock ticks since boot; `None` where it is gone or a zombie.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field is the program's name in brackets and may hold anything, brackets and
/// blanks included; the fields are counted from its end.
fn parse(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // The state is field 3, the start time field 22.
    fields.nth(18)?.parse().ok()
}

/// Sends a signal to exactly the process that had this start time. One that is gone needs
/// none, so a failure is none.
pub(super) fn signal(pid: u32, started: u64, signal: Signal) {
    let Some(id) = pid_of(pid) else { return };
    // The descriptor is opened first: what it names cannot change any more, and the start
    // time says whether it is the right one.
    match pidfd_open(id, PidfdFlags::empty()) {
        Ok(process) if start_time(pid) == Some(started) => {
            if let Err(error) = pidfd_send_signal(process, signal) {
                tracing::debug!(pid, %error, "a signal did not arrive");
            }
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(pid, %error, "no process to send a signal to"),
    }
}

/// Kills a task's process and all that it started and left in its group.
pub(super) fn kill_group(pid: u32, started: u64) {
    let Some(id) = pid_of(pid) else { return };
    if start_time(pid) != Some(started) {
        return;
    }
    if let Err(error) = kill_process_group(id, Signal::KILL) {
        tracing::debug!(pid, %error, "the process group could not be killed");
    }
}

/// A process id as the system calls take it.
pub(super) fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};

    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in ["sleep", "a b", "a) S 1 (b", ")"] {
            assert_eq!(parse(&format!("42 ({name}) {rest}")), Some(4711), "{name}");
        }
        assert_eq!(parse("42 (gone) Z 1 2"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn the_own_process_has_one() {
        let own = start_time(std::process::id()).unwrap();
        assert_eq!(start_time(std::process::id()), Some(own));
    }

    #[test]
    fn a_reused_id_gets_no_signal() {
        // A group of its own, as a task's command has.
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .process_group(0)
            .spawn()
            .unwrap();
        let started = start_time(child.id()).unwrap();
        signal(child.id(), started + 1, Signal::KILL);
        kill_group(child.id(), started + 1);
        // Were it killed by now, or about to be, its end would not be by this signal.
        signal(child.id(), started, Signal::TERM);
        let ended = child.wait().unwrap();
        assert_eq!(ended.signal(), Some(Signal::TERM.as_raw()));
    }
}
