//! What a refusal says, beside its text, to somebody who is not of the cluster any more.
//!
//! There are two such things, and either may come without the other: that the caller's node is
//! not one of the cluster's, and that a state is of the past, because a manager went on without
//! the others since. Callers act on them, so they are no matter of texts.

use tonic::Status;
use tonic::metadata::MetadataValue;

/// Present where the caller's node is not one of the cluster's any more.
const EXPELLED: &str = "x-swarmlet-expelled";

/// The incarnation of the cluster that the refused state is older than.
const INCARNATION: &str = "x-swarmlet-incarnation";

/// A refusal of a node that is not one of the cluster's any more.
#[must_use]
pub fn expelled(text: impl Into<String>) -> Status {
    let mut status = Status::permission_denied(text);
    let present = MetadataValue::from_static("1");
    status.metadata_mut().insert(EXPELLED, present);
    status
}

/// Whether a refusal says that the caller's node is not one of the cluster's any more.
#[must_use]
pub fn is_expelled(status: &Status) -> bool {
    status.metadata().contains_key(EXPELLED)
}

/// Adds to a refusal that the cluster's incarnation is a greater one than that of a state.
#[must_use]
pub fn superseded(mut status: Status, incarnation: u64) -> Status {
    status
        .metadata_mut()
        .insert(INCARNATION, MetadataValue::from(incarnation));
    status
}

/// The incarnation that [`superseded`] has put into a refusal.
#[must_use]
pub fn superseded_by(status: &Status) -> Option<u64> {
    let value = status.metadata().get(INCARNATION)?;
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refusal_says_is_read_again_behind_the_wire() {
        let plain = Status::permission_denied("no");
        assert!(!is_expelled(&plain));
        assert_eq!(superseded_by(&plain), None);

        let both = superseded(expelled("go"), 1_700_000_000_000);
        let response = both.into_http::<tonic::body::Body>();
        let read = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(read.message(), "go");
        assert!(is_expelled(&read));
        assert_eq!(superseded_by(&read), Some(1_700_000_000_000));
        let one = superseded(Status::unavailable("later"), 7);
        assert!(!is_expelled(&one));
        assert_eq!(superseded_by(&one), Some(7));
    }
}
