//! The machine without sockets: single steps by hand; whole lives are in [`lives`].

mod header;
mod lives;

use super::{world::LIMITS, *};
use Side::{Client, Endpoint};

/// A machine and the time.
struct Subject {
    machine: Connection,
    now_ms: u64,
}

impl Subject {
    fn new() -> Self {
        let now_ms = 1_000;
        Self {
            machine: Connection::new(now_ms),
            now_ms,
        }
    }

    /// One whose client must say first whose connection it is.
    fn expecting_header() -> Self {
        Self {
            machine: Connection::expecting_header(1_000),
            now_ms: 1_000,
        }
    }

    /// One that relays, with nothing to be received.
    fn relaying() -> Self {
        let mut subject = Self::new();
        subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
        subject.tell(Event::Connected);
        subject.expect(&[]);
        subject
    }

    fn tell(&mut self, event: Event) {
        self.machine.handle(event, self.now_ms, &LIMITS);
    }

    /// All that is asked for until the next event.
    #[track_caller]
    fn expect(&mut self, expected: &[Operation]) {
        let mut found = Vec::new();
        while let Some(operation) = self.machine.next(self.now_ms, &LIMITS) {
            found.push(operation);
            assert!(found.len() < 20, "no end: {found:?}");
        }
        assert_eq!(found, expected);
    }

    /// The timer fires at this time.
    fn fire_at(&mut self, at_ms: u64) {
        self.now_ms = at_ms;
        self.tell(Event::Timer);
    }

    /// Receives and sends on, wholly.
    #[track_caller]
    fn pass(&mut self, from: Side, bytes: u32) {
        self.tell(Event::Readable(from));
        let limit = 65_536;
        self.expect(&[Receive { from, limit }]);
        self.tell(Event::Received {
            from,
            bytes,
            drained: true,
        });
        let to = from.other();
        self.expect(&[Send { to }]);
        self.tell(Event::Sent { to, bytes });
        self.expect(&[]);
    }
}

use Operation::{
    Abandon, ArmTimer, Close, Inspect, Receive, ReceiveHeader, Reset, Send, SendLast, Settle,
    ShutDown,
};

#[test]
fn a_short_connection_from_its_beginning_to_its_end() {
    let mut subject = Subject::new();
    // Bytes that come early wait for the endpoint.
    subject.tell(Event::Readable(Client));
    subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
    subject.tell(Event::Connected);
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Received {
        from,
        bytes: 100,
        drained: true,
    });
    subject.expect(&[Send { to: Endpoint }]);
    subject.tell(Event::Sent {
        to: Endpoint,
        bytes: 100,
    });
    subject.pass(Endpoint, 200);
    subject.tell(Event::HungUp(Endpoint));
    let from = Endpoint;
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Ended(Endpoint));
    subject.expect(&[ShutDown(Client)]);
    subject.tell(Event::HungUp(Client));
    let from = Client;
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Ended(Client));
    subject.expect(&[Close]);
    let moved = Moved {
        to_endpoint: 100,
        to_client: 200,
    };
    assert_eq!(subject.machine.take_moved(), moved);
    assert_eq!(subject.machine.take_moved(), Moved::default());
}

#[test]
fn an_end_known_to_come_needs_no_receive_of_its_own() {
    let mut subject = Subject::relaying();
    subject.tell(Event::HungUp(Endpoint));
    let (from, limit) = (Endpoint, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Received {
        from,
        bytes: 5,
        drained: true,
    });
    subject.expect(&[SendLast { to: Client }]);
    subject.tell(Event::Sent {
        to: Client,
        bytes: 3,
    });
    subject.tell(Event::SendBlocked(Client));
    // Not before the last byte.
    subject.expect(&[]);
    subject.tell(Event::Writable(Client));
    subject.expect(&[SendLast { to: Client }]);
    subject.tell(Event::Sent {
        to: Client,
        bytes: 2,
    });
    subject.expect(&[ShutDown(Client)]);
}

