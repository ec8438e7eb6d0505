//! Ethernet addresses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An Ethernet (MAC-48) address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

/// Text that is not six hexadecimal bytes separated by colons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address; write six hexadecimal bytes, such as 02:00:5e:10:00:01")]
pub struct MacError(pub String);

impl Mac {
    /// The broadcast address, to which every station listens.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether a frame to this address is for a group (IEEE 802.3: lowest bit of the first byte).
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Turns any six bytes into a locally administered unicast address.
    #[must_use]
    pub const fn local_unicast(mut bytes: [u8; 6]) -> Self {
        bytes[0] = (bytes[0] & 0xfe) | 0x02;
        Self(bytes)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_six(text).map(Self).ok_or_else(|| MacError(text.to_owned()))
    }
}

/// Parses `aa:bb:cc:dd:ee:ff`; each part one or two hexadecimal digits.
pub(crate) fn parse_six(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|p| (1..=2).contains(&p.len()))?;
        if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_a_round_trip_and_junk_is_refused() {
        let mac: Mac = "02:00:5e:10:00:0a".parse().unwrap();
        assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
        for junk in ["", "02:00:5e:10:00", "02:00:5e:10:00:0a:0b", "+2:00:5e:10:00:0a", "02-00-5e-10-00-0a"] {
            assert!(junk.parse::<Mac>().is_err(), "{junk}");
        }
    }
}
