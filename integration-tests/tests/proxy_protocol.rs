//! The PROXY protocol with those who have always spoken it: HAProxy and nginx, in
//! front of the balancer and behind it.
//!
//! All on the loopback, on an address of the test's own. Neither peer is started
//! as a service, and both end with the test.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use swarmlet_integration_tests::{swarmlet_binary, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

// Ports on the test's own address. What ends in ECHO answers with the addresses
// that it was told; what is named after a peer and a version leads to TRUSTING.
const HAPROXY_ECHO: u16 = 7001;
const NGINX_ECHO: u16 = 7002;
const HAPROXY_V1: u16 = 7003;
const HAPROXY_V2: u16 = 7004;
const NGINX_V1: u16 = 7005;
/// Ports of the balancer: from it to HAProxy and to nginx, by version.
const TO_HAPROXY: [u16; 2] = [7011, 7012];
const TO_NGINX: [u16; 2] = [7013, 7014];
/// It believes what it is told, and passes it on.
const TRUSTING: u16 = 7015;

/// A program that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let name = format!("{command:?}");
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {name}"))?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn own_ip() -> IpAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | (high & 63), middle, low).into()
}

fn balancer(directory: &Path, ip: IpAddr) -> Result<Running> {
    let listener = |port: u16, options: &str, endpoint: u16| {
        format!(
            "[[listeners]]\nport = {port}\n{options}\n[[listeners.endpoints]]\n\
             address = \"{ip}:{endpoint}\"\n\n"
        )
    };
    let mut text = format!("ingress = [\"{ip}\"]\nthreads = 2\n\n");
    for (index, version) in ["v1", "v2"].into_iter().enumerate() {
        let options = format!("proxy_protocol = \"{version}\"");
        text += &listener(TO_HAPROXY[index], &options, HAPROXY_ECHO);
        text += &listener(TO_NGINX[index], &options, NGINX_ECHO);
    }
    let options = "accept_proxy = [\"127.0.0.0/8\"]\nproxy_protocol = \"v2\"";
    text += &listener(TRUSTING, options, NGINX_ECHO);
    let path = directory.join("lb.toml");
    fs::write(&path, text)?;
    Running::start(
        Command::new(swarmlet_binary()?)
            .args(["lb", "--config"])
            .arg(path),
    )
}

fn haproxy(directory: &Path, ip: IpAddr) -> Result<Running> {
    let text = format!(
        "global\n  maxconn 200\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5s\n  \
         timeout server 5s\nfrontend echo\n  mode http\n  bind {ip}:{HAPROXY_ECHO} accept-proxy\n  \
         http-request return status 200 content-type text/plain \
         lf-string \"%[src] %[src_port] %[dst] %[dst_port]\"\n\
         listen v1\n  bind {ip}:{HAPROXY_V1}\n  server lb {ip}:{TRUSTING} send-proxy\n\
         listen v2\n  bind {ip}:{HAPROXY_V2}\n  server lb {ip}:{TRUSTING} send-proxy-v2-ssl-cn \
         check check-send-proxy inter 100ms\n"
    );
    let path = directory.join("haproxy.cfg");
    fs::write(&path, text)?;
    Running::start(Command::new("haproxy").args(["-db", "-f"]).arg(path))
}

fn nginx(directory: &Path, ip: IpAddr) -> Result<Running> {
    let here = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("  {name}_temp_path {here}/{name};\n"))
        .collect();
    // Where the module is built in there is no such file.
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let load = if Path::new(module).exists() {
        format!("load_module {module};\n")
    } else {
        String::new()
    };
    let text = format!(
        "{load}daemon off;\nmaster_process off;\npid {here}/nginx.pid;\nerror_log stderr;\n\
         events {{}}\nhttp {{\n  access_log off;\n{temporary}  server {{\n    \
         listen {ip}:{NGINX_ECHO} proxy_protocol;\n    location / {{\n      default_type text/plain;\n      \
         return 200 \"$proxy_protocol_addr $proxy_protocol_port \
         $proxy_protocol_server_addr $proxy_protocol_server_port\";\n    }}\n  }}\n}}\n\
         stream {{\n  server {{\n    listen {ip}:{NGINX_V1};\n    proxy_pass {ip}:{TRUSTING};\n    \
         proxy_protocol on;\n  }}\n}}\n"
    );
    let path = directory.join("nginx.conf");
    fs::write(&path, text)?;
    Running::start(
        Command::new("nginx")
            .args(["-e", "stderr", "-p"])
            .arg(directory)
            .arg("-c")
            .arg(path),
    )
}

/// Asks from an address of its own; returns the answer's body, and what it should
/// be: from where to where the connection was made.
fn ask(source: Ipv4Addr, to: SocketAddr) -> Result<(String, String)> {
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&fd, &SocketAddr::from((source, 0)))?;
    connect(&fd, &to)?;
    let mut stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(PATIENCE))?;
    let from = stream.local_addr()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("no answer: {answer:?}"))?;
    ensure!(head.contains(" 200 "), "{answer}");
    let expected = format!("{} {} {} {}", from.ip(), from.port(), to.ip(), to.port());
    Ok((body.to_owned(), expected))
}

#[test]
fn haproxy_and_nginx_on_both_sides() -> Result<()> {
    let ip = own_ip();
    let directory = std::env::temp_dir().join(format!("proxy-protocol-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let running = (
        balancer(&directory, ip)?,
        haproxy(&directory, ip)?,
        nginx(&directory, ip)?,
    );
    let listening = [
        HAPROXY_ECHO,
        NGINX_ECHO,
        HAPROXY_V1,
        HAPROXY_V2,
        NGINX_V1,
        TRUSTING,
    ];
    for port in listening.into_iter().chain(TO_HAPROXY).chain(TO_NGINX) {
        wait_until(PATIENCE, &format!("port {port} answers"), || {
            Ok(TcpStream::connect((ip, port)).ok())
        })?;
    }
    let source = Ipv4Addr::new(127, 77, 1, 9);
    let fronts = [HAPROXY_V1, HAPROXY_V2, NGINX_V1];
    for port in TO_HAPROXY.into_iter().chain(TO_NGINX).chain(fronts) {
        for _ in 0..20 {
            let (told, expected) =
                ask(source, (ip, port).into()).with_context(|| format!("through port {port}"))?;
            ensure!(
                told == expected,
                "port {port}: told {told:?}, expected {expected:?}"
            );
        }
    }
    // Who is trusted and says nothing gets nothing.
    ensure!(ask(source, (ip, TRUSTING).into()).is_err());
    drop(running);
    fs::remove_dir_all(&directory)?;
    Ok(())
}
