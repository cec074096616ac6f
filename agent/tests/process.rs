//! The process runtime with real processes.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use swarmlet_agent::runtime::log::{LogLine, LogQuery};
use swarmlet_agent::runtime::process::ProcessRuntime;
use swarmlet_agent::runtime::{
    Container, ContainerState, Health, Runtime, RuntimeError, RuntimeEvent, Scope,
};
use swarmlet_core::model::{ClusterId, ContainerSpec, NodeId, PortMode, Protocol, Task, TaskPort};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::with_container;

/// Longer than anything here takes on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(20);

struct Setup {
    dir: tempfile::TempDir,
    runtime: ProcessRuntime,
    scope: Scope,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope {
            cluster: ClusterId::from_random(1),
            node: NodeId::from_random(1),
            hostname: "host1".to_owned(),
            advertise: "127.0.0.1".parse().unwrap(),
            dir: dir.path().join("tasks"),
        };
        Self {
            dir,
            runtime: runtime(),
            scope,
        }
    }

    async fn start(&self, task: &Task) -> Container {
        self.runtime.prepare(&self.scope, task).await.unwrap();
        self.runtime.start(&self.scope, task, &[]).await.unwrap()
    }

    async fn inspect(&self, task: &Task) -> Option<Container> {
        self.runtime.inspect(&self.scope, &task.id).await.unwrap()
    }

    /// Waits until a container has ended, and returns its exit code.
    async fn end(&self, task: &Task) -> i32 {
        let deadline = Instant::now() + LIMIT;
        loop {
            let found = self.inspect(task).await.map(|container| container.state);
            if let Some(ContainerState::Exited { code, .. }) = found {
                return code;
            }
            assert!(Instant::now() < deadline, "still {found:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(&self, task: &Task, grace: Duration) -> Duration {
        let begin = Instant::now();
        self.runtime
            .stop(&self.scope, &task.id, grace)
            .await
            .unwrap();
        begin.elapsed()
    }

    /// What a task has written: `Stdout` or `Stderr` and the line.
    async fn lines(&self, task: &Task, query: LogQuery) -> Vec<String> {
        let lines = self.runtime.logs(&self.scope, &task.id, query);
        let text = |line: Result<LogLine, RuntimeError>| {
            let line = line.unwrap();
            format!("{:?} {}", line.stream, String::from_utf8_lossy(&line.data))
        };
        lines.map(text).collect().await
    }

    fn task_file(&self, task: &Task, name: &str) -> PathBuf {
        self.scope.dir.join(task.id.as_str()).join(name)
    }

    async fn waits_for(&self, path: PathBuf) {
        let deadline = Instant::now() + LIMIT;
        while !path.exists() {
            assert!(Instant::now() < deadline, "no {}", path.display());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn runtime() -> ProcessRuntime {
    ProcessRuntime::new(PathBuf::from(env!("CARGO_BIN_EXE_task-child")))
}

fn shell(id: u128, script: &str) -> Task {
    let container = ContainerSpec {
        image: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        ..ContainerSpec::default()
    };
    with_container(id, container)
}

/// Whether a process exists and is no zombie.
fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('Z'))
    })
}

#[tokio::test]
async fn exit_codes_and_output_are_kept() {
    let setup = Setup::new();
    for (id, script, code) in [
        (1, "echo out; echo err >&2", 0),
        (2, "exit 3", 3),
        (3, "kill -9 $$", 137),
    ] {
        let task = shell(id, script);
        setup.start(&task).await;
        assert_eq!(setup.end(&task).await, code, "{script}");
    }
    let mut lines = setup.lines(&shell(1, ""), LogQuery::default()).await;
    lines.sort();
    assert_eq!(lines, ["Stderr err\n", "Stdout out\n"]);
}

