//! Brings the kernel's tables in line with the plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use weave_datapath::{Family, Plan, Port, Tunnel};
use weave_hostnet::LinkIndex;
use weave_model::Mac;

use super::{
    adoption::Adoption,
    devices::{DATA_VNI, Devices, relay_vni},
};
use crate::clock;

/// After a failure, when it is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Relay devices go when nothing was relayed for this long: a full mesh is none for a moment whenever a router restarts.
const RELAYS_IDLE: Duration = Duration::from_secs(60);
/// How often it is looked whether the firewall rules are still there: other programs flush all of them now and then.
const GUARD: Duration = Duration::from_secs(3);
/// How often everything is compared with the kernel even though nothing changed: somebody may have taken something away.
const REPAIR: Duration = Duration::from_secs(30);

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The task.
pub(super) struct Keeper {
    devices: Arc<Devices>,
    tap_port: LinkIndex,
    plans: watch::Receiver<Arc<Plan>>,
    adoption: Adoption,
    /// What the kernel was last told.
    last: Plan,
    /// Since when nothing is relayed, while relay devices may be there.
    relays_idle: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(
        devices: Arc<Devices>,
        tap_port: LinkIndex,
        plans: watch::Receiver<Arc<Plan>>,
        adoption: Adoption,
    ) -> Self {
        Self { devices, tap_port, plans, adoption, last: Plan::default(), relays_idle: Some(clock::now()) }
    }

    /// Runs until the engine has stopped.
    pub(super) async fn run(mut self) {
        loop {
            let now = clock::now();
            let wanted = Plan::clone(&self.plans.borrow_and_update());
            let wanted = self.adoption.overlay(wanted, now);
            let next_look = match self.apply(&wanted).await {
                Ok(()) => {
                    self.last = wanted;
                    self.retire_relays(now).await;
                    now + REPAIR
                }
                Err(error) => {
                    self.devices.doubt().await;
                    let error = format!("{error:#}");
                    tracing::warn!(error, "cannot bring the kernel's tables in line; trying again");
                    now + RETRY
                }
            };
            let wake = self.adoption.ends().map_or(next_look, |ends| ends.min(next_look));
            if !self.wait(wake).await {
                return;
            }
        }
    }

    /// Waits for another plan, or until `wake`, and looks after the guard meanwhile; tells whether there is more to do.
    async fn wait(&mut self, wake: Instant) -> bool {
        loop {
            let now = clock::now();
            let next = if self.devices.guard.is_closed() { wake.min(now + GUARD) } else { wake };
            match tokio::time::timeout_at(next.into(), self.plans.changed()).await {
                Ok(changed) => return changed.is_ok(),
                Err(_elapsed) if next == wake => return true,
                Err(_elapsed) => {
                    self.devices.close_port();
                }
            }
        }
    }

    /// In an order in which no frame is sent to where there is nothing: first where the tunnels lead, with the former ones
    /// beside them, then the bridge's ports, then the former ones go.
    async fn apply(&self, wanted: &Plan) -> anyhow::Result<()> {
        if !self.devices.existing_data().await?.is_empty() || !wanted.tunnels.is_empty() {
            let relayed = wanted.relay.iter().flat_map(BTreeMap::values);
            let remotes = wanted.tunnels.values().chain(relayed).map(|tunnel| tunnel.remote);
            let remotes: BTreeSet<_> = remotes.chain(wanted.flood.iter().copied()).collect();
            self.devices.shield.plan(remotes.clone())?;
            self.devices.guard.admit_planned(remotes, &self.devices.shield)?;
        }
        for (hops, table) in (1..).zip(&wanted.relay) {
            self.relay(hops, table).await?;
        }
        let mut both = self.last.tunnels.clone();
        both.extend(&wanted.tunnels);
        let devices = self.tunnels(&both, wanted).await?;
        self.ports(&devices, &wanted.ports).await?;
        if both != wanted.tunnels {
            self.tunnels(&wanted.tunnels, wanted).await?;
        }
        self.devices.host.reconcile_neighbours(self.devices.bridge, &wanted.neighbours).await?;
        Ok(())
    }

