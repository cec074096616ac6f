//! Installing: the Debian package and `swarmlet install`, on a machine of its own with a real
//! dpkg and a real engine. Needs root.
//!
//! [`boot`] has systemd itself at work: a boot, its filters, and its restart of a daemon that
//! died. Everywhere else a stand-in for systemctl starts the daemon as the unit says, which also
//! shows what happens where no systemd runs.

#![allow(clippy::unwrap_used)]

mod boot;
mod machine;
mod system;

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use machine::{Machine, SOON, build};
use swarmlet_integration_tests::{
    Hosts, Image, Load, SharedHosts, measured::at_most, swarmlet_binary, wait_until,
};

/// How long the load goes on after an upgrade.
const AFTERWARDS: Duration = Duration::from_secs(2);

const SERVICE: &str = "swarmlet service create --name ng --replicas 2 -p 80:80 whoami";

fn host() -> SharedHosts {
    Hosts::shared(1, &Image::whoami().unwrap()).unwrap()
}

/// Makes a swarm with a service and waits until clients are answered.
fn make_swarm(hosts: &Hosts, machine: &Machine) -> Result<()> {
    let address = hosts[0].address();
    machine.done(&format!("swarmlet init --advertise-addr {address}"))?;
    machine.done(SERVICE)?;
    served(hosts)
}

/// Waits until both tasks answer clients on the published port.
fn served(hosts: &Hosts) -> Result<()> {
    wait_until(SOON, "answers of both tasks", || {
        let report = load(hosts, Some(4)).run(hosts.client())?;
        ensure!(report.failed() == 0, "{}", report.to_json());
        Ok((report.answers.len() == 2).then_some(()))
    })
}

fn load(hosts: &Hosts, requests: Option<u64>) -> Load {
    Load {
        requests,
        concurrency: 4,
        pause: Duration::from_millis(5),
        ..Load::new((hosts[0].address(), 80).into(), 1)
    }
}

/// Mode and owner of files, as `stat` prints them.
fn check_files(machine: &Machine) {
    let expected = [
        ("/usr/bin/swarmlet", "755 root:root"),
        ("/usr/lib/systemd/system/swarmlet.service", "644 root:root"),
        ("/etc/swarmlet/swarmlet.env", "644 root:root"),
        ("/usr/share/doc/swarmlet/README.md", "644 root:root"),
        ("/usr/share/doc/swarmlet/copyright", "644 root:root"),
        ("/var/lib/swarmlet", "700 root:root"),
        ("/run/swarmlet/swarmlet.sock", "660 root:root"),
    ];
    for (path, expected) in expected {
        let found = machine.done(&format!("stat -c '%a %U:%G' {path}")).unwrap();
        assert_eq!(found, expected, "{path}");
    }
    assert_eq!(machine.done("dpkg --verify swarmlet").unwrap(), "");
    let conffiles = machine.done("dpkg-query -W -f '${Conffiles}' swarmlet");
    let conffiles = conffiles.unwrap();
    assert_eq!(conffiles.trim().lines().count(), 1, "{conffiles}");
    assert!(conffiles.contains(" /etc/swarmlet/swarmlet.env "));
    let depends = machine.done("dpkg-query -W -f '${Depends}${Pre-Depends}' swarmlet");
    assert_eq!(depends.unwrap(), "", "a static binary needs nothing");
    let unit = "systemd-analyze verify --man=no /usr/lib/systemd/system/swarmlet.service 2>&1";
    assert_eq!(machine.done(unit).unwrap(), "");
}

/// A purge leaves nothing in the places where an installation puts things.
fn nothing_remains(machine: &Machine<'_>) {
    let remains = machine.remains().unwrap();
    eprintln!("left after a purge: {remains:?}");
    at_most("files left after a purge", remains.len() as u64, 0);
}

#[test]
fn a_package_is_installed_upgraded_removed_and_purged() {
    let hosts = host();
    let host = &hosts[0];
    let machine = Machine::make(host).unwrap();
    machine.with_systemd(true).unwrap();
    let directory = host.namespace().directory();
    for (version, name) in [("0.1.0-1", "/opt/old.deb"), ("0.1.1-1", "/opt/new.deb")] {
        let package = build(version, directory).unwrap();
        machine.copy(&package, name).unwrap();
    }

    machine.done("dpkg -i /opt/old.deb").unwrap();
    machine.daemon_answers().unwrap();
    check_files(&machine);
    assert_eq!(
        machine.done("systemctl is-enabled swarmlet").unwrap(),
        "enabled"
    );
    make_swarm(&hosts, &machine).unwrap();
    // Port 80 is bound, the engine is reached, and this could be set: with the unit's
    // capabilities and read-only directories.
    let reuse = machine.done("cat /proc/sys/net/ipv4/tcp_tw_reuse").unwrap();
    assert_eq!(reuse, "1");
    upgrade(&hosts, &machine);

    let removal = machine.done("dpkg -r swarmlet 2>&1").unwrap();
    assert!(
        removal.contains("Stopped and removed 2 tasks."),
        "{removal}"
    );
    machine.nothing_runs().unwrap();
    machine.done("test ! -e /usr/bin/swarmlet").unwrap();
    machine.done("test -s /var/lib/swarmlet/node.json").unwrap();

    machine.done("dpkg -i /opt/old.deb").unwrap();
    machine.daemon_answers().unwrap();
    served(&hosts).unwrap();
    let settings = machine.done("cat /etc/swarmlet/swarmlet.env").unwrap();
    assert!(settings.ends_with("SWARMLET_LOG=debug"), "{settings}");

    machine.done("dpkg -P swarmlet").unwrap();
    nothing_remains(&machine);
}

