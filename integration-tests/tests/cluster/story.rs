//! What a user does first, word for word: three hosts, one service, ten
//! containers, and every host answers for all of them.

use std::time::{Duration, Instant};

use swarmlet_integration_tests::{Load, sibling_binary, wait_until};

use crate::cluster::{Cluster, SOON, at, check_even, json_lines};

#[test]
fn every_host_answers_for_all_ten() {
    let cluster = Cluster::without_swarm().unwrap();
    let [one, two, three] = [0, 1, 2].map(|number| &cluster.hosts[number]);
    let started = Instant::now();
    let init = one
        .swarmlet(&["init", "--advertise-addr", "10.99.0.1"])
        .unwrap()
        .success()
        .unwrap();
    assert!(
        init.starts_with("Swarm initialized: current node ("),
        "{init}"
    );
    let command = init
        .lines()
        .find_map(|line| line.strip_prefix("    swarmlet "))
        .unwrap_or_else(|| panic!("no command to join in: {init}"));
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(
        (words[0], words[1], words.last()),
        ("join", "--token", Some(&"10.99.0.1:2377")),
        "{command}"
    );
    for host in [two, three] {
        let joined = host.swarmlet(&words).unwrap().success().unwrap();
        assert_eq!(joined, "This node joined a swarm as a worker.\n");
    }
    let create = one
        .swarmlet(&["service", "create", "--name", "ng", "-p", "80:80", "whoami"])
        .unwrap();
    assert!(
        create.stderr.contains("verify: Service ng converged\n"),
        "{create:?}"
    );
    assert_eq!(create.success().unwrap().trim().len(), 25);
    let scale = one.swarmlet(&["service", "scale", "ng=10"]).unwrap();
    for line in [
        "overall progress: 10 out of 10 tasks\n",
        "verify: Service ng converged\n",
    ] {
        assert!(scale.stderr.contains(line), "{scale:?}");
    }
    assert_eq!(scale.success().unwrap(), "ng scaled to 10\n");
    eprintln!(
        "init to ten containers: {:.2} s",
        started.elapsed().as_secs_f64()
    );

    let mut counts: Vec<_> = cluster
        .containers()
        .unwrap()
        .values()
        .map(|c| c.len())
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [3, 3, 4]);
    let names = cluster.all_answer(80).unwrap();
    assert_eq!(names.len(), 10);
    for host in cluster.hosts.iter() {
        let report = cluster.ask(host, 80, 1000).unwrap();
        check_even(&report, &names, &format!("one client of {}", host.name()));
        // The hosts are clients of each other and of themselves, too.
        let report = Load::new(at(host, 80), 100).run(one.namespace()).unwrap();
        check_even(
            &report,
            &names,
            &format!("host1 as client of {}", host.name()),
        );
    }
}

#[test]
fn turns_stay_exact_with_many_clients_and_other_services() {
    let cluster = Cluster::serving(1, 10).unwrap();
    let names = cluster.all_answer(80).unwrap();
    for host in cluster.hosts.iter() {
        let load = Load {
            concurrency: 8,
            ..Load::new(at(host, 80), 1000)
        };
        let report = load.run(cluster.hosts.client()).unwrap();
        check_even(&report, &names, &format!("8 clients of {}", host.name()));
    }
    // Another service is created, and removed again, while eight clients are served.
    let load = Load {
        concurrency: 8,
        requests: None,
        pause: Duration::from_millis(2),
        ..Load::new(at(&cluster.hosts[1], 80), 0)
    };
    let running = load.start(cluster.hosts.client()).unwrap();
    let begun = |count: u64| {
        wait_until(
            SOON,
            "load",
            || Ok((running.begun() >= count).then_some(())),
        )
        .unwrap();
        running.begun()
    };
    let before = begun(200);
    cluster
        .create(&["--name", "other", "-p", "81:80", "whoami"])
        .unwrap();
    let between = begun(before + 200);
    cluster.swarmlet(&["service", "rm", "other"]).unwrap();
    begun(between + 400);
    let report = running.stop().unwrap();
    check_even(&report, &names, "8 clients with another service in between");
}

#[test]
fn a_service_grows_shrinks_and_goes() {
    let cluster = Cluster::serving(1, 10).unwrap();
    cluster.all_answer(80).unwrap();

    // Clients notice nothing of seven containers that go.
    let load = Load {
        targets: cluster.targets(80),
        concurrency: 6,
        requests: None,
        pause: Duration::from_millis(2),
        ..Load::new(at(&cluster.hosts[0], 80), 0)
    };
    let running = load.start(cluster.hosts.client()).unwrap();
    wait_until(SOON, "load", || Ok((running.begun() >= 100).then_some(()))).unwrap();
    cluster.swarmlet(&["service", "scale", "ng=3"]).unwrap();
    let before = running.begun();
    wait_until(SOON, "load", || {
        Ok((running.begun() >= before + 100).then_some(()))
    })
    .unwrap();
    let report = running.stop().unwrap();
    assert_eq!(report.failed(), 0, "{}", report.to_json());
    let count = |expected: usize| {
        wait_until(SOON, &format!("{expected} containers"), || {
            Ok((cluster.names()?.len() == expected).then_some(()))
        })
        .unwrap();
    };
    count(3);
    let names = cluster.all_answer(80).unwrap();
    assert_eq!(names.len(), 3);
    let even: Vec<_> = cluster
        .containers()
        .unwrap()
        .values()
        .map(|c| c.len())
        .collect();
    assert_eq!(even, [1, 1, 1]);

    cluster.swarmlet(&["service", "scale", "ng=0"]).unwrap();
    count(0);
    for host in cluster.hosts.iter() {
        // Nobody is there to answer: an end that no client takes for an answer.
        let report = cluster.ask(host, 80, 10).unwrap();
        let resets = report.errors.get("reset").unwrap_or(&0)
            + report.errors.get("connect reset").unwrap_or(&0);
        assert_eq!(resets, 10, "{}", report.to_json());
    }
    cluster.swarmlet(&["service", "scale", "ng=10"]).unwrap();
    assert_eq!(cluster.all_answer(80).unwrap().len(), 10);

    assert_eq!(cluster.swarmlet(&["service", "rm", "ng"]).unwrap(), "ng\n");
    let listed = cluster
        .swarmlet(&["service", "ls", "--format", "json"])
        .unwrap();
    assert_eq!(json_lines(&listed).unwrap().len(), 0, "{listed}");
    // Name and port are free at once, while the containers are still on their way out.
    cluster
        .create(&["--name", "ng", "--replicas", "2", "-p", "80:80", "whoami"])
        .unwrap();
    count(2);
    assert_eq!(cluster.all_answer(80).unwrap().len(), 2);
    cluster.swarmlet(&["service", "rm", "ng"]).unwrap();
    for host in cluster.hosts.iter() {
        wait_until(SOON, &format!("free port on {}", host.name()), || {
            let report = cluster.ask(host, 80, 10)?;
            Ok((report.errors.get("connect refused") == Some(&10)).then_some(()))
        })
        .unwrap();
        // Free for anybody: a server of the host's own takes it.
        host.spawn(
            "own-server",
            sibling_binary("hostname-server").unwrap(),
            &[],
        )
        .unwrap();
        cluster
            .answers(host, 80, &[host.name().to_owned()].into())
            .unwrap();
    }
    count(0);
}
