//! The engine's events, for ever: lost connections are made again, and after each of them
//! everything is looked at, because what happened in between is not told again.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::stream::{self, BoxStream, StreamExt};
use swarmlet_core::model::TaskId;

use super::{CALL_DEADLINE, DockerRuntime, label, scope_labels};
use crate::runtime::{Runtime, RuntimeError, RuntimeEvent, Scope};

/// Pause before the engine is asked again. Its return is to be noticed within a second.
const RECONNECT: Duration = Duration::from_millis(500);

/// A stream that an engine keeps open while it hangs looks like one with no events. This
/// often the engine is asked whether it is still there; the worker looks at all containers
/// more often, so nothing is missed meanwhile.
const RENEW: Duration = Duration::from_secs(60);

enum State {
    Disconnected { pause: Duration },
    Connected(BoxStream<'static, Result<EventMessage, bollard::errors::Error>>),
}

/// Events of the scope's containers.
pub(super) fn stream(runtime: DockerRuntime, scope: &Scope) -> BoxStream<'static, RuntimeEvent> {
    let labels = scope_labels(scope);
    let start = State::Disconnected {
        pause: Duration::ZERO,
    };
    stream::unfold(start, move |state| {
        let (runtime, labels) = (runtime.clone(), labels.clone());
        async move { Some(next(&runtime, &labels, state).await) }
    })
    .boxed()
}

async fn next(
    runtime: &DockerRuntime,
    labels: &[String],
    mut state: State,
) -> (RuntimeEvent, State) {
    loop {
        state = match state {
            State::Disconnected { pause } => {
                tokio::time::sleep(pause).await;
                match connect(runtime, labels).await {
                    Ok(events) => return (RuntimeEvent::Relist, State::Connected(events)),
                    Err(error) => {
                        tracing::debug!(%error, "no events from the engine");
                        State::Disconnected { pause: RECONNECT }
                    }
                }
            }
            State::Connected(mut events) => {
                match tokio::time::timeout(RENEW, events.next()).await {
                    Ok(Some(Ok(event))) => match task(&event) {
                        Some(task) => {
                            let told = match event.action.as_deref() {
                                Some("die") => RuntimeEvent::Ended(task),
                                _ => RuntimeEvent::Changed(task),
                            };
                            return (told, State::Connected(events));
                        }
                        None => State::Connected(events),
                    },
                    Ok(Some(Err(_)) | None) => State::Disconnected { pause: RECONNECT },
                    Err(_) => State::Disconnected {
                        pause: Duration::ZERO,
                    },
                }
            }
        };
    }
}

async fn connect(
    runtime: &DockerRuntime,
    labels: &[String],
) -> Result<BoxStream<'static, Result<EventMessage, bollard::errors::Error>>, RuntimeError> {
    // The request is only sent once the stream is read, which is after the list that follows
    // this: what happens in between is asked for by time.
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // The stream says nothing until there is an event, not even that it could not connect.
    runtime.describe().await?;
    let client = runtime.client(CALL_DEADLINE)?;
    // Without this choice every run of a health check would tell of three execs.
    let kinds = ["start", "die", "oom", "destroy", "health_status"];
    let options = EventsOptionsBuilder::new()
        .since(&since.as_secs().to_string())
        .filters(&HashMap::from([
            ("type", vec!["container".to_owned()]),
            ("label", labels.to_vec()),
            ("event", kinds.map(str::to_owned).to_vec()),
        ]))
        .build();
    Ok(client.events(Some(options)).boxed())
}

fn task(event: &EventMessage) -> Option<TaskId> {
    let attributes = event.actor.as_ref()?.attributes.as_ref()?;
    TaskId::parse(attributes.get(label::TASK)?).ok()
}
