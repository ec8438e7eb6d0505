//! The bridge and its TAP port.

use anyhow::Context;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{
            BridgeMulticastRouterType, BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind,
            InfoPortData, InfoPortKind, LinkAttribute, LinkInfo, LinkMessage,
        },
    },
};

use crate::{
    BridgeSpec, Host, HostError, LinkIndex,
    link::{Link, change, up},
    names,
    sysctl::{self, Setting},
};

/// Frames that may wait in the TAP device for its reader: one scheduling delay of a millisecond at 1 Gbit/s in small
/// frames. Each may be a segment of 64 KiB, so more would be latency, not throughput.
const TAP_QUEUE_FRAMES: u32 = 1000;

impl Host {
    /// Makes sure that the bridge exists, with these settings, and is up. Ports and addresses are left as they are.
    ///
    /// # Errors
    /// [`HostError::ForeignInterface`] when something else has that name. A bridge that was made by this call is
    /// removed again when a later step fails.
    pub async fn ensure_bridge(&self, spec: &BridgeSpec) -> anyhow::Result<LinkIndex> {
        names::check(&spec.name)?;
        let existing = self.link(&spec.name).await?;
        let is_new = existing.is_none();
        let link = match existing {
            Some(link) => link,
            None => self.create_bridge(spec).await?,
        };
        link.require_kind(&InfoKind::Bridge, "a bridge")?;
        let configured = self.configure_bridge(spec, &link, is_new).await;
        if let Err(error) = configured {
            if is_new {
                self.delete_link(link.index, &spec.name)
                    .await
                    .context("undoing the creation of the bridge")?;
            }
            return Err(error.into());
        }
        Ok(link.index)
    }

    async fn create_bridge(&self, spec: &BridgeSpec) -> Result<Link, HostError> {
        // A new bridge gets an MTU that is not the wanted one: only a *change* pins it (Linux: br_change_mtu).
        let other_mtu = if spec.mtu == 1500 { 1499 } else { 1500 };
        let mut attributes = vec![LinkAttribute::IfName(spec.name.clone()), LinkAttribute::Mtu(other_mtu)];
        attributes.extend(spec.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        let message = RouteNetlinkMessage::NewLink(change(LinkIndex(0), attributes));
        self.request(message, NLM_F_CREATE | NLM_F_EXCL, format!("creating bridge {}", spec.name)).await?;
        self.require_link(&spec.name).await
    }

    async fn configure_bridge(&self, spec: &BridgeSpec, link: &Link, is_new: bool) -> Result<(), HostError> {
        let mut settings = vec![
            InfoBridge::StpState(BridgeStpState::Disabled),
            InfoBridge::ForwardDelay(0),
            InfoBridge::MulticastSnooping(spec.multicast_snooping),
        ];
        if is_new {
            // Without a default VLAN each forwarding entry exists once; with one, the kernel adds it per VLAN as well.
            settings.push(InfoBridge::VlanDefaultPvid(0));
        }
        let mut attributes = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(settings)),
        ])];
        if link.mtu != spec.mtu {
            attributes.push(LinkAttribute::Mtu(spec.mtu));
        }
        // Setting an address, even the one that it has, pins it (Linux: NET_ADDR_SET).
        let mac = spec.mac.unwrap_or(link.mac);
        if is_new || mac != link.mac {
            attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        }
        self.change_link(change(link.index, attributes), format!("configuring bridge {}", spec.name)).await?;
        self.apply_sysctls(&[Setting::new(sysctl::ipv6(&spec.name, "accept_ra"), "0")])?;
        if link.is_up {
            return Ok(());
        }
        self.change_link(up(change(link.index, [])), format!("bringing bridge {} up", spec.name)).await
    }

    /// Makes an existing TAP device a port of the bridge, through which unknown destinations leave: no learning
    /// (what lies behind it is told by [`reconcile_bridge_fdb`](Self::reconcile_bridge_fdb)), isolated from other
    /// isolated ports, flooded with everything, with the bridge's MTU: what is larger than a port's the kernel drops
    /// without a word. Brings it up.
    ///
    /// # Errors
    /// [`HostError::NoInterface`]; [`HostError::ForeignInterface`] when it is no TAP device.
    pub async fn ensure_tap_port(&self, name: &str, bridge: LinkIndex) -> anyhow::Result<LinkIndex> {
        let link = self.require_link(name).await?;
        link.require_kind(&InfoKind::Tun, "a TAP device")?;
        let configured = self.join_as_uplink(&link, bridge).await;
        if configured.is_err() && link.master != Some(bridge) {
            // Where it was before: the kernel leaves the old bridge first and may then fail to join the new one.
            let back = change(link.index, [LinkAttribute::Controller(link.master.map_or(0, |m| m.0))]);
            self.change_link(back, format!("taking {name} off the bridge again")).await?;
        }
        configured?;
        Ok(link.index)
    }

    async fn join_as_uplink(&self, link: &Link, bridge: LinkIndex) -> Result<(), HostError> {
        self.silence(link).await?;
        if link.master != Some(bridge) {
            let master = change(link.index, [LinkAttribute::Controller(bridge.0)]);
            self.change_link(master, format!("adding {} to the bridge", link.name)).await?;
        }
        let mtu = self.link_by_index(bridge).await?.map_or(link.mtu, |bridge| bridge.mtu);
        self.configure_uplink(link, mtu).await
    }

    async fn configure_uplink(&self, link: &Link, mtu: u32) -> Result<(), HostError> {
        let settings = vec![
            InfoBridgePort::Learning(false),
            InfoBridgePort::Isolated(true),
            InfoBridgePort::UnicastFlood(true),
            InfoBridgePort::MulticastFlood(true),
            InfoBridgePort::BroadcastFlood(true),
            // With snooping on, groups that only remote containers joined still leave through here.
            InfoBridgePort::MulticastRouter(BridgeMulticastRouterType::Permanent),
        ];
        self.change_link(port(link.index, settings), format!("configuring bridge port {}", link.name))
            .await?;
        self.apply_sysctls(&[Setting::new(sysctl::ipv6(&link.name, "accept_ra"), "0")])?;
        let sizes =
            change(link.index, [LinkAttribute::Mtu(mtu), LinkAttribute::TxQueueLen(TAP_QUEUE_FRAMES)]);
        self.change_link(up(sizes), format!("bringing {} up", link.name)).await
    }
}

/// A request to change the settings of a bridge port.
fn port(index: LinkIndex, settings: Vec<InfoBridgePort>) -> LinkMessage {
    let kind = LinkInfo::PortKind(InfoPortKind::Bridge);
    let data = LinkInfo::PortData(InfoPortData::BridgePort(settings));
    change(index, [LinkAttribute::LinkInfo(vec![kind, data])])
}
