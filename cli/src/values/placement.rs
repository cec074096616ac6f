//! Platforms (`linux/arm64`) and generic resources (`gpu=2`).

use swarmlet_core::model::Platform;

/// Reads a platform; the architecture may be left out.
///
/// # Errors
/// A sentence that names the text.
pub(crate) fn platform(text: &str) -> Result<Platform, String> {
    let (os, arch) = text.split_once('/').unwrap_or((text, ""));
    if os.is_empty() || arch.contains('/') {
        return Err(format!(
            "invalid platform {text:?}: expected OS or OS/ARCH, such as linux/arm64"
        ));
    }
    Ok(Platform {
        os: os.to_owned(),
        arch: arch.to_owned(),
    })
}

/// Reads a kind of generic resource and how many of it are reserved.
///
/// # Errors
/// A sentence that names the text.
pub(crate) fn generic_resource(text: &str) -> Result<(String, u64), String> {
    let invalid = || format!("invalid generic resource {text:?}: expected KIND=NUMBER");
    let (kind, amount) = text.split_once('=').ok_or_else(invalid)?;
    let amount = amount.parse().map_err(|_| invalid())?;
    Ok((kind.to_owned(), amount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read() {
        let read = |text| platform(text).map(|platform| (platform.os, platform.arch));
        let both = |os: &str, arch: &str| Ok((os.to_owned(), arch.to_owned()));
        assert_eq!(read("linux/arm64"), both("linux", "arm64"));
        assert_eq!(read("linux"), both("linux", ""));
        for text in ["", "/arm64", "linux/arm/v7"] {
            assert!(
                read(text).unwrap_err().contains("invalid platform"),
                "{text}"
            );
        }
    }

    #[test]
    fn generic_resources_are_read() {
        assert_eq!(generic_resource("gpu=2"), Ok(("gpu".to_owned(), 2)));
        for text in ["gpu", "gpu=", "gpu=a", "gpu=-1"] {
            let error = generic_resource(text).unwrap_err();
            assert_eq!(
                error,
                format!("invalid generic resource {text:?}: expected KIND=NUMBER")
            );
        }
    }
}
