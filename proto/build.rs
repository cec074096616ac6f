//! Compiles the .proto files without a protoc on the machine.

use std::error::Error;
use std::path::Path;

/// Every file; a new one must be named here.
const FILES: [&str; 9] = [
    "balancer",
    "ca",
    "control",
    "dispatcher",
    "local",
    "logs",
    "model",
    "raft",
    "state",
];

/// Messages with a secret in them. Their `Debug` is written by hand, so that no log line, no
/// error and no failed assertion ever shows it.
const SECRET: [&str; 7] = [
    "InitResponse",
    "JoinRequest",
    "JoinSecret",
    "JoinTokenResponse",
    "LocalJoinRequest",
    "RegistryAuth",
    "RootCa",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = FILES.map(|name| root.join(format!("swarmlet/v1/{name}.proto")));
    let descriptors = protox::compile(files, [&root])?;
    tonic_prost_build::configure()
        // Maps in order, so that equal objects are equal bytes on every replica.
        .btree_map(".")
        // Log entries, snapshots and what containers write pass through without being copied.
        .bytes(".swarmlet.v1.RaftMessage.body")
        .bytes(".swarmlet.v1.LogLine.data")
        .skip_debug(SECRET.map(|name| format!(".swarmlet.v1.{name}")))
        // A log entry's bytes are mostly the root key, registry credentials and the like.
        .skip_debug([".swarmlet.v1.RaftMessage"])
        .compile_fds(descriptors)?;
    Ok(())
}
