//! What the handshake settled about a link.

use std::{fmt, net::SocketAddr};

use weave_model::{LinkId, PeerName};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// How datagrams are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// AES-256-GCM: for processors with AES instructions at both ends.
    Aes256Gcm,
    /// ChaCha20-Poly1305: everywhere else.
    ChaCha20Poly1305,
}

/// The secrets of one link, one for each direction. Wiped when dropped; `Debug` shows nothing of them.
///
/// Fresh from a handshake for every link, never used for two: counters start at zero with each link, and a counter
/// must not seal twice under one key. The two ends hold the same pair the other way round. Every key that touches data is derived from them, one for
/// each sending thread and epoch, so the secrets themselves seal nothing.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct LinkKeys {
    /// How datagrams are sealed, both ways.
    #[zeroize(skip)]
    pub suite: Suite,
    /// The root of all keys for datagrams that we send.
    pub send_secret: [u8; 32],
    /// The root of all keys for datagrams that we receive.
    pub receive_secret: [u8; 32],
}

/// One link of the data plane, as the control plane set it up.
#[derive(Debug, Clone)]
pub struct LinkParams {
    /// Its number in this process.
    pub link: LinkId,
    /// The router at the other end.
    pub peer: PeerName,
    /// Where datagrams go at first; an encrypted link follows its peer when the address changes.
    pub remote: SocketAddr,
    /// The receiver index in datagrams to us, unique among our links. Its remainder by the number of workers picks
    /// the worker that receives for this link.
    pub local_index: u32,
    /// The receiver index that the other end chose for itself.
    pub remote_index: u32,
    /// `None`: both ends agreed to do without encryption.
    pub keys: Option<LinkKeys>,
}

impl fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkKeys").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        })
    }
}

/// Whether this processor has instructions for AES-GCM, without which ChaCha20-Poly1305 is faster.
#[must_use]
pub fn has_aes_hardware() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has =
        std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}
