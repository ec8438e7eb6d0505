//! The VXLAN devices, each made when it is first needed.

use std::collections::BTreeMap;

use tokio::sync::Mutex;
use weave_datapath::{Family, MAX_RELAYS, heartbeat_mac};
use weave_hostnet::{Host, LinkIndex, VxlanSpec, names};
use weave_model::{Mac, PeerName};

use super::{PORT, guard::Guard, shield::Shield};

/// VNI of what containers say.
pub(super) const DATA_VNI: u32 = 1;
/// VNI of heartbeats.
const HEARTBEAT_VNI: u32 = 2;
/// VNI of frames with `n` hops left is this plus `n`.
const RELAY_VNI: u32 = 10;
/// What heartbeat devices let through: the path, not the device, is to say what is too long.
const HEARTBEAT_MTU: u32 = 65_000;

/// One port of a relay bridge or of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relay {
    pub(super) bridge: LinkIndex,
    pub(super) port: LinkIndex,
}

/// See the module's documentation. Cheap to ask for a device that exists.
pub(super) struct Devices {
    pub(super) host: Host,
    pub(super) bridge: LinkIndex,
    pub(super) guard: Guard,
    pub(super) shield: Shield,
    mtu: u32,
    local: PeerName,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    data: BTreeMap<Family, LinkIndex>,
    heartbeat: BTreeMap<Family, LinkIndex>,
    relays: BTreeMap<(u8, Family), Relay>,
}

impl Devices {
    pub(super) fn new(
        host: Host,
        bridge: LinkIndex,
        guard: Guard,
        shield: Shield,
        mtu: u32,
        local: PeerName,
    ) -> Self {
        Self { host, bridge, guard, shield, mtu, local, made: Mutex::default() }
    }

    /// Puts back what somebody took away of the rules for the port.
    pub(super) fn close_port(&self) {
        let keys = self.shield.close();
        let rules = self.guard.close(&self.shield);
        if let Err(error) = keys.and(rules) {
            tracing::warn!(error = format!("{error:#}"), "the rules for UDP {PORT} are not in force");
        }
    }

    /// The device that carries data over this family, on the bridge.
    pub(super) async fn data(&self, family: Family) -> anyhow::Result<LinkIndex> {
        let mut made = self.made.lock().await;
        if let Some(index) = made.data.get(&family) {
            return Ok(*index);
        }
        self.guard.close(&self.shield)?;
        let index = self.ensure(data_name(family), DATA_VNI, family, self.mtu, false).await?;
        self.host.ensure_uplink_port(index, self.bridge).await?;
        made.data.insert(family, index);
        Ok(index)
    }

    /// The device that carries heartbeats over this family, on no bridge.
    pub(super) async fn heartbeat(&self, family: Family) -> anyhow::Result<LinkIndex> {
        let mut made = self.made.lock().await;
        if let Some(index) = made.heartbeat.get(&family) {
            return Ok(*index);
        }
        let name = heartbeat_name(family);
        let index = self.ensure(name, HEARTBEAT_VNI, family, HEARTBEAT_MTU, true).await?;
        made.heartbeat.insert(family, index);
        Ok(index)
    }

    /// The device on which frames with `hops` hops left arrive (and leave) over this family.
    pub(super) async fn relay(&self, hops: u8, family: Family) -> anyhow::Result<Relay> {
        let mut made = self.made.lock().await;
        if let Some(relay) = made.relays.get(&(hops, family)) {
            return Ok(*relay);
        }
        let bridge = self.host.ensure_relay_bridge(&names::relay_bridge(hops), HEARTBEAT_MTU).await?;
        let vni = relay_vni(hops);
        let port = self
            .ensure(&names::relay_port(hops, host_family(family)), vni, family, HEARTBEAT_MTU, false)
            .await?;
        self.host.ensure_relay_port(port, bridge).await?;
        let relay = Relay { bridge, port };
        made.relays.insert((hops, family), relay);
        Ok(relay)
    }

    /// Takes all relay devices away.
    pub(super) async fn remove_relays(&self) -> anyhow::Result<()> {
        let mut made = self.made.lock().await;
        made.relays.clear();
        for hops in (1..=MAX_RELAYS).filter_map(|hops| u8::try_from(hops).ok()) {
            for family in [Family::V4, Family::V6] {
                self.host.remove_link(&names::relay_port(hops, host_family(family))).await?;
            }
            self.host.remove_link(&names::relay_bridge(hops)).await?;
        }
        Ok(())
    }

    /// Those that are there, made by us or by an earlier run.
    pub(super) async fn existing_data(&self) -> anyhow::Result<Vec<(Family, LinkIndex)>> {
        let mut found = Vec::new();
        for family in [Family::V4, Family::V6] {
            if let Some(index) = self.host.link_index(data_name(family)).await? {
                found.push((family, index));
            }
        }
        Ok(found)
    }

    /// Forgets what was made, so that it is looked for and made again.
    pub(super) async fn doubt(&self) {
        *self.made.lock().await = Made::default();
    }

    async fn ensure(
        &self,
        name: &str,
        vni: u32,
        family: Family,
        mtu: u32,
        dont_fragment: bool,
    ) -> anyhow::Result<LinkIndex> {
        let spec = VxlanSpec {
            name: name.to_owned(),
            vni,
            port: PORT,
            family: host_family(family),
            mtu,
            dont_fragment,
            mac: self.mac(vni, family),
        };
        self.host.ensure_vxlan(&spec).await
    }

    /// Heartbeats are addressed to the device; of the others nobody knows.
    fn mac(&self, vni: u32, family: Family) -> Mac {
        if vni == HEARTBEAT_VNI {
            return heartbeat_mac(self.local);
        }
        names::mac_from_seed(&[&b"vxlan"[..], &vni.to_be_bytes(), &[family as u8], &self.local.0].concat())
    }
}

pub(super) const fn host_family(family: Family) -> weave_hostnet::Family {
    match family {
        Family::V4 => weave_hostnet::Family::V4,
        Family::V6 => weave_hostnet::Family::V6,
    }
}

/// The VNI with which a frame is sent that has `hops` hops left after its receiver.
pub(super) fn relay_vni(hops: u8) -> u32 {
    RELAY_VNI + u32::from(hops)
}

const fn data_name(family: Family) -> &'static str {
    match family {
        Family::V4 => names::VXLAN,
        Family::V6 => names::VXLAN6,
    }
}

const fn heartbeat_name(family: Family) -> &'static str {
    match family {
        Family::V4 => names::HEARTBEAT,
        Family::V6 => names::HEARTBEAT6,
    }
}
