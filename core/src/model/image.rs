//! References to images, by Docker's rules: `[REGISTRY[:PORT]/]PATH[:TAG][@DIGEST]`.
//!
//! The grammar is that of the reference package of github.com/distribution/reference: what is
//! left out means Docker Hub, its folder `library` and the tag `latest`, and is left out again
//! where a reference is written for a user.

use std::fmt;
use std::str::FromStr;

/// The registry that is meant where none is named.
const DOCKER_HUB: &str = "docker.io";

/// Another name of it, of old.
const DOCKER_HUB_OF_OLD: &str = "index.docker.io";

/// The folder of Docker Hub that is meant where none is named.
const LIBRARY: &str = "library/";

/// The tag that is meant where neither tag nor digest is named.
const LATEST: &str = "latest";

/// The longest name, registry included, and the longest tag.
const MAX_NAME_LENGTH: usize = 255;
const MAX_TAG_LENGTH: usize = 128;

/// A reference to an image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// A text that names no image of any registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {0:?}: expected [REGISTRY/]NAME[:TAG][@DIGEST], in lower case")]
pub struct InvalidReference(String);

impl ImageReference {
    /// Whether it names the bytes themselves, not only what they are called.
    #[must_use]
    pub fn has_digest(&self) -> bool {
        self.digest.is_some()
    }

    /// The host, and maybe the port, of the registry that has it.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The same with a tag: `latest` where it has neither tag nor digest.
    #[must_use]
    pub fn tagged(mut self) -> Self {
        if self.digest.is_none() {
            self.tag.get_or_insert_with(|| LATEST.to_owned());
        }
        self
    }

    /// The same image, tag and all, pinned to a digest. One that is pinned already stays so.
    ///
    /// # Errors
    /// The digest is malformed.
    pub fn pinned(self, digest: &str) -> Result<Self, InvalidReference> {
        if self.digest.is_some() {
            return Ok(self);
        }
        if !is_digest(digest) {
            return Err(InvalidReference(format!("{self}@{digest}")));
        }
        Ok(Self {
            digest: Some(digest.to_owned()),
            ..self.tagged()
        })
    }

    /// As lists show it: without the digest, where a tag says as much to people.
    #[must_use]
    pub fn unpinned(mut self) -> Self {
        if self.tag.is_some() {
            self.digest = None;
        }
        self
    }
}

/// What users write: without what is meant anyway.
impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.registry == DOCKER_HUB {
            // A folder below `library` would become one of Docker Hub's users without it.
            let short = self.path.strip_prefix(LIBRARY);
            let path = short
                .filter(|short| !short.contains('/'))
                .unwrap_or(&self.path);
            // And a folder with a dot would become a registry.
            if path
                .split_once('/')
                .is_some_and(|(first, _)| is_host(first))
            {
                write!(f, "{DOCKER_HUB}/")?;
            }
            path
        } else {
            write!(f, "{}/", self.registry)?;
            &self.path
        };
        f.write_str(path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageReference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        parse(text).ok_or_else(|| InvalidReference(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<ImageReference> {
    // An engine takes these for the identifier of an image that it has.
    if is_hexadecimal(text, 64) || is_digest(text) {
        return None;
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    // What follows a colon before a slash is a registry's port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_host(first) => (first, path),
        _ => (DOCKER_HUB, name),
    };
    let registry = match registry {
        DOCKER_HUB_OF_OLD => DOCKER_HUB,
        registry => registry,
    };
    let path = match path {
        path if registry == DOCKER_HUB && !path.contains('/') => format!("{LIBRARY}{path}"),
        path => path.to_owned(),
    };
    let valid = is_registry(registry)
        && path.split('/').all(is_path_component)
        && registry.len() + 1 + path.len() <= MAX_NAME_LENGTH
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    valid.then(|| ImageReference {
        registry: registry.to_owned(),
        path,
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
    })
}

/// Whether the part before the first slash is a registry and not a folder of Docker Hub, which
/// has neither dots nor capitals.
fn is_host(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.chars().any(|letter| letter.is_ascii_uppercase())
}

/// A host name or an address, IPv6 in brackets, and maybe a port.
fn is_registry(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        let is_address = address
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b':');
        let has_port = port.strip_prefix(':').is_some_and(is_number);
        return !address.is_empty() && is_address && (port.is_empty() || has_port);
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_number)
}

/// Lower-case words with one separator between two of them: a dot, one or two underscores, or
/// any number of dashes.
fn is_path_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separators = text.split(|letter| letter < '\u{80}' && is_word(letter as u8));
    let (Some(""), Some("")) = (separators.next(), separators.next_back()) else {
        return false;
    };
    let is_separator =
        |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    !text.is_empty() && separators.all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    !text.is_empty()
        && text.len() <= MAX_TAG_LENGTH
        && text.bytes().all(inner)
        && !text.starts_with(['.', '-'])
}