#[tokio::test]
async fn a_log_is_followed_to_the_end_of_its_task() {
    let setup = Setup::new();
    let task = shell(
        1,
        "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done; printf end",
    );
    setup.start(&task).await;
    let follow = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let followed = tokio::time::timeout(LIMIT, setup.lines(&task, follow.clone()));
    let expected = [
        "Stdout 1\n",
        "Stdout 2\n",
        "Stdout 3\n",
        "Stdout 4\n",
        "Stdout 5\n",
        "Stdout end",
    ];
    assert_eq!(followed.await.unwrap(), expected);
    // All of it is there afterwards, and the last lines can be asked for.
    let last = LogQuery {
        tail: Some(2),
        ..follow
    };
    assert_eq!(setup.lines(&task, last).await, expected[4..]);
}

#[tokio::test]
async fn a_log_is_bounded_by_time() {
    let setup = Setup::new();
    let task = shell(1, "echo a; sleep 0.05; echo b; sleep 0.05; echo c");
    setup.start(&task).await;
    setup.end(&task).await;
    let lines = setup
        .runtime
        .logs(&setup.scope, &task.id, LogQuery::default());
    let moments: Vec<u64> = lines.map(|line| line.unwrap().at_ns).collect().await;
    let middle = LogQuery {
        since_ns: moments[0] + 1,
        until_ns: Some(moments[2] - 1),
        ..LogQuery::default()
    };
    assert_eq!(setup.lines(&task, middle).await, ["Stdout b\n"]);
}

#[tokio::test]
async fn the_log_of_a_task_that_is_gone_says_so() {
    let setup = Setup::new();
    let nobody = shell(9, "");
    let mut lines = setup
        .runtime
        .logs(&setup.scope, &nobody.id, LogQuery::default());
    let error = lines.next().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the container was removed");
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn a_task_that_writes_without_end_takes_bounded_space_and_is_not_held_up() {
    let setup = Setup::new();
    // 60 MB, more than twice of what is kept.
    let task = shell(
        1,
        "yes 0123456789012345678901234567890123456789012345678 | head -n 1200000",
    );
    setup.start(&task).await;
    assert_eq!(setup.end(&task).await, 0);
    let folder = std::fs::read_dir(setup.scope.dir.join(task.id.as_str())).unwrap();
    let size: u64 = folder
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size > 10 << 20 && size <= 21 << 20, "{size} bytes");
    let last = LogQuery {
        tail: Some(3),
        ..LogQuery::default()
    };
    assert_eq!(setup.lines(&task, last).await.len(), 3);
}

#[tokio::test]
async fn a_start_again_starts_nothing() {
    let setup = Setup::new();
    let task = shell(1, "exec sleep 600");
    let first = setup.start(&task).await;
    assert_eq!(first.state, ContainerState::Running(Health::Unchecked));
    assert_eq!(setup.start(&task).await, first);
    let listed = setup.runtime.list(&setup.scope).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&first));
    setup.stop(&task, Duration::from_secs(5)).await;
    assert!(!lives(first.pid));
    // One that has ended is not started again either.
    assert!(matches!(
        setup.start(&task).await.state,
        ContainerState::Exited { .. }
    ));
    setup.runtime.remove(&setup.scope, &task.id).await.unwrap();
    setup.runtime.remove(&setup.scope, &task.id).await.unwrap();
    assert_eq!(setup.inspect(&task).await, None);
}

#[tokio::test]
async fn a_stop_asks_waits_and_kills() {
    let setup = Setup::new();
    let polite = shell(
        1,
        "trap 'exit 5' TERM; touch ready; while :; do sleep 0.02; done",
    );
    let deaf = shell(2, "trap '' TERM; touch ready; while :; do sleep 0.02; done");
    for task in [&polite, &deaf] {
        let mut task = task.clone();
        let dir = setup.dir.path().join(task.id.as_str());
        std::fs::create_dir(&dir).unwrap();
        task.spec.containers[0].workdir = Some(dir.display().to_string());
        setup.start(&task).await;
        setup.waits_for(dir.join("ready")).await;
    }
    assert!(setup.stop(&polite, Duration::from_secs(60)).await < LIMIT);
    assert_eq!(setup.end(&polite).await, 5);

    let took = setup.stop(&deaf, Duration::from_millis(300)).await;
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert_eq!(setup.end(&deaf).await, 137);
}

