//! What fits through the underlay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::route::{RouteAttribute, RouteMessage, RouteMetric},
};

use crate::{Host, HostError, LinkIndex, error::kernel};

impl Host {
    /// The largest packet in bytes that leaves towards `remote`: the route's MTU, if it has one, else that of the interface.
    ///
    /// # Errors
    /// What the kernel says, as when there is no route.
    pub async fn route_mtu(&self, remote: IpAddr) -> anyhow::Result<u32> {
        let question = match remote {
            IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, 32).build(),
            IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128).build(),
        };
        let doing = format!("looking for the route to {remote}");
        let route = self.handle().route().get(question).execute().try_next().await.map_err(kernel(doing))?;
        let no_route = || HostError::NoInterface(format!("on the way to {remote}"));
        let route = route.ok_or_else(no_route)?;
        if let Some(mtu) = mtu_of(&route) {
            return Ok(mtu);
        }
        let device = route.attributes.iter().find_map(|attribute| {
            if let RouteAttribute::Oif(index) = attribute { Some(LinkIndex(*index)) } else { None }
        });
        let link = self.link_by_index(device.ok_or_else(no_route)?).await?.ok_or_else(no_route)?;
        Ok(link.mtu)
    }
}

/// The MTU that a route names itself.
fn mtu_of(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Metrics(metrics) = attribute else { return None };
        metrics.iter().find_map(|metric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None })
    })
}
