//! Where the tasks of a service may go, and how they are to be spread.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde::ser::SerializeMap;

use super::network::Network;
use super::node::Platform;

/// Where the tasks of a service go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Placement {
    /// All of them must hold for a node.
    pub constraints: Vec<Constraint>,
    /// The tasks are spread evenly over the values of the first, within each of them over
    /// those of the second, and so on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<Preference>,
    /// The most tasks of the service on one node; zero is no limit.
    #[serde(rename = "MaxReplicas")]
    pub max_replicas: u32,
    /// What the image is made for; a node must have one of them. Empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
    /// Which of several nodes is preferred.
    pub strategy: Strategy,
}

/// Which of several nodes that may have a task is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The one with fewest tasks of the service, and of those the one that has most room left.
    #[default]
    Spread,
    /// The one that has least room left, so that other nodes stay empty.
    Binpack,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spread => "spread",
            Self::Binpack => "binpack",
        })
    }
}

/// What tasks are spread over: an attribute of nodes, such as `node.labels.zone`. Nodes that
/// lack a label are one group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Preference(String);

impl Preference {
    /// The attribute.
    #[must_use]
    pub fn attribute(&self) -> &str {
        &self.0
    }

    /// A preference for an attribute; `None` where nodes have no such attribute.
    #[must_use]
    pub fn spread(attribute: &str) -> Option<Self> {
        (is_attribute(attribute) && attribute != "node.ip").then(|| Self(attribute.to_owned()))
    }
}

/// A text that is no preference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPreference {
    /// There is no `=` in it.
    #[error("placement preference must be of the format \"<strategy>=<arg>\", not {0:?}")]
    Format(String),
    /// It does not begin with `spread`.
    #[error("unsupported placement preference {0:?} (only spread is supported)")]
    Strategy(String),
    /// Nodes have no such attribute.
    #[error(
        "cannot spread over {0:?}: expected node.labels.NAME, engine.labels.NAME, node.id, \
         node.hostname, node.role, node.platform.os or node.platform.arch"
    )]
    Attribute(String),
}

impl FromStr for Preference {
    type Err = InvalidPreference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (strategy, attribute) = text
            .split_once('=')
            .ok_or_else(|| InvalidPreference::Format(text.to_owned()))?;
        if strategy.trim() != "spread" {
            return Err(InvalidPreference::Strategy(strategy.trim().to_owned()));
        }
        let attribute = attribute.trim();
        Self::spread(attribute).ok_or_else(|| InvalidPreference::Attribute(attribute.to_owned()))
    }
}

impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spread={}", self.0)
    }
}

impl Serialize for Preference {
    /// As Docker's API has it: `{"Spread":{"SpreadDescriptor":"node.labels.zone"}}`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let spread = std::collections::BTreeMap::from([("SpreadDescriptor", &self.0)]);
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("Spread", &spread)?;
        map.end()
    }
}

/// A condition on a node, such as `node.labels.zone==a`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// What is looked at: `node.id`, `node.hostname`, `node.role`, `node.ip`,
    /// `node.platform.os`, `node.platform.arch`, `node.labels.…` or `engine.labels.…`.
    pub key: String,
    /// Whether it must or must not match.
    pub op: ConstraintOp,
    /// The text (or, for `node.ip`, address or CIDR block) it is compared with.
    pub value: String,
}

/// The operator of a constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConstraintOp {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// A text that is no constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConstraint {
    /// It has another form, or speaks of something that nodes do not have.
    #[error(
        "invalid constraint {0:?}: expected KEY==VALUE or KEY!=VALUE with KEY one of node.id, \
         node.hostname, node.role, node.ip, node.platform.os, node.platform.arch, \
         node.labels.NAME, engine.labels.NAME"
    )]
    Form(String),
    /// No node could ever meet it, because nobody can read the address.
    #[error(
        "invalid constraint {0:?}: node.ip is compared with an address or a CIDR block, such as \
         10.0.0.7 or 10.0.0.0/24"
    )]
    Address(String),
}

