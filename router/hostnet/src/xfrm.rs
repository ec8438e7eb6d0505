//! ESP in transport mode on one UDP port: the kernel's states (keys) and policies (what has to use them).
//!
//! All policies here are about UDP to one destination port. **Closed** ([`Rule::Block`] for everybody) is where everything
//! begins; a peer is then let through encrypted ([`Rule::Protect`]) or in the clear ([`Rule::Allow`]). A protected peer
//! without a state has its packets dropped, never sent in the clear, and what comes from it in the clear is dropped too.
//!
//! Ours are states with our request number and an SPI of our range ([`SPI_FIRST`]), and policies of our two priorities
//! about our port. Nothing else is read or touched. They live in the kernel: they outlive the process that made them.

mod channel;
mod encapsulation;
mod policy;
mod state;
#[cfg(test)]
mod tests;
mod watch;

use std::{collections::BTreeMap, fmt, net::IpAddr};

use weave_model::EspOver;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use self::{
    encapsulation::{ENCAPSULATION_PORT, Encapsulation},
    watch::PolicyWatch,
};

use self::channel::Channel;
use crate::{Family, HostError};

/// First SPI of our range; all that begin with the same four bits are ours.
pub const SPI_FIRST: u32 = 0xe000_0000;
/// Which bits of an SPI say that it is ours.
pub const SPI_MASK: u32 = 0xf000_0000;
/// The request number of our states and of the policies that ask for them: `WEAV`.
const REQUEST: u32 = 0x5745_4156;
/// Priorities of our policies: before those of others (daemons for IPsec begin at six digits), a peer's before everybody's.
const PRIORITY_PEER: u32 = 0x5745;
const PRIORITY_ALL: u32 = 0x5746;
/// Packets that may overtake others. With segmentation in the kernel and several queues, hundreds do.
const REPLAY_WINDOW: u32 = 4096;

/// An AEAD of the kernel for ESP, with a tag of 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cipher {
    /// `rfc4106(gcm(aes))` with 256 bits (RFC 4106).
    Aes256Gcm,
    /// `rfc7539esp(chacha20,poly1305)` (RFC 7634).
    ChaCha20Poly1305,
}

impl Cipher {
    const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "rfc4106(gcm(aes))",
            Self::ChaCha20Poly1305 => "rfc7539esp(chacha20,poly1305)",
        }
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        })
    }
}

/// 32 bytes of key, then 4 of salt, for either cipher. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct EspKey([u8; 36]);

impl EspKey {
    /// Takes the bytes as they are.
    #[must_use]
    pub const fn new(bytes: [u8; 36]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for EspKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EspKey(..)")
    }
}

/// A state's name in the kernel: where it leads, and the number that packets carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateId {
    /// Destination of its packets.
    pub to: IpAddr,
    /// In the range of ours.
    pub spi: u32,
}

/// A state to be made. It takes packets from `from` to the port at `id.to`, and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateSpec {
    /// Its name.
    pub id: StateId,
    /// Source of its packets; of the same family.
    pub from: IpAddr,
    /// How it encrypts.
    pub cipher: Cipher,
    /// In what its packets travel: a state takes those alone. In UDP from and to [`ENCAPSULATION_PORT`].
    pub over: EspOver,
}

/// What went through a state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    /// Packets; of incoming ones those that were genuine.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Which packets a policy looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Those that arrive, by their source.
    In,
    /// Those that leave, by their destination.
    Out,
}

/// Whom a policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// Everybody of this family for whom there is no other.
    All(Family),
    /// This peer.
    Peer(IpAddr),
}

/// What is to be done with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// They pass through a state: what leaves through the one with this SPI, what arrives through any of ours.
    Protect(Option<u32>),
    /// They pass as they are.
    Allow,
    /// They are dropped.
    Block,
}

/// Policies by what they are about.
pub type Policies = BTreeMap<(Direction, Whom), Rule>;

/// A way to the kernel's tables in the network namespace of the thread that opened it.
pub struct Session {
    channel: Channel,
    port: u16,
}

impl Session {
    /// Opens it, for UDP to this destination port.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] when the kernel has no xfrm.
    pub fn open(port: u16) -> Result<Self, HostError> {
        Ok(Self { channel: Channel::open()?, port })
    }

    /// Whether the kernel can do ESP with this cipher: makes a state that no packet can use, and takes it away again.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] with what is missing, or [`HostError::NoPermission`].
    pub fn check(&self, family: Family, cipher: Cipher) -> Result<(), HostError> {
        let (from, to) = match family {
            Family::V4 => (IpAddr::from([127, 69, 83, 1]), IpAddr::from([127, 69, 83, 80])),
            Family::V6 => (IpAddr::from([0_u8; 16]), IpAddr::from([0x100, 0, 0, 0, 0, 0, 0x4553, 0x50_u16])),
        };
        let spec = StateSpec { id: StateId { to, spi: SPI_FIRST }, from, cipher, over: EspOver::Ip };
        // One that an interrupted check left.
        self.remove_state(spec.id)?;
        self.add_state(&spec, &EspKey::new([0; 36]))?;
        self.remove_state(spec.id)
    }

    /// Takes away every policy and state of ours, and says how many.
    ///
    /// # Errors
    /// The first thing that the kernel says; what could be removed is.
    pub fn clear(&self) -> Result<usize, HostError> {
        let states = self.states()?.into_keys().map(|id| self.remove_state(id));
        let policies =
            self.policies()?.into_keys().map(|(direction, whom)| self.remove_policy(direction, whom));
        let answers: Vec<Result<(), HostError>> = states.chain(policies).collect();
        let removed = answers.iter().filter(|answer| answer.is_ok()).count();
        answers.into_iter().collect::<Result<(), HostError>>().map(|()| removed)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("port", &self.port).finish_non_exhaustive()
    }
}

const fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// `AF_INET` or `AF_INET6`, as 16 bits.
fn number_of(family: Family) -> u16 {
    let number = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    u16::try_from(number).unwrap_or_default()
}
