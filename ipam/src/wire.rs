//! What routers tell each other: one fact each, and messages.
//!
//! The first byte is the format, the rest is postcard. A message is read and checked whole before anything of
//! it is used. `docs/protocol.md` has the bytes.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use weave_model::PeerName;

use crate::{
    consensus::Acceptor,
    error::{FORMAT, GossipError},
    members::Membership,
    ring::{Entry, Owner, Ring, Stamp},
    span::Span,
};

/// Largest message or fact read, in bytes: a ring of some 100,000 entries.
const MAX_BYTES: usize = 4 << 20;
/// Most chunks of space a fact speaks of.
pub(crate) const MAX_CHUNKS: usize = 32;
/// Most seeds of a ring, and most names in a list.
const MAX_NAMES: usize = 1 << 16;
/// Versions beyond this are refused, so that there is always room for a take-over above them.
const MAX_VERSION: u64 = 1 << 62;

/// What a router says of itself; the mesh carries the latest value to everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fact {
    /// Which life of its store.
    pub(crate) generation: u64,
    /// Counts the changes of that life.
    pub(crate) epoch: u64,
    /// Names the ranges it manages.
    pub(crate) universe: u64,
    /// Its vote, while there is no ring; `None` from observers.
    pub(crate) acceptor: Option<Acceptor>,
    /// How often it was removed or came back.
    pub(crate) changes: u64,
    /// It wants a ring.
    pub(crate) is_waiting: bool,
    /// It handed its space over and is no member any more.
    pub(crate) is_leaving: bool,
    /// Enough others know that it is a member.
    pub(crate) is_witnessed: bool,
    /// Its containers hold addresses.
    pub(crate) has_holders: bool,
    pub(crate) ring: Option<RingNote>,
    /// Its space in order, each chunk with the number of free addresses in it.
    pub(crate) free: Vec<(Span, u128)>,
}

/// Which ring a router is on and what it knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RingNote {
    pub(crate) id: u64,
    pub(crate) digest: u64,
}

/// Some entries of a ring, or all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bundle {
    pub(crate) universe: u64,
    /// What the sender knows of itself.
    pub(crate) sender: Membership,
    pub(crate) ring: u64,
    pub(crate) seeds: Vec<Owner>,
    pub(crate) members: Vec<(PeerName, Membership)>,
    owners: Vec<Owner>,
    /// First address, length, version, index of the owner.
    entries: Vec<(u128, u128, u64, u32)>,
}

/// A message to one router or to all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// News of the ring.
    Ring(Bundle),
    /// Send me your ring.
    RingAsk,
    /// All of the ring, because it was asked for; send back what I lack.
    RingAnswer(Bundle),
    /// Give me space inside the window.
    SpaceAsk { nonce: u64, ring: u64, generation: u64, term: u64, window: Span },
    /// The entries that are yours now; `None` when there is nothing to give.
    SpaceAnswer { nonce: u64, given: Option<Bundle> },
    /// Give me exactly this address.
    AddressAsk { nonce: u64, ring: u64, generation: u64, term: u64, address: u128 },
    /// What became of it.
    AddressAnswer { nonce: u64, outcome: AddressOutcome },
    /// Use nothing of these entries, should they become yours, until I am done.
    Freeze(Freeze),
    /// Agreed.
    Frozen(Frozen),
    /// Not agreed.
    FreezeRefused { subject: PeerName, nonce: u64, reason: FreezeRefusal },
    /// Is this still going on?
    FreezeAsk { subject: PeerName, nonce: u64, generation: u64 },
    /// It is over; with all that came of it.
    Unfreeze { subject: PeerName, nonce: u64, ring: Option<Bundle> },
    /// All my space is yours; I am leaving.
    Bequest { nonce: u64, ring: Bundle },
    /// I have it.
    BequestTaken { nonce: u64 },
    /// Keep that I am a member.
    Enrol(Enrol),
    /// I have it on disk. With what the other may not know.
    /// `is_sure`: the store is not from the past, and others know of the sender too.
    Enrolled { nonce: u64, is_sure: bool, members: Vec<(PeerName, Membership)> },
}

/// An owner's answer to [`Message::AddressAsk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AddressOutcome {
    /// It is yours now.
    Given(Bundle),
    /// A container holds it here.
    InUse,
    /// It is not mine to give; this is what I know.
    NotMine(Bundle),
}

/// A request to stand still so that space can be taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Freeze {
    pub(crate) subject: PeerName,
    pub(crate) nonce: u64,
    /// The asker's life, whose space is not taken over when it asks about itself.
    pub(crate) generation: u64,
    /// The subject's life that is taken for dead, as the asker knows it.
    pub(crate) life: Option<u64>,
    /// The version that the entries will have.
    pub(crate) target: u64,
    /// Whether everything of the subject is meant, also what the asker does not know of.
    pub(crate) everything: bool,
    /// Fingerprint of the members that the asker knows.
    pub(crate) members: u64,
    /// What the asker knows of the space.
    pub(crate) base: Bundle,
    /// Lives concerned, with the last change that the asker knows of.
    pub(crate) epochs: Vec<(u64, u64)>,
    /// Routers that the asker's operator declared dead.
    pub(crate) dead: Vec<PeerName>,
    /// Routers whose own request gave way to this one.
    pub(crate) yielded: Vec<PeerName>,
}

