//! `lb status --format json`: everything that a balancer says, its moments in RFC 3339 as in any
//! other output; to its daemon it says them in milliseconds.

use serde_json::{Map, Value};
use swarmlet_core::model::Timestamp;
use swarmlet_lb::status::Status;

/// Fields that are moments in milliseconds, and their names where they are text.
const MOMENTS: [(&str, &str); 2] = [("started_at_ms", "started_at"), ("since_ms", "since")];

/// A line for each process.
pub(crate) fn balancers_json(generations: &[Status]) -> Result<String, serde_json::Error> {
    generations
        .iter()
        .map(|status| Ok(format!("{}\n", readable(serde_json::to_value(status)?))))
        .collect()
}

fn readable(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(field).collect::<Map<_, _>>())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(readable).collect()),
        other => other,
    }
}

fn field((name, value): (String, Value)) -> (String, Value) {
    let moment = MOMENTS.iter().find(|(numeric, _)| *numeric == name);
    match (moment, value.as_u64()) {
        (Some((_, text)), Some(at)) => ((*text).to_owned(), Timestamp(at).to_string().into()),
        _ => (name, readable(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_text_wherever_they_are() {
        let value = serde_json::json!({
            "pid": 7,
            "started_at_ms": 1_700_000_000_007_u64,
            "listeners": [{"endpoints": [{"id": "a", "since_ms": 1, "sum_us": 5}]}],
        });
        let expected = serde_json::json!({
            "pid": 7,
            "started_at": "2023-11-14T22:13:20.007Z",
            "listeners": [
                {"endpoints": [{"id": "a", "since": "1970-01-01T00:00:00.001Z", "sum_us": 5}]},
            ],
        });
        assert_eq!(readable(value), expected);
    }
}
