use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::super::fake_engine::{http, runtime};
use super::*;
use crate::worker::fake;

const IMAGE: &str = "1.dkr.ecr.example.com/web:42";

/// As ECR words it.
const EXPIRED: &str = "denied: Your authorization token has expired. Reauthenticate and try again.";

fn login(password: &str) -> Value {
    let auth = STANDARD.encode(format!("AWS:{password}"));
    json!({ "auths": { "1.dkr.ecr.example.com": { "auth": auth } } })
}

/// The credentials of a login, as a service carries them.
async fn credentials(password: &str) -> RegistryAuth {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), login(password).to_string()).unwrap();
    let found = registry::credentials(dir.path(), IMAGE).await;
    found.unwrap().unwrap()
}

/// Gets the image from a registry that takes `fresh` alone, on a node with that configuration.
/// Gives how often the engine was asked for it, too.
async fn get(service: Option<&str>, node: Option<Value>) -> (Result<(), RuntimeError>, usize) {
    let fresh = credentials("fresh").await.0;
    let (here, pulls) = (AtomicBool::new(false), Arc::new(AtomicUsize::new(0)));
    let counted = pulls.clone();
    let (mut runtime, _, dir) = runtime(move |request| {
        if request.contains("/images/create") {
            counted.fetch_add(1, Ordering::Relaxed);
            if request.contains(&fresh) {
                here.store(true, Ordering::Relaxed);
                return http(("200 OK", r#"{"status":"done"}"#));
            }
            let body = json!({ "message": EXPIRED }).to_string();
            return http(("500 Internal Server Error", &body));
        }
        if here.load(Ordering::Relaxed) {
            let found = json!({ "Os": "linux", "Architecture": host_platform().go_arch() });
            return http(("200 OK", &found.to_string()));
        }
        http(("404 Not Found", r#"{"message":"No such image"}"#))
    });
    runtime.docker_config = Some(dir.path().to_owned());
    if let Some(config) = node {
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    }
    let mut container = fake::task(1, |_| {}).spec.containers.remove(0);
    container.image = IMAGE.to_owned();
    container.registry_auth = match service {
        Some(password) => Some(credentials(password).await),
        None => None,
    };
    let got = runtime.have_image(&container).await;
    (got, pulls.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_node_that_has_credentials_of_its_own_needs_no_others() {
    for (service, pulls) in [(Some("fresh"), 1), (Some("expired"), 2), (None, 2)] {
        let got = get(service, Some(login("fresh"))).await;
        assert_eq!(got, (Ok(()), pulls), "{service:?}");
    }
    // Whose own are not taken either is told once.
    let refused = format!("No such image: {IMAGE} ({EXPIRED})");
    for (node, pulls) in [
        (None, 1),
        (Some(json!({})), 1),
        (Some(login("expired")), 1),
        (Some(login("old")), 2),
    ] {
        let got = get(Some("expired"), node.clone()).await;
        let rejected = Err(RuntimeError::Rejected(refused.clone()));
        assert_eq!(got, (rejected, pulls), "{node:?}");
    }
    let helper = json!({ "credsStore": "nonexistent-for-tests" });
    let (got, _) = get(None, Some(helper)).await;
    let error = got.unwrap_err().to_string();
    assert!(
        error.contains("expired") && error.contains("docker-credential-nonexistent-for-tests"),
        "{error}"
    );
}

#[test]
fn images_for_other_machines_are_refused() {
    let emulators = tempfile::tempdir().unwrap();
    std::fs::write(emulators.path().join("qemu-riscv64"), "").unwrap();
    let platform = |os: &str, arch: &str| Platform {
        os: os.to_owned(),
        arch: arch.to_owned(),
    };
    let check = |(os, arch), host| {
        let (made_for, host) = (platform(os, arch), platform("linux", host));
        check_platform("ng:1", &made_for, &host, emulators.path())
    };
    for (made_for, host) in [
        (("linux", "amd64"), "x86_64"),
        (("linux", "x86_64"), "x86_64"),
        (("linux", "arm64"), "aarch64"),
        (("linux", "386"), "x86_64"),
        (("linux", "arm"), "aarch64"),
        (("linux", "riscv64"), "x86_64"),
        (("", ""), "x86_64"),
    ] {
        assert_eq!(check(made_for, host), Ok(()), "{made_for:?} on {host}");
    }
    for (made_for, host, text) in [
        (("linux", "arm64"), "x86_64", "linux/arm64"),
        (("linux", "arm"), "x86_64", "linux/arm"),
        (("windows", "amd64"), "x86_64", "windows/amd64"),
        (("windows", "riscv64"), "x86_64", "windows/riscv64"),
    ] {
        let refusal = format!("no matching platform: ng:1 is for {text}, this node is linux/amd64");
        assert_eq!(check(made_for, host), Err(RuntimeError::Rejected(refusal)));
    }
}

#[test]
fn references_get_a_tag() {
    let pinned = format!("nginx:1@sha256:{}", "0".repeat(64));
    for (image, expected) in [
        ("nginx", "nginx:latest"),
        ("nginx:1.27", "nginx:1.27"),
        ("host:5000/nginx", "host:5000/nginx:latest"),
        ("host:5000/a/nginx:x", "host:5000/a/nginx:x"),
        (&pinned, &pinned),
        ("not/An:image", "not/An:image"),
    ] {
        assert_eq!(tagged(image), expected);
    }
}

#[test]
fn credentials_are_read_in_either_alphabet() {
    let json = br#"{"username":"u~~~???"}"#;
    assert_eq!(decode(&STANDARD.encode(json)).as_deref(), Some(&json[..]));
    assert_eq!(decode(&URL_SAFE.encode(json)).as_deref(), Some(&json[..]));
    assert_eq!(
        decode(&URL_SAFE_NO_PAD.encode(json)).as_deref(),
        Some(&json[..])
    );
    assert_eq!(decode("***"), None);
}
