//! What a client must say first, and what an endpoint is told first.

use super::*;

#[test]
fn a_header_comes_before_the_endpoint() {
    let mut subject = Subject::expecting_header();
    subject.expect(&[ArmTimer { at_ms: 6_000 }]);
    // In two parts, and the client's first bytes behind it.
    subject.tell(Event::Readable(Client));
    subject.expect(&[ReceiveHeader]);
    subject.tell(Event::ReceiveBlocked(Client));
    subject.expect(&[]);
    subject.tell(Event::Readable(Client));
    subject.expect(&[ReceiveHeader]);
    subject.tell(Event::HeaderReceived { drained: false });
    subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
    subject.tell(Event::Connected);
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
}

#[test]
fn without_a_header_there_is_no_connection() {
    // None in time, though the client talks all the time.
    let mut subject = Subject::expecting_header();
    subject.expect(&[ArmTimer { at_ms: 6_000 }]);
    subject.now_ms = 5_900;
    subject.tell(Event::Readable(Client));
    subject.expect(&[ReceiveHeader]);
    subject.tell(Event::ReceiveBlocked(Client));
    subject.fire_at(6_000);
    subject.expect(&[Reset]);
    assert!(!subject.machine.was_tried());
    // Another thing, an end or a reset in its place, and one in the middle.
    for event in [Event::HeaderRefused, Event::Ended(Client)] {
        let mut subject = Subject::expecting_header();
        subject.tell(Event::Readable(Client));
        subject.expect(&[ReceiveHeader, ArmTimer { at_ms: 6_000 }]);
        subject.tell(event);
        subject.expect(&[Reset]);
    }
    let mut subject = Subject::expecting_header();
    subject.tell(Event::Failing(Client));
    subject.expect(&[Reset]);
    let mut subject = Subject::expecting_header();
    subject.tell(Event::HungUp(Client));
    subject.expect(&[ReceiveHeader, ArmTimer { at_ms: 6_000 }]);
    subject.tell(Event::ReceiveBlocked(Client));
    subject.expect(&[Reset]);
}

#[test]
fn an_end_behind_the_header_is_seen() {
    let mut subject = Subject::expecting_header();
    subject.tell(Event::HungUp(Client));
    subject.expect(&[ReceiveHeader, ArmTimer { at_ms: 6_000 }]);
    subject.tell(Event::HeaderReceived { drained: true });
    subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
    subject.tell(Event::Connected);
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Ended(Client));
    subject.expect(&[ShutDown(Endpoint)]);
}

#[test]
fn a_greeting_goes_out_with_the_first_bytes_and_does_not_wait_for_them() {
    let greeted = || {
        let mut subject = Subject::new();
        subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
        subject
    };
    let (from, limit) = (Client, 65_536);
    // They are there already.
    let mut subject = greeted();
    subject.tell(Event::Readable(Client));
    subject.tell(Event::Greeting { bytes: 28 });
    subject.tell(Event::Connected);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Received {
        from,
        bytes: 100,
        drained: true,
    });
    subject.expect(&[Send { to: Endpoint }]);
    subject.tell(Event::Sent {
        to: Endpoint,
        bytes: 50,
    });
    subject.tell(Event::SendBlocked(Endpoint));
    subject.tell(Event::Writable(Endpoint));
    subject.expect(&[Send { to: Endpoint }]);
    subject.tell(Event::Sent {
        to: Endpoint,
        bytes: 78,
    });
    subject.expect(&[]);
    // Only the client's own count.
    assert_eq!(subject.machine.take_moved().to_endpoint, 100);
    subject.pass(Client, 7);
    // They are not, or it only seemed so.
    for seemed in [false, true] {
        let mut subject = greeted();
        if seemed {
            subject.tell(Event::Readable(Client));
        }
        subject.tell(Event::Greeting { bytes: 28 });
        subject.tell(Event::Connected);
        if seemed {
            subject.expect(&[Receive { from, limit }]);
            subject.tell(Event::ReceiveBlocked(Client));
        }
        subject.expect(&[Send { to: Endpoint }]);
        subject.tell(Event::Sent {
            to: Endpoint,
            bytes: 28,
        });
        subject.expect(&[]);
        assert_eq!(subject.machine.take_moved(), Moved::default());
    }
}
