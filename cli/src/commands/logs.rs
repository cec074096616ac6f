//! `service logs` and `task logs`: lines to stdout and stderr, as the tasks wrote them, and what
//! is missing to stderr.
//!
//! Nothing is read ahead of whoever reads here: while a write waits, the daemon waits as well.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use swarmlet_core::model::TaskId;
use swarmlet_proto::v1;
use swarmlet_proto::v1::read_logs_response::Kind;
use tonic::Streaming;

use crate::args::{Format, LogFlags, ServiceLogsArgs, TaskCommand, TaskLogsArgs};
use crate::client::{Client, ClientError, call, status_error};
use crate::output::{LogForm, LogLines, LogStyle, Out};

/// How long the daemon may be silent while logs are read to their end. It gives up nodes that
/// are silent long before.
const SILENCE: Duration = Duration::from_secs(20);

/// Lines that are shown of a container that made an update fail.
const LAST_LINES: u64 = 10;

/// Runs a command on tasks.
///
/// # Errors
/// What is to be said to the user.
pub(crate) async fn run(command: TaskCommand, client: &Client) -> Result<ExitCode> {
    let TaskCommand::Logs(TaskLogsArgs { flags, target }) = command;
    show(&flags, target, v1::LogTarget::Task, client).await
}

/// `service logs`.
///
/// # Errors
/// What is to be said to the user.
pub(super) async fn service(args: ServiceLogsArgs, client: &Client) -> Result<ExitCode> {
    let kind = v1::LogTarget::ServiceOrTask;
    show(&args.flags, args.target, kind, client).await
}

/// Shows the last lines of a task that made an update fail, to stderr; they are no data. One
/// that wrote nothing, since it never started, say, has none.
pub(crate) async fn show_last(client: &Client, task: &TaskId) {
    let request = v1::ReadLogsRequest {
        target: task.to_string(),
        kind: v1::LogTarget::Task.into(),
        query: Some(v1::LogQuery {
            tail: Some(LAST_LINES),
            ..v1::LogQuery::default()
        }),
    };
    let mut lines = LogLines::new(LogStyle::default());
    let mut begun = false;
    let write = |_: Out, text: &[u8]| {
        if !begun && !text.is_empty() {
            begun = true;
            eprintln!("The last lines of task {task}:");
        }
        io::stderr().write_all(text)
    };
    let shown = async {
        let mut stream = open(client, request).await?;
        copy(&mut stream, &mut lines, Some(SILENCE), write).await
    };
    if let Err(error) = shown.await {
        eprintln!("warning: the last lines of task {task} cannot be read: {error:#}");
    }
}

async fn show(
    flags: &LogFlags,
    target: String,
    kind: v1::LogTarget,
    client: &Client,
) -> Result<ExitCode> {
    let request = v1::ReadLogsRequest {
        target,
        kind: kind.into(),
        query: Some(v1::LogQuery {
            follow: flags.follow,
            since_ns: flags.since.unwrap_or(0),
            until_ns: flags.until.unwrap_or(0),
            tail: flags.tail.0,
            details: flags.details,
        }),
    };
    let mut lines = LogLines::new(style(flags));
    let mut stream = open(client, request).await?;
    // Ctrl-C ends this program by the signal, as it ends any other that writes: nothing is left
    // behind, and the nodes stop reading once the connection has gone.
    let silence = (!flags.follow).then_some(SILENCE);
    copy(&mut stream, &mut lines, silence, write).await?;
    Ok(ExitCode::SUCCESS)
}

fn style(flags: &LogFlags) -> LogStyle {
    LogStyle {
        timestamps: flags.timestamps,
        details: flags.details,
        no_trunc: flags.no_trunc,
        no_task_ids: flags.no_task_ids,
        no_resolve: flags.no_resolve,
        form: match (flags.raw, flags.format) {
            (true, _) => LogForm::Raw,
            (false, Format::Table) => LogForm::Pretty,
            (false, Format::Json) => LogForm::Json,
        },
    }
}

async fn open(
    client: &Client,
    request: v1::ReadLogsRequest,
) -> Result<Streaming<v1::ReadLogsResponse>, ClientError> {
    call(client.logs().read_logs(request)).await
}

/// Writes what comes until it ends, or until nobody takes it.
async fn copy(
    stream: &mut Streaming<v1::ReadLogsResponse>,
    lines: &mut LogLines,
    silence: Option<Duration>,
    mut write: impl FnMut(Out, &[u8]) -> io::Result<()>,
) -> Result<()> {
    let copied = loop {
        let next = tokio::time::timeout(silence.unwrap_or(Duration::MAX), stream.message()).await;
        let message = match next {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => break Ok(()),
            Ok(Err(status)) => break Err(status_error(&status)),
            Err(_) => break Err(ClientError::Deadline(SILENCE)),
        };
        if let Err(error) = take(message, lines, &mut write) {
            // A reader that has gone away (`… | head -1`) has seen enough.
            return match error.kind() {
                ErrorKind::BrokenPipe => Ok(()),
                _ => Err(error.into()),
            };
        }
    };
    for (out, text) in lines.end() {
        write(out, &text)?;
    }
    Ok(copied?)
}

fn take(
    message: v1::ReadLogsResponse,
    lines: &mut LogLines,
    write: &mut impl FnMut(Out, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    match message.kind {
        Some(Kind::Header(header)) => lines.header(&header),
        Some(Kind::Source(source)) => lines.source(source),
        Some(Kind::Warning(text)) => eprintln!("warning: incomplete log stream: {text}"),
        Some(Kind::Lines(found)) => {
            // Lines that go to the same place are written together.
            let mut waiting: Option<(Out, Vec<u8>)> = None;
            for line in &found.lines {
                let (out, text) = lines.line(line);
                match &mut waiting {
                    Some((to, buffer)) if *to == out => buffer.extend_from_slice(&text),
                    _ => {
                        if let Some((to, buffer)) = waiting.replace((out, text)) {
                            write(to, &buffer)?;
                        }
                    }
                }
            }
            if let Some((to, buffer)) = waiting {
                write(to, &buffer)?;
            }
        }
        // A newer daemon may say what this program does not know.
        None => {}
    }
    Ok(())
}

fn write(out: Out, text: &[u8]) -> io::Result<()> {
    match out {
        Out::Stdout => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text).and_then(|()| stdout.flush())
        }
        Out::Stderr => io::stderr().write_all(text),
    }
}
