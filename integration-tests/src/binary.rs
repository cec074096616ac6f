//! Where the binaries under test are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// The `swarmlet` binary: `SWARMLET_BIN`, or the one built beside the tests.
///
/// # Errors
///
/// When there is none; says how to build it.
pub fn swarmlet_binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("SWARMLET_BIN") {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "SWARMLET_BIN names {}, which is no file",
            path.display()
        );
        return Ok(path);
    }
    sibling_binary("swarmlet")
        .context("build it by `cargo build -p swarmlet`, or name one in SWARMLET_BIN")
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
