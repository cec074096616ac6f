//! The Docker runtime with a real engine.
//!
//! It runs where `SWARMLET_TEST_DOCKER_HOST` names an engine in this process's own network,
//! and says so where it does not. Images come from the machine's own static busybox.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod support;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use swarmlet_agent::runtime::docker::DockerRuntime;
use swarmlet_agent::runtime::{
    Container, ContainerState, Health, Runtime, RuntimeError, RuntimeEvent, Scope,
};
use swarmlet_core::model::{
    ClusterId, ContainerSpec, HealthCheck, HealthTest, Mount, MountKind, NodeId, PortMode,
    Protocol, Task, TaskPort,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::with_container;

const LIMIT: Duration = Duration::from_secs(60);
const IMAGE: &str = "swarmlet-agent-test:latest";
/// The same, but said to be for a machine that nobody has under the desk.
const FOREIGN_IMAGE: &str = "swarmlet-agent-test:s390x";

struct Setup {
    host: String,
    runtime: DockerRuntime,
    scope: Scope,
}

/// An engine with the image, and a node of the test's own; `None`, said aloud, without one.
fn setup(node: u128) -> Option<Setup> {
    let Ok(host) = std::env::var("SWARMLET_TEST_DOCKER_HOST") else {
        eprintln!("SKIPPED: SWARMLET_TEST_DOCKER_HOST names no engine");
        return None;
    };
    static IMPORTED: OnceLock<()> = OnceLock::new();
    IMPORTED.get_or_init(|| import(&host));
    let unique = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    Some(Setup {
        runtime: DockerRuntime::new(Some(&host)).unwrap(),
        host,
        scope: Scope {
            cluster: ClusterId::from_random(unique),
            node: NodeId::from_random(node),
            hostname: "host1".to_owned(),
            advertise: "127.0.0.1".parse().unwrap(),
            dir: "/nonexistent".into(),
        },
    })
}

fn import(host: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("bin")).unwrap();
    std::fs::create_dir_all(dir.path().join("tmp")).unwrap();
    std::fs::copy("/bin/busybox", dir.path().join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", dir.path().join("bin/sh")).unwrap();
    let archive = Command::new("tar")
        .arg("-C")
        .arg(dir.path())
        .args(["-c", "."])
        .output()
        .unwrap();
    let mut import = Command::new("docker")
        .args(["-H", host, "import", "-", IMAGE])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut archived = import.stdin.take().unwrap();
    archived.write_all(&archive.stdout).unwrap();
    drop(archived);
    assert!(import.wait().unwrap().success());
    import_foreign(host);
}

/// Engines import for their own machine only, and load what an archive says.
fn import_foreign(host: &str) {
    const SCRIPT: &str = r#"
        cd "$1" && docker -H "$2" save "$3" | tar -x && rm -f repositories index.json oci-layout
        config=$(sed 's/.*"Config":"\([^"]*\)".*/\1/' manifest.json)
        sed 's/"architecture":"[^"]*"/"architecture":"s390x"/' "$config" >foreign.json
        sed -i "s,$config,foreign.json,; s,$3,$4," manifest.json
        tar -c . | docker -H "$2" load
    "#;
    let dir = tempfile::tempdir().unwrap();
    let loaded = Command::new("sh")
        .args(["-e", "-c", SCRIPT, "sh"])
        .arg(dir.path())
        .args([host, IMAGE, FOREIGN_IMAGE])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(loaded.success());
}

fn shell(id: u128, script: &str) -> Task {
    let unique = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    let container = ContainerSpec {
        image: IMAGE.to_owned(),
        args: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        stop_grace_period: Duration::from_secs(1),
        ..ContainerSpec::default()
    };
    with_container(unique.wrapping_mul(1000) + id, container)
}

fn port(mode: PortMode) -> TaskPort {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    TaskPort {
        target: 80,
        host: free.port(),
        protocol: Protocol::Tcp,
        mode,
    }
}

impl Setup {
    async fn start(&self, task: &Task, ports: &[TaskPort]) -> Result<Container, RuntimeError> {
        self.runtime.prepare(&self.scope, task).await?;
        self.runtime.start(&self.scope, task, ports).await
    }

    async fn reaches(&self, task: &Task, state: ContainerState) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let found = self.runtime.inspect(&self.scope, &task.id).await.unwrap();
            if found
                .as_ref()
                .is_some_and(|container| container.state == state)
            {
                return;
            }
            assert!(Instant::now() < deadline, "{found:?} instead of {state:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn list(&self) -> Vec<Container> {
        self.runtime.list(&self.scope).await.unwrap()
    }

    async fn clean(&self) {
        for container in self.list().await {
            self.runtime
                .remove(&self.scope, &container.task)
                .await
                .unwrap();
        }
        assert_eq!(self.list().await, []);
    }
}

fn exited(code: i32) -> ContainerState {
    ContainerState::Exited { code, reason: None }
}

#[tokio::test]
async fn a_container_from_start_to_removal() {
    let Some(setup) = setup(1) else { return };
    let engine = setup.runtime.describe().await.unwrap();
    assert!(
        !engine.version.is_empty() && engine.resources.memory_bytes > 0,
        "{engine:?}"
    );

    let script = "echo $HOSTNAME > /tmp/index.html; exec busybox httpd -f -p 80 -h /tmp";
    let (one, two) = (shell(1, script), shell(2, script));
    let ports = [port(PortMode::Ingress)];
    let container = setup.start(&one, &ports).await.unwrap();
    setup.start(&two, &[port(PortMode::Host)]).await.unwrap();
    assert_eq!(container.state, ContainerState::Running(Health::Unchecked));
    assert!(container.pid > 0 && container.address.is_some());
    assert_eq!(container.ports, ports);

    // By the task port, and by the container's own address.
    let direct = SocketAddr::new(container.address.unwrap(), 80);
    for address in [SocketAddr::from(([127, 0, 0, 1], ports[0].host)), direct] {
        let answer = get(address).await;
        assert!(
            answer.ends_with(&format!("{}\n", &container.id[..12])),
            "{answer}"
        );
    }

    // Another agent finds the same, and one of another node nothing.
    let again = DockerRuntime::new(Some(&setup.host)).unwrap();
    assert_eq!(
        again.start(&setup.scope, &one, &[]).await.unwrap(),
        container
    );
    let mut other = setup.scope.clone();
    other.node = NodeId::from_random(99);
    assert_eq!(again.list(&other).await.unwrap(), []);
    assert_eq!(setup.list().await.len(), 2);

    let begin = Instant::now();
    // The shell's successor has no handler as process 1: only the kill ends it.
    setup
        .runtime
        .stop(&setup.scope, &one.id, Duration::from_secs(1))
        .await
        .unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));
    setup.reaches(&one, exited(137)).await;
    setup
        .runtime
        .stop(&setup.scope, &one.id, Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(
        again.start(&setup.scope, &one, &[]).await.unwrap().state,
        exited(137)
    );
    setup.clean().await;
    setup.runtime.remove(&setup.scope, &one.id).await.unwrap();
    assert_eq!(
        setup.runtime.inspect(&setup.scope, &one.id).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn what_cannot_work_is_rejected_with_the_engines_reason() {
    let Some(setup) = setup(2) else { return };
    let mut missing = shell(1, "");
    missing.spec.containers[0].image = "localhost:1/nonexistent".to_owned();
    let mut mount = shell(2, "true");
    mount.spec.containers[0].mounts = vec![Mount {
        kind: MountKind::Bind,
        source: "/nonexistent/source".to_owned(),
        target: "/data".to_owned(),
        read_only: true,
    }];
    let mut program = shell(3, "");
    program.spec.containers[0].args = vec!["/bin/nonexistent".to_owned()];
    let mut foreign = shell(4, "sleep 600");
    foreign.spec.containers[0].image = FOREIGN_IMAGE.to_owned();
    for (task, reason) in [
        (
            foreign,
            "no matching platform: swarmlet-agent-test:s390x is for linux/s390x, this node is linux/",
        ),
        (missing, "No such image: localhost:1/nonexistent ("),
        (mount, "/nonexistent/source"),
        (program, "/bin/nonexistent"),
    ] {
        match setup.start(&task, &[]).await {
            Err(RuntimeError::Rejected(text)) => assert!(text.contains(reason), "{text}"),
            other => panic!("{other:?} instead of {reason}"),
        }
    }
    assert_eq!(setup.list().await, [], "nothing is left behind");
}

#[tokio::test]
async fn a_taken_port_leaves_nothing_behind() {
    let Some(setup) = setup(3) else { return };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [TaskPort {
        host: taken.local_addr().unwrap().port(),
        ..port(PortMode::Ingress)
    }];
    let task = shell(1, "sleep 600");
    let error = setup.start(&task, &ports).await.unwrap_err();
    assert!(matches!(error, RuntimeError::PortTaken(_)), "{error:?}");
    assert_eq!(setup.list().await, []);
    let other = setup
        .start(&task, &[port(PortMode::Ingress)])
        .await
        .unwrap();
    assert!(other.is_running());
    // By another container, which the engine itself knows of.
    let same = shell(2, "sleep 600");
    let error = setup.start(&same, &other.ports).await.unwrap_err();
    assert!(matches!(error, RuntimeError::PortTaken(_)), "{error:?}");
    setup.clean().await;
}

#[tokio::test]
async fn ends_and_health_are_told() {
    let Some(setup) = setup(4) else { return };
    let mut events = setup.runtime.events(&setup.scope);
    assert_eq!(events.next().await, Some(RuntimeEvent::Relist));
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    let forward = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            sender.send((event, Instant::now())).unwrap();
        }
    });
    let mut task = shell(
        1,
        "sleep 2; touch /tmp/well; sleep 2; rm /tmp/well; exec sleep 600",
    );
    task.spec.containers[0].health = Some(HealthCheck {
        test: HealthTest::Shell("[ -e /tmp/well ]".to_owned()),
        interval: Some(Duration::from_millis(200)),
        timeout: Some(Duration::from_secs(5)),
        start_period: Some(Duration::from_secs(10)),
        start_interval: None,
        retries: Some(2),
    });
    let container = setup.start(&task, &[]).await.unwrap();
    assert_eq!(container.state, ContainerState::Running(Health::Starting));
    setup
        .reaches(&task, ContainerState::Running(Health::Healthy))
        .await;
    setup
        .reaches(&task, ContainerState::Running(Health::Unhealthy))
        .await;
    setup.clean().await;

    let task = shell(2, "sleep 1; exit 3");
    setup.start(&task, &[]).await.unwrap();
    setup.reaches(&task, exited(3)).await;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let deadline = tokio::time::Instant::now() + LIMIT;
    while counts.len() < 2 || counts[&task.id.to_string()] < 2 {
        let (event, _) = tokio::time::timeout_at(deadline, told.recv())
            .await
            .unwrap()
            .unwrap();
        if let RuntimeEvent::Changed(task) | RuntimeEvent::Ended(task) = event {
            *counts.entry(task.to_string()).or_default() += 1;
        }
    }
    forward.abort();
    setup.clean().await;
}

async fn get(address: SocketAddr) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut answer = String::new();
        let asked = async {
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            stream
                .write_all(b"GET /index.html HTTP/1.0\r\n\r\n")
                .await?;
            stream.read_to_string(&mut answer).await
        };
        match asked.await {
            Ok(length) if length > 0 => return answer,
            result => assert!(Instant::now() < deadline, "{address}: {result:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