#[test]
fn a_full_receive_does_not_hide_the_bytes_before_the_end() {
    let mut subject = Subject::relaying();
    subject.tell(Event::HungUp(Client));
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Received {
        from,
        bytes: limit,
        drained: false,
    });
    subject.expect(&[Send { to: Endpoint }]);
    subject.tell(Event::Sent {
        to: Endpoint,
        bytes: limit,
    });
    let limit = 2 * limit;
    subject.expect(&[Receive { from, limit }]);
}

#[test]
fn a_failed_connect_is_tried_elsewhere_and_three_are_enough() {
    let mut subject = Subject::new();
    subject.tell(Event::Readable(Client));
    subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
    subject.tell(Event::ConnectFailed(ConnectFailure::Refused));
    subject.expect(&[
        Abandon(ConnectFailure::Refused),
        Operation::Connect,
        ArmTimer { at_ms: 1_500 },
    ]);
    subject.fire_at(1_500);
    subject.expect(&[
        Abandon(ConnectFailure::Unanswered),
        Operation::Connect,
        ArmTimer { at_ms: 2_500 },
    ]);
    subject.tell(Event::ConnectFailed(ConnectFailure::Local));
    subject.expect(&[Abandon(ConnectFailure::Local), Reset]);
    subject.expect(&[]);
}

#[test]
fn without_an_endpoint_the_client_is_reset() {
    let mut subject = Subject::new();
    assert_eq!(
        subject.machine.next(subject.now_ms, &LIMITS),
        Some(Operation::Connect)
    );
    subject.tell(Event::NoEndpoint);
    subject.expect(&[Reset]);
}

#[test]
fn a_client_that_gives_up_while_connecting_ends_it() {
    let mut subject = Subject::new();
    subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
    subject.tell(Event::HungUp(Client));
    subject.expect(&[]);
    subject.tell(Event::Failing(Client));
    subject.expect(&[Reset]);
}

#[test]
fn nothing_is_received_while_the_other_side_takes_nothing() {
    let mut subject = Subject::relaying();
    subject.tell(Event::Readable(Client));
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Received {
        from,
        bytes: limit,
        drained: false,
    });
    subject.expect(&[Send { to: Endpoint }]);
    subject.tell(Event::Sent {
        to: Endpoint,
        bytes: limit,
    });
    subject.tell(Event::SendBlocked(Endpoint));
    subject.expect(&[]);
    // The other direction does not mind.
    subject.pass(Endpoint, 7);
    subject.tell(Event::Writable(Endpoint));
    let limit = 2 * limit;
    subject.expect(&[Receive { from, limit }]);
}

/// What is asked for, what comes, what of it is sent.
#[track_caller]
fn check_steps(steps: &[(u32, u32, u32)]) {
    let mut subject = Subject::relaying();
    subject.tell(Event::Readable(Client));
    let (from, to) = (Client, Endpoint);
    for (limit, received, sent) in steps {
        let [limit, received, sent] = [limit, received, sent].map(|kib| kib * 1024);
        subject.expect(&[Receive { from, limit }]);
        subject.tell(Event::Received {
            from,
            bytes: received,
            drained: false,
        });
        subject.expect(&[Send { to }]);
        subject.tell(Event::Sent { to, bytes: sent });
        if sent < received {
            subject.tell(Event::SendBlocked(to));
            subject.expect(&[]);
            subject.tell(Event::Writable(to));
            subject.expect(&[Send { to }]);
            let bytes = received - sent;
            subject.tell(Event::Sent { to, bytes });
        }
    }
}

