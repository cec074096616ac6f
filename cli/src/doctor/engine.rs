//! The container engine.

use std::time::Duration;

use swarmlet_agent::runtime::Runtime;
use swarmlet_agent::runtime::docker::DockerRuntime;
use tokio::time::timeout;

use super::{Case, Finding};
use crate::args::RuntimeArg;
use crate::daemon::StoredRuntime;

const SUBJECT: &str = "engine";

/// The oldest engine whose API swarmlet speaks.
const OLDEST: (u32, u32) = (20, 10);

/// How long an engine may take to describe itself. The daemon takes one that is slower for one
/// that hangs, too.
const DEADLINE: Duration = Duration::from_secs(2);

/// Whether this node needs an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Its tasks are containers.
    Must,
    /// Without one its tasks would be plain processes.
    May,
    /// They are plain processes.
    Not,
}

/// Looks whether the engine is there, and new enough.
pub(super) async fn look(case: &Case) -> Finding {
    let stored = case.record.as_ref().map(|record| record.runtime);
    let need = match (stored, case.settings.runtime) {
        (Some(StoredRuntime::Docker), _) | (None, RuntimeArg::Docker) => Need::Must,
        (Some(StoredRuntime::Process), _) | (None, RuntimeArg::Process) => Need::Not,
        (None, RuntimeArg::Auto) => Need::May,
    };
    if need == Need::Not {
        return Finding::ok(SUBJECT, "none is needed: tasks are plain processes");
    }
    let runtime = match DockerRuntime::new(case.settings.stored.docker_host.as_deref()) {
        Ok(runtime) => runtime,
        Err(error) => {
            return Finding::problem(SUBJECT, error.to_string(), "correct DOCKER_HOST");
        }
    };
    let reason = match timeout(DEADLINE, runtime.describe()).await {
        Ok(Ok(engine)) => return judge(need, Ok(&engine.version)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", DEADLINE.as_secs()),
    };
    // The words of the problem that the daemon tells of some seconds later.
    let host = &case.settings.stored.hostname;
    let reason = format!("the container engine of {host} does not answer: {reason}");
    judge(need, Err(&reason))
}

fn judge(need: Need, version: Result<&str, &str>) -> Finding {
    match version {
        Ok(version) if is_new_enough(version) => Finding::ok(SUBJECT, format!("Docker {version}")),
        Ok(version) => Finding::problem(
            SUBJECT,
            format!("Docker {version} is too old"),
            format!("upgrade it to {}.{} or later", OLDEST.0, OLDEST.1),
        ),
        Err(reason) if need == Need::Must => Finding::problem(
            SUBJECT,
            reason,
            remedy(
                reason,
                "start it (systemctl restart docker), and see journalctl -u docker",
            ),
        ),
        Err(reason) => Finding::warning(
            SUBJECT,
            format!("{reason}: tasks would be plain processes"),
            remedy(
                reason,
                "install and start Docker before `swarmlet init` or `swarmlet join`, if \
                 containers are wanted",
            ),
        ),
    }
}

/// What to do about an engine that does not answer; one that lets somebody else in runs.
fn remedy(reason: &str, otherwise: &'static str) -> &'static str {
    // The client's errors keep the system's words, and not its code.
    match reason.contains("Permission denied") {
        true => "run it as root, or as a member of the engine's group (docker)",
        false => otherwise,
    }
}

/// Whether `29.1.3`, `20.10.24+dfsg1` and the like are not older than [`OLDEST`]. A text that
/// begins with no number is a build of somebody's own, who knows what it is.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse::<u32>().ok());
    let Some(major) = numbers.next() else {
        return true;
    };
    (major, numbers.next().unwrap_or(0)) >= OLDEST
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn engines_are_judged_by_version_and_need() {
        for (version, expected) in [
            ("20.10.24+dfsg1", Level::Ok),
            ("29.0", Level::Ok),
            ("master-dev", Level::Ok),
            ("20.9", Level::Problem),
            ("19.03.15", Level::Problem),
            ("1.13.1", Level::Problem),
        ] {
            assert_eq!(judge(Need::Must, Ok(version)).level, expected, "{version}");
        }
        assert_eq!(judge(Need::Must, Err("away")).level, Level::Problem);
        let found = judge(Need::May, Err("away"));
        assert_eq!(found.level, Level::Warning);
        assert_eq!(found.found, "away: tasks would be plain processes");
        assert!(found.remedy.starts_with("install and start"), "{found:?}");
        let denied = judge(Need::May, Err("unix:///s: Permission denied (os error 13)"));
        assert!(denied.remedy.starts_with("run it as root"), "{denied:?}");
    }
}
