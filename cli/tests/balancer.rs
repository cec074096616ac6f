//! `swarmlet lb --config`: the balancer as a program of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far more than it takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// A balancer that ends with its test.
struct Balancer(Child);

impl Drop for Balancer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn balancer(file: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmlet"));
    command.arg("lb").arg("--config").arg(file);
    command
}

#[test]
fn a_file_is_enough_to_forward() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in server.incoming() {
            client.unwrap().write_all(b"hello").unwrap();
        }
    });
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|free| free.local_addr())
        .unwrap()
        .port();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lb.toml");
    let text = format!(
        "ingress = [\"127.0.0.1\"]\n[[listeners]]\nport = {port}\n\
         [[listeners.endpoints]]\naddress = \"{endpoint}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let _balancer = Balancer(balancer(&file).stderr(Stdio::null()).spawn().unwrap());

    let deadline = Instant::now() + LIMIT;
    loop {
        let mut answer = String::new();
        let asked = TcpStream::connect(("127.0.0.1", port))
            .and_then(|mut client| client.read_to_string(&mut answer));
        if asked.is_ok() && answer == "hello" {
            return;
        }
        assert!(Instant::now() < deadline, "no answer: {asked:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_flaw_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lb.toml");
    std::fs::write(&file, "[[listeners]]\nport = 80\npolicy = \"fastest\"\n").unwrap();
    let output = balancer(&file).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("lb.toml, line 3:"), "{text}");
}

#[test]
fn a_flaw_is_named_when_the_file_is_read_again_and_what_was_in_force_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (file, control) = (dir.path().join("lb.toml"), dir.path().join("lb.sock"));
    let good = format!(
        "ingress = [\"127.0.0.1\"]\ncontrol = \"{}\"\n",
        control.display()
    );
    std::fs::write(&file, &good).unwrap();
    let mut balancer = Balancer(balancer(&file).stderr(Stdio::piped()).spawn().unwrap());
    let status = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmlet"));
        command.args(["lb", "status", "--format=json", "--control"]);
        command.arg(&control).output().unwrap()
    };
    let deadline = Instant::now() + LIMIT;
    while !status().status.success() {
        assert!(Instant::now() < deadline, "it does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (sender, lines) = std::sync::mpsc::channel();
    let stderr = BufReader::new(balancer.0.stderr.take().unwrap());
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            // Nobody listens once the test is over.
            let _ = sender.send(line);
        }
    });
    let table = || -> serde_json::Value {
        let status: serde_json::Value = serde_json::from_slice(&status().stdout).unwrap();
        status["table_version"].clone()
    };
    let before = table();

    let flawed = good + "\n[[listeners]]\nport = 80\npolicy = \"fastest\"\n";
    std::fs::write(&file, flawed).unwrap();
    let pid = rustix::process::Pid::from_child(&balancer.0);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let refusal = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(left).expect("the refusal is logged");
        if line.contains("configuration refused") {
            break line;
        }
    };
    // The file, the line, the reason.
    for part in ["lb.toml", "line 6", "fastest"] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
    assert_eq!(table(), before);
}
