//! Clusters of real daemons, balancers and engines on three hosts. Needs root.
//!
//! Every test types what a user types and looks at what a client sees. All of
//! them share three hosts, one test at a time, and each starts on fresh ones:
//! see [`cluster::Cluster`].

mod checked;
mod cluster;
mod containers;
mod joining;
mod leader;
mod leave;
mod logs;
mod managers;
mod mistakes;
mod options;
mod ports;
mod story;
