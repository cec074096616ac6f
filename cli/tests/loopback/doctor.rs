//! What `doctor` finds on the way to a cluster that is to be joined.

use super::cluster::Cluster;

#[test]
fn the_manager_tries_the_address_that_the_host_would_advertise() {
    let cluster = Cluster::new(2);
    cluster.init(0);
    let token = cluster.ok(0, &["join-token", "-q", "worker"]).stdout;
    let remote = cluster.address(0);
    let base = ["doctor", "--join", &remote, "--token", token.trim()];
    let says = |more: &[&str], expected: &[&str]| {
        let found = cluster.run(1, &[&base[..], more].concat());
        for expected in expected {
            assert!(found.stdout.contains(expected), "{expected}: {found:?}");
        }
    };
    // The connection itself comes from 127.0.0.1, as all of them do on one machine.
    let own = format!("open from the managers to {}\n", Cluster::ip(1));
    says(&[], &[&own]);
    says(
        &["--advertise-addr", "127.0.0.77"],
        &[
            "open from the managers to 127.0.0.77\n",
            "of 127.0.0.77 is closed to the managers: connections are refused; the manager sees \
             this host as 127.0.0.1; a worker does not need it\n",
        ],
    );
    says(
        &["--advertise-addr", "169.254.1.1"],
        &[
            "invalid address \"169.254.1.1\": a node elsewhere cannot be reached at it\n",
            "-> name another with --advertise-addr\n",
        ],
    );
}
