//! Ports of bridges: joining one, with the settings of the part that it plays there.

use rtnetlink::packet_route::link::{
    BridgeMulticastRouterType, InfoBridgePort, InfoKind, InfoPortData, InfoPortKind, LinkAttribute, LinkInfo,
    LinkMessage,
};

use crate::{
    Host, HostError, LinkIndex,
    link::{Link, change, up},
    sysctl::{self, Setting},
};

/// Frames that may wait in the TAP device for its reader: one scheduling delay of a millisecond at 1 Gbit/s in small
/// frames. Each may be a segment of 64 KiB, so more would be latency, not throughput.
const TAP_QUEUE_FRAMES: u32 = 1000;

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The sleeve's door.
    Door,
    /// A tunnel to other hosts.
    Tunnel,
    /// The one door of a relay's bridge.
    Relay,
}

impl Role {
    fn settings(self) -> Vec<InfoBridgePort> {
        let is_uplink = self != Self::Relay;
        let mut settings = vec![
            InfoBridgePort::Learning(false),
            // The bridge never forwards between two uplinks: which frame is passed on is decided elsewhere.
            InfoBridgePort::Isolated(is_uplink),
            // Questions for addresses that we know are answered here (br_arp_nd_proxy.c).
            InfoBridgePort::NeighSupress(is_uplink),
            // A relay sends back through the port that a frame came from, and only what has an entry.
            InfoBridgePort::HairpinMode(!is_uplink),
            // Frames for stations that nobody knows leave through the door alone, where they are counted and limited.
            InfoBridgePort::UnicastFlood(self == Self::Door),
            InfoBridgePort::MulticastFlood(is_uplink),
            InfoBridgePort::BroadcastFlood(is_uplink),
        ];
        if is_uplink {
            // With snooping on, groups that only remote containers joined still leave through here.
            settings.push(InfoBridgePort::MulticastRouter(BridgeMulticastRouterType::Permanent));
        }
        settings
    }
}

impl Host {
    /// Makes an existing TAP device a port of the bridge, through which unknown destinations leave: no learning
    /// (what lies behind it is told by [`reconcile_ports`](Self::reconcile_ports)), isolated from other isolated
    /// ports, flooded with everything but questions that can be answered here
    /// ([`reconcile_neighbours`](Self::reconcile_neighbours)), with the bridge's MTU: what is larger than a port's
    /// the kernel drops without a word. Brings it up.
    ///
    /// # Errors
    /// [`HostError::NoInterface`]; [`HostError::ForeignInterface`] when it is no TAP device.
    pub async fn ensure_tap_port(&self, name: &str, bridge: LinkIndex) -> anyhow::Result<LinkIndex> {
        let link = self.require_link(name).await?;
        link.require_kind(&InfoKind::Tun, "a TAP device")?;
        self.silence(&link).await?;
        let queue = change(link.index, [LinkAttribute::TxQueueLen(TAP_QUEUE_FRAMES)]);
        self.change_link(queue, format!("setting the length of {name}'s queue")).await?;
        self.join(&link, bridge, Role::Door).await?;
        Ok(link.index)
    }

    /// Makes a tunnel device ([`ensure_vxlan`](Self::ensure_vxlan)) a port of the bridge, with the settings of the
    /// TAP's, but not for unknown destinations. What leaves through it, and whereto, is told by [`reconcile_ports`](Self::reconcile_ports) and
    /// [`reconcile_tunnels`](Self::reconcile_tunnels).
    ///
    /// # Errors
    /// [`HostError::NoInterface`]; [`HostError::ForeignInterface`] when it is no VXLAN device.
    pub async fn ensure_uplink_port(&self, link: LinkIndex, bridge: LinkIndex) -> anyhow::Result<()> {
        self.join_tunnel(link, bridge, Role::Tunnel).await
    }

    /// Makes a tunnel device a port of a bridge that passes tunnelled frames on
    /// ([`ensure_relay_bridge`](Self::ensure_relay_bridge)): a frame may go back to where it came from, and only
    /// one whose destination has an entry goes anywhere.
    ///
    /// # Errors
    /// [`HostError::NoInterface`]; [`HostError::ForeignInterface`] when it is no VXLAN device.
    pub async fn ensure_relay_port(&self, link: LinkIndex, bridge: LinkIndex) -> anyhow::Result<()> {
        self.join_tunnel(link, bridge, Role::Relay).await
    }

    async fn join_tunnel(&self, index: LinkIndex, bridge: LinkIndex, role: Role) -> anyhow::Result<()> {
        let link = self.require_index(index).await?;
        link.require_kind(&InfoKind::Vxlan, "a VXLAN device")?;
        self.join(&link, bridge, role).await?;
        if role == Role::Relay {
            self.apply_sysctls(&[Setting::new(sysctl::ipv6(&link.name, "disable_ipv6"), "1")])?;
        }
        Ok(())
    }

    /// Joins, and leaves again when the settings are refused.
    async fn join(&self, link: &Link, bridge: LinkIndex, role: Role) -> Result<(), HostError> {
        let configured = self.join_and_configure(link, bridge, role).await;
        if configured.is_err() && link.master != Some(bridge) {
            // Where it was before: the kernel leaves the old bridge first and may then fail to join the new one.
            let back = change(link.index, [LinkAttribute::Controller(link.master.map_or(0, |m| m.0))]);
            self.change_link(back, format!("taking {} off the bridge again", link.name)).await?;
        }
        configured
    }

    async fn join_and_configure(&self, link: &Link, bridge: LinkIndex, role: Role) -> Result<(), HostError> {
        if link.master != Some(bridge) {
            let master = change(link.index, [LinkAttribute::Controller(bridge.0)]);
            self.change_link(master, format!("adding {} to the bridge", link.name)).await?;
        }
        let settings = port(link.index, role.settings());
        self.change_link(settings, format!("configuring bridge port {}", link.name)).await?;
        self.apply_sysctls(&[Setting::new(sysctl::ipv6(&link.name, "accept_ra"), "0")])?;
        let mtu = self.link_by_index(bridge).await?.map_or(link.mtu, |bridge| bridge.mtu);
        let sized = change(link.index, (link.mtu != mtu).then_some(LinkAttribute::Mtu(mtu)));
        self.change_link(up(sized), format!("bringing {} up", link.name)).await
    }
}

/// A request to change the settings of a bridge port.
fn port(index: LinkIndex, settings: Vec<InfoBridgePort>) -> LinkMessage {
    let kind = LinkInfo::PortKind(InfoPortKind::Bridge);
    let data = LinkInfo::PortData(InfoPortData::BridgePort(settings));
    change(index, [LinkAttribute::LinkInfo(vec![kind, data])])
}
