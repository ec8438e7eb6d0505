//! Blocks of addresses (`ipBlock`), and how forgiving we read them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Addresses in `cidr` that are in no `except`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    cidr: IpNet,
    except: Vec<IpNet>,
}

/// Text that is no CIDR. The object is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a CIDR, such as 10.0.0.0/8 or fd00::/64")]
pub struct InvalidCidr(String);

/// Which family of addresses. Blocks of one say nothing about the other (NP-30).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// 32 bits.
    V4,
    /// 128 bits.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The highest address, as a number.
    pub(crate) const fn last(self) -> u128 {
        match self {
            Self::V4 => 0xffff_ffff,
            Self::V6 => u128::MAX,
        }
    }

    /// The address with this number. The number has to be one of the family.
    pub(crate) fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX))),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

/// An address as a number.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Block {
    /// Reads a block as stored objects of any age have it (NP-29): host bits are masked, leading zeros read as
    /// decimal, IPv4-mapped IPv6 taken for the IPv4 that it means. An exception outside of `cidr` changes nothing.
    ///
    /// # Errors
    /// [`InvalidCidr`] with the text at fault.
    pub fn parse<T: AsRef<str>>(cidr: &str, except: &[T]) -> Result<Self, InvalidCidr> {
        let except: Result<Vec<_>, _> = except.iter().map(|text| parse_cidr(text.as_ref())).collect();
        Ok(Self { cidr: parse_cidr(cidr)?, except: except? })
    }

    /// Whether `address` is in it. By arithmetic only: pods and nodes are addresses like all others (NP-27).
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address) && !self.except.iter().any(|except| except.contains(&address))
    }

    /// The same as disjoint intervals in order, that do not touch: the canonical form.
    pub(crate) fn intervals(&self) -> Intervals {
        let family = Family::of(self.cidr.addr());
        let mut holes: Vec<(u128, u128)> =
            self.except.iter().filter(|net| Family::of(net.addr()) == family).map(bounds).collect();
        holes.sort_unstable();
        let (mut next, last) = bounds(&self.cidr);
        let mut parts = Vec::new();
        for (from, to) in holes {
            if from > last || to < next {
                continue;
            }
            if from > next {
                parts.push((next, from - 1));
            }
            if to >= last {
                return Intervals { family, parts };
            }
            next = to + 1;
        }
        parts.push((next, last));
        Intervals { family, parts }
    }
}

/// A set of addresses of one family. Equal sets compare equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Intervals {
    pub(crate) family: Family,
    pub(crate) parts: Vec<(u128, u128)>,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cidr.fmt(f)?;
        for (i, except) in self.except.iter().enumerate() {
            write!(f, "{}{except}", if i == 0 { " except " } else { ", " })?;
        }
        Ok(())
    }
}

fn bounds(net: &IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

fn parse_cidr(text: &str) -> Result<IpNet, InvalidCidr> {
    let invalid = || InvalidCidr(text.to_owned());
    let (address, length) = text.trim().split_once('/').ok_or_else(invalid)?;
    let length: u8 = length.parse().map_err(|_| invalid())?;
    let net = match parse_address(address).ok_or_else(invalid)? {
        IpAddr::V4(v4) => Ipv4Net::new(v4, length).map(IpNet::V4),
        IpAddr::V6(v6) => match (v6.to_ipv4_mapped(), length.checked_sub(96)) {
            (Some(v4), Some(length)) => Ipv4Net::new(v4, length).map(IpNet::V4),
            _ => Ipv6Net::new(v6, length).map(IpNet::V6),
        },
    };
    Ok(net.map_err(|_| invalid())?.trunc())
}

fn parse_address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let octets: Vec<u8> = text.split('.').map(octet).collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(IpAddr::from)
}

/// Up to three digits; `u8::from_str` would take a sign too.
fn octet(text: &str) -> Option<u8> {
    let is_number = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(cidr: &str, except: &[&str]) -> Block {
        Block::parse(cidr, except).unwrap()
    }

    fn has(block: &Block, address: &str) -> bool {
        block.contains(address.parse().unwrap())
    }

    /// NP-29, E08.
    #[test]
    fn old_spellings_mean_the_same_block() {
        let plain = block("10.0.0.0/24", &[]);
        for text in ["10.0.0.1/24", "010.000.0.7/24", " 10.0.0.0/24 ", "::ffff:10.0.0.9/120"] {
            assert_eq!(block(text, &[]), plain, "{text}");
        }
        assert_eq!(block("::ffff:0:0/96", &[]), block("0.0.0.0/0", &[]));
        for text in
            ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "a/8", "10.0.0.+1/8", "1.2.3.400/8"]
        {
            assert!(Block::parse::<&str>(text, &[]).is_err(), "{text}");
        }
    }

    /// NP-28, E06.
    #[test]
    fn exceptions_are_taken_out() {
        let some = block("10.0.0.0/24", &["10.0.0.0/28", "10.0.0.16/28", "10.0.0.18/32", "10.0.0.255/32"]);
        assert!(has(&some, "10.0.0.32") && has(&some, "10.0.0.254"));
        assert!(!has(&some, "10.0.0.15") && !has(&some, "10.0.0.16") && !has(&some, "10.0.0.255"));
        assert_eq!(some.intervals().parts, [(0x0a00_0020, 0x0a00_00fe)]);
        let nothing = block("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.128/25"]);
        assert_eq!(nothing.intervals().parts, []);
        assert_eq!(block("10.0.0.0/24", &["10.0.0.0/24"]).intervals().parts, []);
    }

    /// NP-30.
    #[test]
    fn families_say_nothing_about_each_other() {
        assert!(!has(&block("0.0.0.0/0", &[]), "fd00::1"));
        assert!(!has(&block("::/0", &[]), "10.0.0.1"));
        assert!(has(&block("::/0", &["0.0.0.0/0"]), "fd00::1"));
        assert_eq!(block("::/0", &["0.0.0.0/0"]).intervals().parts, [(0, u128::MAX)]);
        assert_eq!(block("0.0.0.0/0", &[]).intervals().parts, [(0, 0xffff_ffff)]);
    }

    proptest! {
        #[test]
        fn intervals_are_the_addresses_contained(
            length in 24u8..=32,
            except in proptest::collection::vec((0u8..=255, 24u8..=32), 0..6),
        ) {
            let except: Vec<String> = except.iter().map(|(o, l)| format!("10.0.0.{o}/{l}")).collect();
            let block = Block::parse(&format!("10.0.0.64/{length}"), &except).unwrap();
            let parts = block.intervals().parts;
            for octet in 0..=255u8 {
                let address = IpAddr::from([10, 0, 0, octet]);
                let inside = parts.iter().any(|(a, b)| (*a..=*b).contains(&number(address)));
                prop_assert_eq!(inside, block.contains(address));
            }
            prop_assert!(parts.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}
