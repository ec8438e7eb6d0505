//! What is said about a path.

use std::{
    fmt,
    time::{Duration, Instant},
};

use weave_model::LinkId;

/// News about the kernel's path of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FastdpEvent {
    /// It carries frames of `mtu` there and back.
    Up {
        /// Whose path.
        link: LinkId,
        /// The largest IP packet of a container that was proven to pass. Bytes.
        mtu: u16,
        /// Time there and back.
        rtt: Duration,
    },
    /// The proven size of a path that is up changed.
    Mtu {
        /// Whose path.
        link: LinkId,
        /// As in [`FastdpEvent::Up`].
        mtu: u16,
    },
    /// It carries nothing of use. Said again when the reason becomes another.
    Down {
        /// Whose path.
        link: LinkId,
        /// What was seen.
        reason: DownReason,
    },
}

/// Why the kernel's path of a link is not in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DownReason {
    /// Nothing was ever answered, and nothing comes from the peer.
    NeverAnswered,
    /// It was up, and now nothing is answered and nothing comes from the peer.
    StoppedAnswering,
    /// The peer's heartbeats arrive, and ours are not answered: the way to the peer is blocked.
    NotHeard,
    /// Small heartbeats are answered, and none of a size that is of use.
    LargeLost {
        /// The smallest size that was tried. Bytes of IP packet of a container.
        least: u16,
    },
}

impl DownReason {
    /// In words; `what` has to pass for this path to work.
    #[must_use]
    pub fn about(self, what: &str) -> String {
        match self {
            Self::NeverAnswered => {
                format!("no heartbeat was ever answered: is {what} blocked between the hosts?")
            }
            Self::StoppedAnswering => {
                format!("heartbeats are no longer answered: is {what} blocked between the hosts?")
            }
            Self::NotHeard => format!(
                "heartbeats of the peer arrive, ours are not answered: is {what} blocked towards the peer?"
            ),
            Self::LargeLost { least } => {
                format!("only small heartbeats are answered, none of {least} bytes or more")
            }
        }
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.about("UDP 6784"))
    }
}

/// The state of a link's path, for status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkHealth {
    /// Not known yet.
    Trying,
    /// See [`FastdpEvent::Up`].
    Up {
        /// The proven size.
        mtu: u16,
        /// Smoothed time there and back.
        rtt: Duration,
        /// When it came up.
        since: Instant,
    },
    /// See [`FastdpEvent::Down`].
    Down {
        /// What was seen.
        reason: DownReason,
        /// When it went down, or was first tried.
        since: Instant,
    },
}
