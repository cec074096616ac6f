//! The shim: starts a task's command, waits for it, and writes down how it ended.
//!
//! It is the hidden subcommand `shim DIR` of the program. It leads a session of its own, so
//! that nothing that ends the agent or its terminal reaches it, and it holds the folder's
//! lock for as long as it lives. Once the command runs it writes one byte to its standard
//! output. What the command writes goes through its pipes into the task's log.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, setsid, waitid};

use super::cgroup;
use super::files::{self, Ended, Spec, Started, TaskDir};
use super::log_writer::{self, LogWriter};
use super::records::Limits;
use super::stat;
use crate::runtime::log::LogStream;

/// How often and how far apart the lock is tried: for a second in all.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Before the task's folder: enter its control groups and become its command.
const ENTER: &str = "--enter";

/// What a shell answers for a command that it cannot start.
const NOT_STARTED: u8 = 127;
/// How long the last lines of a command may take on their way to the disk.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Runs the shim. `args` is what follows the subcommand: the task's folder.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let Some(dir) = args.next() else {
        return ExitCode::from(2);
    };
    if dir == ENTER {
        return match args.next() {
            Some(dir) => become_command(&TaskDir::at(PathBuf::from(dir))),
            None => ExitCode::from(2),
        };
    }
    match run(&TaskDir::at(PathBuf::from(dir))) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads the standard error of a shim; the missing files say that it failed.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(dir: &TaskDir) -> io::Result<()> {
    setsid()?;
    let _lock = lock(dir)?;
    if dir.exit().exists() {
        return Ok(());
    }
    let spec: Spec = files::read(&dir.spec())?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no specification"))?;
    let ended = match start(dir, &spec) {
        Ok(mut child) => {
            let copying = Copying::start(dir, &spec, &mut child);
            announce(dir, &child)?;
            let status = wait(&mut child)?;
            copying.finish();
            cgroup::remove(&spec.groups);
            Ended {
                code: exit_code(status),
                reason: None,
                refusal: None,
            }
        }
        Err(error) => Ended {
            code: NOT_STARTED.into(),
            reason: None,
            refusal: Some(format!("cannot start {}: {error}", spec.program.display())),
        },
    };
    files::write(&dir.exit(), &ended)
}

/// Takes the folder's lock. An agent that looks whether a shim is there holds it for a moment
/// as well, so it is tried more than once.
fn lock(dir: &TaskDir) -> io::Result<fs::File> {
    for _ in 0..LOCK_TRIES {
        if let Some(lock) = dir.lock()? {
            return Ok(lock);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Err(io::Error::other("another shim runs this task"))
}

fn start(dir: &TaskDir, spec: &Spec) -> io::Result<Child> {
    let mut command = if spec.groups.is_empty() {
        plain(spec)
    } else {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("shim").arg(ENTER).arg(dir.path());
        command
    };
    command
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output(spec))
        .stderr(output(spec))
        // A group of its own, so that all that it starts can be ended with it.
        .process_group(0);
    command.current_dir(spec.workdir.as_deref().unwrap_or(Path::new("/")));
    command.spawn()
}

/// The command as its user.
fn plain(spec: &Spec) -> Command {
    let mut command = Command::new(&spec.program);
    command.args(&spec.args);
    if let Some((user, group)) = spec.user {
        command.uid(user).gid(group);
    }
    command
}

/// Enters the task's control groups and becomes its command, which keeps the process id. What
/// goes wrong is in the task's own output.
fn become_command(dir: &TaskDir) -> ExitCode {
    let spec = match files::read::<Spec>(&dir.spec()) {
        Ok(Some(spec)) => spec,
        Ok(None) => return ExitCode::from(2),
        Err(error) => return refuse(&error.to_string()),
    };
    if let Err(error) = cgroup::enter(&spec.groups) {
        return refuse(&format!("cannot limit the task: {error}"));
    }
    let error = plain(&spec).exec();
    refuse(&format!("cannot start {}: {error}", spec.program.display()))
}

fn refuse(reason: &str) -> ExitCode {
    // Without an output there is nobody to tell.
    let _untold = writeln!(io::stderr(), "{reason}");
    ExitCode::from(NOT_STARTED)
}

fn output(spec: &Spec) -> Stdio {
    if spec.log == Limits::NONE {
        Stdio::null()
    } else {
        Stdio::piped()
    }
}

/// The threads that write down what the command writes.
struct Copying {
    /// Each has a sender, which goes with it.
    running: Receiver<()>,
}

impl Copying {
    fn start(dir: &TaskDir, spec: &Spec, child: &mut Child) -> Self {
        let (alive, running) = mpsc::channel();
        // Without a file everything is read all the same: nobody else empties the pipes.
        let log = LogWriter::open(dir.path(), spec.log).ok();
        let log = Arc::new(Mutex::new(log));
        let stdout = child
            .stdout
            .take()
            .map(|pipe| (OwnedFd::from(pipe), LogStream::Stdout));
        let stderr = child
            .stderr
            .take()
            .map(|pipe| (OwnedFd::from(pipe), LogStream::Stderr));
        for (pipe, stream) in stdout.into_iter().chain(stderr) {
            let (log, alive) = (log.clone(), alive.clone());
            std::thread::spawn(move || {
                log_writer::copy(fs::File::from(pipe), stream, &log);
                drop(alive);
            });
        }
        Self { running }
    }

    /// Waits until the last line is written. What the command left running in a group of its
    /// own may hold the pipes open for ever; nobody waits for that.
    fn finish(self) {
        // Nothing is ever sent: it ends with the last thread, or with the time.
        let _over = self.running.recv_timeout(LAST_LINES);
    }
}

fn announce(dir: &TaskDir, child: &Child) -> io::Result<()> {
    let started = Started {
        pid: child.id(),
        // A child that has already ended has none any more, and needs no signal either.
        start_time: stat::start_time(child.id()).unwrap_or(0),
        shim: std::process::id(),
    };
    let written = files::write(&dir.started(), &started);
    if written.is_err() {
        // Nobody could ever find it again.
        end_group(child);
        return written;
    }
    let mut ready = io::stdout();
    // An agent that ended meanwhile reads the file when it comes back.
    let _unread = ready.write_all(b"r").and_then(|()| ready.flush());
    Ok(())
}

/// Waits for the command, and ends what it left behind. The command is still a zombie then,
/// so that nobody else can have its process id.
fn wait(child: &mut Child) -> io::Result<std::process::ExitStatus> {
    let id = WaitId::Pid(Pid::from_child(child));
    loop {
        match waitid(id.clone(), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => break,
        }
    }
    end_group(child);
    child.wait()
}

fn end_group(child: &Child) {
    // Mostly there is nothing left in the group, which is an error here and none to us.
    let _nothing_left = kill_process_group(Pid::from_child(child), Signal::KILL);
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}
