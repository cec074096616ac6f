//! Local endpoints first, as long as they are not clearly busier than the others:
//! what stays on the machine spares the network a way there and back.

use super::{EndpointKey, Member, Rotation};

/// A local endpoint may have so many hundredths of what it would have if all
/// connections were spread evenly.
const MARGIN: u128 = 125;
/// And so many connections in any case: with a handful of them "a quarter more"
/// is less than one.
const SLACK: u128 = 4;

impl Rotation {
    /// The local endpoint whose turn it is, among those that are within the
    /// margin; `None` if none is, and then any may be chosen.
    pub(crate) fn choose_local(
        &mut self,
        load: impl Fn(EndpointKey) -> u64,
    ) -> Option<EndpointKey> {
        let panicking = self.panicking;
        let mut connections: u128 = 0;
        let mut weights: u128 = 0;
        for member in &self.members {
            if member.in_rotation(panicking) {
                connections += u128::from(load(member.key));
                weights += u128::from(member.weight);
            }
        }
        // Against what it has, without fractions: the even share of one is
        // connections * weight / weights.
        let is_within = |member: &Member| {
            let has = u128::from(load(member.key));
            let even = connections * u128::from(member.weight);
            has < SLACK || has * weights * 100 < even * MARGIN
        };
        self.take_turn(|member| member.local && member.in_rotation(panicking) && is_within(member))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{select::Candidate, table::EndpointState};

    /// A rotation of endpoints 1, 2, ...: whether each is local, and its weight.
    fn rotation(members: &[(bool, u32)]) -> Rotation {
        let mut rotation = Rotation::new(0);
        let candidates: Vec<_> = (1..)
            .zip(members)
            .map(|(key, (local, weight))| Candidate {
                key: EndpointKey(key),
                identity: key,
                weight: *weight,
                local: *local,
                state: EndpointState::Ready,
            })
            .collect();
        rotation.update(&candidates);
        rotation
    }

    /// Connections that last, one after the other.
    fn spread(rotation: &mut Rotation, count: u32) -> BTreeMap<u64, u64> {
        let mut loads = BTreeMap::new();
        for _ in 0..count {
            let load = |key: EndpointKey| loads.get(&key.0).copied().unwrap_or(0);
            let chosen = rotation.choose_local(load);
            let chosen = chosen.or_else(|| rotation.choose(&[])).unwrap();
            *loads.entry(chosen.0).or_insert(0) += 1;
        }
        loads
    }

    #[test]
    fn passing_connections_stay_local() {
        let mut rotation = rotation(&[(false, 1), (true, 1), (true, 1), (false, 1)]);
        let idle = |_| 0;
        let chosen: Vec<_> = (0..4)
            .map(|_| rotation.choose_local(idle).unwrap().0)
            .collect();
        assert_eq!(chosen, [2, 3, 2, 3]);
        rotation.eject(EndpointKey(3));
        assert_eq!(rotation.choose_local(idle), Some(EndpointKey(2)));
        rotation.eject(EndpointKey(2));
        // Fewer than half are left would be panic; half are.
        assert_eq!(rotation.choose_local(idle), None);
        assert_eq!(self::rotation(&[(false, 1)]).choose_local(idle), None);
    }

    #[test]
    fn those_that_last_go_elsewhere_once_the_local_ones_are_busier() {
        let loads = spread(
            &mut rotation(&[(true, 1), (false, 1), (false, 1), (false, 1)]),
            4_000,
        );
        let local = loads[&1];
        assert!(
            (1_240..=1_260).contains(&local),
            "a quarter and a quarter: {loads:?}"
        );
        let others = [loads[&2], loads[&3], loads[&4]];
        assert!(
            others.iter().max().unwrap() - others.iter().min().unwrap() <= 1,
            "{loads:?}"
        );
        // Weights count.
        let loads = spread(&mut rotation(&[(true, 3), (false, 1)]), 4_000);
        assert_eq!(loads[&1] + loads[&2], 4_000);
        assert!((3_740..=3_760).contains(&loads[&1]), "{loads:?}");
        // With few connections all may be local.
        let loads = spread(&mut rotation(&[(true, 1), (false, 1)]), 4);
        assert_eq!(loads, BTreeMap::from([(1, 4)]));
    }
}
