//! The files of an installation: where they are, and how they get there and away.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::settings;
use super::systemd::UNIT;
use crate::daemon::DEFAULT_DATA_DIR;

/// The unit as packages install it.
const UNIT_TEXT: &str = include_str!("../../../packaging/swarmlet.service");

/// What the balancer's units may do, as packages install it.
const LB_TEXT: &str = include_str!("../../../packaging/swarmlet-lb.conf");

/// Where that is, below the directory of units: systemd reads it for each unit whose name begins
/// like this.
const LB: &str = "swarmlet-lb-.service.d/swarmlet-lb.conf";

/// Where a package puts the program, and thus what the unit's text says.
const PACKAGED_PROGRAM: &str = "/usr/bin/swarmlet";

/// Where the program is put that was started from anywhere else.
const LOCAL_PROGRAM: &str = "/usr/local/bin/swarmlet";

/// Where packages have their units; the second is another name of the first on most machines.
const PACKAGED_UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

const UNITS: &str = "/etc/systemd/system";
const SOCKET_DIR: &str = "/run/swarmlet";

/// All files, below a root.
pub(super) struct Files {
    root: PathBuf,
}

/// What became of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is new, or another one now.
    Written(PathBuf),
    /// It is as it should be, or the administrator's to change.
    Kept(PathBuf),
}

impl Change {
    pub(super) fn is_one(&self) -> bool {
        matches!(self, Self::Written(_))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(path) => write!(f, "Wrote {}", path.display()),
            Self::Kept(path) => write!(f, "Kept {}, which was there", path.display()),
        }
    }
}

