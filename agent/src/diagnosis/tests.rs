use std::net::Ipv4Addr;

use swarmlet_core::model::{Closed, ProblemKind, Timestamp};
use tokio::net::TcpListener;

use super::*;
use crate::worker::fake::FakeRuntime;

/// Far more than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

fn place(number: u8) -> Place {
    Place {
        node: NodeId::from_random(number.into()),
        hostname: format!("host{number}"),
        address: Ipv4Addr::LOCALHOST.into(),
    }
}

struct Fixture {
    told: watch::Sender<Told>,
    session: watch::Sender<Connection>,
    views: Views,
    stop: CancellationToken,
}

impl Fixture {
    fn start(runtime: FakeRuntime, watched: Watched, managers: Vec<SocketAddr>) -> Self {
        let (told, told_in) = watch::channel(Told::default());
        let (session, session_in) = watch::channel(Connection::default());
        let (watcher, views) = Watcher::new(
            place(1),
            Arc::new(runtime),
            watched,
            told_in,
            session_in,
            managers,
        );
        let stop = CancellationToken::new();
        tokio::spawn(watcher.run(stop.clone()));
        Self {
            told,
            session,
            views,
            stop,
        }
    }

    /// Waits until the problems, as people read them, are as they should be.
    async fn problems(&mut self, wanted: impl Fn(&[String]) -> bool) {
        let texts = |found: &Vec<NodeProblem>| -> Vec<String> {
            found.iter().map(ToString::to_string).collect()
        };
        let problems = &mut self.views.problems;
        let waited = tokio::time::timeout(LIMIT, problems.wait_for(|found| wanted(&texts(found))));
        if waited.await.is_err() {
            panic!("{:?}", texts(&self.views.problems.borrow()));
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A port of this machine on which nobody listens.
async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn ports_that_answer_are_no_news_and_others_are_observed_until_they_do() {
    let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open_port = open.local_addr().unwrap().port();
    let answering = CancellationToken::new();
    tokio::spawn(answer(open, answering.clone()));
    let closed = closed_port().await;
    let mut fixture = Fixture::start(FakeRuntime::new(), Watched::default(), Vec::new());
    let peer = |number, probe_port| Peer {
        place: place(number),
        probe_port,
        manager: None,
    };
    fixture.session.send_modify(|session| {
        session.manager = Some("127.0.0.1:1".parse().unwrap());
    });
    fixture.told.send_modify(|told| {
        told.peers = vec![peer(2, open_port), peer(3, closed), peer(4, 0)];
    });
    let seen = &mut fixture.views.seen;
    let failing = tokio::time::timeout(LIMIT, seen.wait_for(|seen| !seen.failing.is_empty()));
    let failing = failing.await.unwrap().unwrap().at(Instant::now()).failing;
    assert_eq!(failing.len(), 1);
    assert_eq!(failing[0].node, place(3).node);
    assert_eq!(failing[0].found, Closed::Refused);
    assert!(failing[0].lasting >= diagnosis::SUSPECT);

    let again = std::net::TcpListener::bind(("127.0.0.1", closed)).unwrap();
    tokio::spawn(answer(again, answering.clone()));
    let healed = seen.wait_for(|seen| seen.failing.is_empty());
    tokio::time::timeout(LIMIT, healed).await.unwrap().unwrap();
    answering.cancel();
}

#[tokio::test]
async fn without_a_session_a_silent_manager_is_named_and_with_one_the_managers_words_count() {
    let closed = closed_port().await;
    let manager = SocketAddr::from(([127, 0, 0, 1], closed));
    let other = Place {
        address: [127, 0, 0, 9].into(),
        ..place(9)
    };
    let mut fixture = Fixture::start(FakeRuntime::new(), Watched::default(), Vec::new());
    fixture.told.send_modify(|told| {
        told.peers = vec![Peer {
            place: place(2),
            probe_port: 0,
            manager: Some(manager),
        }];
        told.problems = vec![NodeProblem {
            at: other.clone(),
            problem: Problem {
                since: Timestamp(1),
                kind: ProblemKind::Clock { ahead_ms: 5000 },
            },
        }];
    });
    let expected = format!(
        "host1 (127.0.0.1) cannot connect to host2 (127.0.0.1) on TCP {closed}: connections are \
         refused; open TCP {closed} from 127.0.0.1 to 127.0.0.1 (security group, firewall)"
    );
    fixture.problems(|found| found == [expected.as_str()]).await;
    assert!(fixture.views.suspects.borrow().contains(&manager));

    fixture
        .session
        .send_modify(|session| session.manager = Some(manager));
    let about = |found: &[String]| found.len() == 1 && found[0].starts_with("the clock of host9");
    fixture.problems(about).await;
}

#[tokio::test]
async fn a_silent_engine_is_known_at_once_and_forgotten_when_it_answers() {
    let runtime = FakeRuntime::new();
    let reason = crate::runtime::RuntimeError::Unavailable("no such socket".to_owned());
    runtime.fail("alive", reason, 3);
    let mut fixture = Fixture::start(runtime, Watched::default(), Vec::new());
    fixture
        .problems(|found| {
            found.len() == 1
                && found[0].starts_with(
                    "the container engine of host1 (127.0.0.1) does not answer: no such socket;",
                )
        })
        .await;
    fixture.problems(<[String]>::is_empty).await;
}