impl Constraint {
    /// Checks a constraint, wherever it comes from.
    ///
    /// # Errors
    /// [`InvalidConstraint`] for one that means nothing.
    pub fn check(&self) -> Result<(), InvalidConstraint> {
        if !is_attribute(&self.key) || self.value.is_empty() {
            return Err(InvalidConstraint::Form(self.to_string()));
        }
        if self.key == "node.ip" && self.value.parse::<Network>().is_err() {
            return Err(InvalidConstraint::Address(self.to_string()));
        }
        Ok(())
    }
}

impl FromStr for Constraint {
    type Err = InvalidConstraint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidConstraint::Form(text.to_owned());
        let (position, op) = match (text.find("=="), text.find("!=")) {
            (Some(equal), Some(not_equal)) if not_equal < equal => {
                (not_equal, ConstraintOp::NotEqual)
            }
            (Some(equal), _) => (equal, ConstraintOp::Equal),
            (None, Some(not_equal)) => (not_equal, ConstraintOp::NotEqual),
            (None, None) => return Err(invalid()),
        };
        let (key, value) = (text[..position].trim(), text[position + 2..].trim());
        let constraint = Self {
            key: key.to_owned(),
            op,
            value: value.to_owned(),
        };
        constraint.check()?;
        Ok(constraint)
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self.op {
            ConstraintOp::Equal => "==",
            ConstraintOp::NotEqual => "!=",
        };
        write!(f, "{}{op}{}", self.key, self.value)
    }
}

impl Serialize for Constraint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether nodes have such an attribute, as constraints and preferences name them.
fn is_attribute(key: &str) -> bool {
    let label = |prefix| {
        key.strip_prefix(prefix)
            .is_some_and(|name: &str| !name.is_empty())
    };
    matches!(
        key,
        "node.id"
            | "node.hostname"
            | "node.role"
            | "node.ip"
            | "node.platform.os"
            | "node.platform.arch"
    ) || label("node.labels.")
        || label("engine.labels.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_on_addresses_can_be_read() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            let found = text.parse::<Constraint>();
            let found = found.err().map(|error| error.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
        check("node.ip==10.0.0.7", None);
        check("node.ip != 10.0.0.0/24", None);
        check("node.ip==2001:db8::/32", None);
        check(
            "node.ip==10.0.0.300",
            Some(
                "invalid constraint \"node.ip==10.0.0.300\": node.ip is compared with an address \
                 or a CIDR block, such as 10.0.0.7 or 10.0.0.0/24",
            ),
        );
        for unreadable in ["node.ip==ten", "node.ip!=ten", "node.ip==10.0.0.0/33"] {
            let error = unreadable.parse::<Constraint>();
            assert_eq!(
                error,
                Err(InvalidConstraint::Address(unreadable.to_owned()))
            );
        }
    }

    #[test]
    fn preferences_are_read_in_dockers_words() {
        #[track_caller]
        fn check(text: &str, expected: Result<&str, &str>) {
            let found = text.parse::<Preference>().map_err(|e| e.to_string());
            let found = found.as_ref().map(Preference::attribute);
            assert_eq!(found.map_err(String::as_str), expected, "{text}");
        }
        check("spread=node.labels.zone", Ok("node.labels.zone"));
        check("spread = engine.labels.rack", Ok("engine.labels.rack"));
        check(
            "zone",
            Err("placement preference must be of the format \"<strategy>=<arg>\", not \"zone\""),
        );
        check(
            "pack=node.labels.zone",
            Err("unsupported placement preference \"pack\" (only spread is supported)"),
        );
        for attribute in ["zone", "node.labels.", "node.ip"] {
            let error = format!("spread={attribute}").parse::<Preference>();
            assert_eq!(
                error,
                Err(InvalidPreference::Attribute(attribute.to_owned()))
            );
        }
    }
}
