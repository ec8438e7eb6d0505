//! The tunnels as a whole: what they carried, and taking them away.

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::InfoKind,
    stats::{StatsAttribute, StatsFilterMask, StatsMessage},
};

use crate::{Host, HostError, LinkIndex, link::Link, names};

impl Host {
    /// Packets received and sent by an interface since it was made.
    ///
    /// # Errors
    /// [`HostError::NoInterface`].
    pub async fn link_traffic(&self, link: LinkIndex) -> anyhow::Result<(u64, u64)> {
        let mut request = StatsMessage::default();
        request.header.ifindex = link.0;
        request.header.filter_mask = StatsFilterMask::Link64;
        let request = RouteNetlinkMessage::GetStats(request);
        let no_link = || HostError::NoInterface(format!("number {}", link.0));
        let answer = match self.query(request, "counting packets").await {
            Err(error) if error.errno() == Some(libc::ENODEV) => Err(no_link()),
            other => other,
        };
        let Some(RouteNetlinkMessage::NewStats(answer)) = answer? else { return Err(no_link().into()) };
        let counters = answer.attributes.iter().find_map(|attribute| {
            if let StatsAttribute::Link64(counters) = attribute { Some(counters) } else { None }
        });
        Ok(counters.map(|c| (c.rx_packets, c.tx_packets)).ok_or_else(no_link)?)
    }

    /// Removes every interface of the kernel's tunnels. Containers, bridge and TAP stay. Returns the names of what
    /// was there, in order.
    ///
    /// # Errors
    /// All errors of the kernel, joined; what could be removed is gone.
    pub async fn remove_datapath(&self) -> anyhow::Result<Vec<String>> {
        self.remove_links(|link| names::is_datapath(&link.name)).await
    }

    /// Removes everything of ours: tunnels, containers' interfaces, the TAP and the bridge. Returns the names of
    /// what was there, in order.
    ///
    /// # Errors
    /// All errors of the kernel, joined; what could be removed is gone.
    pub async fn remove_everything(&self) -> anyhow::Result<Vec<String>> {
        self.remove_links(|link| names::is_ours(&link.name)).await
    }

    async fn remove_links(&self, goes: impl Fn(&Link) -> bool) -> anyhow::Result<Vec<String>> {
        let mut links = self.links().await?;
        links.retain(|link| goes(link) && link.is_of_our_kinds());
        links.sort_by(|a, b| a.name.cmp(&b.name));
        let (mut removed, mut errors) = (Vec::new(), Vec::new());
        for link in links {
            match self.delete_link(link.index, &link.name).await {
                Ok(()) => removed.push(link.name),
                Err(error) => errors.push(error.to_string()),
            }
        }
        if errors.is_empty() { Ok(removed) } else { Err(anyhow::anyhow!(errors.join("; "))) }
    }
}

impl Link {
    /// Whether it is of a kind that we make; an interface with a name like ours may be anything.
    fn is_of_our_kinds(&self) -> bool {
        let kinds = [InfoKind::Vxlan, InfoKind::Bridge, InfoKind::Veth, InfoKind::Tun];
        self.kind.as_ref().is_some_and(|kind| kinds.contains(kind))
    }
}
