//! Whole lives of the machine, against a model of two peers.

use proptest::prelude::*;

use super::*;
use crate::connection::world::{Proxy, Step, confuse, live};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = || prop_oneof![Just(Client), Just(Endpoint)];
    let step = prop_oneof![
        6 => (side(), 1..300_000_u64).prop_map(|(side, bytes)| Step::Speak(side, bytes)),
        1 => side().prop_map(Step::End),
        1 => side().prop_map(Step::ResetBy),
        6 => (side(), 1..300_000_u64).prop_map(|(side, bytes)| Step::Read(side, bytes)),
        3 => any::<bool>().prop_map(Step::Connect),
        1 => (0..40_000_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_life_breaks_a_promise(
        expected in any::<bool>(),
        sent in any::<bool>(),
        steps in steps(),
    ) {
        live(Proxy { expected, sent }, &steps);
    }

    #[test]
    fn no_events_in_any_order_confuse_it(
        expected in any::<bool>(),
        events in prop::collection::vec((event(), 0..40_000_u64), 0..60),
    ) {
        let machine = if expected {
            Connection::expecting_header(1_000)
        } else {
            Connection::new(1_000)
        };
        confuse(machine, events);
    }
}

fn event() -> impl Strategy<Value = Event> {
    let side = || prop_oneof![Just(Client), Just(Endpoint)];
    let bytes = || prop_oneof![Just(0_u32), 1..600_000_u32];
    let failure = prop_oneof![
        Just(ConnectFailure::Refused),
        Just(ConnectFailure::Unanswered),
        Just(ConnectFailure::Local)
    ];
    let finding = prop_oneof![
        Just(Finding::Quiet),
        Just(Finding::Slow),
        Just(Finding::Dead)
    ];
    let rare = prop_oneof![
        any::<bool>().prop_map(|drained| Event::HeaderReceived { drained }),
        Just(Event::HeaderRefused),
        (0..300_u16).prop_map(|bytes| Event::Greeting { bytes }),
        Just(Event::NoEndpoint),
        failure.prop_map(Event::ConnectFailed),
        side().prop_map(Event::HungUp),
        side().prop_map(Event::Failing),
        side().prop_map(Event::Ended),
        side().prop_map(Event::Failed),
        finding.prop_map(Event::Inspected),
    ];
    let common = prop_oneof![
        Just(Event::Connected),
        side().prop_map(Event::Readable),
        side().prop_map(Event::Writable),
        (side(), bytes(), any::<bool>()).prop_map(|(from, bytes, drained)| Event::Received {
            from,
            bytes,
            drained
        }),
        side().prop_map(Event::ReceiveBlocked),
        (side(), bytes()).prop_map(|(to, bytes)| Event::Sent { to, bytes }),
        side().prop_map(Event::SendBlocked),
        Just(Event::Timer),
    ];
    prop_oneof![4 => common, 1 => rare]
}
