//! What can go wrong, by whose fault.

use weave_model::PeerName;

use crate::Namespace;

/// A message that ends its link. Nothing of it was applied, unless the variant says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The bytes are no message: damaged, truncated or over a bound. The sender's software is at fault.
    #[error("cannot parse mesh message: {0}")]
    Unparsable(&'static str),
    /// A well-formed message that an honest peer never sends. What came before it in the message may be applied.
    #[error("peer misbehaved: {0}")]
    Misbehaved(&'static str),
    /// A kind of message that this version does not know. Neither side is at fault; one is too old.
    #[error("peer sent a mesh message of unknown kind {0}")]
    Incompatible(u8),
}

/// No path leads to the peer at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no path to peer {0}")]
pub struct Unreachable(pub PeerName);

/// A fact of ours that cannot be published. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FactError {
    /// Namespaces up to 15 belong to the mesh.
    #[error("namespace {} is reserved for the mesh itself", .0.0)]
    Reserved(Namespace),
    /// A key over 512 bytes or a value over 64 KiB.
    #[error("fact too long: key {key} bytes (at most 512), value {value} bytes (at most 65536)")]
    TooLong {
        /// Length of the key.
        key: usize,
        /// Length of the value.
        value: usize,
    },
    /// All facts of one router together may take 512 KiB.
    #[error("no room for another fact: all facts of one router may take 512 KiB")]
    Full,
}
