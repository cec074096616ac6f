//! What a dry run prints.

use serde::Serialize;
use swarmlet_proto::v1;

use super::Row;

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PlanRow {
    action: String,
    kind: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<v1::PlanStep> for PlanRow {
    fn from(step: v1::PlanStep) -> Self {
        Self {
            action: step.action,
            kind: step.kind,
            name: step.name,
            from: step.from,
            to: step.to,
            reason: step.reason,
        }
    }
}

impl Row for PlanRow {
    const HEADERS: &'static [&'static str] = &["ACTION", "OBJECT", "FROM", "TO", "REASON"];

    fn cells(&self) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            self.action.clone(),
            format!("{} {}", self.kind, self.name),
            text(&self.from),
            text(&self.to),
            text(&self.reason),
        ]
    }

    fn id(&self) -> &str {
        &self.name
    }
}
