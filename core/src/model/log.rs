//! Where what a task writes is kept.

use std::collections::BTreeMap;

use serde::Serialize;

/// A logging driver, as Docker names them, and its options.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LogDriver {
    /// Its name: `json-file`, `local`, `journald`, `none`…
    pub name: String,
    /// Its options, such as `max-size`.
    pub options: BTreeMap<String, String>,
}
