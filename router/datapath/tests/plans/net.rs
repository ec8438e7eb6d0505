//! A small mesh, and the cheapest paths in it, found naively.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use proptest::prelude::*;
use weave_datapath::{Neighbour, Path, Stations, World};
use weave_model::{LinkId, Mac, PeerName};

/// What carries a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) is_fast: bool,
    is_ipv6: bool,
    /// The class of its round-trip time.
    class: u32,
}

/// Routers 0 to n-1 with their links (lower end first), each with the station of its number; some stations moved.
#[derive(Debug, Clone)]
pub(crate) struct Net {
    links: BTreeMap<(usize, usize), Link>,
    /// By station: its router.
    homes: Vec<usize>,
}

/// Meshes of two to nine routers, connected or not, mostly sparse.
pub(crate) fn net() -> impl Strategy<Value = Net> {
    (2usize..10).prop_flat_map(net_of)
}

pub(crate) fn net_of(count: usize) -> impl Strategy<Value = Net> {
    let link = (any::<u8>(), any::<bool>(), 0u32..3);
    let link = link.prop_map(|(kind, is_ipv6, class)| Link { is_fast: kind % 4 > 0, is_ipv6, class });
    let pairs = count * (count - 1) / 2;
    // 10: a full mesh; less: a chain with some links missing, and others beside.
    (proptest::collection::vec((link, 0u8..10), pairs), 0u8..11).prop_map(move |(links, density)| {
        let all = (0..count).flat_map(|low| (low + 1..count).map(move |high| (low, high)));
        let kept = all.zip(links).filter(|((low, high), (_, dice))| {
            density == 10 || if high - low == 1 { *dice > 0 } else { *dice < density / 3 }
        });
        Net { links: kept.map(|(pair, (link, _))| (pair, link)).collect(), homes: (0..count).collect() }
    })
}

/// The middle of a star of `count` routers, all linked to each other.
pub(crate) fn star<'a>(stations: &'a Stations<'a>, count: usize) -> World<'a> {
    let remote = |n: usize| Ipv4Addr::from(0xc000_0000 + n as u32).into();
    let others = || (1..count).map(|n| (name(n), n));
    World {
        stations,
        neighbours: others()
            .map(|(peer, n)| (peer, Neighbour { remote: remote(n), fastdp: true, leaf: true }))
            .collect(),
        paths: others().map(|(peer, _)| (peer, Path { next: peer, fast_hops: Some(1) })).collect(),
        relays: false,
    }
}

impl Net {
    pub(crate) fn line(count: usize) -> Self {
        let link = Link { is_fast: true, is_ipv6: false, class: 0 };
        let links = (1..count).map(|high| ((high - 1, high), link)).collect();
        Self { links, homes: (0..count).collect() }
    }

    pub(crate) fn full(count: usize) -> Self {
        let link = Link { is_fast: true, is_ipv6: true, class: 0 };
        let all = (0..count).flat_map(|low| (low + 1..count).map(move |high| (low, high)));
        Self { links: all.map(|pair| (pair, link)).collect(), homes: (0..count).collect() }
    }

    /// The same with a station moved, a link's overlay changed, or a link removed.
    pub(crate) fn changed(&self, change: usize, place: usize) -> Self {
        let mut changed = self.clone();
        let pair = self.links.keys().copied().nth(place % self.links.len().max(1));
        match (change, pair) {
            (1, Some(pair)) => {
                changed.links.entry(pair).and_modify(|link| link.is_fast = !link.is_fast);
            }
            (2, Some(pair)) => drop(changed.links.remove(&pair)),
            _ => changed.homes[place % self.len()] = place / 7 % self.len(),
        }
        changed
    }

    pub(crate) fn len(&self) -> usize {
        self.homes.len()
    }

    pub(crate) fn link(&self, a: usize, b: usize) -> Option<Link> {
        self.links.get(&(a.min(b), a.max(b))).copied()
    }

    pub(crate) fn is_fast(&self, a: usize, b: usize) -> bool {
        self.link(a, b).is_some_and(|link| link.is_fast)
    }

    /// The address under which `b` is reached over the link with `a`.
    fn address(&self, a: usize, b: usize) -> IpAddr {
        match self.link(a, b) {
            Some(link) if link.is_ipv6 => Ipv6Addr::from(0x2001_0db8_u128 << 96 | b as u128).into(),
            Some(_) | None => Ipv4Addr::from(0xc000_0200 | b as u32).into(),
        }
    }

