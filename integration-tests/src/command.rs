//! Running a command to its end, with a deadline.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::wait_until;

/// What a command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Output {
    /// Standard output of a command that is expected to succeed.
    ///
    /// # Errors
    ///
    /// When the exit code is not 0; with the command and what it wrote.
    pub fn success(self) -> Result<String> {
        if self.code == Some(0) {
            return Ok(self.stdout);
        }
        let code = self
            .code
            .map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
        bail!(
            "`{}` ended with {code}: {}{}",
            self.command,
            self.stderr,
            self.stdout
        );
    }
}

/// Runs `command` to its end and returns what it wrote.
///
/// Its output goes through files in `directory`, not through pipes: a command
/// may leave a daemon behind that holds a pipe open for ever.
///
/// # Errors
///
/// When it cannot be started or has not ended within `limit`; it is killed then.
pub(crate) fn run(mut command: Command, directory: &Path, limit: Duration) -> Result<Output> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let line = line(&command);
    fs::create_dir_all(directory)?;
    let stem = directory.join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
    let (out, err) = (stem.with_extension("out"), stem.with_extension("err"));
    command
        .stdout(File::create(&out)?)
        .stderr(File::create(&err)?);

    let started = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let ended = wait_until(limit, &format!("end of `{line}`"), || Ok(child.try_wait()?));
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let took = started.elapsed();
    let stdout = String::from_utf8_lossy(&fs::read(&out)?).into_owned();
    let stderr = String::from_utf8_lossy(&fs::read(&err)?).into_owned();
    fs::remove_file(&out)?;
    fs::remove_file(&err)?;
    let status = ended.with_context(|| format!("it wrote: {stdout}{stderr}"))?;
    Ok(Output {
        command: line,
        code: status.code(),
        stdout,
        stderr,
        took,
    })
}

/// Gives a command that will not be waited for its log file, and no terminal.
pub(crate) fn log_to(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::options().create(true).append(true).open(log)?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    Ok(())
}

/// The command line without the words that enter the host's namespaces.
fn line(command: &Command) -> String {
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    let own = words
        .iter()
        .position(|word| word == "--")
        .map_or(0, |at| at + 1);
    let mut line = words[own..].join(" ");
    if own == 0 {
        line = format!("{} {line}", command.get_program().to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_shell(script: &str, limit: Duration) -> Result<Output> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(
            command,
            &std::env::temp_dir().join("swarmlet-command-test"),
            limit,
        )
    }

    #[test]
    fn output_and_code_are_kept_apart() {
        let output = run_shell(
            "echo data; echo message >&2; exit 3",
            Duration::from_secs(5),
        )
        .unwrap();
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str(), output.code),
            ("data\n", "message\n", Some(3))
        );
        assert!(output.success().unwrap_err().to_string().contains("code 3"));
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let error =
            run_shell("echo so far; exec sleep 60", Duration::from_millis(200)).unwrap_err();
        assert!(format!("{error:#}").contains("so far"), "{error:#}");
    }

    #[test]
    fn a_daemon_left_behind_does_not_hold_the_command_up() {
        let output = run_shell("sleep 2 & echo done", Duration::from_secs(1)).unwrap();
        assert_eq!(output.success().unwrap(), "done\n");
    }
}
