//! Looking at the host's own addresses and routes; nothing here changes anything.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use weave_model::Subnet;

use crate::{Host, HostRoute, LinkIndex, names};

/// How the names of other programs' private bridges and containers' interfaces begin: their addresses are the
/// same on many hosts, and nobody reaches us by them.
const PRIVATE_PREFIXES: [&str; 6] = ["docker", "br-", "virbr", "cni", "veth", "podman"];

impl Host {
    /// Every address of the host, with the interface that has it, without link-local and loopback ones.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn addresses(&self) -> anyhow::Result<Vec<(String, IpNet)>> {
        let links = self.links().await?;
        let name = |index: LinkIndex| links.iter().find(|l| l.index == index).map(|l| l.name.clone());
        let addresses = self.all_addresses().await?;
        Ok(addresses.into_iter().filter_map(|(index, net)| Some((name(index)?, net))).collect())
    }

    /// The unicast (and blackhole) routes of the main table, in order, without link-local ones.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn routes(&self) -> anyhow::Result<Vec<HostRoute>> {
        let links = self.links().await?;
        let name = |index: u32| links.iter().find(|l| l.index.0 == index).map(|l| l.name.clone());
        let everything = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let routes = self.dump(everything, "listing routes", |answer| {
            if let RouteNetlinkMessage::NewRoute(message) = answer { read(&message, &name) } else { None }
        });
        let routes: BTreeSet<HostRoute> = routes.await?.into_iter().collect();
        Ok(routes.into_iter().collect())
    }

    /// A route of the host that contains `subnet` or lies in it: traffic for one of the two would go astray.
    /// Default routes and our own interfaces' routes do not count.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn overlapping_route(&self, subnet: Subnet) -> anyhow::Result<Option<HostRoute>> {
        Ok(self.routes().await?.into_iter().find(|route| overlaps(route, subnet.net())))
    }

    /// The addresses at which other hosts may reach this one: of interfaces that are up, those of a default route's
    /// interface first; without loopback, link-local, our own, and other container networks' addresses.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn underlay_addresses(&self) -> anyhow::Result<Vec<IpAddr>> {
        let links = self.links().await?;
        let routes = self.routes().await?;
        let leads_out = |name: &str| {
            routes.iter().any(|r| r.destination.prefix_len() == 0 && r.device.as_deref() == Some(name))
        };
        let mut ranked = BTreeSet::new();
        for (index, net) in self.all_addresses().await? {
            let link = links.iter().find(|l| l.index == index);
            let Some(link) = link.filter(|l| l.is_up && !l.is_loopback && is_underlay(&l.name)) else {
                continue;
            };
            ranked.insert((!leads_out(&link.name), index, net.addr()));
        }
        Ok(ranked.into_iter().map(|(_, _, address)| address).collect())
    }
}

fn is_underlay(name: &str) -> bool {
    !names::is_ours(name) && !PRIVATE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn overlaps(route: &HostRoute, subnet: IpNet) -> bool {
    let other = route.destination;
    let is_ours = route.device.as_deref().is_some_and(names::is_ours);
    other.prefix_len() > 0 && !is_ours && (other.contains(&subnet) || subnet.contains(&other))
}

fn read(message: &RouteMessage, name: &impl Fn(u32) -> Option<String>) -> Option<HostRoute> {
    let kind_counts = matches!(
        message.header.kind,
        RouteType::Unicast | RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit
    );
    let is_ipv4 = message.header.address_family == AddressFamily::Inet;
    if !is_ipv4 && message.header.address_family != AddressFamily::Inet6 {
        return None;
    }
    let mut destination = if is_ipv4 { IpAddr::from([0_u8; 4]) } else { IpAddr::from([0_u8; 16]) };
    let mut table = u32::from(message.header.table);
    let mut device = None;
    let mut gateway = None;
    for attribute in &message.attributes {
        if let RouteAttribute::Destination(address) = attribute {
            destination = read_address(address)?;
        } else if let RouteAttribute::Gateway(address) = attribute {
            gateway = read_address(address);
        } else if let RouteAttribute::Oif(index) = attribute {
            device = name(*index);
        } else if let RouteAttribute::Table(number) = attribute {
            table = *number;
        }
    }
    let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    let counts = kind_counts && table == u32::from(RouteHeader::RT_TABLE_MAIN) && !is_local(destination);
    counts.then_some(HostRoute { destination, device, gateway })
}

/// Link-local or multicast: every link has these, and no overlay is made of them.
fn is_local(net: IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.addr().is_link_local() || net.addr().is_multicast(),
        IpNet::V6(net) => net.addr().is_unicast_link_local() || net.addr().is_multicast(),
    }
}

fn read_address(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(v4) = address {
        Some(IpAddr::V4(*v4))
    } else if let RouteAddress::Inet6(v6) = address {
        Some(IpAddr::V6(*v6))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, device: &str) -> HostRoute {
        HostRoute {
            destination: destination.parse().unwrap(),
            device: Some(device.to_owned()),
            gateway: None,
        }
    }

    #[test]
    fn a_route_overlaps_when_one_contains_the_other() {
        let range: IpNet = "10.32.0.0/12".parse().unwrap();
        assert!(overlaps(&route("10.0.0.0/8", "eth0"), range));
        assert!(overlaps(&route("10.40.1.0/24", "eth0"), range));
        assert!(!overlaps(&route("10.64.0.0/12", "eth0"), range));
        assert!(!overlaps(&route("fd00::/8", "eth0"), range));
    }

    #[test]
    fn the_default_route_and_our_own_routes_overlap_with_nothing() {
        let range: IpNet = "10.32.0.0/12".parse().unwrap();
        assert!(!overlaps(&route("0.0.0.0/0", "eth0"), range));
        assert!(!overlaps(&route("10.32.0.0/12", "weave"), range));
    }

    #[test]
    fn a_route_is_shown_as_ip_route_shows_it() {
        let mut shown = route("10.0.0.0/8", "eth0");
        assert_eq!(shown.to_string(), "10.0.0.0/8 dev eth0");
        shown.gateway = Some("192.0.2.1".parse().unwrap());
        assert_eq!(shown.to_string(), "10.0.0.0/8 via 192.0.2.1 dev eth0");
    }
}