#[test]
fn bulk_goes_on_for_as_long_as_it_likes() {
    let mut subject = Subject::relaying();
    subject.tell(Event::Readable(Client));
    for _ in 0..1_000 {
        let asked = subject.machine.next(subject.now_ms, &LIMITS);
        let Some(Receive {
            from: Client,
            limit,
        }) = asked
        else {
            panic!("{asked:?}");
        };
        subject.tell(Event::Received {
            from: Client,
            bytes: limit,
            drained: false,
        });
        let sent = subject.machine.next(subject.now_ms, &LIMITS);
        assert_eq!(sent, Some(Send { to: Endpoint }));
        subject.tell(Event::Sent {
            to: Endpoint,
            bytes: limit,
        });
    }
}

#[test]
fn bulk_is_received_in_larger_and_larger_steps() {
    check_steps(&[
        (64, 64, 64),
        (128, 128, 128),
        (256, 256, 256),
        (512, 512, 512),
        (512, 100, 100),
        // For a moment there was little.
        (512, 1, 1),
        (256, 1, 1),
        (128, 1, 1),
        (64, 1, 1),
        (64, 1, 1),
    ]);
}

#[test]
fn who_takes_little_is_given_less() {
    check_steps(&[
        (64, 64, 64),
        (128, 128, 128),
        (256, 256, 128),
        (256, 256, 127),
        (128, 128, 63),
        (64, 64, 64),
        (128, 128, 128),
    ]);
    // One who takes nothing of what is read for it is read little for.
    check_steps(&[(64, 64, 0), (64, 64, 0), (64, 64, 31), (64, 64, 63)]);
}

#[test]
fn a_reset_comes_after_the_bytes_before_it_and_never_as_an_end() {
    for event in [Event::Failed(Endpoint), Event::Ended(Endpoint)] {
        let mut subject = Subject::relaying();
        subject.tell(Event::HungUp(Endpoint));
        subject.tell(Event::Failing(Endpoint));
        let (from, limit) = (Endpoint, 65_536);
        subject.expect(&[Receive { from, limit }]);
        subject.tell(Event::Received {
            from,
            bytes: 9,
            drained: true,
        });
        subject.expect(&[Send { to: Client }]);
        subject.tell(Event::Sent {
            to: Client,
            bytes: 9,
        });
        subject.expect(&[Receive { from, limit }]);
        subject.tell(event);
        subject.expect(&[Reset]);
    }
}

#[test]
fn a_reset_does_not_wait_for_a_blocked_side() {
    let mut subject = Subject::relaying();
    subject.tell(Event::SendBlocked(Client));
    subject.tell(Event::Failing(Endpoint));
    subject.expect(&[Reset]);
}

#[test]
fn a_reset_after_an_end_is_seen() {
    let mut subject = Subject::relaying();
    subject.tell(Event::HungUp(Client));
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Ended(Client));
    subject.expect(&[ShutDown(Endpoint)]);
    subject.tell(Event::Failing(Client));
    subject.expect(&[Reset]);
}

#[test]
fn a_connection_that_stays_is_settled_once_and_then_looked_after() {
    let mut subject = Subject::relaying();
    subject.fire_at(1_260);
    subject.expect(&[Settle, ArmTimer { at_ms: 21_000 }]);
    subject.fire_at(21_000);
    subject.expect(&[Inspect]);
    subject.tell(Event::Inspected(Finding::Quiet));
    // Idle for an hour, from the last byte on.
    subject.expect(&[ArmTimer { at_ms: 3_601_000 }]);
    subject.now_ms = 50_000;
    subject.tell(Event::Readable(Client));
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Received {
        from,
        bytes: 1,
        drained: true,
    });
    // The machine looks again, for there is something unacknowledged now.
    subject.expect(&[Send { to: Endpoint }, ArmTimer { at_ms: 41_000 }]);
    subject.tell(Event::Sent {
        to: Endpoint,
        bytes: 1,
    });
    subject.expect(&[]);
    subject.fire_at(50_010);
    subject.expect(&[Inspect]);
    subject.tell(Event::Inspected(Finding::Dead));
    subject.expect(&[Reset]);
}

