//! What is kept, one small record per thing that changes alone.
//!
//! | key | value |
//! |---|---|
//! | `h` | [`Header`]: whose store this is, and which life |
//! | `e` | epoch, counts the changes of this life |
//! | `p` | the vote |
//! | `i` | seeds of the ring; absent while there is none |
//! | `r` + first address | end, version and owner of one run of the ring |
//! | `a` + address | one allocation |
//! | `m` + peer name | membership of one router |
//! | `n` + peer name | what that router was last called |
//! | `f` | what is frozen for others |
//!
//! # How the format may change
//! Each value begins with its format ([`FORMAT`]). A kind of record never changes its meaning under the same format.
//! * What an earlier version can do without gets a kind with a capital letter: versions that do not know it pass over it
//!   and leave it where it is.
//! * What must not be passed over gets a new small letter, or a higher format. An earlier version then says that the
//!   store is of a newer weave, and changes nothing.
//! * A later version reads every format that was ever released.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use weave_model::{ContainerId, Interface, PeerName, Subnet};

use crate::{
    config::Config,
    consensus::Acceptor,
    error::{FORMAT, GossipError, RestoreError},
    freeze::Floor,
    ipam::Write,
    ledger::Ledger,
    members::{Members, Membership},
    nickname::Nicknames,
    ring::{Entry, Owner, Ring, Stamp},
    span::{Span, to_number},
    wire,
};

/// Whose store this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) local: PeerName,
    pub(crate) ranges: Vec<Subnet>,
    /// The life that writes now.
    pub(crate) generation: u64,
    /// Earlier lives of this store, each with its last epoch, or the highest where the operator had all that it owned
    /// taken over. Oldest first.
    pub(crate) prior: Vec<(u64, u64)>,
    /// Whether the others agreed, or need not, that this store is not from the past.
    pub(crate) is_confirmed: bool,
    /// Whether the earlier lives' allocations are not all in this store.
    pub(crate) is_stale: bool,
    /// The operator had this store take over what all earlier ones of this router owned.
    pub(crate) vouches: bool,
    /// For which term of its membership enough others know that this router is a member (`witness`).
    pub(crate) witnessed: Option<u64>,
}

/// What a store held.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) header: Option<Header>,
    pub(crate) epoch: u64,
    pub(crate) acceptor: Acceptor,
    pub(crate) ring: Option<Ring>,
    pub(crate) ledger: Ledger,
    pub(crate) members: Members,
    pub(crate) nicknames: Nicknames,
    pub(crate) floors: Vec<Floor>,
}

/// The kinds of records of this version.
const KINDS: &[u8] = b"hepiramnf";

/// Reads a whole store.
pub(crate) fn restore(
    config: &Config,
    universe: &[Span],
    records: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
) -> Result<Restored, RestoreError> {
    let mut restored = Restored::default();
    let mut seeds: Option<Vec<Owner>> = None;
    let mut entries: Vec<Entry> = Vec::new();
    for (key, value) in records {
        let damaged = || RestoreError::Damaged { key: key.iter().map(|b| format!("{b:02x}")).collect() };
        match (key.first(), key.get(1..).unwrap_or_default()) {
            (Some(b'h'), []) => restored.header = Some(check_header(config, read(&value, damaged)?)?),
            (Some(b'e'), []) => restored.epoch = read(&value, damaged)?,
            (Some(b'p'), []) => restored.acceptor = read(&value, damaged)?,
            (Some(b'i'), []) => seeds = Some(read(&value, damaged)?),
            (Some(b'f'), []) => restored.floors = read(&value, damaged)?,
            (Some(b'r'), lo) => {
                let lo = u128::from_be_bytes(lo.try_into().map_err(|_| damaged())?);
                let (hi, stamp): (u128, Stamp) = read(&value, damaged)?;
                entries.push(Entry { span: Span::new(lo, hi), stamp });
            }
            (Some(b'a'), address) => {
                let (owner, interface): (ContainerId, Interface) = read(&value, damaged)?;
                if to_number(interface.address()).to_be_bytes() != address {
                    return Err(damaged());
                }
                restored.ledger.hold(&owner, interface);
            }
            (Some(b'm'), name) => {
                let name: [u8; 6] = name.try_into().map_err(|_| damaged())?;
                let membership: Membership = read(&value, damaged)?;
                restored.members.restore(PeerName(name), membership);
            }
            (Some(b'n'), name) => {
                let name: [u8; 6] = name.try_into().map_err(|_| damaged())?;
                let nickname: String = read(&value, damaged)?;
                restored.nicknames.set(PeerName(name), &nickname);
            }
            (Some(kind), _) if kind.is_ascii_uppercase() => {}
            (Some(kind), _) if kind.is_ascii_lowercase() && !KINDS.contains(kind) => {
                return Err(RestoreError::Newer(char::from(*kind)));
            }
            _ => return Err(damaged()),
        }
    }
    if let Some(seeds) = seeds {
        entries.sort_unstable();
        let ring = Ring::assemble(universe, &seeds, &entries);
        restored.ring =
            Some(ring.ok_or_else(|| RestoreError::Damaged { key: "72 (the ring as a whole)".to_owned() })?);
    }
    let is_empty =
        restored.ring.is_none() && restored.ledger.is_empty() && restored.acceptor == Acceptor::default();
    match restored.header {
        None if !is_empty => Err(RestoreError::Damaged { key: "68 (missing)".to_owned() }),
        _ => Ok(restored),
    }
}

