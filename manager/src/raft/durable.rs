//! Files that are either the old or the new one, whatever happens while they are written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes a directory that only its owner may enter, whatever the umask.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Puts `parts`, one after the other, in the place of the file at `path`, readable by its
/// owner only; on return they are on the disk.
///
/// Writing into the old file would leave half of each after a crash; a rename without the
/// sync before it may survive a power cut without the bytes, and one without the sync of the
/// directory after it may not survive at all.
pub(crate) fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let new = new_name(path);
    // Left behind by a crash in the middle of the last attempt.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    publish(&new, path)
}

/// Renames a file whose contents are on the disk already, durably.
pub(crate) fn publish(new: &Path, path: &Path) -> io::Result<()> {
    fs::rename(new, path)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Where the next version of a file is written.
pub(crate) fn new_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub").join("file");
        private_directory(path.parent().unwrap()).unwrap();
        fs::write(new_name(&path), "half of an earlier attempt").unwrap();

        replace(&path, &[b"one ", b"two"]).unwrap();
        replace(&path, &[b"three"]).unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert!(!new_name(&path).exists());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }
}
