//! Where tasks go.

use std::collections::BTreeMap;

use swarmlet_core::model::{Constraint, ConstraintOp, Placement, Preference, Strategy};

use super::Malformed;
use super::field::{FromWire, enumeration, list, malformed, messages, mirrored};
use crate::v1;

mirrored!(ConstraintOp { Equal, NotEqual });

impl From<Strategy> for v1::PlacementStrategy {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::Spread => Self::Spread,
            Strategy::Binpack => Self::Binpack,
        }
    }
}

impl FromWire<v1::PlacementStrategy> for Strategy {
    fn from_wire(value: v1::PlacementStrategy) -> Option<Self> {
        match value {
            v1::PlacementStrategy::Unspecified => None,
            v1::PlacementStrategy::Spread => Some(Self::Spread),
            v1::PlacementStrategy::Binpack => Some(Self::Binpack),
        }
    }
}

impl From<&Placement> for v1::Placement {
    fn from(placement: &Placement) -> Self {
        let preferences = placement.preferences.iter();
        Self {
            constraints: messages(&placement.constraints),
            preferences: preferences.map(|p| p.attribute().to_owned()).collect(),
            max_replicas: placement.max_replicas,
            strategy: Some(v1::PlacementStrategy::from(placement.strategy).into()),
            platforms: messages(&placement.platforms),
        }
    }
}

impl TryFrom<v1::Placement> for Placement {
    type Error = Malformed;

    fn try_from(message: v1::Placement) -> Result<Self, Malformed> {
        let preference = |attribute: &String| {
            Preference::spread(attribute).ok_or_else(|| {
                let reason = format_args!("nodes have no attribute {attribute:?}").to_string();
                malformed("preferences", reason)
            })
        };
        let strategy = message
            .strategy
            .map(|value| enumeration::<v1::PlacementStrategy, _>("strategy", value));
        Ok(Self {
            constraints: list("constraints", message.constraints)?,
            preferences: message
                .preferences
                .iter()
                .map(preference)
                .collect::<Result<_, _>>()?,
            max_replicas: message.max_replicas,
            platforms: list("platforms", message.platforms)?,
            strategy: strategy.transpose()?.unwrap_or_default(),
        })
    }
}

impl From<&Constraint> for v1::Constraint {
    fn from(constraint: &Constraint) -> Self {
        Self {
            key: constraint.key.clone(),
            op: v1::ConstraintOp::from(constraint.op).into(),
            value: constraint.value.clone(),
        }
    }
}

impl TryFrom<v1::Constraint> for Constraint {
    type Error = Malformed;

    fn try_from(message: v1::Constraint) -> Result<Self, Malformed> {
        Ok(Self {
            key: message.key,
            op: enumeration::<v1::ConstraintOp, _>("op", message.op)?,
            value: message.value,
        })
    }
}

/// Generic resources that have names, by kind.
pub(super) type Names = BTreeMap<String, Vec<String>>;

/// For the way out.
pub(super) fn named(names: &Names) -> Vec<v1::NamedResources> {
    let names = names.iter();
    names
        .map(|(kind, names)| v1::NamedResources {
            kind: kind.clone(),
            names: names.clone(),
        })
        .collect()
}

/// For the way in; a kind that is there twice is refused.
pub(super) fn names(field: &str, messages: Vec<v1::NamedResources>) -> Result<Names, Malformed> {
    let mut names = Names::new();
    for message in messages {
        let kind = message.kind.clone();
        if names.insert(message.kind, message.names).is_some() {
            return Err(malformed(field, format_args!("{kind:?} is there twice")));
        }
    }
    Ok(names)
}
