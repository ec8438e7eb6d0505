//! Why a heartbeat was not listened to.

use std::fmt;

/// Why a received heartbeat was thrown away. One counter each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeartbeatDiscard {
    /// Shorter than its headers.
    TooShort,
    /// Another ethertype: not a heartbeat.
    Ethertype,
    /// Another version of the format.
    Version,
    /// Neither a probe nor an answer.
    Kind,
    /// The length it tells is not the length it has.
    Length,
    /// Addressed to another router.
    NotForUs,
    /// From a router to which we have no link.
    UnknownSource,
    /// The seal is wrong: forged, or from another life of the link.
    Seal,
    /// A probe larger than what our own underlay carries, so that it cannot be answered.
    TooLarge,
    /// An answer to nothing that we asked, or that came twice or far too late.
    NotAsked,
    /// More probes than a peer has reason to send, or probes sent again by somebody.
    TooMany,
}

impl HeartbeatDiscard {
    /// Every reason, in the order of [`HeartbeatDiscard::index`].
    pub const ALL: [Self; 11] = [
        Self::TooShort,
        Self::Ethertype,
        Self::Version,
        Self::Kind,
        Self::Length,
        Self::NotForUs,
        Self::UnknownSource,
        Self::Seal,
        Self::TooLarge,
        Self::NotAsked,
        Self::TooMany,
    ];

    /// Position in [`HeartbeatDiscard::ALL`]: a dense index for counter arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word used as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooShort => "heartbeat_too_short",
            Self::Ethertype => "heartbeat_ethertype",
            Self::Version => "heartbeat_version",
            Self::Kind => "heartbeat_kind",
            Self::Length => "heartbeat_length",
            Self::NotForUs => "heartbeat_not_for_us",
            Self::UnknownSource => "heartbeat_unknown_source",
            Self::Seal => "heartbeat_seal",
            Self::TooLarge => "heartbeat_too_large",
            Self::NotAsked => "heartbeat_not_asked",
            Self::TooMany => "heartbeat_too_many",
        }
    }
}

impl fmt::Display for HeartbeatDiscard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_reason_is_its_place_in_the_list() {
        for (place, reason) in HeartbeatDiscard::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place, "{reason}");
        }
    }
}