fn check_header(config: &Config, header: Header) -> Result<Header, RestoreError> {
    if header.local != config.local {
        return Err(RestoreError::OtherPeer { found: header.local, expected: config.local });
    }
    let sorted = |ranges: &[Subnet]| {
        let mut ranges = ranges.to_vec();
        ranges.sort_unstable();
        ranges
    };
    if sorted(&header.ranges) != sorted(&config.ranges) {
        let found: Vec<String> = header.ranges.iter().map(ToString::to_string).collect();
        return Err(RestoreError::OtherRanges { found: found.join(",") });
    }
    Ok(header)
}

fn read<T: DeserializeOwned>(value: &[u8], damaged: impl Fn() -> RestoreError) -> Result<T, RestoreError> {
    wire::decode(value).map_err(|error| match error {
        GossipError::Incompatible(format) if format > FORMAT => RestoreError::Incompatible(format),
        GossipError::Incompatible(_) | GossipError::Unreadable | GossipError::Misbehaved(_) => damaged(),
    })
}

fn put<T: Serialize>(key: Vec<u8>, value: &T) -> Write {
    Write { key, value: Some(wire::encode(value)) }
}

fn key(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind], rest].concat()
}

pub(crate) fn write_header(header: &Header) -> Write {
    put(key(b'h', &[]), header)
}

pub(crate) fn write_epoch(epoch: u64) -> Write {
    put(key(b'e', &[]), &epoch)
}

pub(crate) fn write_acceptor(acceptor: &Acceptor) -> Write {
    put(key(b'p', &[]), acceptor)
}

pub(crate) fn write_seeds(seeds: &[Owner]) -> Write {
    put(key(b'i', &[]), &seeds)
}

pub(crate) fn write_floors(floors: &[Floor]) -> Write {
    put(key(b'f', &[]), &floors)
}

pub(crate) fn write_run(lo: u128, run: Option<(u128, Stamp)>) -> Write {
    let key = key(b'r', &lo.to_be_bytes());
    match run {
        Some(run) => put(key, &run),
        None => Write { key, value: None },
    }
}

pub(crate) fn write_holder(owner: &ContainerId, interface: Interface) -> Write {
    put(key(b'a', &to_number(interface.address()).to_be_bytes()), &(owner.as_str(), interface))
}

pub(crate) fn erase_holder(interface: Interface) -> Write {
    Write { key: key(b'a', &to_number(interface.address()).to_be_bytes()), value: None }
}

pub(crate) fn erase_member(peer: PeerName) -> Write {
    Write { key: key(b'm', &peer.0), value: None }
}

pub(crate) fn write_nickname(peer: PeerName, nickname: &str) -> Write {
    put(key(b'n', &peer.0), &nickname)
}

pub(crate) fn write_member(peer: PeerName, membership: Membership) -> Write {
    put(key(b'm', &peer.0), &membership)
}
