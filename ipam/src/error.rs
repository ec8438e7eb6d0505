//! Errors by fault.

use weave_model::PeerName;

use crate::config::ConfigError;

/// What a peer sent was not used. Nothing was changed, and the link to the peer is none of IPAM's business.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GossipError {
    /// The bytes are no message of ours, or a count or size is beyond its bound.
    #[error("the IPAM message cannot be read")]
    Unreadable,
    /// Well formed, but it says what cannot be: unsorted, overlapping, outside the ranges.
    #[error("the IPAM message contradicts itself: {0}")]
    Misbehaved(&'static str),
    /// A later version's message.
    #[error("the IPAM message has format {0}, this router reads format {FORMAT}; run one version everywhere")]
    Incompatible(u8),
}

/// The store cannot be used. Nothing was handed out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The settings cannot work at all.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A record cannot be read.
    #[error(
        "the IPAM store is damaged at record {key}; restore it, or `weave reset` to start with an empty store"
    )]
    Damaged {
        /// The key, in hexadecimal.
        key: String,
    },
    /// The store was written by a router of another name.
    #[error(
        "the IPAM store belongs to router {found}, this is {expected}; use that name, or `weave reset` first"
    )]
    OtherPeer {
        /// Who wrote it.
        found: PeerName,
        /// Who reads it.
        expected: PeerName,
    },
    /// The store was written for other ranges.
    #[error(
        "the IPAM store is for the ranges {found}; launch with these, or `weave reset` on every router first"
    )]
    OtherRanges {
        /// The ranges it was written for.
        found: String,
    },
    /// The store was written by a later version.
    #[error("the IPAM store has format {0}, this router reads format {FORMAT}; run the newer version")]
    Incompatible(u8),
    /// The store has records of a kind that this version does not know and must not pass over. Nothing was changed.
    #[error(
        "the IPAM store was written by a newer weave: it has records of kind {0:?}; run that version, or `weave reset` \
         to start with an empty store"
    )]
    Newer(char),
}

/// The version of messages and stored records.
pub(crate) const FORMAT: u8 = 1;
