//! Who holds which station: one answer for the workers' snapshot and for the kernel's tables.

use std::{collections::BTreeMap, net::IpAddr};

use weave_model::{Mac, PeerName};

/// An interface of a container, and the router that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Station<'a> {
    /// Its router.
    pub peer: PeerName,
    /// Its addresses, as its router tells.
    pub addresses: &'a [IpAddr],
}

/// All known stations, each claimed by one router.
///
/// A MAC that two routers claim is ours if we are one of them, else the first router's in the order of names, so that
/// all others agree. The order of [`Stations::add`] does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stations<'a> {
    local: PeerName,
    by_mac: BTreeMap<Mac, Station<'a>>,
}

impl<'a> Stations<'a> {
    /// No stations, seen from `local`.
    #[must_use]
    pub const fn new(local: PeerName) -> Self {
        Self { local, by_mac: BTreeMap::new() }
    }

    /// All stations of all peers, `local` included.
    #[must_use]
    pub fn from_peers(local: PeerName, stations: &'a BTreeMap<PeerName, BTreeMap<Mac, Vec<IpAddr>>>) -> Self {
        let mut all = Self::new(local);
        for (peer, macs) in stations {
            for (mac, addresses) in macs {
                all.add(*peer, *mac, addresses);
            }
        }
        all
    }

    /// Takes in a claim. Group addresses and the zero address, which are no station's, are ignored: to the kernel's
    /// VXLAN the latter means "everybody else".
    pub fn add(&mut self, peer: PeerName, mac: Mac, addresses: &'a [IpAddr]) {
        if mac.is_multicast() || mac == Mac::default() {
            return;
        }
        let rank = |peer: PeerName| (peer != self.local, peer);
        match self.by_mac.get(&mac) {
            Some(holder) if rank(holder.peer) <= rank(peer) => {}
            Some(_) | None => {
                self.by_mac.insert(mac, Station { peer, addresses });
            }
        }
    }

    /// The router from whose side the stations are seen.
    #[must_use]
    pub const fn local(&self) -> PeerName {
        self.local
    }

    /// Every station, ours included, in the order of MACs.
    pub fn iter(&self) -> impl Iterator<Item = (Mac, Station<'a>)> {
        self.by_mac.iter().map(|(mac, station)| (*mac, *station))
    }

    /// Every station that another router holds.
    pub fn elsewhere(&self) -> impl Iterator<Item = (Mac, Station<'a>)> {
        self.iter().filter(|(_, station)| station.peer != self.local)
    }

    /// Every station of ours.
    pub fn here(&self) -> impl Iterator<Item = (Mac, Station<'a>)> {
        self.iter().filter(|(_, station)| station.peer == self.local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_that_two_claim_is_ours_or_the_first_by_name_in_whatever_order_they_come() {
        let claims = [(2, 7), (5, 7), (3, 8), (4, 8), (2, 9), (5, 9)];
        for local in [3, 5, 6] {
            let mut forth = Stations::new(name(local));
            let mut back = Stations::new(name(local));
            claims.iter().for_each(|(peer, mac)| forth.add(name(*peer), station(*mac), &[]));
            claims.iter().rev().for_each(|(peer, mac)| back.add(name(*peer), station(*mac), &[]));
            assert_eq!(forth, back);
            let holders: Vec<u8> = forth.iter().map(|(_, station)| station.peer.0[5]).collect();
            assert_eq!(holders, if local == 5 { [5, 3, 5] } else { [2, 3, 2] });
        }
    }

    #[test]
    fn addresses_that_no_station_has_are_ignored() {
        let mut stations = Stations::new(name(1));
        stations.add(name(2), Mac::default(), &[]);
        stations.add(name(2), Mac::BROADCAST, &[]);
        assert_eq!(stations.iter().count(), 0);
    }

    fn name(n: u8) -> PeerName {
        PeerName([2, 0, 0, 0, 0, n])
    }

    fn station(n: u8) -> Mac {
        Mac([2, 1, 0, 0, 0, n])
    }
}
