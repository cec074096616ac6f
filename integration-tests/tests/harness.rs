//! The hosts themselves, without swarmlet: what they promise to other tests.
//! Needs root.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::Result;
use swarmlet_integration_tests::{Host, Hosts, Image, Load, LoadReport, Signal, wait_until};

/// A container's port on the host, and how long the harness waits for it.
const PORT: u16 = 20_000;
const SOON: Duration = Duration::from_secs(10);

fn image() -> Image {
    Image::new(
        "hostname-server",
        Path::new(env!("CARGO_BIN_EXE_hostname-server")),
        &[],
    )
}

fn at(host: &Host) -> SocketAddr {
    (host.address(), PORT).into()
}

/// Runs the image on `host`, published on its address; the container's host name.
fn run_container(host: &Host) -> Result<String> {
    let publish = format!("{}:80", at(host));
    let id = host
        .docker(&["run", "--detach", "--publish", &publish, "hostname-server"])?
        .success()?;
    Ok(host
        .docker(&["inspect", "--format", "{{.Config.Hostname}}", id.trim()])?
        .success()?
        .trim()
        .to_owned())
}

/// One request with a short deadline from `client` to `server`'s container.
fn ask(client: &Host, server: &Host) -> Result<LoadReport> {
    let load = Load {
        timeout: Duration::from_millis(500),
        ..Load::new(at(server), 1)
    };
    load.run(client.namespace())
}

/// Waits until the container of `server` answers `client` by its name.
fn reachable(client: &Host, server: &Host, name: &str) -> Result<()> {
    wait_until(
        SOON,
        &format!("answer of {} to {}", server.name(), client.name()),
        || {
            let report = ask(client, server)?;
            anyhow::ensure!(report.failed() == 0, "{}", report.to_json());
            assert_eq!(report.answers.keys().collect::<Vec<_>>(), [name]);
            Ok(Some(()))
        },
    )
}

#[test]
fn containers_are_reached_across_hosts_until_they_are_cut_off() {
    let hosts = Hosts::shared(2, &image()).unwrap();
    let (one, two) = (&hosts[0], &hosts[1]);
    let (name_one, name_two) = (run_container(one).unwrap(), run_container(two).unwrap());
    assert_ne!(name_one, name_two);
    reachable(two, one, &name_one).unwrap();
    reachable(one, two, &name_two).unwrap();

    hosts.cut(one, two).unwrap();
    let timeout = BTreeMap::from([("connect timeout".to_owned(), 1)]);
    assert_eq!(ask(two, one).unwrap().errors, timeout);
    assert_eq!(ask(one, two).unwrap().errors, timeout);
    let from_client = Load::new(at(one), 1).run(hosts.client()).unwrap();
    assert_eq!(
        from_client.answered(),
        1,
        "others are not cut off: {}",
        from_client.to_json()
    );
    hosts.heal(one, two).unwrap();
    reachable(two, one, &name_one).unwrap();
    reachable(one, two, &name_two).unwrap();

    hosts.disconnect(one).unwrap();
    assert_eq!(ask(two, one).unwrap().answered(), 0);
    hosts.connect(one).unwrap();
    reachable(two, one, &name_one).unwrap();
}

#[test]
fn a_one_way_cut_loses_packets_in_one_direction() {
    let hosts = Hosts::shared(2, &image()).unwrap();
    let (one, two) = (&hosts[0], &hosts[1]);
    one.drop_from(two.address()).unwrap();
    // Answers to pings of either side would have to pass in both directions:
    // what arrives is counted by the receiver itself.
    let received = |host: &Host| -> Result<u64> {
        let script = "awk '/^Icmp:/ { line = $10 } END { print line }' /proc/net/snmp";
        Ok(host.run("sh", &["-c", script])?.success()?.trim().parse()?)
    };
    let (one_before, two_before) = (received(one).unwrap(), received(two).unwrap());
    let ping = |from: &Host, to: &Host| {
        from.run("ping", &["-c", "1", "-W", "1", &to.address().to_string()])
    };
    assert_ne!(ping(one, two).unwrap().code, Some(0));
    assert_ne!(ping(two, one).unwrap().code, Some(0));
    assert_eq!(received(one).unwrap() - one_before, 0);
    assert_eq!(received(two).unwrap() - two_before, 1);
    one.accept_all().unwrap();
    assert_eq!(ping(two, one).unwrap().code, Some(0));
}

#[test]
fn load_is_counted_by_who_answered() {
    let hosts = Hosts::shared(2, &image()).unwrap();
    let (one, two) = (&hosts[0], &hosts[1]);
    let (name_one, name_two) = (run_container(one).unwrap(), run_container(two).unwrap());
    reachable(two, one, &name_one).unwrap();
    reachable(one, two, &name_two).unwrap();
    let load = Load {
        targets: vec![at(one), at(two)],
        concurrency: 4,
        ..Load::new(at(one), 200)
    };
    let report = load.clone().run(hosts.client()).unwrap();
    assert_eq!(
        report.answers,
        BTreeMap::from([(name_one, 100), (name_two, 100)]),
        "{}",
        report.to_json()
    );
    assert_eq!(report.failed(), 0);

    let running = Load {
        requests: None,
        ..load
    }
    .start(hosts.client())
    .unwrap();
    wait_until(SOON, "load", || Ok((running.begun() > 20).then_some(()))).unwrap();
    two.docker(&[
        "kill",
        two.docker(&["ps", "-q"]).unwrap().success().unwrap().trim(),
    ])
    .unwrap()
    .success()
    .unwrap();
    let before = running.begun();
    wait_until(SOON, "more load", || {
        Ok((running.begun() > before + 20).then_some(()))
    })
    .unwrap();
    let report = running.stop().unwrap();
    assert!(
        report.errors.contains_key("connect refused"),
        "{}",
        report.to_json()
    );
}

#[test]
fn a_host_is_reset() {
    let hosts = Hosts::shared(2, &image()).unwrap();
    let host = &hosts[0];
    run_container(host).unwrap();
    let sleeper = host.spawn("sleeper", "sleep", &["infinity"]).unwrap();
    let is_guest = || -> Result<bool> {
        Ok(host
            .guests()?
            .iter()
            .any(|guest| guest.pid == sleeper && guest.name == "sleep"))
    };
    wait_until(SOON, "sleeper", || Ok(is_guest()?.then_some(()))).unwrap();
    host.signal(sleeper, Signal::STOP).unwrap();
    fs::write(
        host.data_directory().join("daemon.pid"),
        sleeper.as_raw_nonzero().to_string(),
    )
    .unwrap();
    assert_eq!(host.daemon().unwrap(), sleeper);
    hosts[1].signal(sleeper, Signal::KILL).unwrap_err();
    host.drop_from(hosts[1].address()).unwrap();
    let dockerd = host.engine().dockerd().unwrap();
    host.signal(dockerd, Signal::KILL).unwrap();
    wait_until(SOON, "end of dockerd", || {
        Ok(host.engine().ping().is_err().then_some(()))
    })
    .unwrap();

    hosts.reset().unwrap();

    assert_eq!(host.guests().unwrap().len(), 0);
    host.daemon().unwrap_err();
    assert_ne!(host.engine().dockerd().unwrap(), dockerd);
    assert_eq!(
        host.docker(&["ps", "--all", "--quiet"])
            .unwrap()
            .success()
            .unwrap(),
        ""
    );
    let name = run_container(host).unwrap();
    reachable(&hosts[1], host, &name).unwrap();
}
