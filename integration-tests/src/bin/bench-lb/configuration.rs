//! How each balancer is configured: as well as its own documentation knows, for the workload.
//!
//! What is left to chance by none of them: the number of threads, the endpoints, round robin,
//! no logging, an hour until an idle connection is closed.

use std::fmt::Write as _;

use crate::{
    contender::Contender,
    measure::{ENDPOINTS, Setup},
};

/// Connections that each may have: what 20,000 open files allow, two for a connection.
const MOST_CONNECTIONS: usize = 9_500;

/// The address of an endpoint, by its number.
fn endpoint(setup: &Setup<'_>, first_port: u16, number: u16) -> String {
    format!("{}:{}", setup.server, first_port + number)
}

/// The balancer of this project by itself; it has no setting for a workload.
pub(crate) fn swarmlet(setup: &Setup<'_>) -> String {
    let mut text = format!(
        "ingress = [\"{}\"]\ncontrol = \"{}\"\nthreads = {}\n",
        setup.balancer,
        setup.control().display(),
        setup.cell.layout.threads()
    );
    for (port, first) in setup.listeners() {
        push(&mut text, format_args!("\n[[listeners]]\nport = {port}\n"));
        for number in 0..ENDPOINTS {
            let address = endpoint(setup, first, number);
            push(
                &mut text,
                format_args!("[[listeners.endpoints]]\naddress = \"{address}\"\n"),
            );
        }
    }
    text
}

/// HAProxy. For bulk it splices in both directions through pipes of a mebibyte, which the
/// report verifies by counting the calls, or it has buffers of half a mebibyte; for small
/// messages splicing costs it more than it spares. `tcp-smart-accept` and `tcp-smart-connect`
/// spare a packet for each connection.
pub(crate) fn haproxy(setup: &Setup<'_>, contender: Contender) -> String {
    let (global, defaults) = match contender {
        _ if !setup.cell.workload.has_bulk() => ("", ""),
        Contender::HaProxyBuffers => ("  tune.bufsize 524288\n", ""),
        _ => (
            "  maxpipes 64\n  tune.pipesize 1048576\n",
            "  option splice-request\n  option splice-response\n",
        ),
    };
    let mut text = format!(
        "global\n\
         \x20 maxconn {MOST_CONNECTIONS}\n\
         \x20 nbthread {}\n\
         {global}\
         defaults\n\
         \x20 mode tcp\n\
         \x20 balance roundrobin\n\
         \x20 maxconn {MOST_CONNECTIONS}\n\
         \x20 timeout connect 5s\n\
         \x20 timeout client 1h\n\
         \x20 timeout server 1h\n\
         \x20 option tcp-smart-accept\n\
         \x20 option tcp-smart-connect\n\
         {defaults}",
        setup.cell.layout.threads()
    );
    for (port, first) in setup.listeners() {
        let backlog = "backlog 65535";
        push(
            &mut text,
            format_args!(
                "listen on{port}\n  bind {}:{port} {backlog}\n",
                setup.balancer
            ),
        );
        for number in 0..ENDPOINTS {
            let address = endpoint(setup, first, number);
            push(&mut text, format_args!("  server s{number} {address}\n"));
        }
    }
    text
}

/// nginx, its stream module; it cannot splice, so that for bulk it gets large buffers. Each
/// worker has a queue of its own (`reuseport`).
pub(crate) fn nginx(setup: &Setup<'_>) -> String {
    let directory = setup.testbed.directory().display();
    let buffer = if setup.cell.workload.has_bulk() {
        "512k"
    } else {
        "16k"
    };
    let mut text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         user root;\n\
         daemon off;\n\
         pid {directory}/nginx.pid;\n\
         error_log {directory}/nginx.log error;\n\
         worker_processes {};\n\
         worker_rlimit_nofile 20000;\n\
         events {{ worker_connections 19000; use epoll; multi_accept on; accept_mutex off; }}\n\
         stream {{\n\
         \x20 access_log off;\n\
         \x20 tcp_nodelay on;\n\
         \x20 proxy_connect_timeout 5s;\n\
         \x20 proxy_timeout 1h;\n\
         \x20 proxy_buffer_size {buffer};\n",
        setup.cell.layout.threads()
    );
    for (port, first) in setup.listeners() {
        push(&mut text, format_args!("  upstream to{port} {{\n"));
        for number in 0..ENDPOINTS {
            let address = endpoint(setup, first, number);
            push(&mut text, format_args!("    server {address};\n"));
        }
        let address = setup.balancer;
        push(
            &mut text,
            format_args!(
                "  }}\n  server {{ listen {address}:{port} reuseport backlog=65535; proxy_pass to{port}; }}\n"
            ),
        );
    }
    text.push_str("}\n");
    text
}

/// Address translation by nft, one endpoint after the other. The hook is that of packets which
/// come in, and of those that a process of the same machine sends.
pub(crate) fn nft(setup: &Setup<'_>) -> String {
    let mut rules = String::new();
    for (port, first) in setup.listeners() {
        let endpoints: Vec<String> = (0..ENDPOINTS)
            .map(|number| format!("{number} : {} . {}", setup.server, first + number))
            .collect();
        push(
            &mut rules,
            format_args!(
                "    ip daddr {} tcp dport {port} dnat ip to numgen inc mod {ENDPOINTS} map {{ {} }}\n",
                setup.balancer,
                endpoints.join(", ")
            ),
        );
    }
    format!(
        "table ip bench {{\n\
         \x20 chain in {{\n    type nat hook prerouting priority -100;\n{rules}  }}\n\
         \x20 chain own {{\n    type nat hook output priority -100;\n{rules}  }}\n}}\n"
    )
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(line);
}
