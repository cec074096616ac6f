//! The fuzz targets without a fuzzer: what has been collected, and random changes
//! of it.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// What is in `fuzz/seeds` for a target: beginnings, and what once broke it.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let files = std::fs::read_dir(directory.join(target)).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no seeds of {target}");
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// A change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Put(u8),
    Flip(u8),
    Insert(Vec<u8>),
    Remove(usize),
    /// A part once more, right behind it.
    Repeat(usize),
    End,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<u8>().prop_map(Change::Put),
        (0..8_u8).prop_map(Change::Flip),
        prop::collection::vec(any::<u8>(), 1..12).prop_map(Change::Insert),
        (1..20_usize).prop_map(Change::Remove),
        (1..60_usize).prop_map(Change::Repeat),
        Just(Change::End),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, Change)]) -> Vec<u8> {
    for (place, change) in changes {
        let end = bytes.len();
        let at = place.index(end + 1);
        let reach = |len: usize| at..(at + len).min(end);
        match change {
            Change::Put(byte) => bytes[reach(1)].fill(*byte),
            Change::Flip(bit) => bytes[reach(1)]
                .iter_mut()
                .for_each(|byte| *byte ^= 1 << bit),
            Change::Insert(new) => drop(bytes.splice(at..at, new.iter().copied())),
            Change::Remove(len) => drop(bytes.drain(reach(*len))),
            Change::Repeat(len) => {
                let part = bytes[reach(*len)].to_vec();
                bytes.splice(at..at, part);
            }
            Change::End => bytes.truncate(at),
        }
    }
    bytes
}

/// Runs a target on its seeds as they are, changed, and on noise.
fn check(target: &str, run: fn(&[u8])) {
    let seeds = seeds(target);
    for seed in &seeds {
        run(seed);
    }
    let changes = prop::collection::vec((any::<prop::sample::Index>(), change()), 0..6);
    let input = prop_oneof![
        8 => (prop::sample::select(seeds), changes)
            .prop_map(|(seed, changes)| changed(seed, &changes)),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ];
    let config = ProptestConfig {
        // Its own place for what it finds is not that of the seeds.
        failure_persistence: None,
        ..ProptestConfig::with_cases(3_000)
    };
    proptest!(config, |(bytes in input)| run(&bytes));
}

#[test]
fn connection_lives() {
    check("connection_life", connection_life);
}

#[test]
fn connection_events_in_any_order() {
    check("connection_events", connection_events);
}

#[test]
fn proxy_headers() {
    check("proxy_header", proxy_header);
}

/// Seeds that nobody understands would lead nowhere.
#[test]
fn seeds_are_understood() {
    let headers = seeds("proxy_header").into_iter();
    let understood = headers.filter(|seed| matches!(proxy::parse(seed), Parsed::Header { .. }));
    assert_eq!(understood.count(), 9);
    let (mut calls, mut tables, mut answers) = (0, 0, 0);
    for seed in seeds("control_frames") {
        let (mut codec, mut bytes) = (codec(), BytesMut::from(seed.as_slice()));
        while let Ok(Some(frame)) = codec.decode(&mut bytes) {
            answers += usize::from(assert_survives::<ServerFrame>(&frame).is_some());
            if let Some(call) = assert_survives::<Call>(&frame) {
                calls += 1;
                tables += usize::from(
                    matches!(call.request, Request::SetTable(table) if table.validate().is_ok()),
                );
            }
        }
    }
    assert_eq!((calls, tables, answers), (10, 2, 7));
}

#[test]
fn frames_of_the_control_socket() {
    check("control_frames", control_frames);
}