    pub(crate) fn neighbours(&self, at: usize) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(move |other| self.link(at, *other).is_some())
    }

    /// Each router's parent on the cheapest path from `source`: the lowest among equals, as in the mesh.
    fn parents(&self, source: usize) -> Vec<Option<usize>> {
        let cost = |a, b| self.link(a, b).map(|link: Link| 16 + link.class + u32::from(!link.is_fast));
        let mut distances = vec![None; self.len()];
        distances[source] = Some(0);
        for _ in 0..self.len() {
            for to in (0..self.len()).filter(|to| *to != source) {
                let through = |at| Some(distances[at]? + cost(at, to)?);
                distances[to] = (0..self.len()).filter_map(through).min();
            }
        }
        let parent = |to: usize| {
            let is_parent = |at: &usize| {
                let through = distances[*at].and_then(|d: u32| Some(d + cost(*at, to)?));
                through.is_some() && through == distances[to]
            };
            if to == source { None } else { (0..self.len()).find(is_parent) }
        };
        (0..self.len()).map(parent).collect()
    }

    /// All routers from `from` to `to`, both included.
    pub(crate) fn path(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        let parents = self.parents(from);
        let mut path = vec![to];
        while *path.last()? != from {
            path.push(parents[*path.last()?]?);
        }
        path.reverse();
        Some(path)
    }

    /// To whom `at` hands on what `source` broadcasts.
    pub(crate) fn children(&self, source: usize, at: usize) -> Vec<usize> {
        let parents = self.parents(source);
        (0..self.len()).filter(|child| parents[*child] == Some(at)).collect()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.links.len() == self.len() * (self.len() - 1) / 2
    }

    pub(crate) fn home(&self, station: usize) -> usize {
        self.homes[station]
    }

    pub(crate) fn world<'a>(&self, me: usize, stations: &'a Stations<'a>) -> World<'a> {
        let neighbour = |other: usize| Neighbour {
            remote: self.address(me, other),
            fastdp: self.is_fast(me, other),
            leaf: self.children(me, other).is_empty(),
        };
        let path = |to: usize| {
            let path = self.path(me, to).filter(|path| path.len() > 1)?;
            let is_fast = path.windows(2).all(|hop| self.is_fast(hop[0], hop[1]));
            let fast_hops = is_fast.then_some(path.len() as u8 - 1).filter(|hops| *hops <= 4);
            Some((name(to), Path { next: name(path[1]), fast_hops }))
        };
        World {
            stations,
            neighbours: self.neighbours(me).map(|other| (name(other), neighbour(other))).collect(),
            paths: (0..self.len()).filter_map(path).collect(),
            relays: !self.is_full(),
        }
    }

    /// What the entries of a station at a router depend on.
    pub(crate) fn concerns(&self, me: usize, station: Mac) -> impl PartialEq + std::fmt::Debug + use<> {
        let home = self.home(usize::from(station.0[5]));
        let path = self.path(me, home);
        let kinds: Option<Vec<bool>> =
            path.as_ref().map(|p| p.windows(2).map(|hop| self.is_fast(hop[0], hop[1])).collect());
        let next = path.as_ref().and_then(|path| path.get(1).copied());
        (home, next.map(|next| self.address(me, next)), kinds, self.is_full())
    }
}

pub(crate) fn name(n: usize) -> PeerName {
    PeerName([2, 0, 0, 0, (n >> 8) as u8, n as u8])
}

pub(crate) fn mac(n: usize) -> Mac {
    Mac([2, 1, 0, 0, (n >> 8) as u8, n as u8])
}

/// The number that router `a` gives its link to `b`.
pub(crate) fn link_id(a: usize, b: usize) -> LinkId {
    LinkId((a * 16 + b) as u64)
}

/// Both ends of a link, from the number that the first gave it.
pub(crate) fn far_end(link: LinkId) -> usize {
    (link.0 % 16) as usize
}

/// The router with an address.
pub(crate) fn at_address(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(v4) => usize::from(v4.octets()[3]),
        IpAddr::V6(v6) => usize::from(v6.octets()[15]),
    }
}

pub(crate) type Links = BTreeSet<LinkId>;
