//! Why a frame went nowhere.

use std::fmt;

/// Why a frame was dropped by a forwarding decision. One counter each.
///
/// Not every drop is a loss: see [`DropReason::is_loss`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The destination lives on this host: the bridge should not have sent it our way.
    DestinationIsLocal,
    /// It would have to leave by the link it came from: two routers disagree about the route for a moment.
    Backward,
    /// The hop limit ran out before it reached its destination.
    HopLimit,
    /// A copy of what the kernel has flooded to everybody already; nothing is lost.
    KernelServesAll,
    /// Our own frame came back to us.
    Looped,
    /// No other router to send a group or unknown frame to.
    NoNeighbour,
    /// The destination's router is known, and there is no route to it.
    NoRoute,
    /// The source address is a group address, which no station may have.
    SourceIsGroup,
    /// Nobody knows the destination, and enough frames for it were sent to everybody.
    UnknownStation,
}

impl DropReason {
    /// Every reason, in the order of [`DropReason::index`].
    pub const ALL: [Self; 9] = [
        Self::DestinationIsLocal,
        Self::Backward,
        Self::HopLimit,
        Self::KernelServesAll,
        Self::Looped,
        Self::NoNeighbour,
        Self::NoRoute,
        Self::SourceIsGroup,
        Self::UnknownStation,
    ];

    /// Position in [`DropReason::ALL`]: a dense index for counter arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether somebody misses the frame. What merely was not ours to send is no reason to look for a fault.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        !matches!(self, Self::DestinationIsLocal | Self::KernelServesAll)
    }

    /// The word used as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::DestinationIsLocal => "destination_is_local",
            Self::Backward => "backward",
            Self::HopLimit => "hop_limit",
            Self::KernelServesAll => "kernel_serves_all",
            Self::Looped => "looped",
            Self::NoNeighbour => "no_neighbour",
            Self::NoRoute => "no_route",
            Self::SourceIsGroup => "source_is_group",
            Self::UnknownStation => "unknown_station",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_reason_is_its_place_in_the_list() {
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place, "{reason}");
        }
    }
}
