//! Which crate may know which: core ← proto ← {manager, agent} ← cli → lb, and nothing the
//! other way.

// Everything here is test code, but the lint knows it in `#[test]` functions only.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A crate's folder and the crates of the workspace that it may depend on.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("core", &[]),
    ("proto", &["core"]),
    ("manager", &["core", "proto"]),
    ("agent", &["core", "proto"]),
    ("lb", &[]),
    ("cli", &["core", "proto", "manager", "agent", "lb"]),
];

/// Tests of the whole stand above all crates, and nothing depends on them.
const TOP: &str = "integration-tests";

#[test]
fn dependencies_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |folder: &str| {
        let path = root.join(folder).join("Cargo.toml");
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let members = members(&read("."));
    let mut expected: BTreeSet<_> = ALLOWED.iter().map(|(name, _)| (*name).to_owned()).collect();
    expected.insert(TOP.to_owned());
    assert_eq!(members, expected, "a new crate needs a place in the rule");

    let found: BTreeMap<_, _> = ALLOWED
        .iter()
        .map(|(name, _)| (*name, workspace_crates(&read(name))))
        .collect();
    for (name, allowed) in ALLOWED {
        for dependency in &found[name] {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} depends on {dependency}, but may depend on {allowed:?} only"
            );
        }
    }
    // The rule would hold as well if the manifests were misread.
    assert!(found["proto"].contains("core"), "{found:?}");
    assert!(found["cli"].len() >= 3, "{found:?}");
}

#[test]
fn manifests_are_understood() {
    let manifest = "[package]\nname = \"swarmlet-agent\"\n[package.metadata.deb]\n\
                    assets = [\n[\"../README.md\", \"usr/share/doc/\", \"644\"],\n]\n\
                    [dependencies]\n\
                    swarmlet-core.workspace = true\n# swarmlet-lb = 1\ntokio = \"1\"\n\
                    lb = { package = \"swarmlet-lb\", path = \"../lb\" }\n\
                    [target.x.dependencies]\nmanager = { path = \"../manager\" }\n\
                    [build-dependencies]\nswarmlet-proto = { path = \"../proto\" }\n\
                    [dependencies.swarmlet-cli]\npath = \"../cli\"\n";
    let found = workspace_crates(manifest).into_iter().collect::<Vec<_>>();
    assert_eq!(found, ["cli", "core", "lb", "manager", "proto"]);
}

/// The names in `members = [...]` of the workspace.
fn members(manifest: &str) -> BTreeSet<String> {
    let (_, rest) = manifest.split_once("\nmembers = [").unwrap();
    let (list, _) = rest.split_once(']').unwrap();
    list.split(',')
        .map(|name| name.trim().trim_matches('"').to_owned())
        .collect()
}

/// Crates of the workspace that occur anywhere in a manifest: by their package name or by
/// their path. Development dependencies count, too: a test that needs a crate from above is in
/// the wrong place.
fn workspace_crates(manifest: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut about_itself = false;
    for line in manifest.lines().map(str::trim) {
        // A table begins; a list of files begins with a quote.
        if line.starts_with('[') && !line.starts_with("[\"") {
            about_itself = line.starts_with("[package");
        }
        // What a package says of itself, its name and its files, and comments are no
        // dependencies.
        if about_itself || line.starts_with('#') {
            continue;
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        for prefix in ["swarmlet-", "\"../"] {
            let after = line.split(prefix).skip(1);
            found.extend(
                after.map(|rest| rest.chars().take_while(|&c| is_name(c)).collect::<String>()),
            );
        }
    }
    found
}
