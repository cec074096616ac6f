//! The one kernel setting that the balancer lives by.

use std::fs;

/// Outgoing connections may take over a port whose last connection is in TIME_WAIT. Without it
/// some 28,000 ports and a minute of TIME_WAIT come to about 470 connections a second from a
/// node to one endpoint.
const TCP_TW_REUSE: &str = "/proc/sys/net/ipv4/tcp_tw_reuse";

/// Sets `net.ipv4.tcp_tw_reuse` to 1 where that is allowed, and says what came of it.
pub(crate) fn reuse_time_wait() {
    let current = fs::read_to_string(TCP_TW_REUSE).unwrap_or_default();
    if current.trim() == "1" {
        return;
    }
    match fs::write(TCP_TW_REUSE, "1\n") {
        Ok(()) => tracing::info!(before = current.trim(), "set net.ipv4.tcp_tw_reuse to 1"),
        Err(error) => tracing::warn!(
            %error,
            current = current.trim(),
            "cannot set net.ipv4.tcp_tw_reuse to 1: a node can make only about 470 connections \
             a second to one endpoint"
        ),
    }
}
