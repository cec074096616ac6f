//! What the benchmarks share: a network to measure in, the time that processes take, figures of
//! repeated measurements, and plots of them.
//!
//! `src/bin/bench-lb` compares balancers, `src/bin/bench-mesh` ways into a container and
//! `src/bin/bench-cluster` clusters; each writes a table and a plot to `docs/bench`.

mod chart;
mod machine;
mod rounds;
mod summary;
mod testbed;
mod usage;

pub use chart::{Bar, Chart, Panel};
pub use machine::Machine;
pub use rounds::in_rounds;
pub use summary::{Summary, ratios, three_figures};
pub use testbed::{Route, Testbed, forget_closed_connections};
pub(crate) use usage::processor_ticks;
pub use usage::{busy_share, cpu_time, machine_time, monotonic_ns, resident_bytes};
