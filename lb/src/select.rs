//! Which endpoint takes the next connection. Pure: no clock, lock or socket.
//!
//! Smooth weighted round robin on a ring. Each turn every endpoint in rotation
//! earns its weight as credit, the richest is chosen and pays what all earned.
//! Equal credits are settled by the ring: the first one after the endpoint
//! chosen last. With equal weights this is the plain cycle a, b, c, a, b, c.
//!
//! The ring outlives tables. Endpoints that stay keep their place, new ones are
//! added at the end, and the turn goes on after the endpoint chosen last, so a
//! table that changes nothing for this port changes nothing in its order, and
//! frequent changes favour nobody, as starting again at the first would.

mod local;
mod spread;

pub(crate) use self::spread::hash;
use crate::table::EndpointState;

/// Names an endpoint of this process's life; never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EndpointKey(pub(crate) u64);

/// An endpoint as the table describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) key: EndpointKey,
    /// The same on every node and in every process.
    pub(crate) identity: u64,
    pub(crate) weight: u32,
    /// On this machine.
    pub(crate) local: bool,
    pub(crate) state: EndpointState,
}

/// The order in which the endpoints of one port are chosen.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    members: Vec<Member>,
    /// Index of the member that wins a tie: the one after the last chosen.
    next: usize,
    /// The same for retries, which must not disturb the order of the others.
    next_retry: usize,
    /// Where the turn begins on an empty ring, so that the balancers of a
    /// cluster do not all begin with the same endpoint.
    start: u64,
    /// See [`Rotation::is_panicking`]. Kept, for it only changes with members.
    panicking: bool,
}

#[derive(Debug, Clone)]
struct Member {
    key: EndpointKey,
    identity: u64,
    weight: u32,
    local: bool,
    state: EndpointState,
    ejected: bool,
    credit: i64,
}

impl Rotation {
    /// An empty rotation. `start` is any number, different on each node.
    pub(crate) fn new(start: u64) -> Self {
        Self {
            members: Vec::new(),
            next: 0,
            next_retry: 0,
            start,
            panicking: false,
        }
    }

    /// Takes over what a table says. Ejections of endpoints that stay, stay.
    pub(crate) fn update(&mut self, candidates: &[Candidate]) {
        self.change(|rotation| {
            rotation.remove_all_but(candidates);
            let was_empty = rotation.members.is_empty();
            for candidate in candidates {
                rotation.insert_or_change(candidate);
            }
            if was_empty && !rotation.members.is_empty() {
                let len = rotation.members.len() as u64;
                rotation.next = usize::try_from(rotation.start % len).unwrap_or(0);
                rotation.next_retry = rotation.next;
            }
        });
    }

    /// Leaves an endpoint out of the rotation until it is restored.
    pub(crate) fn eject(&mut self, key: EndpointKey) {
        self.set_ejected(key, true);
    }

    /// Takes an ejected endpoint back at its old place.
    pub(crate) fn restore(&mut self, key: EndpointKey) {
        self.set_ejected(key, false);
    }

    /// Chooses an endpoint for a connection that already failed at `tried`.
    /// `None` when there is none left.
    ///
    /// Draining endpoints are never chosen. Ejected ones are chosen only while
    /// panicking, or as a retry's last resort.
    pub(crate) fn choose(&mut self, tried: &[EndpointKey]) -> Option<EndpointKey> {
        let panicking = self.panicking;
        // A retry whose failed endpoints have left the rotation is a turn like
        // any other: counting it keeps the rest exactly even.
        let ordinary = tried.is_empty()
            || (!panicking
                && !self
                    .members
                    .iter()
                    .any(|member| member.is_healthy() && tried.contains(&member.key)));
        if ordinary {
            let chosen = self.take_turn(|member| member.in_rotation(panicking));
            if chosen.is_some() {
                return chosen;
            }
        }
        self.take_retry(|member| member.is_healthy() && !tried.contains(&member.key))
            .or_else(|| self.take_retry(|member| member.is_ready() && !tried.contains(&member.key)))
    }

