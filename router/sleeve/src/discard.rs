//! Why a frame or datagram was thrown away.

use std::fmt;

/// Why the sleeve threw something away. One counter each; none is logged, because a stranger can cause most of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Discard {
    /// A datagram too short for its headers, or with bytes missing at the end.
    Truncated,
    /// A first byte that no version of ours sends.
    UnknownVersion,
    /// A receiver index that belongs to no link.
    UnknownReceiver,
    /// A lane beyond the highest that exists.
    UnknownLane,
    /// A clear datagram on an encrypted link, or a sealed one on a clear link.
    WrongMode,
    /// A clear datagram from another address than the link's.
    WrongAddress,
    /// An epoch so old that its key is gone, or too far ahead to be one of ours.
    WrongEpoch,
    /// A counter that was seen, or is older than the window remembers.
    Replayed,
    /// A tag that does not match: forged, damaged, or sealed with other keys.
    Forged,
    /// Authentic, and makes no sense: the peer misbehaves or is of a version we do not know.
    BadRecord,
    /// A frame from the peer that the kernel must not see.
    BadFrame,
    /// A frame from our own kernel that we cannot make sense of.
    BadTapFrame,
    /// Headers do not leave room for payload in a datagram of this path.
    PathTooSmall,
    /// The epoch has no counter left, or the cipher refused: a bug of ours.
    SealFailed,
    /// Fragments of too many frames at once; the oldest went.
    FragmentOverflow,
    /// The rest of a frame did not arrive in time.
    FragmentExpired,
    /// A fragment that overlaps what is there already.
    FragmentOverlap,
    /// The socket took no more for longer than is worth waiting.
    SendQueueFull,
    /// The kernel refused to send.
    SendFailed,
    /// The kernel refused to take the frame: the interface is down, or the frame's headers lie.
    TapWriteFailed,
}

impl Discard {
    /// Every reason, in the order of [`Discard::index`].
    pub const ALL: [Self; 20] = [
        Self::Truncated,
        Self::UnknownVersion,
        Self::UnknownReceiver,
        Self::UnknownLane,
        Self::WrongMode,
        Self::WrongAddress,
        Self::WrongEpoch,
        Self::Replayed,
        Self::Forged,
        Self::BadRecord,
        Self::BadFrame,
        Self::BadTapFrame,
        Self::PathTooSmall,
        Self::SealFailed,
        Self::FragmentOverflow,
        Self::FragmentExpired,
        Self::FragmentOverlap,
        Self::SendQueueFull,
        Self::SendFailed,
        Self::TapWriteFailed,
    ];

    /// Position in [`Discard::ALL`]: a dense index for counter arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word used as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::UnknownVersion => "unknown_version",
            Self::UnknownReceiver => "unknown_receiver",
            Self::UnknownLane => "unknown_lane",
            Self::WrongMode => "wrong_mode",
            Self::WrongAddress => "wrong_address",
            Self::WrongEpoch => "wrong_epoch",
            Self::Replayed => "replayed",
            Self::Forged => "forged",
            Self::BadRecord => "bad_record",
            Self::BadFrame => "bad_frame",
            Self::BadTapFrame => "bad_tap_frame",
            Self::PathTooSmall => "path_too_small",
            Self::SealFailed => "seal_failed",
            Self::FragmentOverflow => "fragment_overflow",
            Self::FragmentExpired => "fragment_expired",
            Self::FragmentOverlap => "fragment_overlap",
            Self::SendQueueFull => "send_queue_full",
            Self::SendFailed => "send_failed",
            Self::TapWriteFailed => "tap_write_failed",
        }
    }
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_reason_is_its_place_in_the_list() {
        for (place, reason) in Discard::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place, "{reason}");
        }
    }
}
