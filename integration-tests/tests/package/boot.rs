//! The package on a machine that systemd boots: its unit with all that hardens it is at work,
//! and not a stand-in.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use swarmlet_integration_tests::{
    Hosts, Load,
    measured::{at_most, noted, within},
    wait_until,
};

use crate::{
    host,
    machine::{SOON, build},
    system::System,
};

/// What the unit may leave open, in tenths by `systemd-analyze security`: without any hardening a
/// service has 96. Versions of systemd differ by a few.
const EXPOSURE: u64 = 55;

/// The same of the balancer's unit.
const LB_EXPOSURE: u64 = 30;

fn load(hosts: &Hosts, requests: Option<u64>) -> Load {
    Load {
        requests,
        concurrency: 3,
        pause: Duration::from_millis(5),
        ..Load::new((hosts[0].address(), 80).into(), 1)
    }
}

/// Waits until both tasks answer clients on the published port.
fn served(hosts: &Hosts) -> Result<()> {
    wait_until(SOON, "answers of both tasks", || {
        let report = load(hosts, Some(6)).run(hosts.client())?;
        ensure!(report.failed() == 0, "{}", report.to_json());
        Ok((report.answers.len() == 2).then_some(()))
    })
}

/// A property of the unit, as systemd says.
fn unit(system: &System<'_>, property: &str) -> String {
    let line = format!("systemctl show --property={property} --value swarmlet");
    system.done(&line).unwrap()
}

/// The balancers' units that run, as systemd says.
fn balancers(system: &System<'_>) -> Result<Vec<String>> {
    let line = "systemctl list-units --plain --no-legend --state=running 'swarmlet-lb-*'";
    let units = system.done(line)?;
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    Ok(units.lines().map(name).collect())
}

/// The balancer has a unit of its own, in which it is alone and may do little; which one. One that
/// was replaced may need a moment to end.
fn check_the_balancer(system: &System<'_>) -> String {
    let unit = wait_until(SOON, "one unit of a balancer", || {
        let units = balancers(system)?;
        ensure!(units.len() == 1, "{units:?}");
        Ok(units.into_iter().next())
    });
    let unit = unit.unwrap();
    let show = |property: &str| {
        let line = format!("systemctl show --property={property} --value {unit}");
        system.done(&line).unwrap()
    };
    let process = system.done("cat /var/lib/swarmlet/lb.pid").unwrap();
    assert_eq!(show("MainPID"), process.trim());
    let group = show("ControlGroup");
    let in_group = system.done(&format!("cat /sys/fs/cgroup{group}/cgroup.procs"));
    assert_eq!(in_group.unwrap(), process.trim(), "alone in {group}");
    // By the file of the package.
    assert_eq!(show("NoNewPrivileges"), "yes");
    assert_eq!(show("OOMScoreAdjust"), "-500");
    let capabilities = show("CapabilityBoundingSet");
    assert_eq!(capabilities, "cap_net_bind_service cap_sys_resource");
    at_most(
        "what the balancer's unit leaves open, in tenths of systemd's measure",
        exposure(system, &unit).unwrap(),
        LB_EXPOSURE,
    );
    unit
}

/// Containers of the host's engine, with their start times.
fn containers(hosts: &Hosts) -> String {
    let ids = hosts[0].docker(&["ps", "--quiet"]).unwrap().success();
    let ids = ids.unwrap();
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    let format = ["inspect", "--format", "{{.Id}} {{.State.StartedAt}}"];
    let started = hosts[0].docker(&[&format[..], &ids].concat());
    started.unwrap().success().unwrap()
}

/// The tenths that `systemd-analyze security` counts.
fn exposure(system: &System<'_>, unit: &str) -> Result<u64> {
    let said = system.done(&format!("systemd-analyze security --no-pager {unit}"))?;
    let line = said.lines().last().context("no line")?;
    let number = line.split_once(": ").context("no number")?.1;
    let number = number.split(' ').next().unwrap_or_default();
    let (ones, tenths) = number.split_once('.').context("no tenths")?;
    Ok(10 * ones.parse::<u64>()? + tenths.parse::<u64>()?)
}

/// Kills the daemon under load: systemd has it back in time, and nobody else notices.
fn kill_the_daemon(hosts: &Hosts, system: &System<'_>) {
    let before = containers(hosts);
    let balancer = system.done("cat /var/lib/swarmlet/lb.pid").unwrap();
    let daemon = unit(system, "MainPID");
    let running = load(hosts, None).start(hosts.client()).unwrap();
    system.done(&format!("kill -9 {daemon}")).unwrap();
    let killed = Instant::now();
    wait_until(SOON, "a write after the daemon's death", || {
        let line = "swarmlet service update --detach --label-add round=1 ng";
        system.done(line).map(Some)
    })
    .unwrap();
    within(
        "systemd has a killed daemon back, and it takes commands",
        killed.elapsed(),
        Duration::from_secs(4),
    );
    assert_ne!(unit(system, "MainPID"), daemon);
    assert_eq!(unit(system, "NRestarts"), "1");
    let adopted = system.done("cat /var/lib/swarmlet/lb.pid").unwrap();
    assert_eq!(adopted, balancer, "the balancer was replaced");

    let restarted = unit(system, "MainPID");
    system.done("systemctl restart swarmlet").unwrap();
    served(hosts).unwrap();
    assert_ne!(unit(system, "MainPID"), restarted);
    let adopted = system.done("cat /var/lib/swarmlet/lb.pid").unwrap();
    assert_eq!(adopted, balancer, "the balancer was replaced by a restart");
    assert_eq!(containers(hosts), before, "containers were restarted");
    let report = running.stop().unwrap();
    assert!(report.answered() > 100, "{}", report.to_json());
    at_most(
        "requests that failed while systemd restarted the daemon",
        report.failed(),
        0,
    );
}

