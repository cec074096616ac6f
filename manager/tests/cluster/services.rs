//! From a service to agents that run it and balancers that know it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_stream::StreamExt;
use tonic::Code;

use swarmlet_core::model::TaskStatus;
use swarmlet_proto::v1;

use crate::agent::Agent;
use crate::harness::{Node, service, until};

const READY: i32 = v1::EndpointState::Ready as i32;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_runs_and_every_node_knows_its_endpoints() {
    let manager = Node::first().await;
    let mut agents = Vec::new();
    for hostname in ["w1", "w2", "w3"] {
        agents.push(Agent::worker(hostname, &manager, &[&manager]).await);
    }
    for agent in &agents {
        agent.is_ready(&manager).await;
    }
    manager.create("ng", 10, 8080).await.unwrap();
    let running = manager.runs(10).await;
    for agent in &agents {
        until(
            &format!("{} knows ten endpoints", agent.hostname),
            async || {
                let endpoints = agent.endpoints(8080);
                let ready = endpoints.iter().all(|(_, state)| *state == READY);
                (endpoints.len() == 10 && ready).then_some(())
            },
        )
        .await;
    }
    let versions: BTreeSet<u64> = agents
        .iter()
        .map(|agent| agent.seen.lock().unwrap().table.version)
        .collect();
    assert_eq!(versions.len(), 1, "{versions:?}");
    let mut counts: Vec<usize> = agents
        .iter()
        .map(|agent| agent.seen.lock().unwrap().started.len())
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [3, 3, 4]);

    manager.scale("ng", 3).await;
    let left = manager.runs(3).await;
    assert!(
        left.iter().all(|id| running.contains(id)),
        "none was restarted"
    );
    until("three endpoints are left", async || {
        let three = |agent: &Agent| agent.endpoints(8080).len() == 3;
        agents.iter().all(three).then_some(())
    })
    .await;

    let request = v1::RemoveServiceRequest {
        id: "ng".to_owned(),
    };
    manager.control().remove_service(request).await.unwrap();
    until("the service and its port are gone", async || {
        let free = |agent: &Agent| agent.seen.lock().unwrap().table.listeners.is_empty();
        let gone = manager.service("ng").await.is_none() && manager.tasks().await.is_empty();
        (gone && agents.iter().all(free)).then_some(())
    })
    .await;
    until("no agent has a task left", async || {
        let idle = |agent: &Agent| agent.seen.lock().unwrap().tasks.is_empty();
        agents.iter().all(idle).then_some(())
    })
    .await;
}

