//! The settings that systemd gives to the daemon: a file of `NAME=VALUE` lines, which belongs to
//! the administrator and is changed line by line.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use super::files::place;

/// Where they are.
pub(crate) const PATH: &str = "/etc/swarmlet/swarmlet.env";

/// What a new file holds: every setting, commented out.
pub(super) const TEXT: &str = include_str!("../../../packaging/swarmlet.env");

/// Writes settings into the file that the unit reads; returns the lines that are new in it.
/// What it holds already is left alone, so that the same call twice changes nothing.
///
/// # Errors
/// The system's, with the path and with what to write there by hand.
pub(crate) fn keep(settings: &[(String, String)]) -> Result<Vec<String>> {
    keep_in(Path::new(PATH), settings).with_context(|| {
        format!(
            "cannot give the daemon its settings: put {} into {PATH} as root and try again",
            lines(settings)
        )
    })
}

/// Settings as they stand in the file, in one line of text.
pub(crate) fn lines(settings: &[(String, String)]) -> String {
    let lines: Vec<String> = settings.iter().map(line).collect();
    lines.join(" and ")
}

fn keep_in(path: &Path, settings: &[(String, String)]) -> Result<Vec<String>> {
    let before = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => TEXT.to_owned(),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut text = before;
    let mut changed = Vec::new();
    for setting in settings {
        if value(&text, &setting.0).as_deref() != Some(setting.1.as_str()) {
            text = with(&text, setting);
            changed.push(line(setting));
        }
    }
    if !changed.is_empty() {
        place(path.to_owned(), text.as_bytes(), 0o644)?;
    }
    Ok(changed)
}

/// The value of a variable in a file for systemd's `EnvironmentFile=`; the last line wins.
pub(super) fn value(text: &str, name: &str) -> Option<String> {
    let (_, value) = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .rfind(|(found, _)| found.trim() == name)?;
    let value = value.trim();
    let within = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    let value = match (within('"'), within('\'')) {
        (Some(inner), _) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        (None, Some(inner)) => inner.to_owned(),
        (None, None) => value.to_owned(),
    };
    Some(value).filter(|value| !value.is_empty())
}

/// The text with one setting: in place of the line that is in force, or below the comment that
/// shows its default, or at the end.
fn with(text: &str, setting: &(String, String)) -> String {
    let name = &setting.0;
    let is = |line: &str, wanted: &str| {
        line.split_once('=')
            .is_some_and(|(found, _)| found.trim() == wanted)
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let in_force = lines.iter().rposition(|line| is(line, name));
    let shown = lines.iter().rposition(|line| is(line, &format!("#{name}")));
    match (in_force, shown) {
        (Some(at), _) => lines[at] = line(setting),
        (None, Some(at)) => lines.insert(at + 1, line(setting)),
        (None, None) => lines.push(line(setting)),
    }
    lines.join("\n") + "\n"
}

/// A line as systemd reads it: quoted where it has to be.
fn line((name, value): &(String, String)) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,[]@%+".contains(c);
    if value.chars().all(plain) {
        return format!("{name}={value}");
    }
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{name}=\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn settings_are_kept_once_and_the_rest_of_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("swarmlet.env");
        let wanted = [
            setting("SWARMLET_TASK_PORTS", "21000-21999"),
            setting("SWARMLET_DATA_DIR", "/srv/my \"swarm\""),
            setting("SWARMLET_FUTURE", "1"),
        ];
        let lines = [
            "SWARMLET_TASK_PORTS=21000-21999",
            r#"SWARMLET_DATA_DIR="/srv/my \"swarm\"""#,
            "SWARMLET_FUTURE=1",
        ];
        assert_eq!(keep_in(&path, &wanted).unwrap(), lines);
        let text = fs::read_to_string(&path).unwrap();
        for line in TEXT.lines() {
            assert!(text.contains(line), "{line}");
        }
        let below = "#SWARMLET_TASK_PORTS=20000-29999\nSWARMLET_TASK_PORTS=21000-21999\n";
        assert!(text.contains(below), "{text}");
        for (name, expected) in &wanted {
            assert_eq!(value(&text, name).as_ref(), Some(expected));
        }

        assert_eq!(keep_in(&path, &wanted).unwrap(), [""; 0]);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);

        let other = [setting("SWARMLET_TASK_PORTS", "22000-22999")];
        assert_eq!(
            keep_in(&path, &other).unwrap(),
            ["SWARMLET_TASK_PORTS=22000-22999"]
        );
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("21000"), "{text}");
        assert_eq!(text.matches("\nSWARMLET_TASK_PORTS=").count(), 1);
    }

    #[test]
    fn settings_are_read_as_systemd_does() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(value(text, "A").as_deref(), expected, "{text:?}");
        };
        check("", None);
        check("#A=1", None);
        check("AB=1", None);
        check("A=", None);
        check("A=/x", Some("/x"));
        check("A=1\nA = 2 ", Some("2"));
        check("A='/a b'", Some("/a b"));
        check("A=\"x", Some("\"x"));
    }
}