impl Files {
    pub(super) fn of_this_machine() -> Self {
        Self {
            root: PathBuf::from("/"),
        }
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Where the program is to be that now is at `own`.
    pub(super) fn program_for(&self, own: &Path) -> PathBuf {
        // Started from a directory of the system: somebody put it there to stay.
        if own == self.at(PACKAGED_PROGRAM) {
            return PathBuf::from(PACKAGED_PROGRAM);
        }
        PathBuf::from(LOCAL_PROGRAM)
    }

    /// What an installation would write.
    pub(super) fn describe(&self, program: &Path) -> String {
        format!(
            "# {}\n{}\n# {}\n{LB_TEXT}\n# {}\n{}",
            Path::new(UNITS).join(UNIT).display(),
            unit_text(program),
            Path::new(UNITS).join(LB).display(),
            settings::PATH,
            settings::TEXT
        )
    }

    /// The unit of a package, where there is one.
    pub(super) fn packaged_unit(&self) -> Option<PathBuf> {
        PACKAGED_UNITS
            .iter()
            .map(|directory| self.at(directory).join(UNIT))
            .find(|path| path.exists())
    }

    /// # Errors
    /// The system's, with the path.
    pub(super) fn place_program(&self, own: &Path, program: &Path) -> Result<Change> {
        let target = self.at(program);
        if own == target {
            return Ok(Change::Kept(target));
        }
        let bytes = fs::read(own).with_context(|| format!("cannot read {}", own.display()))?;
        place(target, &bytes, 0o755)
    }

    /// # Errors
    /// The system's, with the path.
    pub(super) fn place_unit(&self, program: &Path) -> Result<Change> {
        place(self.unit(), unit_text(program).as_bytes(), 0o644)
    }

    /// # Errors
    /// The system's, with the path.
    pub(super) fn place_lb(&self) -> Result<Change> {
        place(self.lb(), LB_TEXT.as_bytes(), 0o644)
    }

    /// Writes the settings where there are none: they are the administrator's.
    ///
    /// # Errors
    /// The system's, with the path.
    pub(super) fn place_settings(&self) -> Result<Change> {
        let path = self.at(settings::PATH);
        if path.exists() {
            return Ok(Change::Kept(path));
        }
        place(path, settings::TEXT.as_bytes(), 0o644)
    }

    fn unit(&self) -> PathBuf {
        self.at(UNITS).join(UNIT)
    }

    fn lb(&self) -> PathBuf {
        self.at(UNITS).join(LB)
    }

    /// The program of the installed unit; `None` where no unit is installed.
    ///
    /// # Errors
    /// The unit cannot be read.
    pub(super) fn installed_program(&self) -> Result<Option<PathBuf>> {
        let path = self.unit();
        // Behind a link is another unit, or /dev/null: a package that was removed leaves its
        // unit masked.
        if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
            return Ok(None);
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let program = text
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="))
            .and_then(|command| command.split(' ').next())
            .with_context(|| format!("{} has no ExecStart", path.display()))?;
        Ok(Some(PathBuf::from(program)))
    }

    /// Removes the folder of the local socket; it stays where the socket is still in it.
    pub(super) fn remove_socket_dir(&self) {
        let _ = fs::remove_dir(self.at(SOCKET_DIR));
    }

    /// Removes what is systemd's, and the program where it is the one that `install` put there.
    ///
    /// # Errors
    /// The system's, with the path.
    pub(super) fn remove_program_and_units(&self, program: Option<&Path>) -> Result<Vec<PathBuf>> {
        let Some(program) = program else {
            return Ok(Vec::new());
        };
        let mut removed = remove(&self.unit(), |path| fs::remove_file(path))?;
        removed.extend(remove(&self.lb(), |path| fs::remove_file(path))?);
        if let Some(directory) = self.lb().parent() {
            // What else is in there is the administrator's.
            let _ = fs::remove_dir(directory);
        }
        if program == Path::new(LOCAL_PROGRAM) {
            removed.extend(remove(&self.at(program), |path| fs::remove_file(path))?);
        }
        Ok(removed)
    }

    /// Removes settings and state.
    ///
    /// # Errors
    /// The system's, with the path.
    pub(super) fn purge(&self, data_dir: &Path) -> Result<Vec<PathBuf>> {
        let settings = self.at(settings::PATH);
        let mut removed = remove(&settings, |path| fs::remove_file(path))?;
        if let Some(directory) = settings.parent() {
            // Whatever else is in there is not ours.
            let _ = fs::remove_dir(directory);
        }
        removed.extend(remove(data_dir, |path| fs::remove_dir_all(path))?);
        Ok(removed)
    }

    /// What an `uninstall` without `--purge` leaves.
    pub(super) fn kept(&self, data_dir: &Path) -> Vec<PathBuf> {
        let all = [self.at(settings::PATH), data_dir.to_owned()];
        all.into_iter().filter(|path| path.exists()).collect()
    }

    /// Where the daemon keeps its state, by the settings.
    ///
    /// # Errors
    /// The settings cannot be read.
    pub(super) fn data_dir(&self) -> Result<PathBuf> {
        let path = self.at(settings::PATH);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let chosen = settings::value(&text, "SWARMLET_DATA_DIR");
        Ok(self.at(chosen.as_deref().unwrap_or(DEFAULT_DATA_DIR)))
    }
}

fn unit_text(program: &Path) -> String {
    let from = format!("ExecStart={PACKAGED_PROGRAM} ");
    UNIT_TEXT.replace(&from, &format!("ExecStart={} ", program.display()))
}

/// Writes a file whole or not at all, unless it is there already. A program that runs is
/// replaced by another file, never written over.
pub(super) fn place(path: PathBuf, bytes: &[u8], mode: u32) -> Result<Change> {
    let is_file = fs::symlink_metadata(&path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o7777 == mode);
    if is_file && fs::read(&path).is_ok_and(|found| found == bytes) {
        return Ok(Change::Kept(path));
    }
    let write = || -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut temporary = path.clone().into_os_string();
        temporary.push(".new");
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        // Whatever the umask.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Change::Written(path))
}

/// Removes something that may be gone already; returns it where it was there.
fn remove(path: &Path, how: impl FnOnce(&Path) -> io::Result<()>) -> Result<Vec<PathBuf>> {
    match how(path) {
        Ok(()) => Ok(vec![path.to_owned()]),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests;
