//! Reading the file again.

use std::path::PathBuf;

use tokio::signal::unix::Signal;

use super::{
    FileError,
    file::{File, Fixed},
    page::Page,
    put_in_force,
};
use crate::balancer::Handle;

/// What is in force of the file, and what can change.
pub(super) struct Reloading {
    path: PathBuf,
    fixed: Fixed,
    balancer: Handle,
    page: Page,
    /// Of the table that was last in force.
    version: u64,
}

impl Reloading {
    /// After the first table, which has version 1.
    pub(super) fn new(path: PathBuf, fixed: Fixed, balancer: Handle, page: Page) -> Self {
        Self {
            path,
            fixed,
            balancer,
            page,
            version: 1,
        }
    }

    /// Reads the file anew with every SIGHUP.
    pub(super) async fn forever(mut self, hangup: &mut Signal) {
        while hangup.recv().await.is_some() {
            self.version += 1;
            match self.once().await {
                Ok(()) => tracing::info!(
                    path = %self.path.display(),
                    version = self.version,
                    "configuration in force"
                ),
                Err(error) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(
                        %error,
                        source,
                        "configuration refused, the one before stays in force"
                    );
                }
            }
        }
        std::future::pending().await
    }

    /// All of it or nothing.
    async fn once(&mut self) -> Result<(), FileError> {
        let file = File::read(&self.path)?;
        if file.fixed != self.fixed {
            return Err(FileError::Restart {
                path: self.path.clone(),
            });
        }
        if let Some(log) = &file.settings.access_log {
            log.check().map_err(|source| FileError::AccessLog {
                path: self.path.clone(),
                log: log.path.clone(),
                source,
            })?;
        }
        let page_before = self.page.address();
        let moved = self.page.move_to(file.metrics).await;
        moved.map_err(|taken| FileError::page(&self.path, taken))?;
        if let Err(error) = put_in_force(&self.balancer, &self.path, &file, self.version).await {
            let back = self.page.move_to(page_before).await;
            back.map_err(|taken| FileError::page(&self.path, taken))?;
            return Err(error);
        }
        // It needs none any more where it is ending.
        let _ = self.balancer.configure(file.settings).await;
        Ok(())
    }
}
