//! Lines of logs as Docker shows them:
//!
//! ```text
//! 2026-11-23T03:20:08.000000001Z ng.1.50qe8lfnxaxk@worker1    | a line
//! ```

use std::collections::BTreeMap;

use serde::Serialize;
use swarmlet_core::moment::rfc3339;
use swarmlet_proto::v1;

/// Characters of an identifier that are shown.
const SHORT: usize = 12;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LogStyle {
    /// When a line was written, in front of it.
    pub(crate) timestamps: bool,
    /// What the logging driver was told to add.
    pub(crate) details: bool,
    /// Whole identifiers.
    pub(crate) no_trunc: bool,
    /// No identifiers of tasks.
    pub(crate) no_task_ids: bool,
    /// Identifiers instead of names.
    pub(crate) no_resolve: bool,
    /// What is in front of a line.
    pub(crate) form: LogForm,
}

/// What is in front of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LogForm {
    /// Its task and node.
    #[default]
    Pretty,
    /// Nothing.
    Raw,
    /// It is a field of a JSON object.
    Json,
}

/// Where text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Out {
    /// What tasks wrote to their standard output.
    Stdout,
    /// What they wrote to their standard error.
    Stderr,
}

/// Turns lines into text.
#[derive(Debug, Default)]
pub(crate) struct LogLines {
    style: LogStyle,
    /// Digits of the largest slot.
    slot_width: usize,
    sources: BTreeMap<String, v1::LogSource>,
    /// Whose line was begun and goes on, on either output.
    open: [Option<String>; 2],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Record<'a> {
    time: String,
    stream: &'static str,
    #[serde(rename = "ServiceID")]
    service: &'a str,
    #[serde(rename = "TaskID")]
    task: &'a str,
    name: &'a str,
    #[serde(rename = "NodeID")]
    node: &'a str,
    hostname: &'a str,
    message: String,
    details: &'a str,
}

impl LogLines {
    /// Lines of this look.
    pub(crate) fn new(style: LogStyle) -> Self {
        Self {
            style,
            ..Self::default()
        }
    }

    /// Notes how many tasks there are.
    pub(crate) fn header(&mut self, header: &v1::LogHeader) {
        self.slot_width = header.replicas.to_string().len();
    }

    /// Notes whose lines may come.
    pub(crate) fn source(&mut self, source: v1::LogSource) {
        self.sources.insert(source.task_id.clone(), source);
    }

    /// A line as it is to be written, and where to.
    pub(crate) fn line(&mut self, line: &v1::LogLine) -> (Out, Vec<u8>) {
        let out = match line.stream() {
            v1::LogStream::Stderr => Out::Stderr,
            v1::LogStream::Stdout | v1::LogStream::Unspecified => Out::Stdout,
        };
        if self.style.form == LogForm::Json {
            return (Out::Stdout, self.json(line, out));
        }
        let mut text = Vec::with_capacity(line.data.len() + 80);
        let open = self.open[out as usize].take();
        let goes_on = open.as_deref() == Some(line.task_id.as_str());
        if open.is_some() && !goes_on {
            // The rest of that line never came, or comes later.
            text.push(b'\n');
        }
        if !goes_on {
            text.extend_from_slice(self.prefix(line).as_bytes());
        }
        text.extend_from_slice(&line.data);
        if !line.data.ends_with(b"\n") {
            self.open[out as usize] = Some(line.task_id.clone());
        }
        (out, text)
    }

    /// What ends lines that were begun: text may follow that is no line of a log.
    pub(crate) fn end(&mut self) -> [(Out, Vec<u8>); 2] {
        let rest = |open: Option<String>| open.map(|_| b"\n".to_vec()).unwrap_or_default();
        let [stdout, stderr] = std::mem::take(&mut self.open);
        if self.style.form == LogForm::Raw {
            return [(Out::Stdout, Vec::new()), (Out::Stderr, Vec::new())];
        }
        [(Out::Stdout, rest(stdout)), (Out::Stderr, rest(stderr))]
    }

