//! What can be between a client and a container.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// The published port of another node: its balancer.
    Swarmlet,
    /// The published port of the container's own node.
    SameHost,
    /// `HAProxy` in the same place.
    HaProxy,
    /// The kernel's address translation in the same place, without any process.
    Nft,
    /// Nothing: the port that the container's own host has for it.
    Direct,
}

impl Way {
    pub(crate) const ALL: [Self; 5] = [
        Self::Swarmlet,
        Self::SameHost,
        Self::HaProxy,
        Self::Nft,
        Self::Direct,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Swarmlet => "swarmlet",
            Self::SameHost => "swarmlet, same host",
            Self::HaProxy => "HAProxy",
            Self::Nft => "nft DNAT",
            Self::Direct => "direct",
        }
    }

    /// All, in an order that moves on with the round: none always follows the same one.
    pub(crate) fn in_turn(round: u32) -> [Self; 5] {
        let mut ways = Self::ALL;
        ways.rotate_left(round as usize % Self::ALL.len());
        ways
    }
}
