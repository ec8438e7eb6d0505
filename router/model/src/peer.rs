//! Who a router is.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::mac::parse_six;

/// A router's name in the mesh: six bytes, written like a MAC address.
///
/// Derived from the router's public key unless the operator gives one. Ordered bytewise; the order breaks ties.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerName(pub [u8; 6]);

/// Text that is not a peer name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a peer name; write six hexadecimal bytes, such as 9a:41:00:00:00:01")]
pub struct PeerNameError(pub String);

impl PeerName {
    /// Builds a name from a digest of a public key: locally administered and unicast, so that it can never be
    /// mistaken for the address of real hardware.
    #[must_use]
    pub const fn from_digest(digest: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, ..] = *digest;
        Self([(a & 0xfe) | 0x02, b, c, d, e, f])
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerName {
    type Err = PeerNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_six(text).map(Self).ok_or_else(|| PeerNameError(text.to_owned()))
    }
}

/// Tells two runs of a router apart: random at each start.
///
/// Equal name and UID is ourselves; equal name and another UID is a name taken twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uid(pub u64);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
