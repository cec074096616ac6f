//! What a task's process is started with.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use swarmlet_core::model::{ContainerSpec, HealthTest, LogDriver, Task, TaskPort};

use super::super::placeholder::expand;
use super::super::{RuntimeError, Scope, generic};
use super::files::{Port, Spec};
use super::records::Limits;

/// The image that is built into the program.
const WHOAMI: &str = "whoami";

/// Search path of a task that names none, as Docker sets it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the shim is to start for a task.
///
/// # Errors
/// [`RuntimeError::Rejected`] where the task asks for what a plain process cannot have, or
/// its executable, folder or user does not exist.
pub(super) fn spec(
    scope: &Scope,
    task: &Task,
    ports: &[TaskPort],
    own: &Path,
) -> Result<Spec, RuntimeError> {
    let Some(container) = task.spec.container() else {
        return rejected("the task has no container".to_owned());
    };
    refuse_what_needs_an_engine(container)?;
    signal(container.stop_signal.as_deref())?;
    let (program, args) = command(container, own)?;
    let workdir = container.workdir.as_ref().map(PathBuf::from);
    if let Some(dir) = &workdir
        && !dir.is_dir()
    {
        return rejected(format!("no such directory: {}", dir.display()));
    }
    Ok(Spec {
        program,
        args,
        env: environment(scope, task, container, ports)?,
        workdir,
        user: container.user.as_deref().map(user).transpose()?,
        stop_signal: container.stop_signal.clone(),
        log: limits(task.spec.log_driver.as_ref())?,
        ports: ports.iter().map(Port::from).collect(),
        groups: Vec::new(),
    })
}

/// A signal by name, with or without `SIG`, or number; TERM where there is none.
///
/// # Errors
/// [`RuntimeError::Rejected`] for one that does not exist.
pub(super) fn signal(name: Option<&str>) -> Result<Signal, RuntimeError> {
    const NAMES: [(&str, Signal); 12] = [
        ("HUP", Signal::HUP),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("ABRT", Signal::ABORT),
        ("KILL", Signal::KILL),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("ALRM", Signal::ALARM),
        ("TERM", Signal::TERM),
        ("CONT", Signal::CONT),
        ("STOP", Signal::STOP),
        ("WINCH", Signal::WINCH),
    ];
    let Some(name) = name else {
        return Ok(Signal::TERM);
    };
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES
        .iter()
        .find(|(known, signal)| *known == short || signal.as_raw().to_string() == short)
        .map(|(_, signal)| *signal)
        .ok_or_else(|| RuntimeError::Rejected(format!("invalid stop signal {name:?}")))
}

fn refuse_what_needs_an_engine(container: &ContainerSpec) -> Result<(), RuntimeError> {
    if !container.mounts.is_empty() {
        return rejected("the process runtime has no mounts".to_owned());
    }
    if let Some(health) = &container.health
        && matches!(health.test, HealthTest::Shell(_))
    {
        return rejected("the process runtime has no health checks".to_owned());
    }
    Ok(())
}

/// What is kept of what the task writes, by the options of Docker's `json-file` and `local`.
fn limits(driver: Option<&LogDriver>) -> Result<Limits, RuntimeError> {
    let mut limits = Limits::default();
    let Some(LogDriver { name, options }) = driver else {
        return Ok(limits);
    };
    match name.as_str() {
        "none" => return Ok(Limits::NONE),
        "json-file" | "local" => {}
        _ => {
            return rejected(format!(
                "logger: no log driver named '{name}' is registered (the process runtime has \
                 json-file, local and none)"
            ));
        }
    }
    for (option, value) in options {
        let known = match option.as_str() {
            "max-size" => bytes(value).map(|size| limits.file_bytes = size),
            "max-file" => value
                .parse()
                .ok()
                .filter(|files| *files > 0)
                .map(|files| limits.files = files),
            _ => return rejected(format!("unknown log opt '{option}' for {name} log driver")),
        };
        if known.is_none() {
            return rejected(format!("invalid value {value:?} of log opt {option}"));
        }
    }
    Ok(limits)
}

