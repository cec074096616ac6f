//! Answers every HTTP request on port 80 with the host name. The harness tests
//! itself with it, so that a broken harness and a broken swarmlet are told apart.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener},
    time::Duration,
};

fn main() -> io::Result<()> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
    for client in TcpListener::bind("0.0.0.0:80")?.incoming() {
        let mut client = client?;
        client.set_read_timeout(Some(Duration::from_secs(1)))?;
        // One read suffices for the requests that this server gets, and a
        // client that goes away must not end it.
        let served = client.read(&mut [0; 4096]).and_then(|_| {
            let length = name.len();
            write!(
                client,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"
            )?;
            client.shutdown(Shutdown::Write)
        });
        if let Err(error) = served {
            eprintln!("hostname-server: {error}");
        }
    }
    Ok(())
}