/// Upgrades under load: the containers stay, daemon and balancer are others, and no client
/// notices.
fn upgrade(hosts: &Hosts, machine: &Machine) {
    machine
        .done("echo SWARMLET_LOG=debug >>/etc/swarmlet/swarmlet.env")
        .unwrap();
    let daemon = machine.daemon().unwrap();
    let before = machine.containers().unwrap();
    let balancer = machine.balancer().unwrap();
    let running = load(hosts, None).start(hosts.client()).unwrap();
    machine.done("dpkg -i /opt/new.deb").unwrap();
    machine.daemon_answers().unwrap();
    assert_ne!(machine.daemon().unwrap(), daemon);
    thread::sleep(AFTERWARDS);
    let report = running.stop().unwrap();
    eprintln!("upgrade under load: {}", report.to_json());
    at_most("requests that failed during an upgrade", report.failed(), 0);
    assert!(report.answered() > 200, "{}", report.to_json());
    assert_eq!(before, machine.containers().unwrap());
    assert_ne!(machine.balancer().unwrap(), balancer);
    served(hosts).unwrap();
    let version = machine.done("dpkg-query -W -f '${Version}' swarmlet");
    assert_eq!(version.unwrap(), "0.1.1-1");
}

#[test]
fn a_package_is_installed_and_removed_where_no_systemd_runs() {
    let hosts = host();
    let machine = Machine::make(&hosts[0]).unwrap();
    machine.with_systemd(false).unwrap();
    let package = build("0.1.2-1", hosts[0].namespace().directory()).unwrap();
    machine.copy(&package, "/opt/swarmlet.deb").unwrap();
    machine.done("dpkg -i /opt/swarmlet.deb").unwrap();
    assert!(machine.daemon().is_err(), "nobody starts it");
    make_swarm(&hosts, &machine).unwrap();
    let before = machine.daemon().unwrap();
    let said = machine.done("dpkg -i /opt/swarmlet.deb 2>&1").unwrap();
    assert!(said.contains("no systemd runs here"), "{said}");
    assert_eq!(machine.daemon().unwrap(), before);
    // The detached daemon is ended by the removal all the same.
    machine.done("dpkg -P swarmlet").unwrap();
    machine.nothing_runs().unwrap();
    nothing_remains(&machine);
    // deb-systemd-helper makes and removes links by it, which needs no systemd that runs.
    let calls = machine
        .done("sed '/^--root=/d' /run/fake-systemd/calls")
        .unwrap();
    assert_eq!(calls, "");
}

#[test]
fn a_binary_installs_and_uninstalls_itself() {
    let hosts = host();
    let machine = Machine::make(&hosts[0]).unwrap();
    machine.with_systemd(false).unwrap();
    machine
        .copy(&swarmlet_binary().unwrap(), "/opt/swarmlet")
        .unwrap();
    let refused = |line: &str, expected: &str| {
        let output = machine.run(line).unwrap();
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains(expected), "{output:?}");
    };
    refused("/opt/swarmlet install", "systemd does not run");
    machine.done("cp /opt/swarmlet /tmp/swarmlet").unwrap();
    refused(
        "setpriv --reuid 65534 --clear-groups /tmp/swarmlet install",
        "must be run as root",
    );
    let printed = machine.done("/opt/swarmlet install --print").unwrap();
    assert!(printed.contains("ExecStart=/usr/local/bin/swarmlet daemon"));
    assert_eq!(machine.remains().unwrap(), [""; 0]);

    // A daemon that runs already is taken over, and nobody notices.
    machine
        .done("ln -s /opt/swarmlet /usr/local/bin/swarmlet")
        .unwrap();
    make_swarm(&hosts, &machine).unwrap();
    machine.done("rm /usr/local/bin/swarmlet").unwrap();
    let before = machine.containers().unwrap();
    let balancer = machine.balancer().unwrap();
    let detached = machine.daemon().unwrap();
    machine.with_systemd(true).unwrap();
    let running = load(&hosts, None).start(hosts.client()).unwrap();
    let said = machine.done("/opt/swarmlet install").unwrap();
    assert!(
        said.contains("Wrote /etc/systemd/system/swarmlet.service"),
        "{said}"
    );
    machine.daemon_answers().unwrap();
    let daemon = machine.daemon().unwrap();
    assert_ne!(daemon, detached);
    let said = machine.done("/opt/swarmlet install").unwrap();
    assert!(!said.contains("Wrote "), "{said}");
    assert_eq!(
        machine.daemon().unwrap(),
        daemon,
        "a repetition changes nothing"
    );
    thread::sleep(AFTERWARDS);
    let report = running.stop().unwrap();
    eprintln!("taken over by a unit: {}", report.to_json());
    at_most(
        "requests that failed while a unit took over the daemon",
        report.failed(),
        0,
    );
    assert_eq!(before, machine.containers().unwrap());
    assert_ne!(machine.balancer().unwrap(), balancer);

    refused("swarmlet uninstall --purge", "this node belongs to a swarm");
    let said = machine.done("swarmlet uninstall").unwrap();
    assert!(said.contains("Stopped and removed 2 tasks."), "{said}");
    machine.nothing_runs().unwrap();
    machine.done("test -s /var/lib/swarmlet/node.json").unwrap();
    machine.done("test -e /etc/swarmlet/swarmlet.env").unwrap();
    machine
        .done("/opt/swarmlet uninstall --purge --force")
        .unwrap();
    nothing_remains(&machine);
}
