//! Namespaces with nothing but a loopback: for tests that need neither an engine
//! nor another host, and yet break what must not be broken on the machine.

use anyhow::Result;

use crate::{Namespace, cleanup, contention, run::Run};

/// See the module. Dropping it removes everything.
pub struct Loopback {
    namespace: Namespace,
    _run: Run,
}

impl Loopback {
    /// Makes it, with `name` as the host name.
    ///
    /// # Errors
    ///
    /// Without root, or without util-linux.
    pub fn start(name: &str) -> Result<Self> {
        contention::watch();
        cleanup::remove_dead_runs()?;
        let run = Run::begin()?;
        let namespace = Namespace::create(&run.name, name, &run.directory.join(name))?;
        Ok(Self {
            namespace,
            _run: run,
        })
    }

    /// Where to run things.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}
