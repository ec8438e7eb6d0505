//! What the kernel held when the router started: the work of its last run, by which containers reach each other right now.
//!
//! The new run knows nobody at first, and its first plans would empty the tables. So until every link has had the time to be
//! judged anew, entries that a plan leaves to the sleeve, or does not know, stay as they are; a plan that sends a station somewhere
//! else over the kernel is followed at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use weave_datapath::{Family, Plan, Port, Tunnel};
use weave_model::Mac;

use super::devices::Devices;
use crate::clock;

/// How long after the start. Peers dial back within a second of a restart, those that are slow to notice within the QUIC
/// idle time-out (`quic::tls`); a proof of the kernel's path takes a round trip more.
const GRACE: Duration = Duration::from_secs(30);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Adoption {
    tunnels: BTreeMap<Mac, Tunnel>,
    flood: BTreeSet<IpAddr>,
    until: Instant,
}

impl Adoption {
    /// Reads what is there; what leads to others than `may_stay` says is not taken up.
    pub(super) async fn look(devices: &Devices, may_stay: impl Fn(IpAddr) -> bool) -> anyhow::Result<Self> {
        let mut tunnels = BTreeMap::new();
        let mut flood = BTreeSet::new();
        // Behind a shield what was there has no keys any more: the tunnel is faster than the next heartbeat.
        let existing = if devices.shield.is_active() { Vec::new() } else { devices.existing_data().await? };
        for (_, index) in existing {
            let (stations, flooded) = devices.host.tunnels(index).await?;
            flood.extend(flooded.into_iter().filter(|remote| may_stay(*remote)));
            // A station behind a relay is left to the sleeve for a moment: the relay's tables are not ours to judge.
            let direct = stations.into_iter();
            let direct = direct.filter(|(_, tunnel)| tunnel.vni.is_none() && may_stay(tunnel.remote));
            tunnels.extend(direct.map(|(mac, tunnel)| (mac, Tunnel { remote: tunnel.remote, relays: 0 })));
        }
        Ok(Self { tunnels, flood, until: clock::now() + GRACE })
    }

    /// When it ends; nothing when there was nothing to adopt.
    pub(super) fn ends(&self) -> Option<Instant> {
        (!self.tunnels.is_empty() || !self.flood.is_empty()).then_some(self.until)
    }

    /// The plan with what has to stay during the grace.
    pub(super) fn overlay(&mut self, mut plan: Plan, now: Instant) -> Plan {
        if now >= self.until {
            self.tunnels.clear();
            self.flood.clear();
            return plan;
        }
        for (mac, tunnel) in &self.tunnels {
            if !matches!(plan.ports.get(mac), Some(Port::Vxlan(_))) {
                plan.ports.insert(*mac, Port::Vxlan(Family::of(tunnel.remote)));
                plan.tunnels.insert(*mac, *tunnel);
            }
        }
        plan.flood.extend(&self.flood);
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 1, 0, 0, 0, 1]);

    fn tunnel(remote: &str) -> Tunnel {
        Tunnel { remote: remote.parse().unwrap(), relays: 0 }
    }

    #[test]
    fn what_was_there_stays_until_the_plan_knows_better_or_the_grace_ends() {
        let now = clock::now();
        let mut adoption = Adoption {
            tunnels: BTreeMap::from([(MAC, tunnel("192.0.2.1"))]),
            flood: BTreeSet::from(["192.0.2.1".parse().unwrap()]),
            until: now + GRACE,
        };
        let mut by_sleeve = Plan::default();
        by_sleeve.ports.insert(MAC, Port::Tap);
        let kept = adoption.overlay(by_sleeve.clone(), now);
        assert_eq!(kept.ports[&MAC], Port::Vxlan(Family::V4));
        assert_eq!((kept.tunnels[&MAC], kept.flood.len()), (tunnel("192.0.2.1"), 1));
        let mut moved = Plan::default();
        moved.ports.insert(MAC, Port::Vxlan(Family::V4));
        moved.tunnels.insert(MAC, tunnel("192.0.2.2"));
        assert_eq!(adoption.overlay(moved, now).tunnels[&MAC], tunnel("192.0.2.2"));
        assert_eq!(adoption.overlay(by_sleeve.clone(), now + GRACE), by_sleeve);
        assert_eq!(adoption.ends(), None);
    }
}
