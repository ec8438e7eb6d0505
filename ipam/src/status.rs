//! What an operator sees.

use std::fmt;

use serde::{Deserialize, Serialize};
use weave_model::{ContainerId, PeerName, Subnet};

use crate::request::{RequestId, WaitReason, list};

/// The state of IPAM on one router.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IpamStatus {
    /// One of the words that operators know: `idle`, `awaiting consensus (quorum: 2, known: 1)`, `priming`,
    /// `ready`, `waiting for IP(s) to become available`, or
    /// `all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead`.
    pub state: String,
    /// The managed ranges.
    pub ranges: Vec<Subnet>,
    /// Where allocations without a subnet go.
    pub default_subnets: Vec<Subnet>,
    /// How the vote on the first ring stands; `None` with a ring, and where none is voted on.
    pub election: Option<ElectionStatus>,
    /// Who owns how much, this router first, then in order of name. Empty without a ring.
    pub owners: Vec<OwnerStatus>,
    /// Addresses that containers hold here.
    pub active: usize,
    /// Requests that wait, oldest first.
    pub pending: Vec<PendingStatus>,
    /// Entries of the ring.
    pub ring_entries: usize,
    /// What tells this ring from another; `None` without a ring.
    pub ring_id: Option<u64>,
    /// Equal where routers know the same of the ring; `None` without a ring.
    pub ring_digest: Option<u64>,
    /// The routers that the ring was divided among at first.
    pub seeds: Vec<PeerName>,
    /// What is wrong, each with what to do. Empty when all is well.
    pub problems: Vec<Problem>,
}

/// A vote on the first ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElectionStatus {
    /// How many must agree, this router included.
    pub quorum: usize,
    /// Other routers that vote and can be reached, in order of name.
    pub heard: Vec<PeerName>,
    /// Routers that were met and cannot be heard, in order of name. Who was never met is not among them.
    pub missing: Vec<PeerName>,
}

/// One owner of space.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnerStatus {
    /// The router.
    pub peer: PeerName,
    /// What it was last called; empty where that is not known, and for this router.
    pub nickname: String,
    /// How many addresses it owns.
    pub addresses: u128,
    /// The share of all ranges, 0 to 100, counted per family and averaged when there are two.
    pub percent: f64,
    /// How many it last said are free, if it said.
    pub free: Option<u128>,
    /// Whether it can be reached now.
    pub reachable: bool,
    /// Whether it is this router.
    pub local: bool,
}

/// One request that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingStatus {
    /// The caller's handle.
    pub request: RequestId,
    /// For whom, if for a container.
    pub owner: Option<ContainerId>,
    /// For what.
    pub waiting_for: WaitReason,
}

/// Something an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Problem {
    /// Other routers share the ranges under another ring.
    OtherRing {
        /// Routers that are on the other ring.
        peers: Vec<PeerName>,
        /// Who started ours.
        our_seeds: Vec<PeerName>,
        /// Who started theirs, if known.
        their_seeds: Vec<PeerName>,
    },
    /// Other routers were started with other ranges.
    OtherRanges {
        /// Who.
        peers: Vec<PeerName>,
    },
    /// Our own space is fenced until it is sure that this store is not from the past.
    StoreUnconfirmed {
        /// Who has not answered.
        peers: Vec<PeerName>,
    },
    /// This store is from the past, or an earlier store of this router is lost: what it had allocated is unknown.
    PredecessorUnsettled {
        /// How many addresses that concerns.
        addresses: u128,
    },
    /// This router gets no space before two others have noted that it is a member, and too few can be reached.
    NotEnrolled {
        /// Who cannot be reached.
        peers: Vec<PeerName>,
        /// Who can be reached and has not noted it yet.
        unsure: Vec<PeerName>,
    },
    /// Space in which containers here hold addresses was taken over by another router.
    SpaceLost {
        /// By whom.
        peer: PeerName,
        /// How many addresses in use that concerns.
        in_use: usize,
    },
    /// Messages of a router could not be read.
    Unreadable {
        /// Whose.
        peer: PeerName,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherRing { peers, our_seeds, their_seeds } => write!(
                f,
                "{} share the ranges by another ring (ours was seeded by {}, theirs by {}); traffic flows, but \
                 addresses may be given twice: run 'weave ipam repair', which says what to do where",
                list(peers),
                list(our_seeds),
                if their_seeds.is_empty() { "unknown routers".to_owned() } else { list(their_seeds) }
            ),
            Self::OtherRanges { peers } => write!(
                f,
                "{} manage other ranges; launch every router with the same --ipalloc-range",
                list(peers)
            ),
            Self::StoreUnconfirmed { peers } => {
                let waiting_for = WaitReason::StoreUnconfirmed { peers: peers.clone() };
                write!(f, "our own space is fenced after a restart: {waiting_for}")
            }
            Self::PredecessorUnsettled { addresses } => {
                write!(f, "{addresses} addresses are fenced: {}", WaitReason::PredecessorUnsettled)
            }
            Self::NotEnrolled { peers, unsure } => {
                let waiting_for = WaitReason::Witnesses { peers: peers.clone(), unsure: unsure.clone() };
                write!(f, "this router is given no addresses yet: {waiting_for}")
            }
            Self::SpaceLost { peer, in_use } => write!(
                f,
                "{in_use} addresses in use here lie in space of {peer}, which may give them out again; run \
                 'weave ipam repair', which asks for them"
            ),
            Self::Unreadable { peer } => {
                write!(f, "IPAM messages of {peer} cannot be read; run the same version on every router")
            }
        }
    }
}