    fn prefix(&self, line: &v1::LogLine) -> String {
        let mut text = String::new();
        if self.style.timestamps {
            text = rfc3339(line.at_ns) + " ";
        }
        let source = self.sources.get(&line.task_id);
        match (self.style.form, source) {
            (LogForm::Pretty, Some(source)) => {
                text += &self.name(source);
                text += "    | ";
                if self.style.details {
                    text += &line.details;
                    text.push(' ');
                }
            }
            (_, Some(source)) if self.style.details => {
                text += &format!(
                    "swarmlet.node.id={},swarmlet.service.id={},swarmlet.task.id={}",
                    source.node_id, source.service_id, source.task_id
                );
                if !line.details.is_empty() {
                    text.push(',');
                    text += &line.details;
                }
                text.push(' ');
            }
            _ => {}
        }
        text
    }

    /// `ng.1.50qe8lfnxaxk@worker1`, padded to the width of the largest slot.
    fn name(&self, source: &v1::LogSource) -> String {
        let mut name = if self.style.no_resolve {
            format!("{}.{}", source.service_id, source.slot)
        } else {
            source.task_name.clone()
        };
        if !self.style.no_task_ids {
            name.push('.');
            let id = source.task_id.as_str();
            let length = if self.style.no_trunc { id.len() } else { SHORT };
            name += id.get(..length).unwrap_or(id);
        }
        let node = if self.style.no_resolve || source.hostname.is_empty() {
            &source.node_id
        } else {
            &source.hostname
        };
        let padding = self
            .slot_width
            .saturating_sub(source.slot.to_string().len());
        format!("{name}@{node}{}", " ".repeat(padding))
    }

