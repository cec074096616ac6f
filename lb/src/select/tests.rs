//! Examples and properties of the rotation.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn ready(key: u64) -> Candidate {
    weighted(key, 1)
}

fn weighted(key: u64, weight: u32) -> Candidate {
    Candidate {
        key: EndpointKey(key),
        identity: key,
        weight,
        local: false,
        state: EndpointState::Ready,
    }
}

fn draining(key: u64) -> Candidate {
    Candidate {
        state: EndpointState::Draining,
        ..ready(key)
    }
}

fn rotation(candidates: &[Candidate]) -> Rotation {
    let mut rotation = Rotation::new(0);
    rotation.update(candidates);
    rotation
}

fn turns(rotation: &mut Rotation, count: usize) -> Vec<u64> {
    (0..count)
        .map(|_| rotation.choose(&[]).expect("an endpoint is in rotation").0)
        .collect()
}

#[test]
fn equal_weights_are_a_cycle() {
    let mut rotation = rotation(&[ready(1), ready(2), ready(3)]);
    assert_eq!(turns(&mut rotation, 7), [1, 2, 3, 1, 2, 3, 1]);
}

#[test]
fn weights_are_spread_smoothly() {
    let mut rotation = rotation(&[weighted(1, 5), weighted(2, 1), weighted(3, 1)]);
    let first = turns(&mut rotation, 7);
    assert_eq!(first.iter().filter(|key| **key == 1).count(), 5);
    assert_eq!(turns(&mut rotation, 7), first);
    assert!(
        !first.windows(4).any(|four| four == [1, 1, 1, 1]),
        "{first:?}"
    );
}

#[test]
fn the_turn_goes_on_after_a_change() {
    let mut rotation = rotation(&[ready(1), ready(2), ready(3)]);
    assert_eq!(turns(&mut rotation, 2), [1, 2]);
    rotation.update(&[ready(2), ready(3), ready(4)]);
    assert_eq!(turns(&mut rotation, 4), [3, 4, 2, 3]);
    rotation.update(&[ready(4)]);
    assert_eq!(turns(&mut rotation, 2), [4, 4]);
    rotation.update(&[]);
    assert_eq!(rotation.choose(&[]), None);
    rotation.update(&[ready(5)]);
    assert_eq!(turns(&mut rotation, 1), [5]);
}

#[test]
fn nodes_begin_at_different_places() {
    let mut rotation = Rotation::new(4);
    rotation.update(&[ready(1), ready(2), ready(3)]);
    assert_eq!(turns(&mut rotation, 3), [2, 3, 1]);
}

#[test]
fn ejected_endpoints_are_skipped_until_too_few_are_left() {
    let mut rotation = rotation(&[ready(1), ready(2), ready(3), draining(4)]);
    rotation.eject(EndpointKey(2));
    assert_eq!(turns(&mut rotation, 4), [1, 3, 1, 3]);
    rotation.eject(EndpointKey(1));
    assert!(rotation.is_panicking(), "one of three is fewer than half");
    let chosen: BTreeSet<u64> = turns(&mut rotation, 3).into_iter().collect();
    assert_eq!(chosen, BTreeSet::from([1, 2, 3]));
    rotation.restore(EndpointKey(1));
    rotation.restore(EndpointKey(2));
    assert!(!rotation.is_panicking());
}

#[test]
fn exactly_half_is_no_panic() {
    let mut rotation = rotation(&[ready(1), ready(2)]);
    rotation.eject(EndpointKey(1));
    assert_eq!(turns(&mut rotation, 2), [2, 2]);
}

#[test]
fn a_panicking_retry_prefers_what_is_not_ejected() {
    let mut rotation = rotation(&[ready(1), ready(2), ready(3), ready(4), ready(5)]);
    for key in [1, 2, 3, 4] {
        rotation.eject(EndpointKey(key));
    }
    assert_eq!(rotation.choose(&[EndpointKey(1)]), Some(EndpointKey(5)));
    let resort = rotation.choose(&[EndpointKey(1), EndpointKey(5)]);
    assert!(
        resort.is_some_and(|key| [2, 3, 4].contains(&key.0)),
        "{resort:?}"
    );
}