/// Kills the balancer under load: another one is there in time, in a unit of its own again.
fn kill_the_balancer(hosts: &Hosts, system: &System<'_>) {
    let before = check_the_balancer(system);
    let process = system.done("cat /var/lib/swarmlet/lb.pid").unwrap();
    let running = load(hosts, None).start(hosts.client()).unwrap();
    system.done(&format!("kill -9 {process}")).unwrap();
    let killed = Instant::now();
    wait_until(SOON, "a balancer after the death of one", || {
        let report = load(hosts, Some(1)).run(hosts.client())?;
        Ok((report.failed() == 0).then_some(()))
    })
    .unwrap();
    noted(
        "under systemd, answers after the balancer was killed",
        &format!("{:.3?}", killed.elapsed()),
    );
    assert_ne!(check_the_balancer(system), before);
    served(hosts).unwrap();
    let report = running.stop().unwrap();
    assert!(report.answered() > 10, "{}", report.to_json());
    let refused = report.errors.get("connect refused").copied();
    at_most(
        "connections refused when a balancer under systemd was killed",
        refused.unwrap_or_default(),
        0,
    );
}

/// Upgrades the package under load: systemd restarts the daemon, another balancer takes over, and
/// neither containers nor clients notice.
fn upgrade(hosts: &Hosts, system: &System<'_>) {
    let package = build("0.1.4-1", hosts[0].namespace().directory()).unwrap();
    system.copy(&package, "/opt/newer.deb").unwrap();
    let before = containers(hosts);
    let balancer = system.done("cat /var/lib/swarmlet/lb.pid").unwrap();
    let daemon = unit(system, "MainPID");
    let running = load(hosts, None).start(hosts.client()).unwrap();
    system.done("dpkg -i /opt/newer.deb").unwrap();
    let upgraded = Instant::now();
    wait_until(SOON, "a balancer of the new version", || {
        system.done("swarmlet info")?;
        let now = system.done("cat /var/lib/swarmlet/lb.pid")?;
        Ok((now != balancer).then_some(()))
    })
    .unwrap();
    noted(
        "after an upgrade another balancer has taken over within",
        &format!("{:.3?}", upgraded.elapsed()),
    );
    served(hosts).unwrap();
    let report = running.stop().unwrap();
    assert!(report.answered() > 100, "{}", report.to_json());
    at_most(
        "requests that failed during an upgrade under systemd",
        report.failed(),
        0,
    );
    assert_ne!(unit(system, "MainPID"), daemon);
    assert_eq!(unit(system, "ActiveState"), "active");
    assert_eq!(containers(hosts), before, "containers were restarted");
    check_the_balancer(system);
    let version = system.done("dpkg-query -W -f '${Version}' swarmlet");
    assert_eq!(version.unwrap(), "0.1.4-1");
}

#[test]
fn systemd_starts_the_package_restarts_its_daemon_and_boots_with_it() {
    let hosts = host();
    let Some(mut system) = System::make(&hosts[0], hosts.run_name()).unwrap() else {
        return;
    };
    system.boot().unwrap();
    let package = build("0.1.3-1", hosts[0].namespace().directory()).unwrap();
    system.copy(&package, "/opt/swarmlet.deb").unwrap();
    system.done("dpkg -i /opt/swarmlet.deb").unwrap();
    let status = system.done("systemctl status --no-pager swarmlet").unwrap();
    eprintln!("{status}");
    assert!(status.contains("Active: active (running)"), "{status}");
    assert!(status.contains("; enabled;"), "{status}");
    let unit_file = "/usr/lib/systemd/system/swarmlet.service";
    let verified = system.done(&format!("systemd-analyze verify --man=no {unit_file} 2>&1"));
    assert_eq!(verified.unwrap(), "");
    at_most(
        "what the unit leaves open, in tenths of systemd's measure",
        exposure(&system, "swarmlet").unwrap(),
        EXPOSURE,
    );

    let address = hosts[0].address();
    system
        .done(&format!("swarmlet init --advertise-addr {address}"))
        .unwrap();
    system
        .done("swarmlet service create --name ng --replicas 2 -p 80:80 whoami")
        .unwrap();
    served(&hosts).unwrap();
    kill_the_daemon(&hosts, &system);
    kill_the_balancer(&hosts, &system);
    upgrade(&hosts, &system);

    let before = containers(&hosts);
    system.pull_the_plug().unwrap();
    let started = Instant::now();
    system.boot().unwrap();
    served(&hosts).unwrap();
    within(
        "a machine that boots serves again",
        started.elapsed(),
        Duration::from_secs(30),
    );
    assert_eq!(containers(&hosts), before, "containers were restarted");

    system.done("systemctl stop swarmlet").unwrap();
    // Whoever stops the daemon wants neither clients to notice nor containers to end.
    served(&hosts).unwrap();
    assert_eq!(containers(&hosts), before);
    system.done("dpkg -P swarmlet").unwrap();
    let left = hosts[0].docker(&["ps", "--all", "--quiet"]).unwrap();
    assert_eq!(left.success().unwrap(), "");
    let units = system.done("systemctl list-units --all --no-legend 'swarmlet*'");
    assert_eq!(units.unwrap(), "");
    let failed = system.done("systemctl list-units --failed --no-legend");
    assert_eq!(failed.unwrap(), "");
}
