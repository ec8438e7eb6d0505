//! What callers ask for and what they are answered.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use weave_model::{ContainerId, Interface, PeerName, Subnet};

/// A caller's handle on one request. Chosen by the caller, not reused while the request is pending.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// A request that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The addresses that the container holds now for what it asked: one for a claim, one per family for an
    /// allocation.
    Addresses(Vec<Interface>),
    /// Done; nothing to tell.
    Done,
    /// So many addresses changed hands.
    TakenOver(u128),
}

/// Why a request was not carried out. `Display` says what happened and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The deadline passed first. Nothing is held; asking again is safe.
    #[error("no address in time: {waiting_for}")]
    Deadline {
        /// What was still missing.
        waiting_for: WaitReason,
    },
    /// Every owner of the subnet answers and none has a free address in it.
    #[error("every address of {subnet} is in use; free some, or ask for another subnet")]
    Exhausted {
        /// The subnet that is full.
        subnet: Subnet,
    },
    /// Whatever is free belongs to routers that cannot be reached.
    #[error("all IP ranges owned by unreachable peers ({}) - use 'rmpeer' if they are dead", list(.peers))]
    OwnersUnreachable {
        /// The owners that do not answer, in order of name.
        peers: Vec<PeerName>,
    },
    /// The subnet does not lie in the managed ranges.
    #[error("{subnet} lies outside the managed ranges; ask for a subnet inside --ipalloc-range")]
    OutOfRange {
        /// What was asked for.
        subnet: Subnet,
    },
    /// The address is held by another container here.
    #[error("{address} is held by container {holder}; free it first, or choose another address")]
    Conflict {
        /// The address.
        address: IpAddr,
        /// Who holds it.
        holder: ContainerId,
    },
    /// The address is in use on another router.
    #[error("{address} is in use on router {peer}; free it there first, or choose another address")]
    OwnedByOther {
        /// The address.
        address: IpAddr,
        /// The router that said so.
        peer: PeerName,
    },
    /// No host can use the address: it names its subnet, or is for everybody in it.
    #[error(
        "{address} is the first or the last address of its own subnet, which no host can have; choose another"
    )]
    NoHostAddress {
        /// What was asked for.
        address: Interface,
    },
    /// The subnet has no room between its first and last address.
    #[error("{subnet} is too small: at least a /30 (IPv6: a /126) is needed")]
    SubnetTooSmall {
        /// What was asked for.
        subnet: Subnet,
    },
    /// The caller withdrew the request, or freed the container while it was pending.
    #[error("the request was cancelled")]
    Cancelled,
    /// The router to be removed answers; or it is this one and nothing is to be taken over.
    #[error("router {peer} is alive; only the space of a dead router can be taken over")]
    PeerAlive {
        /// The router.
        peer: PeerName,
    },
    /// The router to be removed was started again since its removal was asked for, or shortly before.
    #[error(
        "router {peer} has come back in the meantime; if it is gone again by now, or for good, remove it once more"
    )]
    PeerReturned {
        /// The router.
        peer: PeerName,
    },
    /// The router to be removed cannot be reached from here, and others say that they reach it, or that it was started
    /// again after it was last heard of here.
    #[error(
        "router {peer} is alive as far as {} know; stop it, or wait until 'weave status peers' shows it as unreachable \
         there, then remove it once more",
        list(.by)
    )]
    SeenAlive {
        /// The router.
        peer: PeerName,
        /// Who says so.
        by: Vec<PeerName>,
    },
    /// Other routers must agree before space is taken over, and these did not in time.
    #[error(
        "{} did not agree in time that the space may be taken over; make them reachable, or remove them too \
         with 'rmpeer' if they are dead",
        list(.peers)
    )]
    AwaitingConsent {
        /// Who did not answer.
        peers: Vec<PeerName>,
    },
    /// Another router is taking over the same space at this moment.
    #[error("router {by} is already taking over that space; nothing is left to do here")]
    TakeOverInProgress {
        /// Who.
        by: PeerName,
    },
    /// There is nobody to hand the space to.
    #[error(
        "no other router can be reached that would take the addresses; connect one, or reset with --force"
    )]
    NoHeir,
    /// More requests are pending than are kept.
    #[error("too many requests are pending; try again when some are answered")]
    TooManyRequests,
    /// This router is handing its space over and serves nobody any more.
    #[error("this router is leaving the mesh and hands out no addresses any more")]
    Leaving,
}

