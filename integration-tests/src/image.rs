//! Container images made from nothing but a static binary.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::swarmlet_binary;

/// A node's own check of `whoami`, quick to notice: it takes a container out after two that failed.
pub const WHOAMI_CHECK: [&str; 5] = [
    "--check-http=/health",
    "--check-interval=300ms",
    "--check-timeout=2s",
    "--check-rise=1",
    "--check-fall=2",
];

/// An image with one file, a static binary, that listens on port 80.
#[derive(Clone, Debug)]
pub struct Image {
    /// Name without a tag; the tag is `latest`.
    pub name: String,
    binary: PathBuf,
    entrypoint: Vec<String>,
}

impl Image {
    /// `whoami`, from swarmlet itself: an HTTP server that answers with its host name.
    ///
    /// # Errors
    ///
    /// When swarmlet has not been built.
    pub fn whoami() -> Result<Self> {
        Ok(Self::new("whoami", &swarmlet_binary()?, &["whoami"]))
    }

    /// An image that runs `binary` with `args`.
    #[must_use]
    pub fn new(name: &str, binary: &Path, args: &[&str]) -> Self {
        let file = binary
            .file_name()
            .unwrap_or(binary.as_os_str())
            .to_string_lossy();
        let entrypoint =
            std::iter::once(format!("/{file}")).chain(args.iter().map(|arg| (*arg).to_owned()));
        Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            entrypoint: entrypoint.collect(),
        }
    }

    /// What is run in it.
    pub(crate) fn entrypoint(&self) -> &[String] {
        &self.entrypoint
    }

    /// Writes the root file system as a tar archive, for `docker import`.
    pub(crate) fn write_archive(&self, path: &Path) -> Result<()> {
        self.pack(File::create(path)?)?.sync_data()?;
        Ok(())
    }

    /// The root file system as a tar archive.
    pub(crate) fn archive(&self) -> Result<Vec<u8>> {
        self.pack(Vec::new())
    }

    fn pack<W: Write>(&self, into: W) -> Result<W> {
        let failed = || {
            format!(
                "cannot pack {} for the image {}",
                self.binary.display(),
                self.name
            )
        };
        let mut binary = File::open(&self.binary).with_context(failed)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(binary.metadata().with_context(failed)?.len());
        header.set_mode(0o755);
        header.set_cksum();
        let mut archive = tar::Builder::new(into);
        let name = self.entrypoint[0].trim_start_matches('/').to_owned();
        archive
            .append_data(&mut header, name, &mut binary)
            .with_context(failed)?;
        archive.into_inner().with_context(failed)
    }

    /// The arguments of `docker` that make the image of an archive on standard input.
    pub(crate) fn import_arguments(&self) -> Result<Vec<String>> {
        let entrypoint = serde_json::to_string(&self.entrypoint)?;
        ensure!(
            !self.name.contains(':'),
            "an image's name here is without a tag: {}",
            self.name
        );
        Ok(vec![
            "import".into(),
            "--change".into(),
            format!("ENTRYPOINT {entrypoint}"),
            "--change".into(),
            "EXPOSE 80".into(),
            "-".into(),
            format!("{}:latest", self.name),
        ])
    }
}