/// Agreement to a take-over, and what the asker may not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Frozen {
    pub(crate) subject: PeerName,
    pub(crate) nonce: u64,
    /// The life that agrees.
    pub(crate) generation: u64,
    /// It is sure of what it knows of the members.
    pub(crate) is_sure: bool,
    /// All that it knows of them; nothing where the asker knows the same.
    pub(crate) members: Vec<(PeerName, Membership)>,
    /// The last change that it knows of each life concerned.
    pub(crate) epochs: Vec<(u64, u64)>,
    /// What its containers hold of the space.
    pub(crate) in_use: Vec<Span>,
}

/// A request to be remembered as a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enrol {
    pub(crate) nonce: u64,
    pub(crate) ring: u64,
    /// What the asker knows of itself.
    pub(crate) membership: Membership,
    /// Fingerprint of the members that the asker knows.
    pub(crate) members: u64,
}

/// Why a router does not agree to a take-over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FreezeRefusal {
    /// I can reach the subject.
    Alive,
    /// I know more recent entries.
    Newer(Bundle),
    /// Somebody else is taking that space over.
    Busy(PeerName),
    /// An earlier attempt aimed this high; aim higher.
    Raise(u64),
}

impl Bundle {
    pub(crate) fn new(
        universe: u64,
        sender: Membership,
        ring: &Ring,
        members: Vec<(PeerName, Membership)>,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Self {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut owners: Vec<Owner> = entries.iter().map(|e| e.stamp.owner).collect();
        owners.sort_unstable();
        owners.dedup();
        let index = |owner| u32::try_from(owners.partition_point(|o| *o < owner)).unwrap_or(u32::MAX);
        let entries = entries
            .iter()
            .map(|e| (e.span.lo, e.span.len(), e.stamp.version, index(e.stamp.owner)))
            .collect();
        Self { universe, sender, ring: ring.id(), seeds: ring.seeds().to_vec(), members, owners, entries }
    }

    /// The entries, checked: sorted, disjoint, not empty, inside the universe.
    pub(crate) fn entries(&self, universe: &[Span]) -> Result<Vec<Entry>, GossipError> {
        if self.seeds.is_empty() || self.seeds.len() > MAX_NAMES || self.members.len() > MAX_NAMES {
            return Err(GossipError::Misbehaved("a ring without seeds, or with too many"));
        }
        if !self.seeds.is_sorted() {
            return Err(GossipError::Misbehaved("seeds out of order"));
        }
        let mut end = 0;
        let mut checked = Vec::with_capacity(self.entries.len());
        for (lo, len, version, index) in &self.entries {
            let hi = lo.checked_add(*len).ok_or(GossipError::Misbehaved("an entry beyond all addresses"))?;
            let span = Span::new(*lo, hi);
            let owner = usize::try_from(*index).ok().and_then(|i| self.owners.get(i));
            let owner = *owner.ok_or(GossipError::Misbehaved("an entry without an owner"))?;
            if span.is_empty() || *lo < end {
                return Err(GossipError::Misbehaved("entries out of order"));
            }
            let inside: u128 = universe.iter().map(|u| span.clip(*u).len()).sum();
            if inside != span.len() {
                return Err(GossipError::Misbehaved("an entry outside the ranges"));
            }
            if *version > MAX_VERSION {
                return Err(GossipError::Misbehaved("a version beyond its bound"));
            }
            end = hi;
            checked.push(Entry { span, stamp: Stamp { version: *version, owner } });
        }
        Ok(checked)
    }
}

impl Fact {
    /// Checks what decoding does not.
    pub(crate) fn check(&self) -> Result<(), GossipError> {
        let in_order = self.free.windows(2).all(|w| w[0].0.hi <= w[1].0.lo);
        let seeds = self.acceptor.iter().flat_map(|a| &a.accepted).map(|(_, seeds)| seeds);
        if self.free.len() > MAX_CHUNKS
            || !in_order
            || self.free.iter().any(|(s, n)| s.is_empty() || *n > s.len())
        {
            return Err(GossipError::Misbehaved("free space that cannot be"));
        }
        for seeds in seeds {
            if seeds.is_empty() || seeds.len() > MAX_NAMES {
                return Err(GossipError::Misbehaved("a vote for nobody, or for too many"));
            }
        }
        Ok(())
    }
}

/// Serialises with the format byte before it.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Serialising to memory fails for types that postcard does not know the length of; none of ours is one.
    let mut bytes = Vec::with_capacity(96);
    bytes.push(FORMAT);
    postcard::to_extend(value, bytes).unwrap_or_default()
}

/// Reads all of `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, GossipError> {
    let (format, rest) = bytes.split_first().ok_or(GossipError::Unreadable)?;
    if *format != FORMAT {
        return Err(GossipError::Incompatible(*format));
    }
    if rest.len() > MAX_BYTES {
        return Err(GossipError::Unreadable);
    }
    match postcard::take_from_bytes(rest) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(GossipError::Unreadable),
    }
}
