//! The image of the demo's service, made of this very program.

use std::collections::HashMap;

use anyhow::{Context, Result};
use bollard::Docker;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder,
};
use futures_util::TryStreamExt;

use crate::output::print;

/// Repository of the image; the tag is the demo's own.
const REPOSITORY: &str = "whoami";

/// An image in the engine.
pub(super) struct Image {
    docker: Docker,
    tag: String,
    name: String,
}

impl Image {
    /// Names the image; it is not in the engine yet.
    pub(super) fn new(host: &str) -> Result<Self> {
        let docker = Docker::connect_with_host(host).context("cannot reach the Docker engine")?;
        let tag = format!("swarmlet-demo-{}", std::process::id());
        Ok(Self {
            docker,
            name: format!("{REPOSITORY}:{tag}"),
            tag,
        })
    }

    /// What services call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Puts the program into the engine as an image: one static binary needs no base.
    pub(super) async fn import(&self) -> Result<()> {
        print(&format!(
            "\n$ tar -c swarmlet | docker import --change 'ENTRYPOINT [\"/swarmlet\",\"whoami\"]' - {}\n",
            self.name
        ))?;
        let archive = archive()?;
        let changes = ["ENTRYPOINT [\"/swarmlet\",\"whoami\"]", "EXPOSE 80"];
        let options = CreateImageOptionsBuilder::new()
            .from_src("-")
            .repo(REPOSITORY)
            .tag(&self.tag)
            .changes(changes.map(str::to_owned).to_vec())
            .build();
        let progress = self.docker.create_image(
            Some(options),
            Some(bollard::body_full(archive.into())),
            None,
        );
        let steps: Vec<_> = progress
            .try_collect()
            .await
            .context("cannot import the image")?;
        if let Some(id) = steps.last().and_then(|step| step.status.as_ref()) {
            print(&format!("{id}\n"))?;
        }
        Ok(())
    }

    /// Removes the image, and containers of it should the nodes have left any.
    pub(super) async fn remove(&self) -> Result<()> {
        let filters = HashMap::from([("ancestor".to_owned(), vec![self.name.clone()])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let containers = self.docker.list_containers(Some(options)).await;
        for container in containers.context("cannot list containers")? {
            let options = RemoveContainerOptionsBuilder::new().force(true).build();
            let id = container.id.unwrap_or_default();
            self.docker
                .remove_container(&id, Some(options))
                .await
                .with_context(|| format!("cannot remove the container {id}"))?;
        }
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        match self
            .docker
            .remove_image(&self.name, Some(options), None)
            .await
        {
            Ok(_) => Ok(()),
            // The demo was ended before the image was there.
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 404, ..
            }) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("cannot remove the image {}", self.name))
            }
        }
    }
}

/// An archive that holds the program as /swarmlet.
fn archive() -> Result<Vec<u8>> {
    let program = std::env::current_exe().context("the path of this program is unknown")?;
    let bytes = std::fs::read(&program).context("cannot read this program")?;
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o755);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::with_capacity(bytes.len() + 4096));
    archive
        .append_data(&mut header, "swarmlet", bytes.as_slice())
        .context("cannot pack the program")?;
    archive.into_inner().context("cannot pack the program")
}
