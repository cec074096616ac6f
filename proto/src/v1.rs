//! The generated messages, clients and servers.
//!
//! What is generated carries the comments of the .proto files; those are the documentation.

// One lint less each, for code that nobody writes: the .proto files leave self-explaining
// fields without a comment, and the generator's style is not ours to choose.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::too_many_lines
)]

tonic::include_proto!("swarmlet.v1");