/// The algorithms that engines know, each with its number of digits.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else {
        return false;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    is_hexadecimal(digits, length)
}

fn is_hexadecimal(text: &str, length: usize) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    text.len() == length && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> String {
        format!("sha256:{}", "0123456789abcdef".repeat(4))
    }

    /// What a reference is called, without what is meant anyway.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let reference: ImageReference = text.parse().unwrap();
        assert_eq!(reference.to_string(), expected);
        assert_eq!(expected.parse(), Ok(reference), "read again");
    }

    #[test]
    fn references_are_read_and_written_as_docker_does() {
        for text in [
            "nginx",
            "nginx:1.27",
            "user/app:v_1.0-rc",
            "localhost/app",
            "localhost:5000/app:1",
            "registry.example:5000/a/b/c",
            "10.0.0.1:5000/app",
            "[fd00::1]:5000/app",
            "Upper/app",
            "a__b/c.d/e---f",
            "library/deep/app",
        ] {
            check(text, text);
        }
        check("docker.io/library/nginx:1", "nginx:1");
        check("index.docker.io/nginx", "nginx");
        check("docker.io/user/app", "user/app");
        for text in ["docker.io/a.b/app", "docker.io/localhost/app:1"] {
            check(text, text);
        }
        let pinned = format!("host:5000/app:1@{}", digest());
        check(&pinned, &pinned);
        let longest = "a".repeat(MAX_NAME_LENGTH - "docker.io/library/".len());
        check(&longest, &longest);
    }

    #[test]
    fn what_names_no_image_is_refused() {
        let too_long = "a".repeat(MAX_NAME_LENGTH);
        let long_tag = format!("app:{}", "t".repeat(MAX_TAG_LENGTH + 1));
        let (id, digest) = ("f".repeat(64), digest());
        let upper = format!("app@{}", digest.to_uppercase());
        for text in [
            "",
            "/usr/bin/app",
            "./app",
            "Nginx",
            "nginx:",
            "nginx:.tag",
            "nginx@",
            "nginx@sha256:abc",
            "nginx@md5:0123",
            "a//b",
            "a/",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "a b",
            "ä",
            "host:port/app",
            "-host.example/app",
            "[fd00::1/app",
            &too_long,
            &long_tag,
            &id,
            &digest,
            &upper,
        ] {
            let refused = text.parse::<ImageReference>().unwrap_err();
            assert!(
                refused.to_string().contains(&format!("{text:?}")),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_digest_pins_what_a_tag_names() {
        let read = |text: &str| text.parse::<ImageReference>().unwrap();
        let digest = digest();
        for (text, pinned, shown) in [
            ("ng", format!("ng:latest@{digest}"), "ng:latest".to_owned()),
            ("ng:1", format!("ng:1@{digest}"), "ng:1".to_owned()),
            (
                "h:5/ng",
                format!("h:5/ng:latest@{digest}"),
                "h:5/ng:latest".to_owned(),
            ),
        ] {
            let now = read(text).pinned(&digest).unwrap();
            assert_eq!(now.to_string(), pinned);
            assert!(now.has_digest() && !read(text).has_digest());
            assert_eq!(now.unpinned().to_string(), shown);
        }
        // Who names the bytes himself gets them, and sees them where there is no tag.
        let other = format!("sha256:{}", "a".repeat(64));
        let own = format!("ng@{other}");
        assert_eq!(read(&own).pinned(&digest).unwrap().to_string(), own);
        assert_eq!(read(&own).tagged().to_string(), own);
        assert_eq!(read(&own).unpinned().to_string(), own);
        assert_eq!(read("ng").unpinned().to_string(), "ng");
        let error = read("ng").pinned("sha256:1").unwrap_err().to_string();
        assert!(error.contains("\"ng@sha256:1\""), "{error}");
    }
}
