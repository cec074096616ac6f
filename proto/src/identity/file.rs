//! The identity on disk: one file, `node.pem`, with the node's certificate, its key and the
//! root.
//!
//! One file and not three, because a crash between two renames would leave a key beside a
//! certificate of another.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::{PemObject, SectionKind};
use zeroize::Zeroizing;

use super::{Identity, IdentityError};

const FILE: &str = "node.pem";

/// Where the new file is written before it takes the old one's place.
const NEW_FILE: &str = "node.pem.new";

impl Identity {
    /// Writes the identity into a directory, which is made if it is missing. The old one stays
    /// whole until the new one is on disk. File and directory are the owner's alone, whatever
    /// the umask. Blocks for a write to disk.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        private_directory(directory)?;
        let (new, path) = (directory.join(NEW_FILE), directory.join(FILE));
        write_private(&new, &self.to_pem())?;
        fs::rename(&new, &path).map_err(io("replace", &path))?;
        sync_directory(directory)
    }

    /// Reads the identity from a directory; `None` where there is none yet.
    ///
    /// # Errors
    /// [`IdentityError::Damaged`] where the file is there but unusable, [`IdentityError::Io`]
    /// where it cannot be read.
    pub fn load(directory: &Path) -> Result<Option<Self>, IdentityError> {
        let path = directory.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("read", &path)(error)),
        };
        let damaged = |reason: String| IdentityError::Damaged {
            path: path.display().to_string(),
            reason,
        };
        let [certificate, key, root] = sections(&text).map_err(damaged)?;
        let identity = Self::new(certificate.to_vec(), key, root.to_vec());
        identity.map(Some).map_err(|error| match error {
            IdentityError::Key(source) => damaged(format!("unusable private key: {source}")),
            other => damaged(other.to_string()),
        })
    }

    fn to_pem(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        pem("CERTIFICATE", &self.certificate, &mut text);
        pem("PRIVATE KEY", &self.key, &mut text);
        pem("CERTIFICATE", &self.root, &mut text);
        text
    }
}

/// The three sections in the order in which they are written.
fn sections(text: &[u8]) -> Result<[Zeroizing<Vec<u8>>; 3], String> {
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        let (kind, der) = section.map_err(|error| error.to_string())?;
        found.push((kind, Zeroizing::new(der)));
    }
    match <[_; 3]>::try_from(found) {
        Ok(
            [
                (SectionKind::Certificate, certificate),
                (SectionKind::PrivateKey, key),
                (SectionKind::Certificate, root),
            ],
        ) => Ok([certificate, key, root]),
        _ => Err("expected a certificate, a private key and a root certificate".to_owned()),
    }
}

/// Appends a section in the form of RFC 7468: lines of 64 characters.
fn pem(label: &str, der: &[u8], text: &mut String) {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
}

fn private_directory(path: &Path) -> Result<(), IdentityError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io("make directory", path))?;
    // The umask may have taken bits away, or the directory may be older and more open.
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io("protect", path))
}

fn write_private(path: &Path, text: &str) -> Result<(), IdentityError> {
    // A file left by a crash may be anybody's to read: never write into it.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(io("remove", path)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(io("create", path))?;
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(io("protect", path))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io("write", path))
}

/// A rename survives a power cut only once its directory has been written.
fn sync_directory(path: &Path) -> Result<(), IdentityError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(io("sync", path))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> IdentityError {
    let path = path.display().to_string();
    move |source| IdentityError::Io {
        action,
        path,
        source,
    }
}