/// A task is told to stop only after every ready node has acknowledged a table that gives it
/// no new connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_leaves_the_balancers_before_it_stops() {
    let manager = Node::first().await;
    let agent = Agent::worker("w1", &manager, &[&manager]).await;
    manager.create("ng", 2, 8080).await.unwrap();
    manager.runs(2).await;
    until("two endpoints", async || {
        (agent.endpoints(8080).len() == 2).then_some(())
    })
    .await;
    let scaled = std::time::Instant::now();
    manager.scale("ng", 1).await;
    until("one task was stopped", async || {
        let seen = agent.seen.lock().unwrap();
        let stopped = seen.stopped.first()?;
        let listener = &seen.table.listeners[0];
        let routed = listener.endpoints.iter().find(|e| e.task_id == *stopped);
        assert!(
            routed.is_none_or(|endpoint| endpoint.state != READY),
            "it was told to stop while the table still had it"
        );
        Some(())
    })
    .await;
    // Without acknowledgements it would have taken the deadline of two seconds.
    let took = scaled.elapsed();
    assert!(
        took.as_millis() < 1900,
        "the acknowledgement did not count: {took:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_codes_and_texts() {
    let manager = Node::first().await;
    let id = manager.create("ng", 1, 8080).await.unwrap();

    let taken = manager.create("ng", 1, 8081).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    assert_eq!(
        taken.message(),
        "name conflicts with an existing object: service ng already exists"
    );
    let port = manager.create("other", 1, 8080).await.unwrap_err();
    assert_eq!(port.code(), Code::FailedPrecondition);
    assert_eq!(
        port.message(),
        format!("port '8080' is already in use by service 'ng' ({id})")
    );
    let invalid = manager.create("no good", 1, 8081).await.unwrap_err();
    assert_eq!(invalid.code(), Code::InvalidArgument);
    assert!(
        invalid
            .message()
            .starts_with("invalid service name \"no good\"")
    );

    let request = v1::RemoveServiceRequest {
        id: "nope".to_owned(),
    };
    let unknown = manager.control().remove_service(request).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert_eq!(unknown.message(), "no such service: nope");

    let renamed = manager
        .update("ng", |spec| spec.name = "other".to_owned())
        .await;
    assert_eq!(
        renamed.unwrap_err().message(),
        "renaming services is not supported"
    );
    let stale = v1::UpdateServiceRequest {
        id: id[..6].to_owned(),
        expected: 1,
        spec: Some((&service("ng", 2, 8080)).into()),
    };
    let stale = manager.control().update_service(stale).await.unwrap_err();
    assert_eq!(
        (stale.code(), stale.message()),
        (Code::Aborted, "update out of sequence")
    );
    let empty = manager
        .control()
        .create_service(v1::CreateServiceRequest::default())
        .await;
    assert_eq!(empty.unwrap_err().message(), "the request has no spec");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_every_change_until_the_service_is_gone() {
    let manager = Node::first().await;
    let _agent = Agent::worker("w1", &manager, &[&manager]).await;
    let id = manager.create("ng", 2, 8080).await.unwrap();
    let request = v1::WatchServiceRequest {
        service_id: "ng".to_owned(),
    };
    let watch = manager.control().watch_service(request).await.unwrap();
    let mut watch = watch.into_inner();
    let running = v1::TaskState::Running as i32;
    let mut last = 0;
    loop {
        let now = watch.next().await.unwrap().unwrap();
        assert!(now.version > last, "versions grow");
        last = now.version;
        assert_eq!(now.service.as_ref().unwrap().id, id);
        let runs = |task: &v1::Task| task.status.as_ref().unwrap().state == running;
        if now.tasks.iter().filter(|task| runs(task)).count() == 2 {
            break;
        }
    }
    let request = v1::RemoveServiceRequest { id };
    manager.control().remove_service(request).await.unwrap();
    let end = async {
        let mut gone = false;
        while let Some(now) = watch.next().await {
            gone = now.unwrap().service.is_none();
        }
        assert!(gone, "the last message says that the service is gone");
    };
    // The stream ends with the service, and not only with the next change of something else.
    tokio::time::timeout(Duration::from_secs(3), end)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_credentials_reach_the_node_and_nobody_else() {
    let manager = Node::first().await;
    let agent = Agent::worker("w1", &manager, &[&manager]).await;
    let mut spec = v1::ServiceSpec::from(&service("ng", 1, 8080));
    let secret = "c2VjcmV0IGNhbmFyeQ==";
    let container = &mut spec.task.as_mut().unwrap().containers[0];
    container.image = "registry.example.com/whoami:1".to_owned();
    container.registry_auth = Some(v1::RegistryAuth {
        header: secret.to_owned(),
    });
    let request = v1::CreateServiceRequest { spec: Some(spec) };
    manager.control().create_service(request).await.unwrap();
    manager.runs(1).await;

    let auth = |spec: &Option<v1::TaskSpec>| {
        let container = &spec.as_ref().unwrap().containers[0];
        container
            .registry_auth
            .as_ref()
            .map(|auth| auth.header.clone())
    };
    let assigned = || {
        let seen = agent.seen.lock().unwrap();
        let mut auths: Vec<_> = seen
            .assigned
            .values()
            .map(|task| auth(&task.spec))
            .collect();
        auths.dedup();
        auths
    };
    assert_eq!(assigned(), [Some(secret.to_owned())]);
    let shown = manager.service("ng").await.unwrap().spec.unwrap();
    assert_eq!(auth(&shown.task), None);
    assert!(
        manager
            .tasks()
            .await
            .iter()
            .all(|task| auth(&task.spec).is_none())
    );

    // An update that cannot name them keeps them, as long as the registry is the same.
    manager.scale("ng", 2).await;
    manager.runs(2).await;
    assert_eq!(assigned(), [Some(secret.to_owned())]);
    let elsewhere = |spec: &mut v1::ServiceSpec| {
        spec.task.as_mut().unwrap().containers[0].image = "evil.example.com/whoami:1".to_owned();
    };
    manager.update("ng", elsewhere).await.unwrap();
    manager.scale("ng", 3).await;
    manager.runs(3).await;
    let seen = agent.seen.lock().unwrap();
    for task in seen.assigned.values() {
        let container = &task.spec.as_ref().unwrap().containers[0];
        assert_eq!(
            container.registry_auth.is_some(),
            container.image.starts_with("registry.example.com/"),
            "{}",
            container.image
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_on_foreign_tasks_count_for_nothing() {
    let manager = Node::first().await;
    let honest = Agent::worker("w1", &manager, &[&manager]).await;
    manager.create("ng", 1, 8080).await.unwrap();
    let task = manager.runs(1).await.remove(0);

    let rogue = Agent::worker("w2", &manager, &[&manager]).await;
    rogue.is_ready(&manager).await;
    rogue.kill();
    crate::access::report_failure(&rogue.identity, manager.address, &task, "no").await;
    assert_eq!(manager.running().await, [task]);
    assert!(honest.seen.lock().unwrap().stopped.is_empty());
}

/// What a log entry has no room for would keep everybody's reports from the leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_says_too_much_holds_up_no_other() {
    let manager = Node::first().await;
    let rogue = Agent::worker("w1", &manager, &[&manager]).await;
    manager.create("ng", 1, 8080).await.unwrap();
    let task = manager.runs(1).await.remove(0);
    rogue.kill();
    let error = "ö".repeat(1 << 20);
    crate::access::report_failure(&rogue.identity, manager.address, &task, &error).await;
    let failed = until("the task has failed", async || {
        let tasks = manager.tasks().await.into_iter();
        let mut found = tasks.filter(|found| found.id == task);
        let status = found.next()?.status?;
        (status.state == v1::TaskState::Failed as i32).then_some(status)
    })
    .await;
    let told = failed.error.unwrap();
    assert!(told.len() <= TaskStatus::MAX_TEXT_BYTES, "{}", told.len());
    assert!(told.starts_with("öö") && told.ends_with("ö…"), "{told}");
    let honest = Agent::worker("w2", &manager, &[&manager]).await;
    honest.is_ready(&manager).await;
    manager.runs(1).await;
}

/// A service whose specification has so many bytes, and a little more.
fn heavy(name: &str, replicas: u32, bytes: usize) -> v1::CreateServiceRequest {
    let mut spec = service(name, replicas, 8080);
    let text = "x".repeat(bytes);
    spec.task.containers[0].env = vec![format!("HEAVY={text}")];
    v1::CreateServiceRequest {
        spec: Some((&spec).into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_and_large_tasks_run() {
    let manager = Node::first().await;
    let agent = Agent::worker("w1", &manager, &[&manager]).await;
    agent.is_ready(&manager).await;
    let limit = swarmlet_proto::REQUEST_LIMIT_BYTES;
    let mut control = manager.control();
    let refused = control.create_service(heavy("ng", 1, limit)).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert!(refused.message().contains("at most 1048576"), "{refused}");
    // Seven such tasks are more than fits into one log entry, and more than a client takes in one
    // message by itself.
    let request = heavy("ng", 7, 600 << 10);
    control.create_service(request).await.unwrap();
    let has_all = async |agent: &Agent| {
        until("the node has all tasks", async || {
            (agent.seen.lock().unwrap().assigned.len() == 7).then_some(())
        })
        .await;
    };
    has_all(&agent).await;
    // The first message of another session has all of them.
    let again = Agent::start("w1", agent.identity.clone(), &[&manager]);
    drop(agent);
    has_all(&again).await;
}
