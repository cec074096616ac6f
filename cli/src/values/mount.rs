//! Mounts: `type=bind,source=/srv,target=/data,readonly`.

use swarmlet_core::model::{Mount, MountKind};

/// Reads a mount in Docker's long form.
///
/// # Errors
/// A sentence that names what is wrong.
pub(crate) fn mount(text: &str) -> Result<Mount, String> {
    if !text.contains('=') {
        return Err(format!(
            "invalid mount {text}: the short form is not supported, write type=bind,source=/path,target=/path"
        ));
    }
    let mut mount = Mount {
        kind: MountKind::Volume,
        source: String::new(),
        target: String::new(),
        read_only: false,
    };
    for field in text.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_lowercase(), value.trim()),
            None => (field.trim().to_lowercase(), ""),
        };
        match key.as_str() {
            key if let Some(instead) = of_docker(key) => {
                return Err(format!(
                    "Docker has {key} for mounts, swarmlet has not: {instead}"
                ));
            }
            "readonly" | "ro" => mount.read_only = flag(&key, field, value)?,
            _ if !field.contains('=') => {
                return Err(format!("invalid field '{field}' must be a key=value pair"));
            }
            "type" => {
                mount.kind = match value.to_lowercase().as_str() {
                    "bind" => MountKind::Bind,
                    "volume" => MountKind::Volume,
                    "tmpfs" => MountKind::Tmpfs,
                    "cluster" | "image" | "npipe" => {
                        return Err(format!(
                            "Docker has mounts of type '{value}', swarmlet has not: only bind, \
                             volume and tmpfs"
                        ));
                    }
                    _ => {
                        return Err(format!(
                            "invalid mount type '{value}': must be bind, volume or tmpfs"
                        ));
                    }
                };
            }
            "source" | "src" => value.clone_into(&mut mount.source),
            "target" | "dst" | "destination" => value.clone_into(&mut mount.target),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    if mount.kind == MountKind::Bind && mount.source.is_empty() {
        return Err("source is required for a bind mount".to_owned());
    }
    Ok(mount)
}

/// What to do instead of an option that Docker has. Those for which Docker's own default is what
/// happens can be left out; the others say how their purpose is served.
fn of_docker(key: &str) -> Option<&'static str> {
    Some(match key {
        "consistency" => "leave it out, it says nothing on Linux",
        "bind-propagation" => "leave it out, propagation is rprivate, Docker's default",
        "bind-nonrecursive" | "bind-recursive" => {
            "leave it out, what is mounted below the source is there as well, Docker's default"
        }
        "bind-create-src" => "make the source on every node that may run the task",
        "volume-nocopy" => {
            "leave it out, what the image has at the target is copied into an empty volume, \
             Docker's default"
        }
        "volume-driver" | "volume-opt" | "volume-label" => {
            "make the volume on every node that may run the task, with `docker volume create`, and \
             name it as source"
        }
        "volume-subpath" => "mount the whole volume, or the directory itself with type=bind",
        "image-subpath" => "put the files into the image that the service runs",
        "tmpfs-size" => {
            "leave it out, what is written there counts as the container's memory, and \
             --limit-memory bounds that"
        }
        "tmpfs-mode" => "leave it out, the mode is 1777, Docker's default",
        _ => return None,
    })
}

fn flag(key: &str, field: &str, value: &str) -> Result<bool, String> {
    match value {
        "" if !field.contains('=') => Ok(true),
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("invalid value for {key}: {value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        for (text, kind, source, target, read_only) in [
            (
                "type=bind,source=/srv,target=/data,readonly",
                MountKind::Bind,
                "/srv",
                "/data",
                true,
            ),
            (
                "type=bind,src=/srv,dst=/data,ro=false",
                MountKind::Bind,
                "/srv",
                "/data",
                false,
            ),
            (
                "source=cache,target=/c",
                MountKind::Volume,
                "cache",
                "/c",
                false,
            ),
            (
                "type=tmpfs,destination=/t",
                MountKind::Tmpfs,
                "",
                "/t",
                false,
            ),
        ] {
            let expected = Mount {
                kind,
                source: source.to_owned(),
                target: target.to_owned(),
                read_only,
            };
            assert_eq!(mount(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn every_option_of_dockers_is_known_as_such() {
        for key in [
            "consistency",
            "bind-create-src",
            "bind-nonrecursive",
            "bind-propagation",
            "bind-recursive",
            "image-subpath",
            "tmpfs-mode",
            "tmpfs-size",
            "volume-driver",
            "volume-label",
            "volume-nocopy",
            "volume-opt",
            "volume-subpath",
        ] {
            let error = mount(&format!("target=/n,{key}=x")).unwrap_err();
            let expected = format!("Docker has {key} for mounts, swarmlet has not: ");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            (
                "/srv:/data",
                "invalid mount /srv:/data: the short form is not supported, write type=bind,source=/path,target=/path",
            ),
            ("type=bind,source=/srv", "target is required"),
            (
                "type=bind,target=/srv",
                "source is required for a bind mount",
            ),
            (
                "type=nfs,target=/n",
                "invalid mount type 'nfs': must be bind, volume or tmpfs",
            ),
            (
                "target=/n,readonly=maybe",
                "invalid value for readonly: maybe",
            ),
            (
                "target=/n,colour=red",
                "unexpected key 'colour' in 'colour=red'",
            ),
            (
                "type=image,source=i,target=/n",
                "Docker has mounts of type 'image', swarmlet has not: only bind, volume and tmpfs",
            ),
            (
                "type=tmpfs,target=/n,TMPFS-SIZE=64m",
                "Docker has tmpfs-size for mounts, swarmlet has not: leave it out, what is written there counts as the container's memory, and --limit-memory bounds that",
            ),
            (
                "source=v,target=/n,volume-nocopy",
                "Docker has volume-nocopy for mounts, swarmlet has not: leave it out, what the image has at the target is copied into an empty volume, Docker's default",
            ),
            (
                "target=/n,source",
                "invalid field 'source' must be a key=value pair",
            ),
        ] {
            assert_eq!(mount(text), Err(expected.to_owned()), "{text}");
        }
    }
}