    /// Removes relay devices that have not been needed for long.
    async fn retire_relays(&mut self, now: Instant) {
        if self.last.relay.iter().any(|table| !table.is_empty()) {
            self.relays_idle = Some(now);
        } else if self.relays_idle.is_some_and(|since| now >= since + RELAYS_IDLE) {
            self.relays_idle = None;
            if let Err(error) = self.devices.remove_relays().await {
                tracing::warn!(error = format!("{error:#}"), "relay devices stay that nobody needs");
            }
        }
    }

    /// Fills the data devices; gives those that there are.
    async fn tunnels(
        &self,
        table: &BTreeMap<Mac, Tunnel>,
        plan: &Plan,
    ) -> anyhow::Result<BTreeMap<Family, LinkIndex>> {
        let mut devices: BTreeMap<_, _> = self.devices.existing_data().await?.into_iter().collect();
        for family in FAMILIES {
            let stations = in_kernel(table, family, DATA_VNI);
            let flood: BTreeSet<_> = plan.flood_of(family).collect();
            if stations.is_empty() && flood.is_empty() && !devices.contains_key(&family) {
                continue;
            }
            let device = self.devices.data(family).await?;
            devices.insert(family, device);
            self.devices.host.reconcile_tunnels(device, &stations, &flood).await?;
        }
        Ok(devices)
    }

    async fn ports(
        &self,
        devices: &BTreeMap<Family, LinkIndex>,
        ports: &BTreeMap<Mac, Port>,
    ) -> anyhow::Result<()> {
        let port = |port: &Port| match port {
            Port::Tap => self.tap_port,
            Port::Vxlan(family) => devices.get(family).copied().unwrap_or(self.tap_port),
        };
        let wanted: BTreeMap<Mac, LinkIndex> = ports.iter().map(|(mac, to)| (*mac, port(to))).collect();
        let uplinks: BTreeSet<LinkIndex> = devices.values().copied().chain([self.tap_port]).collect();
        self.devices.host.reconcile_ports(self.devices.bridge, &uplinks, &wanted).await?;
        Ok(())
    }

    /// Fills the table of what passes through us with `hops` hops left. What arrives over one family may leave over the other.
    async fn relay(&self, hops: u8, table: &BTreeMap<Mac, Tunnel>) -> anyhow::Result<()> {
        let before = self.last.relay.get(usize::from(hops) - 1);
        // A family that no entry uses, now or before, has no neighbour that could send to us.
        let families: BTreeSet<Family> =
            table.values().chain(before.into_iter().flat_map(BTreeMap::values)).map(Tunnel::family).collect();
        let mut ports = BTreeMap::new();
        for family in families {
            ports.insert(family, self.devices.relay(hops, family).await?);
        }
        for (family, relay) in &ports {
            let stations = in_kernel(table, *family, relay_vni(hops));
            self.devices.host.reconcile_tunnels(relay.port, &stations, &BTreeSet::new()).await?;
        }
        if let Some(bridge) = ports.values().next().map(|relay| relay.bridge) {
            let port = |tunnel: &Tunnel| Some(ports.get(&tunnel.family())?.port);
            let wanted = table.iter().filter_map(|(mac, tunnel)| Some((*mac, port(tunnel)?))).collect();
            let uplinks = ports.values().map(|relay| relay.port).collect();
            self.devices.host.reconcile_ports(bridge, &uplinks, &wanted).await?;
        }
        Ok(())
    }
}

/// The part of a table that the device of `family` holds, whose own VNI is `own`.
fn in_kernel(
    table: &BTreeMap<Mac, Tunnel>,
    family: Family,
    own: u32,
) -> BTreeMap<Mac, weave_hostnet::Tunnel> {
    let of_family = Plan::of_family(table, family);
    let tunnel = |t: Tunnel| {
        let vni = if t.relays == 0 { DATA_VNI } else { relay_vni(t.relays) };
        weave_hostnet::Tunnel { remote: t.remote, vni: (vni != own).then_some(vni) }
    };
    of_family.map(|(mac, t)| (mac, tunnel(t))).collect()
}