/// A size as Docker writes it: `10m`, `500k`, `1g`, or bytes.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower
        .trim_end_matches('b')
        .trim_end_matches(['k', 'm', 'g']);
    let unit = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    let size = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (size > 0).then_some(size)
}

fn command(container: &ContainerSpec, own: &Path) -> Result<(PathBuf, Vec<String>), RuntimeError> {
    let mut args = container.args.clone();
    if let Some((program, first)) = container.entrypoint.split_first() {
        args.splice(0..0, first.iter().cloned());
        return Ok((executable(program)?, args));
    }
    if container.image == WHOAMI || container.image.starts_with("whoami:") {
        args.insert(0, WHOAMI.to_owned());
        return Ok((own.to_owned(), args));
    }
    Ok((executable(&container.image)?, args))
}

/// A path must be absolute: the agent's folder and search path mean nothing to a user who
/// creates a service elsewhere.
fn executable(path: &str) -> Result<PathBuf, RuntimeError> {
    let path = PathBuf::from(path);
    let runs = path.is_absolute()
        && fs::metadata(&path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    if runs {
        return Ok(path);
    }
    rejected(format!(
        "No such image: {} (the process runtime runs the absolute path of an executable, or whoami)",
        path.display()
    ))
}

fn environment(
    scope: &Scope,
    task: &Task,
    container: &ContainerSpec,
    ports: &[TaskPort],
) -> Result<Vec<(String, String)>, RuntimeError> {
    let hostname = match &container.hostname {
        Some(name) => expand(name, scope, task)?,
        None => task.id.short().to_owned(),
    };
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOSTNAME".to_owned(), hostname),
        // Agents that share a machine have an address each, and tasks of both may have the
        // same port.
        ("SWARMLET_ADDRESS".to_owned(), scope.advertise.to_string()),
    ]);
    if let Some(port) = ports.first() {
        env.insert("PORT".to_owned(), port.host.to_string());
    }
    for entry in &container.env {
        // One without a value is a request to take it away, as in Docker.
        match entry.split_once('=') {
            Some((name, value)) => {
                env.insert(name.to_owned(), expand(value, scope, task)?);
            }
            None => {
                env.remove(entry);
            }
        }
    }
    env.extend(generic::variables(task));
    Ok(env.into_iter().collect())
}

/// `user[:group]`, each by name or number.
fn user(text: &str) -> Result<(u32, u32), RuntimeError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let found = fields.len() > 3 && (fields[0] == user || fields[2] == user);
        found.then(|| (fields[2].parse().ok(), fields[3].parse().ok()))
    });
    let unknown =
        |what: &str, name: &str| RuntimeError::Rejected(format!("unable to find {what} {name}"));
    let id = entry
        .and_then(|(id, _)| id)
        .or_else(|| user.parse().ok())
        .ok_or_else(|| unknown("user", user))?;
    let group = match group {
        Some(group) => group_id(group).ok_or_else(|| unknown("group", group))?,
        None => entry.and_then(|(_, group)| group).unwrap_or(0),
    };
    Ok((id, group))
}

fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    groups
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
        })
        .or_else(|| name.parse().ok())
}

