//! The policies that take no turns: the less loaded of two, and by source.
//!
//! Both choose among the same endpoints as the rotation does: those in it, or
//! for a retry with all of these tried, whatever is ready.

use super::{EndpointKey, Member, Rotation};

impl Rotation {
    /// The less loaded, by weight, of two that `random` picks. Two are enough to
    /// keep clear of the busiest, and unlike with the least loaded of all, the
    /// balancers of a cluster do not all run to the same one.
    pub(crate) fn choose_less_loaded(
        &self,
        tried: &[EndpointKey],
        random: u64,
        load: impl Fn(EndpointKey) -> u64,
    ) -> Option<EndpointKey> {
        let eligible = self.eligible(tried);
        let len = eligible.len() as u64;
        if len < 2 {
            return eligible.first().map(|member| member.key);
        }
        let first = random % len;
        // Any but the first.
        let second = (first + 1 + (random >> 32) % (len - 1)) % len;
        let [a, b] = [first, second].map(|index| eligible[usize::try_from(index).unwrap_or(0)]);
        // What it would be with this connection, divided by the weight.
        let share = |of: &Member, weight: u32| u128::from(load(of.key) + 1) * u128::from(weight);
        let chosen = if share(b, a.weight) < share(a, b.weight) {
            b
        } else {
            a
        };
        Some(chosen.key)
    }

    /// The same for each source, on every balancer, as long as the endpoint is
    /// there; when one goes or comes only its own share of the sources moves.
    /// Weighted rendezvous hashing: the highest score of source and endpoint.
    pub(crate) fn choose_by_source(
        &self,
        tried: &[EndpointKey],
        source: u64,
    ) -> Option<EndpointKey> {
        let mut best: Option<(f64, EndpointKey)> = None;
        for member in self.eligible(tried) {
            let score = score(source, member);
            if best.is_none_or(|(highest, _)| score > highest) {
                best = Some((score, member.key));
            }
        }
        best.map(|(_, key)| key)
    }

    fn eligible(&self, tried: &[EndpointKey]) -> Vec<&Member> {
        let among = |in_question: &dyn Fn(&Member) -> bool| -> Vec<&Member> {
            self.members
                .iter()
                .filter(|member| in_question(member) && !tried.contains(&member.key))
                .collect()
        };
        let panicking = self.panicking;
        let in_rotation = among(&|member| member.in_rotation(panicking));
        if in_rotation.is_empty() {
            among(&Member::is_ready)
        } else {
            in_rotation
        }
    }
}

/// An even number between 0 and 1 for each pair, bent so that the chance to be
/// the highest is in proportion to the weight.
fn score(source: u64, member: &Member) -> f64 {
    let mixed = mix(source ^ mix(member.identity));
    // 53 bits are what a float holds; the half keeps clear of 0 and 1.
    #[expect(clippy::cast_precision_loss, reason = "no more than 53 bits are left")]
    let even = ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(member.weight) / even.ln()
}

/// Spreads every bit over all (the finalizer of splitmix64).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number for a name, the same in every process and version (FNV-1a).
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{select::Candidate, table::EndpointState};

    fn rotation(members: &[(u64, u32, EndpointState)]) -> Rotation {
        let mut rotation = Rotation::new(0);
        let candidates: Vec<_> = members
            .iter()
            .map(|(key, weight, state)| Candidate {
                key: EndpointKey(*key),
                identity: hash(&key.to_be_bytes()),
                weight: *weight,
                local: false,
                state: *state,
            })
            .collect();
        rotation.update(&candidates);
        rotation
    }

    use EndpointState::{Draining, Ready};

    #[test]
    fn the_less_loaded_of_two() {
        let rotation = rotation(&[
            (1, 1, Ready),
            (2, 1, Ready),
            (3, 2, Ready),
            (4, 1, Draining),
        ]);
        let mut loads = BTreeMap::new();
        for number in 0..4_000_u64 {
            let load = |key: EndpointKey| loads.get(&key.0).copied().unwrap_or(0);
            let chosen = rotation.choose_less_loaded(&[], mix(number), load).unwrap();
            *loads.entry(chosen.0).or_insert(0_u64) += 1;
        }
        // In proportion to the weights, draining ones never.
        assert_eq!(loads.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert!(loads[&1].abs_diff(1_000) < 100, "{loads:?}");
        assert!(loads[&3].abs_diff(2_000) < 100, "{loads:?}");
        let tried = [1, 2, 3].map(EndpointKey);
        assert_eq!(rotation.choose_less_loaded(&tried, 7, |_| 0), None);
        let last = rotation.choose_less_loaded(&tried[..2], 7, |_| 99);
        assert_eq!(last, Some(EndpointKey(3)));
    }

    #[test]
    fn a_source_keeps_its_endpoint_and_only_a_share_moves() {
        let four = rotation(&[(1, 1, Ready), (2, 1, Ready), (3, 2, Ready), (4, 1, Ready)]);
        let three = rotation(&[
            (1, 1, Ready),
            (4, 1, Draining),
            (3, 2, Ready),
            (2, 1, Ready),
        ]);
        let mut counts = BTreeMap::new();
        for source in 0..10_000_u64 {
            let source = hash(&source.to_be_bytes());
            let before = four.choose_by_source(&[], source).unwrap();
            assert_eq!(four.choose_by_source(&[], source), Some(before));
            let after = three.choose_by_source(&[], source).unwrap();
            if before == EndpointKey(4) {
                assert_ne!(after, before);
            } else {
                assert_eq!(after, before, "it had no reason to move");
            }
            *counts.entry(before.0).or_insert(0_u64) += 1;
        }
        assert!(counts[&1].abs_diff(2_000) < 200, "{counts:?}");
        assert!(counts[&3].abs_diff(4_000) < 200, "{counts:?}");
    }

    #[test]
    fn ejected_ones_are_the_last_resort() {
        let mut rotation = rotation(&[(1, 1, Ready), (2, 1, Ready), (3, 1, Ready)]);
        rotation.eject(EndpointKey(2));
        let others = [EndpointKey(1), EndpointKey(3)];
        for source in 0..100 {
            let chosen = rotation.choose_by_source(&[], source).unwrap();
            assert!(others.contains(&chosen));
            let chosen = rotation
                .choose_less_loaded(&[], mix(source), |_| 0)
                .unwrap();
            assert!(others.contains(&chosen));
        }
        assert_eq!(rotation.choose_by_source(&others, 5), Some(EndpointKey(2)));
    }
}
