//! The snapshot that every forwarding decision is read from.

use std::collections::{BTreeSet, HashMap};

use weave_model::{LinkId, Mac, PeerName};

use crate::{DropReason, Verdict};

/// How many routers a frame may pass, the last one included. The longest sensible relay chain is far shorter; a
/// loop, possible for the moment in which routers disagree, ends here.
pub const INITIAL_HOP_LIMIT: u8 = 16;

/// Where everything is, at one moment. Immutable once published.
///
/// The maps are only ever probed, never iterated, so their order cannot leak into behaviour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarding {
    /// This router.
    pub local: PeerName,
    /// The router behind which each known station lives; our own stations included.
    pub peer_by_mac: HashMap<Mac, PeerName>,
    /// The link on which frames for a router leave; only routers that the sleeve serves.
    pub next_hop: HashMap<PeerName, LinkId>,
    /// The links on which frames go on that entered the mesh at a router (ours included): our branch of its
    /// broadcast tree, without the way back.
    pub broadcast_hops: HashMap<PeerName, Vec<LinkId>>,
    /// The links on which floods of our own bridge leave, if they are fewer than our branch of our own tree, because
    /// the kernel has copied the frame to the others; see [`Forwarding::leave_to_kernel`].
    pub local_flood: Option<Vec<LinkId>>,
}

impl Forwarding {
    /// A router that knows nobody.
    #[must_use]
    pub fn new(local: PeerName) -> Self {
        Self {
            local,
            peer_by_mac: HashMap::new(),
            next_hop: HashMap::new(),
            broadcast_hops: HashMap::new(),
            local_flood: None,
        }
    }

    /// Says to the neighbours at the end of which links the kernel copies what our own bridge sends to groups
    /// ([`crate::Plan::flood`]): the sleeve leaves them out. Call it when `broadcast_hops` is filled in.
    ///
    /// Floods that others started still go to all of our children in their trees.
    pub fn leave_to_kernel(&mut self, served: &BTreeSet<LinkId>) {
        let hops = self.hops(self.local).iter().copied();
        self.local_flood = Some(hops.filter(|link| !served.contains(link)).collect());
    }

