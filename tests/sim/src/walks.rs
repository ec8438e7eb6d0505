//! Frames, walked from node to node by the very snapshots that the data plane would read.

use std::collections::BTreeMap;

use weave_datapath::{INITIAL_HOP_LIMIT, Verdict};
use weave_model::{LinkId, Mac, PeerName};

use crate::{check::Failure, world::World};

/// A station that nobody knows, so that its frames go to the router they are addressed to.
const SENDER: Mac = Mac([2, 0xff, 0, 0, 0, 1]);
/// Sources that are looked at; in a bigger mesh, some of them.
const MAX_SOURCES: usize = 100;

/// Where each host's links lead.
type Wiring = Vec<BTreeMap<LinkId, usize>>;

impl World {
    /// From every node, frames to every other arrive there, and a broadcast arrives everywhere exactly once.
    pub(crate) fn check_walks(&mut self) -> Result<(), Failure> {
        let living = self.living();
        let wiring = self.wiring();
        let stride = living.len().div_ceil(MAX_SOURCES).max(1);
        let mut walks = 0;
        for &from in living.iter().step_by(stride) {
            for &to in living.iter().filter(|to| **to != from) {
                self.walk(&wiring, from, to).map_err(|how| Failure::Misrouted { from, how })?;
                walks += 1;
            }
            self.flood(&wiring, from, &living).map_err(|how| Failure::Misrouted { from, how })?;
        }
        self.outcome.walks = walks;
        Ok(())
    }

    fn wiring(&self) -> Wiring {
        let mut wiring = vec![BTreeMap::new(); self.hosts.len()];
        for (end, peer) in &self.peer_of {
            if self.hosts[end.host].life == end.life {
                wiring[end.host].insert(end.link, peer.host);
            }
        }
        wiring
    }

    fn verdict(
        &self,
        at: usize,
        source: PeerName,
        to: Option<PeerName>,
        hop_limit: u8,
    ) -> Result<Verdict<'_>, String> {
        let forwarding =
            self.hosts[at].forwarding.as_deref().ok_or_else(|| format!("host {at} has no snapshot"))?;
        Ok(forwarding.remote_frame(source, to, Mac::BROADCAST, hop_limit))
    }

    fn walk(&self, wiring: &Wiring, from: usize, to: usize) -> Result<(), String> {
        let (source, target) = (self.hosts[from].name, self.hosts[to].name);
        let own = self.hosts[from].forwarding.as_deref().ok_or("it has no snapshot")?;
        let mut link = own.next_hop.get(&target).copied().ok_or_else(|| format!("no way to host {to}"))?;
        let mut at = from;
        for hop_limit in (1..=INITIAL_HOP_LIMIT).rev() {
            at = *wiring[at]
                .get(&link)
                .ok_or_else(|| format!("host {at} sends to host {to} over a dead link"))?;
            match self.verdict(at, source, Some(target), hop_limit)? {
                Verdict::Deliver if at == to => return Ok(()),
                Verdict::Forward(next, _) => link = next,
                other @ (Verdict::Deliver
                | Verdict::DeliverAndFlood(_)
                | Verdict::Flood(_)
                | Verdict::FloodUnknown(_)
                | Verdict::Drop(_)) => {
                    return Err(format!("host {at} does {other:?} with a frame for host {to}"));
                }
            }
        }
        Err(format!("a frame for host {to} is passed round"))
    }

    fn flood(&self, wiring: &Wiring, from: usize, living: &[usize]) -> Result<(), String> {
        let source = self.hosts[from].name;
        let own = self.hosts[from].forwarding.as_deref().ok_or("it has no snapshot")?;
        let mut under_way: Vec<(usize, LinkId, u8)> = match own.local_frame(Mac::BROADCAST, SENDER) {
            Verdict::Flood(links) => links.iter().map(|link| (from, *link, INITIAL_HOP_LIMIT)).collect(),
            _ if living.len() == 1 => return Ok(()),
            other @ (Verdict::Deliver
            | Verdict::DeliverAndFlood(_)
            | Verdict::FloodUnknown(_)
            | Verdict::Forward(..)
            | Verdict::Drop(_)) => {
                return Err(format!("it does {other:?} with its own broadcast"));
            }
        };
        let mut arrivals = vec![0_u32; self.hosts.len()];
        while let Some((via, link, hop_limit)) = under_way.pop() {
            let at = *wiring[via].get(&link).ok_or_else(|| format!("host {via} floods over a dead link"))?;
            arrivals[at] += 1;
            if arrivals[at] > 1 {
                return Err(format!("a broadcast arrives at host {at} twice"));
            }
            match self.verdict(at, source, None, hop_limit)? {
                Verdict::Deliver => {}
                Verdict::DeliverAndFlood(links) => {
                    under_way.extend(links.iter().map(|link| (at, *link, hop_limit - 1)));
                }
                other @ (Verdict::Flood(_)
                | Verdict::FloodUnknown(_)
                | Verdict::Forward(..)
                | Verdict::Drop(_)) => {
                    return Err(format!("host {at} does {other:?} with a broadcast"));
                }
            }
        }
        match living.iter().find(|host| **host != from && arrivals[**host] == 0) {
            Some(missed) => Err(format!("a broadcast does not arrive at host {missed}")),
            None => Ok(()),
        }
    }
}