/// What a pending request waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitReason {
    /// The routers have not agreed on a ring yet.
    Consensus {
        /// How many must agree.
        quorum: usize,
        /// How many voters are known, this router included.
        known: usize,
        /// Routers that were met and cannot be heard.
        missing: Vec<PeerName>,
    },
    /// There is a ring, or there will be one, but it has not reached this router.
    Ring,
    /// A free address, asked of these routers in turn.
    Space {
        /// Owners that answered that they have nothing, or have not answered yet.
        asked: Vec<PeerName>,
    },
    /// The owners of what is wanted cannot be reached.
    OwnerUnreachable {
        /// Who.
        peers: Vec<PeerName>,
    },
    /// Our own space is fenced until these routers confirm that this store is not from the past.
    StoreUnconfirmed {
        /// Who has not answered.
        peers: Vec<PeerName>,
    },
    /// The ranges belong to an earlier store of this router whose allocations are unknown.
    PredecessorUnsettled,
    /// This router is new to the ring, or came back: these have not noted yet that it is a member, and it gets no
    /// space before two of them have.
    Witnesses {
        /// Who has not answered and cannot be reached.
        peers: Vec<PeerName>,
        /// Who can be reached and is not sure of its own store, or has not answered yet.
        unsure: Vec<PeerName>,
    },
    /// The agreement of these routers to a take-over.
    Consent {
        /// Who has not answered.
        peers: Vec<PeerName>,
    },
    /// All of the ring that these routers are on, which this one goes over to.
    OtherRing {
        /// Who.
        peers: Vec<PeerName>,
    },
    /// The heir's word that it has our space.
    Heir {
        /// Who.
        peer: PeerName,
    },
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consensus { quorum, known, missing } => {
                write!(f, "awaiting consensus (quorum: {quorum}, known: {known})")?;
                if known >= quorum {
                    return Ok(());
                }
                if !missing.is_empty() {
                    write!(f, "; not heard: {}", list(missing))?;
                }
                match (quorum - known).saturating_sub(missing.len()) {
                    0 => Ok(()),
                    strangers => write!(f, "; {strangers} more must be launched or connected"),
                }
            }
            Self::Ring => f.write_str("waiting for the ring to arrive from a reachable router"),
            Self::Space { asked } if asked.is_empty() => f.write_str("waiting for IP(s) to become available"),
            Self::Space { asked } => {
                write!(f, "waiting for IP(s) to become available (asked {})", list(asked))
            }
            Self::OwnerUnreachable { peers } => write!(
                f,
                "all IP ranges owned by unreachable peers ({}) - use 'rmpeer' if they are dead",
                list(peers)
            ),
            Self::StoreUnconfirmed { peers } => write!(
                f,
                "waiting for {} to confirm that this store is not from the past - use 'rmpeer' if they are dead",
                list(peers)
            ),
            Self::PredecessorUnsettled => f.write_str(
                "the space belongs to an earlier store of this router; claim what its containers still use, \
                 then run 'weave ipam repair'",
            ),
            Self::Witnesses { peers, unsure } if peers.is_empty() => write!(
                f,
                "waiting for {} to note that this router has joined; 'weave status ipam' there says what they wait for",
                list(unsure)
            ),
            Self::Witnesses { peers, unsure } if unsure.is_empty() => write!(
                f,
                "waiting for {} to note that this router has joined - bring them back, or use 'rmpeer' on another \
                 router if they are dead",
                list(peers)
            ),
            Self::Witnesses { peers, unsure } => write!(
                f,
                "waiting for {} to note that this router has joined - bring them back, or use 'rmpeer' on {} if they \
                 are dead",
                list(peers),
                list(unsure)
            ),
            Self::Consent { peers } => write!(f, "waiting for {} to agree to the take-over", list(peers)),
            Self::OtherRing { peers } if peers.is_empty() => {
                f.write_str("waiting for a router of the other ring, and none can be reached")
            }
            Self::OtherRing { peers } => write!(f, "waiting for the ring of {}", list(peers)),
            Self::Heir { peer } => write!(f, "waiting for {peer} to confirm that it has the space"),
        }
    }
}

/// Names, separated by commas, at most five of them.
pub(crate) fn list(peers: &[PeerName]) -> String {
    let shown: Vec<_> = peers.iter().take(5).map(ToString::to_string).collect();
    let rest = peers.len().saturating_sub(shown.len());
    match rest {
        0 => shown.join(", "),
        _ => format!("{} and {rest} more", shown.join(", ")),
    }
}
