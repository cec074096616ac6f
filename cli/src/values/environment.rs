//! Environment variables, files of them, and labels.

/// Reads `NAME=VALUE`; a bare `NAME` takes its value from `lookup` (the caller's own
/// environment), and is left out where it has none, as Docker does.
///
/// # Errors
/// A sentence that names the text.
pub(crate) fn env_variable(
    text: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    let name = text.split('=').next().unwrap_or_default();
    if name.is_empty() {
        return Err(format!(
            "invalid environment variable: {text}: expected NAME=VALUE"
        ));
    }
    if text.contains('=') {
        return Ok(Some(text.to_owned()));
    }
    Ok(lookup(name).map(|value| format!("{name}={value}")))
}

/// Reads a file of environment variables: one to a line, `#` begins a comment line.
///
/// # Errors
/// A sentence that names the line.
pub(crate) fn env_file(
    content: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, String> {
    let mut variables = Vec::new();
    for line in content.trim_start_matches('\u{feff}').lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(format!("no variable name on line '{line}'"));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!("variable '{name}' contains whitespaces"));
        }
        variables.extend(env_variable(line, &lookup)?);
    }
    Ok(variables)
}

/// Reads `KEY=VALUE`; a bare `KEY` has an empty value, as Docker's labels do.
///
/// # Errors
/// A sentence that names the text.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        return Err(format!("invalid label '{text}': empty name"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }

    #[test]
    fn variables_are_read() {
        for (text, expected) in [
            ("A=1", Ok(Some("A=1"))),
            ("A=", Ok(Some("A="))),
            ("A=b=c", Ok(Some("A=b=c"))),
            ("HOME", Ok(Some("HOME=/root"))),
            ("NOWHERE", Ok(None)),
            (
                "=x",
                Err("invalid environment variable: =x: expected NAME=VALUE"),
            ),
            (
                "",
                Err("invalid environment variable: : expected NAME=VALUE"),
            ),
        ] {
            let expected = expected
                .map(|v| v.map(str::to_owned))
                .map_err(str::to_owned);
            assert_eq!(env_variable(text, lookup), expected, "{text:?}");
        }
    }

    #[test]
    fn files_are_read() {
        let check = |content: &str, expected: Result<&[&str], &str>| {
            let expected = expected
                .map(|list| list.iter().map(|&v| v.to_owned()).collect::<Vec<_>>())
                .map_err(str::to_owned);
            assert_eq!(env_file(content, lookup), expected, "{content:?}");
        };
        check("", Ok(&[]));
        check(
            "# c\n\nA=1\r\n  B=2 3\nHOME\nNOWHERE\n",
            Ok(&["A=1", "B=2 3", "HOME=/root"]),
        );
        check("A=1\n=2", Err("no variable name on line '=2'"));
        check("A B=1", Err("variable 'A B' contains whitespaces"));
    }

    #[test]
    fn labels_are_read() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(key_value("a"), Ok(("a".to_owned(), String::new())));
        assert_eq!(
            key_value("=b"),
            Err("invalid label '=b': empty name".to_owned())
        );
    }
}
