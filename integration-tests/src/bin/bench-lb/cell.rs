//! What is measured: workloads, and where the processes run.

use std::fmt;

use swarmlet_integration_tests::bench::Route;

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// W1: a connection for each request.
    Short {
        /// The client closes first, and then the balancer towards the server: the side that
        /// closes first is left with a port that waits out its time.
        client_closes: bool,
    },
    /// W2: messages of 100 bytes to and fro on 64 connections.
    Keep,
    /// W3: eight downloads.
    Bulk,
    /// W5: 1000 small requests a second beside four downloads.
    Mixed,
}

/// On which processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Balancer, client and server share one: the cost of the path and nothing else.
    S,
    /// The balancer has one, the others share another.
    X,
    /// Two threads of the balancer, nothing pinned.
    F,
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) workload: Workload,
    pub(crate) layout: Layout,
    pub(crate) route: Route,
}

/// Everything, in the order of the report.
pub(crate) fn all() -> Vec<Cell> {
    let server_closes = Workload::Short {
        client_closes: false,
    };
    let client_closes = Workload::Short {
        client_closes: true,
    };
    let on_loopback = |workload, layout| Cell {
        workload,
        layout,
        route: Route::Loopback,
    };
    let across = |workload, layout| Cell {
        workload,
        layout,
        route: Route::Hosts,
    };
    let mut cells = Vec::new();
    for workload in [
        server_closes,
        Workload::Keep,
        Workload::Bulk,
        Workload::Mixed,
    ] {
        cells.extend([Layout::S, Layout::X, Layout::F].map(|layout| on_loopback(workload, layout)));
        if workload == server_closes {
            cells.push(on_loopback(client_closes, Layout::S));
            cells.extend([Layout::S, Layout::F].map(|layout| across(client_closes, layout)));
        }
    }
    cells
}

impl Cell {
    /// `W1 S client closes, hosts`.
    pub(crate) fn name(self) -> String {
        let route = match self.route {
            Route::Loopback => "",
            Route::Hosts => ", across hosts",
        };
        let (number, variant) = match self.workload {
            Workload::Short {
                client_closes: false,
            } => (1, ""),
            Workload::Short {
                client_closes: true,
            } => (1, " client closes first"),
            Workload::Keep => (2, ""),
            Workload::Bulk => (3, ""),
            Workload::Mixed => (5, ""),
        };
        format!("W{number} {:?}{variant}{route}", self.layout)
    }
}

impl Layout {
    /// The processor of the balancer; none for any.
    pub(crate) fn balancer(self) -> Option<usize> {
        match self {
            Self::S => Some(0),
            Self::X => Some(1),
            Self::F => None,
        }
    }

    /// The processor of client and server.
    pub(crate) fn others(self) -> Option<usize> {
        match self {
            Self::S | Self::X => Some(0),
            Self::F => None,
        }
    }

    /// Threads or processes of the balancer that forward.
    pub(crate) fn threads(self) -> usize {
        match self {
            Self::S | Self::X => 1,
            Self::F => 2,
        }
    }
}

impl Workload {
    /// Whether it moves much data: balancers have settings for that.
    pub(crate) fn has_bulk(self) -> bool {
        matches!(self, Self::Bulk | Self::Mixed)
    }
}

/// What a measurement yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    Rate,
    P50,
    P99,
    Gigabits,
    BalancerTime,
    AllTime,
    BalancerTimePerGigabyte,
    AllTimePerGigabyte,
    MachineBusy,
    ClientBusy,
    Resident,
    Failed,
    FailedBefore,
    FailedInFlight,
    IdleBytes,
    IdleBytesAfterMessage,
    Calls,
    SpliceShare,
}

impl Figure {
    /// Its name in the table of raw figures.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Rate => "requests_per_second",
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::Gigabits => "gbit_per_second",
            Self::BalancerTime => "balancer_cpu_us_per_request",
            Self::AllTime => "all_cpu_us_per_request",
            Self::BalancerTimePerGigabyte => "balancer_cpu_s_per_gb",
            Self::AllTimePerGigabyte => "all_cpu_s_per_gb",
            Self::MachineBusy => "machine_busy_share",
            Self::ClientBusy => "busiest_client_or_server_share",
            Self::Resident => "balancer_rss_mb",
            Self::Failed => "failed",
            Self::FailedBefore => "failed_before_the_first_byte",
            Self::FailedInFlight => "failed_in_flight",
            Self::IdleBytes => "rss_bytes_per_idle_connection",
            Self::IdleBytesAfterMessage => "rss_bytes_per_idle_connection_after_message",
            Self::Calls => "system_calls_per_request",
            Self::SpliceShare => "splice_share_of_system_calls",
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Rate => "requests/s",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::Gigabits => "Gbit/s",
            Self::BalancerTime => "balancer CPU µs/request",
            Self::AllTime => "all CPU µs/request",
            Self::BalancerTimePerGigabyte => "balancer CPU s/GB",
            Self::AllTimePerGigabyte => "all CPU s/GB",
            Self::MachineBusy => "machine busy",
            Self::ClientBusy => "busiest end",
            Self::Resident => "balancer RSS MB",
            Self::Failed => "failed",
            Self::FailedBefore => "failed before the first byte",
            Self::FailedInFlight => "failed in flight",
            Self::IdleBytes => "bytes/idle connection",
            Self::IdleBytesAfterMessage => "bytes/idle connection after a message",
            Self::Calls => "system calls/request",
            Self::SpliceShare => "splice share",
        })
    }
}
