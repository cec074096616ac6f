//! An image whose containers are well while a file is there: whoami, with a shell that knows
//! nothing but to look for one.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::Result;
use swarmlet_integration_tests::{Host, sibling_binary};

/// Makes the image on a host, with a `HEALTHCHECK` where one is given.
pub(crate) fn make_checked_image(host: &Host, name: &str, health: Option<&str>) -> Result<()> {
    let shell = sibling_binary("file-check")?;
    let directory = host.namespace().directory().join("bin");
    fs::create_dir_all(&directory)?;
    fs::copy(shell, directory.join("sh"))?;
    fs::set_permissions(directory.join("sh"), fs::Permissions::from_mode(0o755))?;
    let source = directory.display().to_string();
    let change = health.map(|health| format!("HEALTHCHECK {health}"));
    let mut commit = vec!["commit"];
    if let Some(change) = &change {
        commit.extend(["--change", change]);
    }
    commit.extend(["pattern", name]);
    for words in [
        &["create", "--name", "pattern", "whoami"][..],
        &["cp", &source, "pattern:/bin"],
        &commit,
        &["rm", "pattern"],
    ] {
        host.docker(words)?.success()?;
    }
    Ok(())
}