#[tokio::test]
async fn what_a_task_left_behind_ends_with_it() {
    let setup = Setup::new();
    let task = shell(1, "sleep 600 & echo $!; exit 0");
    setup.start(&task).await;
    setup.end(&task).await;
    let lines = setup.lines(&task, LogQuery::default()).await;
    let left: u32 = lines[0]
        .trim_start_matches("Stdout ")
        .trim()
        .parse()
        .unwrap();
    let deadline = Instant::now() + LIMIT;
    while lives(left) {
        assert!(Instant::now() < deadline, "process {left} lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_end_is_noticed_at_once() {
    let setup = Setup::new();
    let mut events = setup.runtime.events(&setup.scope);
    assert_eq!(events.next().await, Some(RuntimeEvent::Relist));
    let task = shell(1, "exec sleep 600");
    let container = setup.start(&task).await;
    let begin = Instant::now();
    let pid = rustix::process::Pid::from_raw(i32::try_from(container.pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let event = tokio::time::timeout(LIMIT, events.next()).await.unwrap();
    assert_eq!(event, Some(RuntimeEvent::Ended(task.id.clone())));
    println!("noticed after {:?}", begin.elapsed());
    assert_eq!(setup.end(&task).await, 137);
}

#[tokio::test]
async fn a_new_runtime_adopts_what_runs() {
    let mut setup = Setup::new();
    let task = shell(1, "exec sleep 600");
    let port = TaskPort {
        target: 80,
        host: 20_123,
        protocol: Protocol::Tcp,
        mode: PortMode::Ingress,
    };
    let before = setup
        .runtime
        .start(&setup.scope, &task, std::slice::from_ref(&port))
        .await
        .unwrap();
    assert_eq!(before.ports, [port]);
    setup.runtime = runtime();
    let mut events = setup.runtime.events(&setup.scope);
    assert_eq!(events.next().await, Some(RuntimeEvent::Relist));
    let listed = setup.runtime.list(&setup.scope).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&before));
    assert!(lives(before.pid));
    // It is watched from the list on, although another runtime started it.
    setup.stop(&task, Duration::from_secs(5)).await;
    let event = tokio::time::timeout(LIMIT, events.next()).await.unwrap();
    assert_eq!(event, Some(RuntimeEvent::Ended(task.id.clone())));
    assert_eq!(setup.end(&task).await, 143);
}

#[tokio::test]
async fn a_killed_shim_ends_its_task() {
    let setup = Setup::new();
    let task = shell(1, "exec sleep 600");
    let container = setup.start(&task).await;
    let started: serde_json::Value =
        serde_json::from_slice(&std::fs::read(setup.task_file(&task, "started.json")).unwrap())
            .unwrap();
    let shim = i32::try_from(started["shim"].as_u64().unwrap()).unwrap();
    let shim = rustix::process::Pid::from_raw(shim).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    assert_eq!(setup.end(&task).await, 137);
    let deadline = Instant::now() + LIMIT;
    while lives(container.pid) {
        assert!(Instant::now() < deadline, "the command lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_process_of_the_same_id_is_left_alone() {
    let setup = Setup::new();
    let task = shell(1, "exec sleep 600");
    let container = setup.start(&task).await;
    // As if the task's process had ended and its id belonged to another one by now.
    let path = setup.task_file(&task, "started.json");
    let mut started: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let right = started["start_time"].clone();
    started["start_time"] = 1.into();
    std::fs::write(&path, started.to_string()).unwrap();
    let shim = i32::try_from(started["shim"].as_u64().unwrap()).unwrap();
    let shim = rustix::process::Pid::from_raw(shim).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    assert_eq!(setup.end(&task).await, 137);
    // That nothing happens can only be waited for.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(lives(container.pid), "it was none of the task's");
    // Clean up by the name that is right.
    assert!(right.as_u64().unwrap() > 1);
    let pid = rustix::process::Pid::from_raw(i32::try_from(container.pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_command_that_cannot_start_is_rejected() {
    let setup = Setup::new();
    let path = setup.dir.path().join("no-program");
    std::fs::write(&path, "#!/nonexistent/interpreter\n").unwrap();
    std::process::Command::new("chmod")
        .arg("+x")
        .arg(&path)
        .status()
        .unwrap();
    let container = ContainerSpec {
        image: path.display().to_string(),
        ..ContainerSpec::default()
    };
    let task = with_container(1, container);
    let error = setup
        .runtime
        .start(&setup.scope, &task, &[])
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RuntimeError::Rejected(reason) if reason.starts_with("cannot start ")),
        "{error:?}"
    );
    let missing = ContainerSpec {
        image: "/nonexistent".to_owned(),
        ..ContainerSpec::default()
    };
    let task = with_container(2, missing);
    let error = setup
        .runtime
        .prepare(&setup.scope, &task)
        .await
        .unwrap_err();
    assert!(
        error.to_string().starts_with("No such image: /nonexistent"),
        "{error}"
    );
}

#[tokio::test]
async fn whoami_answers_on_its_port_and_finishes_on_sigterm() {
    let setup = Arc::new(Setup::new());
    let container = ContainerSpec {
        image: "whoami".to_owned(),
        ..ContainerSpec::default()
    };
    let task = with_container(u128::MAX, container);
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let port = TaskPort {
        target: 80,
        host: free.port(),
        protocol: Protocol::Tcp,
        mode: PortMode::Ingress,
    };
    setup
        .runtime
        .start(&setup.scope, &task, &[port])
        .await
        .unwrap();
    let deadline = Instant::now() + LIMIT;
    let answer = loop {
        match get(free, "/").await {
            Ok(answer) => break answer,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(
        answer.contains(&format!("\r\n\r\n{}\n", task.id.short())),
        "{answer}"
    );

    let slow = tokio::spawn(async move { get(free, "/slow?ms=500").await });
    tokio::time::sleep(Duration::from_millis(150)).await;
    setup.stop(&task, Duration::from_secs(10)).await;
    assert!(
        slow.await.unwrap().unwrap().contains(task.id.short()),
        "the request in flight is answered"
    );
    assert_eq!(setup.end(&task).await, 0);
}

async fn get(address: std::net::SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Whether this machine has control groups that the test may write.
fn may_limit() -> bool {
    ["/sys/fs/cgroup/swarmlet", "/sys/fs/cgroup/pids/swarmlet"]
        .iter()
        .any(|path| {
            let parent = std::path::Path::new(path).parent().unwrap();
            parent.join("cgroup.procs").exists() && std::fs::create_dir_all(path).is_ok()
        })
}

#[tokio::test]
async fn limits_hold_where_there_are_control_groups() {
    if !may_limit() {
        eprintln!("SKIPPED: no control groups that this user may write");
        return;
    }
    let setup = Setup::new();
    // More processes at a time than are allowed: the shell cannot start them and says so.
    let script = "sleep 0.3; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 60 & done; wait";
    let container = ContainerSpec {
        image: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        ..ContainerSpec::default()
    };
    let mut limited = with_container(7, container);
    limited.spec.resources.limits.pids = 6;
    limited.spec.resources.limits.nano_cpus = 500_000_000;
    let container = setup.start(&limited).await;
    let own = format!("swarmlet/{}", limited.id);
    let deadline = Instant::now() + LIMIT;
    loop {
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", container.pid));
        if groups.is_ok_and(|groups| groups.contains(&own)) {
            break;
        }
        assert!(Instant::now() < deadline, "it is in no group of its own");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_ne!(
        setup.end(&limited).await,
        0,
        "twelve processes were too many"
    );
    setup
        .runtime
        .remove(&setup.scope, &limited.id)
        .await
        .unwrap();
    for root in [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/pids",
        "/sys/fs/cgroup/cpu",
    ] {
        let left = std::path::Path::new(root).join(&own);
        assert!(!left.exists(), "{} is left", left.display());
    }
}
