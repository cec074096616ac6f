//! When the replicated state moves on to a newer schema.
//!
//! A replica that met a command it does not know would have to stop, so nothing of a newer
//! schema may enter the log while one manager still runs an older program.

use crate::command::Command;
use crate::model::Cluster;
use crate::state::State;

/// Raises the schema to the newest one that this program and every manager know.
#[must_use]
pub fn advance(state: &State) -> Option<Command> {
    let in_use = state.cluster()?.schema;
    let known = state
        .nodes()
        .filter(|node| node.manager.is_some())
        .map(|node| node.description.schema)
        .min()?;
    let schema = known.min(Cluster::SCHEMA);
    (schema > in_use).then_some(Command::RaiseSchema { schema })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ManagerInfo, Version};
    use crate::testing::{cluster, node};

    fn check(in_use: u32, managers: &[u32], workers: &[u32], expected: Option<u32>) {
        let cluster = Cluster {
            schema: in_use,
            ..cluster()
        };
        let nodes = managers.iter().map(|schema| (schema, true));
        let nodes = nodes.chain(workers.iter().map(|schema| (schema, false)));
        let nodes = (1..).zip(nodes).map(|(number, (&schema, manages))| {
            let mut node = node(number);
            node.description.schema = schema;
            node.manager = manages.then(|| ManagerInfo {
                raft_id: number.into(),
                address: ([10, 0, 0, number], 2377).into(),
            });
            node
        });
        let nodes = nodes.collect();
        let state = State::restore(Version(1), Some(cluster), nodes, Vec::new(), Vec::new());
        let expected = expected.map(|schema| Command::RaiseSchema { schema });
        assert_eq!(advance(&state), expected);
    }

    #[test]
    fn the_schema_rises_once_all_managers_know_it() {
        let (old, new) = (Cluster::SCHEMA - 1, Cluster::SCHEMA);
        check(old, &[new, new, new], &[old], Some(new));
        check(old, &[new, old, new], &[new], None);
        check(new, &[new], &[], None);
        check(old, &[], &[new], None);
    }

    #[test]
    fn it_rises_no_further_than_this_program_knows() {
        check(
            Cluster::SCHEMA - 1,
            &[Cluster::SCHEMA + 1],
            &[],
            Some(Cluster::SCHEMA),
        );
        check(Cluster::SCHEMA, &[Cluster::SCHEMA + 1], &[], None);
    }
}
