//! Errors on their way into a log line or a task's status.

/// An error with all its causes, each once: some repeat their cause in their own words.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // A status says its code and metadata as well, which tell a user nothing.
        if !error.is::<tonic::Status>() && !text.contains(&error.to_string()) {
            text = format!("{text}: {error}");
        }
        cause = error.source();
    }
    text
}
