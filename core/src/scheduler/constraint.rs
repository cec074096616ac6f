//! Whether a node meets a constraint.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::model::{Constraint, ConstraintOp, Network, Node, go_architecture};

/// Texts compare without regard to case, as Docker's do. A label that is not there counts as
/// the empty text, so that `!=` holds for it.
pub(super) fn holds(constraint: &Constraint, node: &Node) -> bool {
    if constraint.key == "node.ip" {
        // An address that nobody can read holds for no node, whatever the operator.
        return in_block(node.description.address, &constraint.value)
            .is_some_and(|inside| inside == (constraint.op == ConstraintOp::Equal));
    }
    let Some(found) = value(&constraint.key, node) else {
        return false;
    };
    let equal = found.eq_ignore_ascii_case(wanted(constraint).as_ref());
    equal == (constraint.op == ConstraintOp::Equal)
}

/// What a node has as an attribute; a label that is not there is empty.
pub(super) fn value<'a>(key: &str, node: &'a Node) -> Option<Cow<'a, str>> {
    let description = &node.description;
    Some(match key {
        "node.id" => node.id.as_str().into(),
        "node.hostname" => description.hostname.as_str().into(),
        "node.role" => node.spec.role.to_string().into(),
        "node.platform.os" => description.platform.os.as_str().into(),
        "node.platform.arch" => description.platform.go_arch().into(),
        _ => {
            let label = match key.strip_prefix("node.labels.") {
                Some(name) => node.spec.labels.get(name),
                None => description
                    .engine_labels
                    .get(key.strip_prefix("engine.labels.")?),
            };
            label.map_or("", String::as_str).into()
        }
    })
}

fn wanted(constraint: &Constraint) -> &str {
    match constraint.key.as_str() {
        "node.platform.arch" => go_architecture(&constraint.value),
        _ => &constraint.value,
    }
}

/// Whether an address is the one named, or within the CIDR block named; `None` for a text that
/// is neither.
fn in_block(address: IpAddr, text: &str) -> Option<bool> {
    let network: Network = text.parse().ok()?;
    Some(network.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;
    use crate::testing;

    #[track_caller]
    fn check(text: &str, expected: bool) {
        let mut node = testing::node(1);
        node.description.hostname = "web1".to_owned();
        node.description.address = "10.99.0.7".parse().unwrap();
        node.description.platform.arch = "amd64".to_owned();
        node.spec.role = Role::Manager;
        node.spec
            .labels
            .insert("zone".to_owned(), "eu-1a".to_owned());
        node.description
            .engine_labels
            .insert("disk".to_owned(), "ssd".to_owned());
        let (key, op) = match text.split_once("!=") {
            Some((key, _)) => (key, ConstraintOp::NotEqual),
            None => (text.split_once("==").unwrap().0, ConstraintOp::Equal),
        };
        // Not read but put together: what no user can ask for any more holds for no node either.
        let constraint = Constraint {
            key: key.to_owned(),
            op,
            value: text[key.len() + 2..].to_owned(),
        };
        assert_eq!(holds(&constraint, &node), expected, "{text}");
    }

    #[test]
    fn texts_compare_without_regard_to_case() {
        check("node.hostname==WEB1", true);
        check("node.hostname!=web1", false);
        check("node.role==manager", true);
        check("node.role==worker", false);
        check("node.platform.os==linux", true);
        check("node.platform.arch==x86_64", true);
        check("node.platform.arch==arm64", false);
        check("node.id==nobody", false);
    }

    #[test]
    fn labels_that_are_missing_are_empty() {
        check("node.labels.zone==eu-1a", true);
        check("node.labels.zone!=eu-1a", false);
        check("node.labels.rack==a", false);
        check("node.labels.rack!=a", true);
        check("engine.labels.disk==ssd", true);
        check("engine.labels.zone==eu-1a", false);
    }

    #[test]
    fn addresses_match_alone_and_in_blocks() {
        check("node.ip==10.99.0.7", true);
        check("node.ip!=10.99.0.7", false);
        check("node.ip==10.99.0.0/29", true);
        check("node.ip==10.99.0.8/29", false);
        check("node.ip!=10.99.0.8/29", true);
        check("node.ip==0.0.0.0/0", true);
        check("node.ip==::/0", false);
        check("node.ip!=2001:db8::/32", true);
        for unreadable in ["node.ip==ten", "node.ip!=ten", "node.ip==10.0.0.0/33"] {
            check(unreadable, false);
        }
    }
}
