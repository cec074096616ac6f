//! Where the binaries under test are.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::SystemTime,
};

use anyhow::{Context, Result, anyhow, ensure};

/// The `swarmlet` binary: `SWARMLET_BIN`, or the one built beside the tests.
///
/// # Errors
///
/// When there is none, or when it is older than a source that it was built
/// from: cargo builds it for the tests of its own package only, and a test of
/// yesterday's program shows nothing. Says how to build it.
pub fn swarmlet_binary() -> Result<PathBuf> {
    // Looked at once: somebody who edits while the tests run tests what there was at their start.
    static FOUND: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| find().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

fn find() -> Result<PathBuf> {
    if let Some(path) = env::var_os("SWARMLET_BIN") {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "SWARMLET_BIN names {}, which is no file",
            path.display()
        );
        return Ok(path);
    }
    let advice = "build it by `cargo build -p swarmlet`, or name one in SWARMLET_BIN";
    let binary = sibling_binary("swarmlet").context(advice)?;
    let list = binary.with_extension("d");
    let sources = fs::read_to_string(&list)
        .with_context(|| format!("cannot read {}, cargo's list of sources", list.display()))?;
    let built = modified(&binary)?;
    for source in sources_in(&sources) {
        let newer = modified(Path::new(&source)).map_or(true, |changed| changed > built);
        ensure!(
            !newer,
            "{} is older than {source}: {advice}",
            binary.display()
        );
    }
    Ok(binary)
}

/// The files in cargo's `BINARY: SOURCE SOURCE …`, where a blank in a name is
/// written with a backslash.
fn sources_in(list: &str) -> Vec<String> {
    let (_, sources) = list.split_once(": ").unwrap_or_default();
    sources
        .trim_end()
        .replace("\\ ", "\0")
        .split(' ')
        .filter(|source| !source.is_empty())
        .map(|source| source.replace('\0', " "))
        .collect()
}

fn modified(path: &Path) -> Result<SystemTime> {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .with_context(|| format!("cannot read {}", path.display()))
}

/// A binary of this workspace with the profile and target of the running test.
///
/// # Errors
///
/// When it has not been built.
pub fn sibling_binary(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("cannot tell where the running test is")?;
    // Tests are in `deps`, below the directory where cargo puts binaries.
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "there is no binary {name} beside {}",
            parent(&own).display()
        )
    })
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_sources_is_read() {
        assert_eq!(
            sources_in("/t/swarmlet: /w/a.rs /w/b\\ c.rs\n"),
            ["/w/a.rs", "/w/b c.rs"]
        );
        assert_eq!(sources_in(""), [""; 0]);
    }
}
