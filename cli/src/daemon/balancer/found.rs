//! The balancers that run already when a daemon starts.
//!
//! Mostly there is none or one. After a hand-over there are those, too, that finish their
//! connections; and a daemon that was killed in the middle of a hand-over leaves two that
//! listen.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use swarmlet_lb::control::ClientError;

use super::link::Link;
use crate::daemon::store::Layout;

/// See the module.
#[derive(Default)]
pub(super) struct Found {
    /// The one to work with.
    pub(super) current: Option<Link>,
    /// They only finish their connections.
    pub(super) retired: Vec<Link>,
    /// They listen although they should not: to be retired.
    pub(super) superseded: Vec<Link>,
}

impl Found {
    /// Looks at every control socket.
    ///
    /// # Errors
    /// At the main one somebody answers who cannot be talked to.
    pub(super) async fn look(layout: &Layout) -> Result<Self, ClientError> {
        let mut found = Self::default();
        for path in layout.lb_sockets_aside() {
            match Link::connect(&path).await {
                Ok(link) if link.first().shutting_down => found.retired.push(link),
                Ok(link) => found.superseded.push(link),
                Err(ClientError::Connect { source, .. }) => forget(&path, &source),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a balancer of before cannot be talked to");
                }
            }
        }
        match Link::connect(&layout.lb_socket()).await {
            Ok(mut link) if link.first().shutting_down => {
                // Its successor needs the place.
                link.step_aside().await?;
                found.retired.push(link);
            }
            Ok(link) => found.current = Some(link),
            Err(ClientError::Connect { .. }) => {}
            Err(error) => return Err(error),
        }
        // A successor that has not got a table yet serves nobody: its predecessor is the one.
        let is_useful = |link: &Link| link.first().table_version > 0;
        if !found.current.as_ref().is_some_and(is_useful)
            && let Some(best) = found.superseded.pop()
        {
            found.superseded.extend(found.current.replace(best));
        }
        Ok(found)
    }
}

/// Removes what a killed balancer left behind.
fn forget(path: &Path, error: &std::io::Error) {
    if error.kind() == ErrorKind::ConnectionRefused
        && let Err(error) = fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a dead balancer's socket");
    }
}
