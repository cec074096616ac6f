//! Placeholders such as `{{.Task.Slot}}` in host names, environment and mounts.

use swarmlet_core::model::{Mount, Task};

use super::{RuntimeError, Scope};

/// Replaces every placeholder in `text`.
///
/// # Errors
/// [`RuntimeError::Rejected`] for one that does not exist or is not closed, as Docker Swarm
/// does: passed on as it is, it would only be noticed inside the container.
pub(super) fn expand(text: &str, scope: &Scope, task: &Task) -> Result<String, RuntimeError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        expanded.push_str(&rest[..start]);
        let Some(length) = rest[start..].find("}}") else {
            return Err(RuntimeError::Rejected(format!(
                "a placeholder in {text:?} is not closed"
            )));
        };
        let name = rest[start + 2..start + length].trim();
        expanded.push_str(&value(name, text, scope, task)?);
        rest = &rest[start + length + 2..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// A mount with its placeholders replaced.
///
/// # Errors
/// As [`expand`].
pub(super) fn expand_mount(
    mount: &Mount,
    scope: &Scope,
    task: &Task,
) -> Result<Mount, RuntimeError> {
    Ok(Mount {
        source: expand(&mount.source, scope, task)?,
        target: expand(&mount.target, scope, task)?,
        ..mount.clone()
    })
}

fn value(name: &str, text: &str, scope: &Scope, task: &Task) -> Result<String, RuntimeError> {
    Ok(match name {
        ".Service.ID" => task.service.to_string(),
        ".Service.Name" => task.service_name.clone(),
        ".Node.ID" => scope.node.to_string(),
        ".Node.Hostname" => scope.hostname.clone(),
        ".Task.ID" => task.id.to_string(),
        ".Task.Name" => task.container_name(),
        // With one task on each node Docker gives the node here, too: there are no slots.
        ".Task.Slot" => task.place(),
        _ => {
            return Err(RuntimeError::Rejected(format!(
                "unknown placeholder {{{{{name}}}}} in {text:?}: there are .Service.ID, \
                 .Service.Name, .Node.ID, .Node.Hostname, .Task.ID, .Task.Name and .Task.Slot"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::fake;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let task = fake::task(7, |task| task.slot = 3);
        let scope = fake::scope("/tasks");
        let found = expand(text, &scope, &task).map_err(|error| error.to_string());
        match expected {
            Ok(expected) => assert_eq!(found.as_deref(), Ok(expected)),
            Err(part) => {
                let error = found.unwrap_err();
                assert!(error.contains(part), "{error}");
            }
        }
    }

    #[test]
    fn placeholders_are_replaced() {
        check("plain", Ok("plain"));
        check("", Ok(""));
        check(
            "{{.Service.Name}}-{{ .Task.Slot }}.{{.Node.Hostname}}!",
            Ok("ng-3.host1!"),
        );
        check("{{.Task.Name}}", Ok("ng.3.0000000000000000000000007"));
    }

    #[test]
    fn a_global_task_has_its_node_for_a_slot() {
        let task = fake::task(7, |task| task.home.clone_from(&task.node));
        let node = task.node.clone().unwrap();
        let scope = fake::scope("/tasks");
        let found = expand("{{.Task.Slot}} {{.Task.Name}}", &scope, &task).unwrap();
        assert_eq!(found, format!("{node} ng.{node}.{}", task.id));
    }

    #[test]
    fn unknown_ones_are_refused() {
        check("{{.Task.Nmae}}", Err("unknown placeholder {{.Task.Nmae}}"));
        check("a{{.Task", Err("is not closed"));
    }
}