#[test]
fn retries_leave_the_order_alone_and_take_turns_themselves() {
    let mut rotation = rotation(&[ready(1), ready(2), ready(3), ready(4)]);
    let mut order = Vec::new();
    let mut retried = Vec::new();
    for _ in 0..8 {
        order.push(rotation.choose(&[]).unwrap().0);
        retried.push(rotation.choose(&[EndpointKey(1)]).unwrap().0);
    }
    assert_eq!(order, [1, 2, 3, 4, 1, 2, 3, 4]);
    assert_eq!(retried, [2, 3, 4, 2, 3, 4, 2, 3]);
}

#[test]
fn all_tried_is_none() {
    let mut rotation = rotation(&[ready(1), draining(2)]);
    assert_eq!(rotation.choose(&[EndpointKey(1)]), None);
}

#[derive(Debug, Clone)]
enum Step {
    /// Keys 0..8: absent, ready or draining.
    Update(Vec<Option<bool>>),
    Eject(u64),
    Restore(u64),
    Choose,
    Retry(Vec<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..8_u64;
    prop_oneof![
        1 => prop::collection::vec(prop::option::of(any::<bool>()), 8).prop_map(Step::Update),
        1 => key.clone().prop_map(Step::Eject),
        1 => key.clone().prop_map(Step::Restore),
        6 => Just(Step::Choose),
        2 => prop::collection::vec(key, 1..3).prop_map(Step::Retry),
    ]
}

fn candidates(keys: &[Option<bool>]) -> Vec<Candidate> {
    (0_u64..)
        .zip(keys)
        .filter_map(|(key, is_ready)| {
            is_ready.map(|is_ready| if is_ready { ready(key) } else { draining(key) })
        })
        .collect()
}

/// What the rules say may be chosen, written down without a ring.
#[derive(Default)]
struct Model {
    ready: BTreeSet<u64>,
    ejected: BTreeSet<u64>,
}

impl Model {
    fn update(&mut self, candidates: &[Candidate]) {
        let listed: BTreeSet<u64> = candidates.iter().map(|c| c.key.0).collect();
        self.ejected.retain(|key| listed.contains(key));
        self.ready = candidates
            .iter()
            .filter(|c| c.state == EndpointState::Ready)
            .map(|c| c.key.0)
            .collect();
    }

    fn allowed(&self, tried: &[u64]) -> BTreeSet<u64> {
        let healthy: BTreeSet<u64> = self.ready.difference(&self.ejected).copied().collect();
        let panicking = healthy.len() * 2 < self.ready.len();
        let untried =
            |set: &BTreeSet<u64>| set.iter().copied().filter(|k| !tried.contains(k)).collect();
        if tried.is_empty() && panicking {
            return self.ready.clone();
        }
        let first: BTreeSet<u64> = untried(&healthy);
        if first.is_empty() {
            untried(&self.ready)
        } else {
            first
        }
    }
}

fn run(steps: &[Step], rotation: &mut Rotation) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let mut listed = BTreeSet::new();
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    let mut in_rotation = BTreeSet::new();
    for step in steps {
        let mut tried = None;
        match step {
            Step::Update(keys) => {
                let candidates = candidates(keys);
                listed = candidates.iter().map(|c| c.key.0).collect();
                rotation.update(&candidates);
                model.update(&candidates);
            }
            Step::Eject(key) => {
                rotation.eject(EndpointKey(*key));
                if listed.contains(key) {
                    model.ejected.insert(*key);
                }
            }
            Step::Restore(key) => {
                rotation.restore(EndpointKey(*key));
                model.ejected.remove(key);
            }
            Step::Choose => tried = Some(Vec::new()),
            Step::Retry(keys) => tried = Some(keys.clone()),
        }
        if model.allowed(&[]) != in_rotation {
            in_rotation = model.allowed(&[]);
            counts = in_rotation.iter().map(|key| (*key, 0)).collect();
        }
        let Some(tried) = tried else { continue };
        let keys: Vec<EndpointKey> = tried.iter().copied().map(EndpointKey).collect();
        let chosen = rotation.choose(&keys).map(|key| key.0);
        let allowed = model.allowed(&tried);
        prop_assert_eq!(chosen.is_none(), allowed.is_empty());
        if let Some(chosen) = chosen {
            prop_assert!(allowed.contains(&chosen), "{} not in {:?}", chosen, allowed);
            if tried.is_empty() {
                *counts.entry(chosen).or_default() += 1;
            }
        }
        // Retries that count as ordinary turns make this at most one coarser.
        let has_retries = steps.iter().any(|step| matches!(step, Step::Retry(_)));
        let spread = counts.values().max().unwrap_or(&0) - counts.values().min().unwrap_or(&0);
        prop_assert!(has_retries || spread <= 1, "{counts:?}");
    }
    Ok(())
}