fn rejected<T>(reason: String) -> Result<T, RuntimeError> {
    Err(RuntimeError::Rejected(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::fake;

    #[track_caller]
    fn check(edit: impl FnOnce(&mut ContainerSpec), expected: Result<(&str, &[&str]), &str>) {
        let task = fake::task(5, |task| edit(&mut task.spec.containers[0]));
        let found = spec(&fake::scope("/tasks"), &task, &[], Path::new("/own"))
            .map(|spec| (spec.program.display().to_string(), spec.args))
            .map_err(|error| error.to_string());
        match (found, expected) {
            (Ok((program, args)), Ok(expected)) => {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                assert_eq!((program.as_str(), args.as_slice()), expected);
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn commands() {
        check(|_| {}, Ok(("/own", &["whoami"])));
        check(
            |c| c.args = vec!["x".into()],
            Ok(("/own", &["whoami", "x"])),
        );
        check(
            |c| {
                c.image = "/bin/sh".into();
                c.args = vec!["-c".into(), "true".into()];
            },
            Ok(("/bin/sh", &["-c", "true"])),
        );
        check(
            |c| {
                c.entrypoint = vec!["/bin/sh".into(), "-c".into()];
                c.args = vec!["true".into()];
            },
            Ok(("/bin/sh", &["-c", "true"])),
        );
        check(
            |c| c.image = "/nonexistent".into(),
            Err("No such image: /nonexistent"),
        );
        check(|c| c.image = "sh".into(), Err("No such image: sh"));
        check(
            |c| c.workdir = Some("/nonexistent".into()),
            Err("no such directory"),
        );
        check(
            |c| c.user = Some("nobody-here".into()),
            Err("unable to find user"),
        );
        check(
            |c| c.stop_signal = Some("SIGNO".into()),
            Err("invalid stop signal"),
        );
    }

    #[test]
    fn the_environment_names_port_and_host() {
        let task = fake::task(5, |task| {
            let container = &mut task.spec.containers[0];
            container.env = vec!["A={{.Task.Slot}}".into(), "PATH".into()];
        });
        let port = TaskPort {
            target: 80,
            host: 20_001,
            protocol: swarmlet_core::model::Protocol::Tcp,
            mode: swarmlet_core::model::PortMode::Ingress,
        };
        let spec = spec(&fake::scope("/tasks"), &task, &[port], Path::new("/own")).unwrap();
        let env: Vec<String> = spec
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            env,
            [
                "A=1",
                "HOSTNAME=000000000000",
                "PORT=20001",
                "SWARMLET_ADDRESS=127.0.0.1"
            ]
        );
    }

    #[test]
    fn log_drivers_are_dockers() {
        let check = |name: &str, options: &[(&str, &str)]| {
            let driver = LogDriver {
                name: name.to_owned(),
                options: options
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            };
            limits(Some(&driver)).map(|limits| (limits.file_bytes, limits.files))
        };
        assert_eq!(limits(None), Ok(Limits::default()));
        assert_eq!(check("none", &[]), Ok((0, 0)));
        assert_eq!(check("local", &[]), Ok((10 << 20, 2)));
        let options = [("max-size", "64k"), ("max-file", "5")];
        assert_eq!(check("json-file", &options), Ok((64 << 10, 5)));
        for (name, options, error) in [
            ("gelf", &[][..], "no log driver named 'gelf'"),
            (
                "json-file",
                &[("max-files", "2")],
                "unknown log opt 'max-files'",
            ),
            (
                "json-file",
                &[("max-size", "many")],
                "invalid value \"many\"",
            ),
            ("json-file", &[("max-size", "0")], "invalid value \"0\""),
            ("json-file", &[("max-file", "0")], "invalid value \"0\""),
        ] {
            let refused = check(name, options).unwrap_err().to_string();
            assert!(refused.contains(error), "{refused}");
        }
        for (text, size) in [("7", 7), ("2K", 2048), ("3mb", 3 << 20), ("1g", 1 << 30)] {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        assert_eq!(bytes("1t"), None);
    }

    #[test]
    fn signals_by_name_and_number() {
        for (name, expected) in [
            (None, Signal::TERM),
            (Some("SIGQUIT"), Signal::QUIT),
            (Some("usr1"), Signal::USR1),
            (Some("9"), Signal::KILL),
        ] {
            assert_eq!(signal(name), Ok(expected), "{name:?}");
        }
    }

    #[test]
    fn users_by_name_and_number() {
        assert_eq!(user("root"), Ok((0, 0)));
        assert_eq!(user("0:0"), Ok((0, 0)));
        assert_eq!(user("12345:54321"), Ok((12345, 54321)));
        assert_eq!(user("root:root"), Ok((0, 0)));
    }
}