    /// Decides about a frame that came from the local bridge, sent by `src` to `dst`.
    #[must_use]
    pub fn local_frame(&self, dst: Mac, src: Mac) -> Verdict<'_> {
        if src.is_multicast() {
            return Verdict::Drop(DropReason::SourceIsGroup);
        }
        if dst.is_multicast() {
            return self.flood_from_here();
        }
        match self.peer_by_mac.get(&dst) {
            Some(peer) if *peer == self.local => Verdict::Drop(DropReason::DestinationIsLocal),
            Some(peer) => self.forward(*peer),
            None => match self.hops(self.local) {
                [] => Verdict::Drop(DropReason::NoNeighbour),
                hops => Verdict::FloodUnknown(hops),
            },
        }
    }

    /// Decides about a frame that came over a link.
    ///
    /// `source` is the router where it entered the mesh, `destination` the router it is addressed to (`None`: all
    /// of them), `dst` the station, `hop_limit` what the header said on arrival.
    #[must_use]
    pub fn remote_frame(
        &self,
        source: PeerName,
        destination: Option<PeerName>,
        dst: Mac,
        hop_limit: u8,
    ) -> Verdict<'_> {
        if source == self.local {
            return Verdict::Drop(DropReason::Looped);
        }
        match destination {
            Some(peer) if peer == self.local => Verdict::Deliver,
            Some(_) if hop_limit <= 1 => Verdict::Drop(DropReason::HopLimit),
            Some(peer) => self.forward(peer),
            None => self.spread(source, dst, hop_limit),
        }
    }

    fn forward(&self, peer: PeerName) -> Verdict<'_> {
        match self.next_hop.get(&peer) {
            Some(link) => Verdict::Forward(*link, peer),
            None => Verdict::Drop(DropReason::NoRoute),
        }
    }

    fn flood_from_here(&self) -> Verdict<'_> {
        let all = self.hops(self.local);
        match self.local_flood.as_deref().unwrap_or(all) {
            [] if all.is_empty() => Verdict::Drop(DropReason::NoNeighbour),
            [] => Verdict::Drop(DropReason::KernelServesAll),
            hops => Verdict::Flood(hops),
        }
    }

    /// A frame for everybody: pass it on along the tree of `source`, and deliver it unless it is known to be for
    /// a station elsewhere (the source flooded it because it did not know yet).
    fn spread(&self, source: PeerName, dst: Mac, hop_limit: u8) -> Verdict<'_> {
        let hops = if hop_limit <= 1 { &[][..] } else { self.hops(source) };
        let elsewhere = self.peer_by_mac.get(&dst).is_some_and(|peer| *peer != self.local);
        match (elsewhere, hops) {
            (true, []) => Verdict::Drop(DropReason::NoNeighbour),
            (true, hops) => Verdict::Flood(hops),
            (false, []) => Verdict::Deliver,
            (false, hops) => Verdict::DeliverAndFlood(hops),
        }
    }

    fn hops(&self, source: PeerName) -> &[LinkId] {
        self.broadcast_hops.get(&source).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const US: PeerName = PeerName([2, 0, 0, 0, 0, 1]);
    const FAR: PeerName = PeerName([2, 0, 0, 0, 0, 2]);
    const LOST: PeerName = PeerName([2, 0, 0, 0, 0, 3]);

    #[test]
    fn a_known_station_is_reached_over_the_link_towards_its_router() {
        let forwarding = example();
        assert_eq!(forwarding.local_frame(mac(2), mac(1)), Verdict::Forward(LinkId(7), FAR));
        assert_eq!(forwarding.local_frame(mac(3), mac(1)), Verdict::Drop(DropReason::NoRoute));
        assert_eq!(forwarding.local_frame(mac(1), mac(9)), Verdict::Drop(DropReason::DestinationIsLocal));
    }

    #[test]
    fn groups_and_unknown_stations_are_flooded_along_our_own_tree() {
        let forwarding = example();
        assert_eq!(forwarding.local_frame(Mac::BROADCAST, mac(1)), Verdict::Flood(&[LinkId(7), LinkId(8)]));
        assert_eq!(forwarding.local_frame(mac(200), mac(1)), Verdict::FloodUnknown(&[LinkId(7), LinkId(8)]));
        let alone = Forwarding::new(US);
        assert_eq!(alone.local_frame(Mac::BROADCAST, mac(1)), Verdict::Drop(DropReason::NoNeighbour));
        assert_eq!(alone.local_frame(mac(200), mac(1)), Verdict::Drop(DropReason::NoNeighbour));
    }

    #[test]
    fn the_sleeve_floods_only_to_those_whom_the_kernel_does_not_serve() {
        let mut forwarding = example();
        forwarding.leave_to_kernel(&[LinkId(7), LinkId(99)].into());
        assert_eq!(forwarding.local_frame(Mac::BROADCAST, mac(1)), Verdict::Flood(&[LinkId(8)]));
        assert_eq!(
            forwarding.local_frame(mac(200), mac(1)),
            Verdict::FloodUnknown(&[LinkId(7), LinkId(8)]),
            "the kernel does not flood these"
        );
        forwarding.leave_to_kernel(&[LinkId(7), LinkId(8)].into());
        let done = DropReason::KernelServesAll;
        assert_eq!(forwarding.local_frame(Mac::BROADCAST, mac(1)), Verdict::Drop(done));
        assert!(!done.is_loss());
        assert_eq!(forwarding.local_frame(mac(2), mac(1)), Verdict::Forward(LinkId(7), FAR));
        assert_eq!(
            forwarding.remote_frame(FAR, None, Mac::BROADCAST, 9),
            Verdict::DeliverAndFlood(&[LinkId(8)])
        );
        let mut alone = Forwarding::new(US);
        alone.leave_to_kernel(&BTreeSet::new());
        assert_eq!(alone.local_frame(Mac::BROADCAST, mac(1)), Verdict::Drop(DropReason::NoNeighbour));
    }

    #[test]
    fn a_frame_from_a_group_address_is_not_forwarded() {
        assert_eq!(example().local_frame(mac(2), Mac::BROADCAST), Verdict::Drop(DropReason::SourceIsGroup));
    }

    #[test]
    fn a_relayed_frame_goes_on_until_its_hop_limit_runs_out() {
        let forwarding = example();
        assert_eq!(forwarding.remote_frame(LOST, Some(FAR), mac(2), 2), Verdict::Forward(LinkId(7), FAR));
        assert_eq!(forwarding.remote_frame(LOST, Some(FAR), mac(2), 1), Verdict::Drop(DropReason::HopLimit));
        assert_eq!(forwarding.remote_frame(FAR, Some(US), mac(1), 0), Verdict::Deliver);
        assert_eq!(forwarding.remote_frame(US, None, Mac::BROADCAST, 9), Verdict::Drop(DropReason::Looped));
    }

    #[test]
    fn a_broadcast_is_delivered_and_passed_on_along_the_tree_of_its_source() {
        let forwarding = example();
        let broadcast = Mac::BROADCAST;
        assert_eq!(forwarding.remote_frame(FAR, None, broadcast, 9), Verdict::DeliverAndFlood(&[LinkId(8)]));
        assert_eq!(forwarding.remote_frame(FAR, None, broadcast, 1), Verdict::Deliver);
        assert_eq!(forwarding.remote_frame(LOST, None, broadcast, 9), Verdict::Deliver);
    }

    #[test]
    fn a_flooded_frame_for_a_station_known_to_be_elsewhere_is_passed_on_but_not_delivered() {
        let forwarding = example();
        assert_eq!(forwarding.remote_frame(FAR, None, mac(3), 9), Verdict::Flood(&[LinkId(8)]));
        assert_eq!(forwarding.remote_frame(LOST, None, mac(2), 9), Verdict::Drop(DropReason::NoNeighbour));
    }

    proptest! {
        /// Routers in a random mesh with shortest-path routes and trees: a frame handed from verdict to verdict
        /// ends at its destination, and a broadcast is delivered exactly once everywhere.
        #[test]
        fn verdicts_carry_frames_through_any_tree(parents in proptest::collection::vec(0usize..8, 1..8)) {
            let tree = Tree::new(&parents);
            for from in 0..tree.len() {
                prop_assert!(tree.flood(from).iter().enumerate().all(|(at, n)| *n == usize::from(at != from)));
                for to in 0..tree.len() {
                    prop_assert!(from == to || tree.unicast(from, to));
                }
            }
        }
    }

    /// A random tree of routers; the link from `a` to `b` has number `a * 16 + b`.
    struct Tree(Vec<Forwarding>);

    impl Tree {
        fn new(parents: &[usize]) -> Self {
            let count = parents.len() + 1;
            let parent = |child: usize| parents[child - 1] % child;
            let neighbours = |at: usize| {
                let up = (at > 0).then(|| parent(at));
                up.into_iter().chain((1..count).filter(move |c| parent(*c) == at)).collect::<Vec<_>>()
            };
            let mut routers: Vec<Forwarding> = (0..count).map(|at| Forwarding::new(name(at))).collect();
            for target in 0..count {
                let mut towards = vec![None; count];
                let mut queue = std::collections::VecDeque::from([target]);
                while let Some(at) = queue.pop_front() {
                    for next in neighbours(at) {
                        if next != target && towards[next].is_none() {
                            towards[next] = Some(at);
                            queue.push_back(next);
                        }
                    }
                }
                for at in 0..count {
                    routers[at].peer_by_mac.insert(mac(target as u8), name(target));
                    if let Some(next) = towards[at] {
                        routers[at].next_hop.insert(name(target), LinkId((at * 16 + next) as u64));
                    }
                    let on = neighbours(at).into_iter().filter(|n| Some(*n) != towards[at]);
                    let on = on.map(|n| LinkId((at * 16 + n) as u64)).collect();
                    routers[at].broadcast_hops.insert(name(target), on);
                }
            }
            Self(routers)
        }

        fn len(&self) -> usize {
            self.0.len()
        }

        fn unicast(&self, from: usize, to: usize) -> bool {
            let mut verdict = self.0[from].local_frame(mac(to as u8), mac(from as u8));
            for hop_limit in (1..=INITIAL_HOP_LIMIT).rev() {
                match verdict {
                    Verdict::Forward(LinkId(link), peer) => {
                        let at = &self.0[(link % 16) as usize];
                        verdict = at.remote_frame(name(from), Some(peer), mac(to as u8), hop_limit);
                        if verdict == Verdict::Deliver {
                            return at.local == name(to);
                        }
                    }
                    Verdict::Deliver
                    | Verdict::DeliverAndFlood(_)
                    | Verdict::Flood(_)
                    | Verdict::FloodUnknown(_)
                    | Verdict::Drop(_) => return false,
                }
            }
            false
        }

        fn flood(&self, from: usize) -> Vec<usize> {
            let mut delivered = vec![0; self.len()];
            let mut queue = Vec::new();
            if let Verdict::Flood(links) = self.0[from].local_frame(Mac::BROADCAST, mac(from as u8)) {
                queue.extend(links.iter().map(|l| (*l, INITIAL_HOP_LIMIT)));
            }
            while let Some((LinkId(link), hop_limit)) = queue.pop() {
                let at = (link % 16) as usize;
                match self.0[at].remote_frame(name(from), None, Mac::BROADCAST, hop_limit) {
                    Verdict::Deliver => delivered[at] += 1,
                    Verdict::DeliverAndFlood(links) => {
                        delivered[at] += 1;
                        queue.extend(links.iter().map(|l| (*l, hop_limit - 1)));
                    }
                    other @ (Verdict::Flood(_)
                    | Verdict::FloodUnknown(_)
                    | Verdict::Forward(..)
                    | Verdict::Drop(_)) => {
                        panic!("{other:?}")
                    }
                }
            }
            delivered
        }
    }

    fn example() -> Forwarding {
        let mut forwarding = Forwarding::new(US);
        forwarding.peer_by_mac.extend([(mac(1), US), (mac(2), FAR), (mac(3), LOST)]);
        forwarding.next_hop.insert(FAR, LinkId(7));
        forwarding.broadcast_hops.insert(US, vec![LinkId(7), LinkId(8)]);
        forwarding.broadcast_hops.insert(FAR, vec![LinkId(8)]);
        forwarding
    }

    fn mac(n: u8) -> Mac {
        Mac([2, 1, 0, 0, 0, n])
    }

    fn name(n: usize) -> PeerName {
        PeerName([2, 2, 0, 0, 0, n as u8])
    }
}
