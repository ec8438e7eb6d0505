//! The kernel's paths that outlive their links.
//!
//! A router that is stopped, killed or upgraded answers nothing, and its kernel still delivers. So while nobody knows better,
//! the kernel's path to a neighbour that was last proven stays as it is, and so do the stations behind it:
//!
//! * the link is gone: for a moment in any case, as restarted routers are back soon; after that as long as no other path
//!   leads to the router;
//! * the router has left the mesh: for an hour;
//! * a new link is there: until the kernel's path has been judged on it.
//!
//! A path that is known to be broken, on a link that lives, is given up at once.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use weave_datapath::Stations;
use weave_model::{Mac, PeerName};

/// How long a lost link's path is preferred to any other: a restarted router's peers hear of it within a second.
const HOLD: Duration = Duration::from_secs(2);
/// How long the stations of a router that has left are remembered: an upgrade takes no longer, and what is wrong by then should not stay for ever.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// How long after its return: its facts come in more than one message.
const RETURNED: Duration = Duration::from_secs(5);
/// Most routers that are remembered; those that left first go first.
const MAX_DEPARTED: usize = 256;

/// Where a router's stations are: their addresses by MAC.
type OfRouter = BTreeMap<Mac, Vec<IpAddr>>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct KernelPaths {
    proven: BTreeMap<PeerName, Proven>,
    departed: BTreeMap<PeerName, (OfRouter, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Proven {
    remote: IpAddr,
    /// When its link was lost, if it was.
    lost: Option<Instant>,
}

/// What may be done with a proven path that no live link vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Use it, whatever else there is.
    First,
    /// Use it where there is nothing else.
    Last,
}

impl KernelPaths {
    /// Frames got through on a link.
    pub(crate) fn is_up(&mut self, peer: PeerName, remote: IpAddr) {
        self.proven.insert(peer, Proven { remote, lost: None });
    }

    /// They do not, and the router at the other end is alive.
    pub(crate) fn is_down(&mut self, peer: PeerName) {
        self.proven.remove(&peer);
    }

    pub(crate) fn link_gone(&mut self, peer: PeerName, now: Instant) {
        if let Some(proven) = self.proven.get_mut(&peer) {
            proven.lost.get_or_insert(now);
        }
    }

    /// A router has left with these stations behind it.
    pub(crate) fn peer_left(&mut self, peer: PeerName, stations: OfRouter, now: Instant) {
        if !self.proven.contains_key(&peer) {
            return;
        }
        if self.departed.len() >= MAX_DEPARTED
            && let Some((first, _)) = self.departed.iter().min_by_key(|(_, (_, until))| *until)
        {
            let first = *first;
            self.departed.remove(&first);
            self.proven.remove(&first);
        }
        self.departed.insert(peer, (stations, now + REMEMBERED));
    }

    /// It is back and tells its stations itself.
    pub(crate) fn peer_joined(&mut self, peer: PeerName, now: Instant) {
        if let Some((_, until)) = self.departed.get_mut(&peer) {
            *until = (*until).min(now + RETURNED);
        }
    }

    /// Forgets what is too old. To be called before anything is planned.
    pub(crate) fn expire(&mut self, is_reachable: impl Fn(PeerName) -> bool, now: Instant) {
        let old: Vec<PeerName> =
            self.departed.iter().filter(|(_, (_, until))| *until <= now).map(|(peer, _)| *peer).collect();
        for peer in old {
            self.departed.remove(&peer);
            if !is_reachable(peer) {
                self.proven.remove(&peer);
            }
        }
    }

    /// When something changes by itself.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let held = self.proven.values().filter_map(|proven| Some(proven.lost? + HOLD)).filter(|at| *at > now);
        held.chain(self.departed.values().map(|(_, until)| *until)).min()
    }

    /// Every proven path, and what may be done with it.
    pub(crate) fn standing(&self, now: Instant) -> impl Iterator<Item = (PeerName, IpAddr, Standing)> {
        self.proven.iter().map(move |(peer, proven)| {
            let is_held = proven.lost.is_none_or(|lost| now < lost + HOLD);
            (*peer, proven.remote, if is_held { Standing::First } else { Standing::Last })
        })
    }

    /// Adds the stations of those who left, where nobody else has them.
    pub(crate) fn add_departed<'a>(&'a self, stations: &mut Stations<'a>) {
        let known: std::collections::BTreeSet<IpAddr> =
            stations.iter().flat_map(|(_, station)| station.addresses).copied().collect();
        let macs: std::collections::BTreeSet<Mac> = stations.iter().map(|(mac, _)| mac).collect();
        for (peer, (of_router, _)) in &self.departed {
            for (mac, addresses) in of_router.iter().filter(|(mac, _)| !macs.contains(mac)) {
                let is_taken = addresses.iter().any(|address| known.contains(address));
                stations.add(*peer, *mac, if is_taken { &[] } else { addresses });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: PeerName = PeerName([2, 0, 0, 0, 0, 1]);
    const PEER: PeerName = PeerName([2, 0, 0, 0, 0, 2]);
    const MAC: Mac = Mac([2, 1, 0, 0, 0, 2]);

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as the beginning of virtual time")]
        Instant::now()
    }

    fn remote() -> IpAddr {
        "192.0.2.2".parse().unwrap()
    }

    fn standing(paths: &KernelPaths, now: Instant) -> Vec<Standing> {
        paths.standing(now).map(|(_, _, standing)| standing).collect()
    }

    #[test]
    fn a_lost_links_path_is_held_for_a_moment_and_then_the_last_resort() {
        let (mut paths, t) = (KernelPaths::default(), start());
        paths.is_up(PEER, remote());
        paths.link_gone(PEER, t);
        assert_eq!(standing(&paths, t), [Standing::First]);
        assert_eq!(paths.poll_timeout(t), Some(t + HOLD));
        assert_eq!(standing(&paths, t + HOLD), [Standing::Last]);
        assert_eq!(paths.poll_timeout(t + HOLD), None);
    }

    #[test]
    fn a_path_that_is_known_to_be_broken_is_given_up() {
        let mut paths = KernelPaths::default();
        paths.is_up(PEER, remote());
        paths.is_down(PEER);
        assert!(standing(&paths, start()).is_empty());
    }

    #[test]
    fn stations_of_who_left_are_remembered_until_somebody_else_has_them() {
        let (mut paths, t) = (KernelPaths::default(), start());
        let address = "10.32.0.9".parse().unwrap();
        let of_router = BTreeMap::from([(MAC, vec![address])]);
        paths.peer_left(PEER, of_router.clone(), t);
        assert_eq!(paths.poll_timeout(t), None, "nothing was proven");
        paths.is_up(PEER, remote());
        paths.peer_left(PEER, of_router, t);
        let seen = |others: &[IpAddr]| {
            let mut stations = Stations::new(US);
            let other = Mac([2, 1, 0, 0, 0, 9]);
            stations.add(US, other, others);
            paths.add_departed(&mut stations);
            stations.elsewhere().map(|(mac, station)| (mac, station.addresses.len())).collect::<Vec<_>>()
        };
        assert_eq!(seen(&[]), [(MAC, 1)]);
        assert_eq!(seen(&[address]), [(MAC, 0)]);
    }

    #[test]
    fn who_returned_is_remembered_for_a_moment_and_who_did_not_for_an_hour() {
        let (mut paths, t) = (KernelPaths::default(), start());
        paths.is_up(PEER, remote());
        paths.peer_left(PEER, OfRouter::new(), t);
        assert_eq!(paths.poll_timeout(t), Some(t + REMEMBERED));
        paths.peer_joined(PEER, t);
        assert_eq!(paths.poll_timeout(t), Some(t + RETURNED));
        paths.expire(|_| true, t + RETURNED);
        assert_eq!(standing(&paths, t).len(), 1);
        paths.peer_left(PEER, OfRouter::new(), t);
        paths.expire(|_| false, t + REMEMBERED);
        assert!(standing(&paths, t).is_empty());
    }
}
