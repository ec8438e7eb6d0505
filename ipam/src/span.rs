//! Addresses as numbers, and runs of them.
//!
//! Both families share one ordered space of 128 bits: IPv4 takes the place of its IPv4-mapped IPv6 addresses
//! (RFC 4291, 2.5.5.2), which no managed range may touch.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use weave_model::Subnet;

/// First IPv4 address in the common space.
const V4_BASE: u128 = 0xffff_0000_0000;
/// All of IPv4.
pub(crate) const V4: Span = Span { lo: V4_BASE, hi: V4_BASE + (1 << 32) };

/// The addresses from `lo` up to, not including, `hi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) lo: u128,
    pub(crate) hi: u128,
}

impl Span {
    pub(crate) const fn new(lo: u128, hi: u128) -> Self {
        Self { lo, hi }
    }

    /// The one address.
    pub(crate) const fn one(address: u128) -> Self {
        Self { lo: address, hi: address + 1 }
    }

    /// All addresses of a subnet; `None` where they reach the end of the common space.
    pub(crate) fn of(subnet: Subnet) -> Option<Self> {
        let net = subnet.net();
        let bits = u32::from(net.max_prefix_len() - net.prefix_len());
        let lo = to_number(net.network());
        let hi = lo.checked_add(1_u128.checked_shl(bits)?)?;
        Some(Self { lo, hi })
    }

    /// What containers may be given of a subnet: all but its first and last address.
    pub(crate) fn hosts(self) -> Self {
        Self { lo: self.lo + 1, hi: (self.hi - 1).max(self.lo + 1) }
    }

    pub(crate) const fn len(self) -> u128 {
        self.hi.saturating_sub(self.lo)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.hi <= self.lo
    }

    pub(crate) const fn contains(self, address: u128) -> bool {
        self.lo <= address && address < self.hi
    }

    pub(crate) const fn covers(self, other: Self) -> bool {
        self.lo <= other.lo && other.hi <= self.hi
    }

    pub(crate) const fn overlaps(self, other: Self) -> bool {
        self.lo < other.hi && other.lo < self.hi
    }

    /// What is left on either side of `hole`; both may be empty.
    pub(crate) fn without(self, hole: Self) -> [Self; 2] {
        if hole.is_empty() || !self.overlaps(hole) {
            return [self, Self::new(self.hi, self.hi)];
        }
        [Self::new(self.lo, hole.lo.max(self.lo)), Self::new(hole.hi.min(self.hi), self.hi)]
    }

    /// What both have; may be empty.
    pub(crate) fn clip(self, window: Self) -> Self {
        Self { lo: self.lo.max(window.lo), hi: self.hi.min(window.hi).max(self.lo.max(window.lo)) }
    }
}

pub(crate) fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => V4_BASE + u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "an IPv4 address is less than 2^32 above the base")]
pub(crate) fn to_address(number: u128) -> IpAddr {
    if V4.contains(number) {
        IpAddr::V4(Ipv4Addr::from((number - V4_BASE) as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_survive_a_round_trip_and_never_collide() {
        for text in ["0.0.0.0", "10.32.0.1", "255.255.255.255", "fd00::1", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(to_address(to_number(address)), address);
        }
    }

    #[test]
    fn the_hosts_of_a_subnet_are_all_but_the_first_and_last() {
        let span = Span::of("10.32.0.0/30".parse().unwrap()).unwrap();
        assert_eq!(span.hosts().len(), 2);
        assert_eq!(to_address(span.hosts().lo), "10.32.0.1".parse::<IpAddr>().unwrap());
        assert!(Span::of("ff00::/8".parse().unwrap()).is_none());
    }
}
