//! How a router takes part.

use ipnet::IpNet;
use weave_model::{PeerName, Subnet};

use crate::span::{Span, V4};

/// Settings of one router's IPAM.
#[derive(Debug, Clone)]
pub struct Config {
    /// This router.
    pub local: PeerName,
    /// The managed ranges, IPv4, IPv6 or both; at least one, no two overlapping. All routers must agree.
    pub ranges: Vec<Subnet>,
    /// Where an allocation without a subnet goes: at most one per family, inside the ranges. When empty, the
    /// first range of each family.
    pub default_subnets: Vec<Subnet>,
    /// How the first ring comes about.
    pub init: Init,
    /// Random, made when the store was created. A router that lost its store is another voter and another owner.
    pub store_id: u64,
}

/// How the first ring comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// The routers vote. Too small a count can make two rings; too large a count waits for ever.
    Consensus {
        /// How many routers there are at first; more than half of them must agree.
        peers: usize,
    },
    /// These routers share the ranges; everybody must be given the same list. No vote.
    Seed(Vec<PeerName>),
    /// Never votes and is never counted; may ask the others to vote.
    Observer,
}

/// Settings that cannot work, with what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No range at all.
    #[error("no range to allocate from; give --ipalloc-range")]
    NoRange,
    /// Two ranges share addresses.
    #[error("the ranges {0} and {1} overlap; give ranges that do not")]
    Overlap(Subnet, Subnet),
    /// A range that is too small, or so large or so placed that it is not for unicast.
    #[error(
        "{0} cannot be managed: give an IPv4 range of /1 to /30 below 224.0.0.0, or an IPv6 range of /8 to /126 \
         below ff00::"
    )]
    Unusable(Subnet),
    /// A default subnet outside every range, too small, or a second one of its family.
    #[error(
        "the default subnet {0} must lie in a range, have room for hosts, and be the only one of its family"
    )]
    DefaultSubnet(Subnet),
    /// A seed list with nobody in it.
    #[error("the seed list is empty; name at least one router")]
    NoSeeds,
}

impl Config {
    /// The ranges as spans, in order, and the default subnets to use.
    pub(crate) fn check(&self) -> Result<(Vec<Span>, Vec<Subnet>), ConfigError> {
        let mut universe: Vec<(Span, Subnet)> = Vec::new();
        for range in &self.ranges {
            let span = Span::of(*range).filter(|span| is_usable(*range, *span));
            universe.push((span.ok_or(ConfigError::Unusable(*range))?, *range));
        }
        universe.sort_unstable();
        if universe.is_empty() {
            return Err(ConfigError::NoRange);
        }
        if let Some(pair) = universe.windows(2).find(|pair| pair[0].0.overlaps(pair[1].0)) {
            return Err(ConfigError::Overlap(pair[0].1, pair[1].1));
        }
        if matches!(&self.init, Init::Seed(seeds) if seeds.is_empty()) {
            return Err(ConfigError::NoSeeds);
        }
        let spans: Vec<Span> = universe.iter().map(|(span, _)| *span).collect();
        Ok((spans, self.defaults()?))
    }

    fn defaults(&self) -> Result<Vec<Subnet>, ConfigError> {
        let is_v4 = |subnet: &Subnet| matches!(subnet.net(), IpNet::V4(_));
        let given = if self.default_subnets.is_empty() { &self.ranges } else { &self.default_subnets };
        let mut defaults: Vec<Subnet> = Vec::new();
        for subnet in given {
            let is_second = defaults.iter().any(|other| is_v4(other) == is_v4(subnet));
            if is_second && self.default_subnets.is_empty() {
                continue;
            }
            if is_second
                || is_too_small(*subnet)
                || !self.ranges.iter().any(|r| r.net().contains(&subnet.net()))
            {
                return Err(ConfigError::DefaultSubnet(*subnet));
            }
            defaults.push(*subnet);
        }
        Ok(defaults)
    }
}

/// Whether nothing is left between the first and the last address.
pub(crate) fn is_too_small(subnet: Subnet) -> bool {
    subnet.net().max_prefix_len() - subnet.net().prefix_len() < 2
}

fn is_usable(range: Subnet, span: Span) -> bool {
    !is_too_small(range)
        && match range.net() {
            IpNet::V4(net) => net.prefix_len() > 0 && net.broadcast().octets()[0] < 224,
            IpNet::V6(net) => net.prefix_len() >= 8 && !net.network().is_multicast() && !span.overlaps(V4),
        }
}
