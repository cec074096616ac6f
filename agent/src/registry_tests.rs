use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::*;

async fn look(config: &Value, image: &str) -> Result<Option<Value>, RegistryError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let found = credentials(dir.path(), image).await?;
    Ok(found.map(|auth| serde_json::from_slice(&URL_SAFE.decode(auth.0).unwrap()).unwrap()))
}

fn login(user: &str, password: &str) -> Value {
    json!({ "auth": STANDARD.encode(format!("{user}:{password}")) })
}

#[test]
fn registries_of_images() {
    let pinned = format!("host:5000/a@sha256:{}", "a".repeat(64));
    for (image, registry) in [
        ("nginx", DOCKER_HUB),
        ("library/nginx:1", DOCKER_HUB),
        ("docker.io/library/nginx", DOCKER_HUB),
        ("registry.example.com/a/b:1", "registry.example.com"),
        ("localhost/a", "localhost"),
        (&pinned, "host:5000"),
        ("Upper/a", "Upper"),
    ] {
        assert_eq!(registry_of(image).as_deref(), Some(registry), "{image}");
    }
    assert_eq!(registry_of("/usr/bin/app"), None);
}

#[tokio::test]
async fn stored_logins_are_found() {
    let config = json!({ "auths": {
        DOCKER_HUB: login("hub", "a:b"),
        "https://registry.example.com/v2/": login("example", "x"),
        "empty.example.com": {},
        "token.example.com": { "identitytoken": "t" },
    }});
    let hub = look(&config, "nginx").await.unwrap().unwrap();
    let expected = json!({ "username": "hub", "password": "a:b", "serveraddress": DOCKER_HUB });
    assert_eq!(hub, expected);
    let example = look(&config, "registry.example.com/a")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(example["username"], "example");
    let token = look(&config, "token.example.com/a").await.unwrap().unwrap();
    assert_eq!(token["identitytoken"], "t");
    for image in ["empty.example.com/a", "other.example.com/a"] {
        assert_eq!(look(&config, image).await.unwrap(), None, "{image}");
    }
}

#[tokio::test]
async fn mistakes_name_what_is_wrong_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    assert!(credentials(dir.path(), "nginx").await.unwrap().is_none());
    fs::write(dir.path().join("config.json"), "{").unwrap();
    let error = credentials(dir.path(), "nginx")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("config.json is malformed"), "{error}");
    let config = json!({ "auths": { DOCKER_HUB: { "auth": STANDARD.encode("secret") } } });
    let error = look(&config, "nginx").await.unwrap_err().to_string();
    assert!(
        error.contains(DOCKER_HUB) && !error.contains("secret"),
        "{error}"
    );
}

#[tokio::test]
async fn a_helper_that_is_missing_is_an_error() {
    let config = json!({ "credsStore": "nonexistent-for-tests" });
    let error = look(&config, "nginx").await.unwrap_err().to_string();
    assert!(
        error.starts_with("the credential helper docker-credential-nonexistent-for-tests failed"),
        "{error}"
    );
}

/// Asks a helper that is a script, by its path.
async fn helped(script: &str) -> Result<Option<Value>, RegistryError> {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("helper");
    fs::write(&bin, format!("#!/bin/sh\nread registry\n{script}\n")).unwrap();
    fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).unwrap();
    let found = ask_program(
        bin.as_os_str(),
        "docker-credential-test",
        "registry.example.com",
    )
    .await?;
    Ok(found.map(|found| serde_json::to_value(&found).unwrap()))
}

#[tokio::test]
async fn helpers_are_asked() {
    let found = helped(r#"echo "{\"Username\":\"u\",\"Secret\":\"$registry\"}""#)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found["username"], "u");
    assert_eq!(found["password"], "registry.example.com");
    let token = helped(r#"echo '{"Username":"<token>","Secret":"t"}'"#)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (&token["identitytoken"], token.get("password")),
        (&json!("t"), None)
    );
    let none = helped("echo 'credentials not found in native keychain'; exit 1")
        .await
        .unwrap();
    assert_eq!(none, None);
    let error = helped("echo 'locked'; exit 1")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("failed for registry.example.com: locked"),
        "{error}"
    );
    let error = helped("echo nonsense").await.unwrap_err().to_string();
    assert!(error.ends_with("its answer is malformed"), "{error}");
}