#[test]
fn an_idle_connection_is_reset_in_the_end() {
    let mut subject = Subject::relaying();
    subject.fire_at(1_260);
    subject.expect(&[Settle, ArmTimer { at_ms: 21_000 }]);
    subject.fire_at(21_000);
    subject.expect(&[Inspect]);
    subject.tell(Event::Inspected(Finding::Quiet));
    subject.expect(&[ArmTimer { at_ms: 3_601_000 }]);
    subject.fire_at(3_601_000);
    subject.expect(&[Reset]);
}

#[test]
fn a_slow_reader_outlives_the_half_closed_timeout_but_not_the_idle_one() {
    let mut subject = Subject::relaying();
    subject.tell(Event::HungUp(Endpoint));
    let (from, limit) = (Endpoint, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Ended(Endpoint));
    subject.expect(&[ShutDown(Client)]);
    subject.fire_at(1_250);
    let mut at_ms = 21_000;
    subject.expect(&[Settle, ArmTimer { at_ms }]);
    let last = loop {
        subject.fire_at(at_ms);
        match subject.machine.next(at_ms, &LIMITS) {
            Some(Inspect) => {}
            other => break other,
        }
        subject.tell(Event::Inspected(Finding::Slow));
        let Some(ArmTimer { at_ms: next }) = subject.machine.next(at_ms, &LIMITS) else {
            panic!("the timer is armed");
        };
        at_ms = next;
    };
    assert_eq!((last, at_ms), (Some(Reset), 3_601_000));
}

#[test]
fn a_silent_half_closed_connection_is_reset() {
    let mut subject = Subject::relaying();
    subject.now_ms = 1_100;
    subject.tell(Event::HungUp(Client));
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Ended(Client));
    subject.expect(&[ShutDown(Endpoint)]);
    subject.fire_at(1_250);
    subject.expect(&[Settle, ArmTimer { at_ms: 21_000 }]);
    subject.fire_at(21_000);
    subject.expect(&[Inspect]);
    subject.tell(Event::Inspected(Finding::Quiet));
    subject.expect(&[ArmTimer { at_ms: 31_100 }]);
    subject.fire_at(31_100);
    subject.expect(&[Reset]);
}

#[test]
fn it_stays_small() {
    // There is one for each idle connection, and the sockets beside it.
    assert!(
        size_of::<Connection>() <= 120,
        "{}",
        size_of::<Connection>()
    );
}

/// Those of a configuration file can be as long as its numbers.
#[test]
fn the_longest_timeouts_end_nothing() {
    let longest = Duration::from_millis(i64::MAX.unsigned_abs());
    let limits = Limits::of(&crate::run::Timeouts {
        connect: longest,
        half_closed: longest,
        idle: longest,
        proxy_header: longest,
        ..Default::default()
    });
    let mut machine = Connection::expecting_header(1_000);
    let century_ms = 100 * 365 * 86_400_000;
    let far = |operation: Option<Operation>| {
        let Some(ArmTimer { at_ms }) = operation else {
            panic!("{operation:?}");
        };
        assert!(at_ms > century_ms, "{at_ms}");
    };
    far(machine.next(1_000, &limits));
    machine.handle(Event::HeaderReceived { drained: true }, 1_000, &limits);
    for failure in [Some(ConnectFailure::Refused); 2].into_iter().chain([None]) {
        assert_eq!(machine.next(1_000, &limits), Some(Operation::Connect));
        if let Some(failure) = failure {
            machine.handle(Event::ConnectFailed(failure), 1_000, &limits);
            let abandoned = machine.next(1_000, &limits);
            assert_eq!(abandoned, Some(Abandon(failure)));
        }
    }
    far(machine.next(1_000, &limits));
    machine.handle(Event::Timer, century_ms, &limits);
    machine.handle(Event::Connected, century_ms, &limits);
    assert!(!machine.is_connecting());
    assert_eq!(machine.next(century_ms, &limits), Some(Settle));
}