proptest! {
    /// Only what the rules allow is ever chosen, whatever happened before, and
    /// over a stable set the counts differ by one at most.
    #[test]
    fn rules_hold(start: u64, steps in prop::collection::vec(step(), 1..200)) {
        run(&steps, &mut Rotation::new(start))?;
        let without_retries: Vec<Step> =
            steps.into_iter().filter(|step| !matches!(step, Step::Retry(_))).collect();
        run(&without_retries, &mut Rotation::new(start))?;
    }

    /// Whatever happened before, retries included, a stable set is served evenly.
    #[test]
    fn a_stable_set_is_even_after_any_past(
        start: u64,
        steps in prop::collection::vec(step(), 0..100),
        window in 1..100_usize,
        retries in prop::collection::vec(0..8_u64, 0..20),
    ) {
        let mut rotation = Rotation::new(start);
        run(&steps, &mut rotation)?;
        let set: Vec<Candidate> = (0..5).map(ready).collect();
        rotation.update(&set);
        (0..5).for_each(|key| rotation.restore(EndpointKey(key)));
        let mut counts: BTreeMap<u64, u64> = (0..5).map(|key| (key, 0)).collect();
        for turn in 0..window {
            if let Some(tried) = retries.get(turn).filter(|key| **key < 5) {
                rotation.choose(&[EndpointKey(*tried)]);
            }
            *counts.entry(rotation.choose(&[]).unwrap().0).or_default() += 1;
        }
        let (max, min) = (counts.values().max().unwrap(), counts.values().min().unwrap());
        prop_assert!(max - min <= 1, "{counts:?}");
    }

    /// Over a whole round each endpoint gets exactly its weight.
    #[test]
    fn weights_are_exact(start: u64, weights in prop::collection::vec(1..9_u32, 1..6)) {
        let set: Vec<Candidate> = (0..).zip(&weights).map(|(key, w)| weighted(key, *w)).collect();
        let mut rotation = Rotation::new(start);
        rotation.update(&set);
        let total: u32 = weights.iter().sum();
        for _ in 0..3 {
            let round = turns(&mut rotation, total as usize);
            for (key, weight) in (0..).zip(&weights) {
                prop_assert_eq!(round.iter().filter(|k| **k == key).count(), *weight as usize);
            }
        }
    }

    /// A table that says the same, in whatever order, leaves the order alone.
    #[test]
    fn an_unrelated_table_disturbs_nothing(
        start: u64,
        weights in prop::collection::vec(1..5_u32, 1..6),
        before in 0..30_usize,
        shift in 0..6_usize,
    ) {
        let mut set: Vec<Candidate> =
            (0..).zip(&weights).map(|(key, w)| weighted(key, *w)).collect();
        let mut rotation = Rotation::new(start);
        rotation.update(&set);
        turns(&mut rotation, before);
        let mut undisturbed = rotation.clone();
        let len = set.len();
        set.rotate_left(shift % len);
        rotation.update(&set);
        prop_assert_eq!(turns(&mut rotation, 20), turns(&mut undisturbed, 20));
    }
}