    /// With fewer than half of the ready endpoints left, the failures say more
    /// about this node's view than about the endpoints, and the few left would
    /// drown: ejections are ignored.
    pub(crate) fn is_panicking(&self) -> bool {
        let ready = self.members.iter().filter(|m| m.is_ready()).count();
        let healthy = self.members.iter().filter(|m| m.is_healthy()).count();
        healthy * 2 < ready
    }

    fn set_ejected(&mut self, key: EndpointKey, ejected: bool) {
        self.change(|rotation| {
            if let Some(member) = rotation.members.iter_mut().find(|m| m.key == key) {
                member.ejected = ejected;
            }
        });
    }

    fn remove_all_but(&mut self, candidates: &[Candidate]) {
        let kept = |key| candidates.iter().any(|candidate| candidate.key == key);
        let removed_before = |limit: usize| {
            self.members[..limit]
                .iter()
                .filter(|member| !kept(member.key))
                .count()
        };
        let next = self.next - removed_before(self.next);
        let next_retry = self.next_retry - removed_before(self.next_retry);
        self.members.retain(|member| kept(member.key));
        self.next = next;
        self.next_retry = next_retry;
    }

    fn insert_or_change(&mut self, candidate: &Candidate) {
        let known = self
            .members
            .iter_mut()
            .find(|member| member.key == candidate.key);
        match known {
            Some(member) => {
                member.weight = candidate.weight;
                member.local = candidate.local;
                member.state = candidate.state;
            }
            None => self.members.push(Member {
                key: candidate.key,
                identity: candidate.identity,
                weight: candidate.weight,
                local: candidate.local,
                state: candidate.state,
                ejected: false,
                credit: 0,
            }),
        }
    }

    /// Applies a change and, only if it touched the set in rotation, forgets
    /// the credits: what was earned in one set means nothing in another, and
    /// counts over the new set would differ by more than one.
    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        let before = self.in_rotation();
        change(self);
        self.panicking = self.is_panicking();
        if self.in_rotation() != before {
            for member in &mut self.members {
                member.credit = 0;
            }
        }
    }

    fn in_rotation(&self) -> Vec<(EndpointKey, u32)> {
        let panicking = self.is_panicking();
        self.members
            .iter()
            .filter(|member| member.in_rotation(panicking))
            .map(|member| (member.key, member.weight))
            .collect()
    }

    fn take_turn(&mut self, eligible: impl Fn(&Member) -> bool) -> Option<EndpointKey> {
        let len = self.members.len();
        let mut earned = 0;
        let mut richest: Option<usize> = None;
        for step in 0..len {
            let index = (self.next + step) % len;
            let member = &mut self.members[index];
            if !eligible(member) {
                continue;
            }
            earned += i64::from(member.weight);
            member.credit += i64::from(member.weight);
            let credit = member.credit;
            if richest.is_none_or(|best| credit > self.members[best].credit) {
                richest = Some(index);
            }
        }
        let index = richest?;
        self.members[index].credit -= earned;
        self.next = (index + 1) % len;
        Some(self.members[index].key)
    }

    fn take_retry(&mut self, eligible: impl Fn(&Member) -> bool) -> Option<EndpointKey> {
        let len = self.members.len();
        let index = (0..len)
            .map(|step| (self.next_retry + step) % len)
            .find(|index| eligible(&self.members[*index]))?;
        self.next_retry = (index + 1) % len;
        Some(self.members[index].key)
    }
}

impl Member {
    fn is_ready(&self) -> bool {
        self.state == EndpointState::Ready
    }

    fn is_healthy(&self) -> bool {
        self.is_ready() && !self.ejected
    }

    fn in_rotation(&self, panicking: bool) -> bool {
        self.is_ready() && (panicking || !self.ejected)
    }
}

#[cfg(test)]
mod tests;