    fn json(&self, line: &v1::LogLine, out: Out) -> Vec<u8> {
        let nobody = v1::LogSource::default();
        let source = self.sources.get(&line.task_id).unwrap_or(&nobody);
        let text = String::from_utf8_lossy(&line.data);
        let record = Record {
            time: rfc3339(line.at_ns),
            stream: match out {
                Out::Stdout => "stdout",
                Out::Stderr => "stderr",
            },
            service: &source.service_id,
            task: &line.task_id,
            name: &source.task_name,
            node: &source.node_id,
            hostname: &source.hostname,
            message: text.strip_suffix('\n').unwrap_or(&text).to_owned(),
            details: &line.details,
        };
        // Texts alone: there is nothing that JSON cannot hold.
        let mut json = serde_json::to_vec(&record).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(style: LogStyle) -> LogLines {
        let mut lines = LogLines::new(style);
        lines.header(&v1::LogHeader { replicas: 10 });
        for (task, slot, hostname) in [
            ("50qe8lfnxaxkzzzzzzzzzzzzz", 1, "worker1"),
            ("9jkasdfghjklzzzzzzzzzzzzz", 10, "w2"),
        ] {
            lines.source(v1::LogSource {
                task_id: task.to_owned(),
                task_name: format!("ng.{slot}"),
                service_id: "svc".to_owned(),
                node_id: format!("node-of-{hostname}"),
                hostname: hostname.to_owned(),
                slot,
            });
        }
        lines
    }

    fn line(task: u8, text: &str, stream: v1::LogStream) -> v1::LogLine {
        v1::LogLine {
            task_id: match task {
                1 => "50qe8lfnxaxkzzzzzzzzzzzzz".to_owned(),
                _ => "9jkasdfghjklzzzzzzzzzzzzz".to_owned(),
            },
            at_ns: 1_700_000_000_123_456_789,
            stream: stream.into(),
            data: text.as_bytes().to_vec().into(),
            details: "tier=web".to_owned(),
        }
    }

    #[track_caller]
    fn check(style: LogStyle, expected: [&str; 2]) {
        let mut lines = lines(style);
        for (task, expected) in [1, 10].into_iter().zip(expected) {
            let (out, text) = lines.line(&line(task, "text\n", v1::LogStream::Stdout));
            assert_eq!(out, Out::Stdout);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }

    #[test]
    fn lines_look_as_dockers() {
        let plain = LogStyle::default();
        check(
            plain,
            [
                "ng.1.50qe8lfnxaxk@worker1     | text\n",
                "ng.10.9jkasdfghjkl@w2    | text\n",
            ],
        );
        check(
            LogStyle {
                timestamps: true,
                details: true,
                no_task_ids: true,
                ..plain
            },
            [
                "2023-11-14T22:13:20.123456789Z ng.1@worker1     | tier=web text\n",
                "2023-11-14T22:13:20.123456789Z ng.10@w2    | tier=web text\n",
            ],
        );
        check(
            LogStyle {
                no_trunc: true,
                no_resolve: true,
                ..plain
            },
            [
                "svc.1.50qe8lfnxaxkzzzzzzzzzzzzz@node-of-worker1     | text\n",
                "svc.10.9jkasdfghjklzzzzzzzzzzzzz@node-of-w2    | text\n",
            ],
        );
        let raw = LogStyle {
            form: LogForm::Raw,
            ..plain
        };
        check(raw, ["text\n", "text\n"]);
        check(
            LogStyle {
                details: true,
                ..raw
            },
            [
                "swarmlet.node.id=node-of-worker1,swarmlet.service.id=svc,\
                 swarmlet.task.id=50qe8lfnxaxkzzzzzzzzzzzzz,tier=web text\n",
                "swarmlet.node.id=node-of-w2,swarmlet.service.id=svc,\
                 swarmlet.task.id=9jkasdfghjklzzzzzzzzzzzzz,tier=web text\n",
            ],
        );
    }

    #[test]
    fn json_has_one_object_to_a_line() {
        let mut lines = lines(LogStyle {
            form: LogForm::Json,
            ..LogStyle::default()
        });
        let (out, text) = lines.line(&line(1, "say \"x\"\n", v1::LogStream::Stderr));
        assert_eq!(out, Out::Stdout);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "{\"Time\":\"2023-11-14T22:13:20.123456789Z\",\"Stream\":\"stderr\",\
             \"ServiceID\":\"svc\",\"TaskID\":\"50qe8lfnxaxkzzzzzzzzzzzzz\",\"Name\":\"ng.1\",\
             \"NodeID\":\"node-of-worker1\",\"Hostname\":\"worker1\",\
             \"Message\":\"say \\\"x\\\"\",\"Details\":\"tier=web\"}\n"
        );
    }

    #[test]
    fn long_lines_are_put_together_and_streams_kept_apart() {
        let mut lines = lines(LogStyle::default());
        let mut say = |task, text, stream| {
            let (out, text) = lines.line(&line(task, text, stream));
            (out, String::from_utf8(text).unwrap())
        };
        let (stdout, stderr) = (v1::LogStream::Stdout, v1::LogStream::Stderr);
        let first = "ng.1.50qe8lfnxaxk@worker1     | ";
        assert_eq!(
            say(1, "begin", stdout),
            (Out::Stdout, format!("{first}begin"))
        );
        assert_eq!(
            say(1, "err\n", stderr),
            (Out::Stderr, format!("{first}err\n"))
        );
        assert_eq!(say(1, " end\n", stdout), (Out::Stdout, " end\n".to_owned()));
        assert_eq!(say(1, "cut", stdout).1, format!("{first}cut"));
        let other = say(2, "x\n", stdout).1;
        assert_eq!(other, "\nng.10.9jkasdfghjkl@w2    | x\n");
        say(1, "open", stdout);
        let [(_, stdout), (_, stderr)] = lines.end();
        assert_eq!((stdout, stderr), (b"\n".to_vec(), Vec::new()));
    }
}
