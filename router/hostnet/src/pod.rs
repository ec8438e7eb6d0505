//! What a container's interface may need beyond addresses: routes, a port that frames may return through, and a look
//! at all of it.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::{
    RouteMessageBuilder,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkInfo},
        route::{RouteMessage, RouteScope},
    },
};
use weave_model::{Interface, Mac};

use crate::{Host, HostError, HostRoute, LinkIndex, NetnsRef, link::change};

/// A container's interface with all that was set up for it, as the kernel has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Ethernet address of the container's end.
    pub mac: Mac,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Whether both ends are up.
    pub is_up: bool,
    /// Addresses, in order, without link-local ones.
    pub addresses: Vec<Interface>,
    /// The routes of the container's main table that leave through this interface.
    pub routes: Vec<HostRoute>,
    /// Name of the host's end.
    pub host_ifname: String,
    /// The bridge that the host's end is a port of.
    pub bridge: Option<String>,
    /// Whether the bridge may send a frame back through the port that it came from.
    pub is_hairpin: bool,
}

impl Host {
    /// Lets the bridge send a frame back through this port, or not. A container needs that to reach itself by an
    /// address that is translated to its own. Returns the Ethernet address of the host's end.
    ///
    /// # Errors
    /// [`HostError::NoInterface`], or what the kernel says.
    pub async fn set_hairpin(&self, host_ifname: &str, on: bool) -> anyhow::Result<Mac> {
        let link = self.require_link(host_ifname).await?;
        if link.is_hairpin == on {
            return Ok(link.mac);
        }
        let kind = LinkInfo::PortKind(InfoPortKind::Bridge);
        let data = LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(on)]));
        let message = change(link.index, [LinkAttribute::LinkInfo(vec![kind, data])]);
        self.change_link(message, format!("configuring bridge port {host_ifname}")).await?;
        Ok(link.mac)
    }

    /// Adds routes in a container that leave through its interface `ifname`: to a destination, by a gateway or
    /// without one. Those that are there are left.
    ///
    /// # Errors
    /// What the kernel says: that the gateway cannot be reached, or that the destination has another route. The
    /// routes before that one stay.
    pub async fn add_container_routes(
        &self,
        netns: &NetnsRef,
        ifname: &str,
        routes: &[(IpNet, Option<IpAddr>)],
    ) -> anyhow::Result<()> {
        let inner = Self::open_in(netns.open()?).await?;
        let added = inner.add_routes_here(ifname, routes).await;
        inner.close().await;
        added
    }

    async fn add_routes_here(&self, ifname: &str, routes: &[(IpNet, Option<IpAddr>)]) -> anyhow::Result<()> {
        let link = self.require_link(ifname).await?;
        let present = self.routes().await?;
        for (destination, gateway) in routes {
            let (destination, gateway) = (destination.trunc(), *gateway);
            let wanted = HostRoute { destination, device: Some(ifname.to_owned()), gateway };
            if !present.contains(&wanted) {
                let message = RouteNetlinkMessage::NewRoute(route(destination, gateway, link.index));
                self.request(message, NLM_F_CREATE | NLM_F_EXCL, format!("adding the route {wanted}"))
                    .await?;
            }
        }
        Ok(())
    }

    /// What the interface `ifname` in a container looks like. `None`: the namespace is gone, or has no such interface
    /// of ours.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn inspect_container(
        &self,
        netns: &NetnsRef,
        ifname: &str,
    ) -> anyhow::Result<Option<Inspection>> {
        let Some(inner) = self.open_container(netns).await? else { return Ok(None) };
        let found = self.inspect_in(&inner, ifname).await;
        inner.close().await;
        found
    }

    async fn inspect_in(&self, inner: &Self, ifname: &str) -> anyhow::Result<Option<Inspection>> {
        let Some(link) = inner.link(ifname).await? else { return Ok(None) };
        let Some(host_end) = self.host_end(&link).await? else { return Ok(None) };
        let bridge = match host_end.master {
            Some(index) => self.link_by_index(index).await?.map(|bridge| bridge.name),
            None => None,
        };
        let routes = inner.routes().await?.into_iter().filter(|r| r.device.as_deref() == Some(ifname));
        Ok(Some(Inspection {
            mac: link.mac,
            mtu: link.mtu,
            is_up: link.is_up && host_end.is_up,
            addresses: inner.addresses_of(link.index).await?.into_iter().collect(),
            routes: routes.collect(),
            host_ifname: host_end.name,
            bridge,
            is_hairpin: host_end.is_hairpin,
        }))
    }
}

fn route(destination: IpNet, gateway: Option<IpAddr>, link: LinkIndex) -> RouteMessage {
    // What has no gateway is on the link.
    let scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    match (destination, gateway) {
        (IpNet::V4(net), gateway) => {
            let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .output_interface(link.0)
                .scope(scope);
            match gateway {
                Some(IpAddr::V4(gateway)) => route.gateway(gateway).build(),
                Some(IpAddr::V6(_)) | None => route.build(),
            }
        }
        (IpNet::V6(net), gateway) => {
            let route = RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .output_interface(link.0);
            match gateway {
                Some(IpAddr::V6(gateway)) => route.gateway(gateway).build(),
                Some(IpAddr::V4(_)) | None => route.build(),
            }
        }
    }
}

/// Checks that a route's gateway is of its destination's family.
///
/// # Errors
/// [`HostError::RouteFamilies`].
pub fn check_route(destination: IpNet, gateway: Option<IpAddr>) -> Result<(), HostError> {
    match gateway {
        Some(gateway) if gateway.is_ipv4() != destination.addr().is_ipv4() => {
            Err(HostError::RouteFamilies { destination, gateway })
        }
        _ => Ok(()),
    }
}
