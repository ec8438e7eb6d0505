//! Interfaces that somebody else moves into a container: one end on the bridge, the other waiting on the host.

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo},
    },
};
use weave_model::Mac;

use crate::{
    Host, HostError, LinkIndex, NetnsRef,
    link::{Link, change, up},
    names,
    sysctl::{self, Setting},
};

/// Such an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Name of the bridge, which exists.
    pub bridge: String,
    /// Name of the end on the bridge, from [`names::host_ifname`].
    pub host_ifname: String,
    /// Name of the end that waits, from [`names::waiting_ifname`].
    pub waiting_ifname: String,
    /// Ethernet address of the end that waits.
    pub mac: Mac,
    /// Bytes of the largest IP packet.
    pub mtu: u32,
}

impl Host {
    /// Makes both ends; the waiting one stays down and without addresses. One whose other end still waits is brought in
    /// line; one whose other end is in a container is of an earlier life and made anew.
    ///
    /// # Errors
    /// [`HostError::ForeignInterface`] when an interface of either name is not ours, and whatever the kernel refuses.
    /// Nothing is left then that was not there before.
    pub async fn ensure_endpoint(&self, spec: &EndpointSpec) -> anyhow::Result<()> {
        names::check(&spec.host_ifname)?;
        names::check(&spec.waiting_ifname)?;
        let bridge = self.require_link(&spec.bridge).await?;
        bridge.require_kind(&InfoKind::Bridge, "a bridge")?;
        if let Some((host_end, waiting)) = self.waiting_pair(spec).await? {
            if waiting.mac == spec.mac {
                self.resize(&waiting, spec.mtu).await?;
                return Ok(self.serve_endpoint(&host_end, &bridge, spec).await?);
            }
            self.delete_link(host_end.index, &host_end.name).await?;
        }
        self.create_pair(spec).await?;
        let host_end = self.require_link(&spec.host_ifname).await?;
        let served = self.serve_endpoint(&host_end, &bridge, spec).await;
        if served.is_err() {
            self.delete_link(host_end.index, &host_end.name).await?;
        }
        Ok(served?)
    }

    /// The two ends, if the second still waits. What else has the name of the first and is ours is removed.
    async fn waiting_pair(&self, spec: &EndpointSpec) -> Result<Option<(Link, Link)>, HostError> {
        let Some(host_end) = self.link(&spec.host_ifname).await? else { return Ok(None) };
        host_end.require_kind(&InfoKind::Veth, "a veth of ours")?;
        if !names::is_host_veth(&host_end.name) {
            let found = "somebody else's veth".to_owned();
            return Err(HostError::ForeignInterface { name: host_end.name, found, wanted: "a veth of ours" });
        }
        if let Some(waiting) = self.link(&spec.waiting_ifname).await?
            && are_ends(&host_end, &waiting)
        {
            return Ok(Some((host_end, waiting)));
        }
        tracing::info!(interface = %host_end.name, "removing the interface of an earlier life of this endpoint");
        self.delete_link(host_end.index, &host_end.name).await?;
        Ok(None)
    }

    async fn create_pair(&self, spec: &EndpointSpec) -> Result<(), HostError> {
        let peer = vec![
            LinkAttribute::IfName(spec.waiting_ifname.clone()),
            LinkAttribute::Mtu(spec.mtu),
            LinkAttribute::Address(spec.mac.0.to_vec()),
        ];
        let peer = InfoData::Veth(InfoVeth::Peer(change(LinkIndex(0), peer)));
        let message = change(
            LinkIndex(0),
            [
                LinkAttribute::IfName(spec.host_ifname.clone()),
                LinkAttribute::Mtu(spec.mtu),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(peer)]),
            ],
        );
        let doing = format!("creating {} and {}", spec.host_ifname, spec.waiting_ifname);
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, doing).await
    }

    /// Makes the first end a port of the bridge.
    async fn serve_endpoint(
        &self,
        host_end: &Link,
        bridge: &Link,
        spec: &EndpointSpec,
    ) -> Result<(), HostError> {
        self.silence(host_end).await?;
        let mut attributes = Vec::new();
        if host_end.master != Some(bridge.index) {
            attributes.push(LinkAttribute::Controller(bridge.index.0));
        }
        if host_end.mtu != spec.mtu {
            attributes.push(LinkAttribute::Mtu(spec.mtu));
        }
        let doing = format!("adding {} to {}", host_end.name, bridge.name);
        self.change_link(change(host_end.index, attributes), doing).await?;
        self.apply_sysctls(&[Setting::new(sysctl::ipv6(&host_end.name, "accept_ra"), "0")])?;
        self.change_link(up(change(host_end.index, [])), format!("bringing {} up", host_end.name)).await
    }

    /// Gives both ends an MTU in bytes, whether the second waits on the host or is in the namespace `inside`. An
    /// interface or a namespace that is gone is fine.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn set_endpoint_mtu(
        &self,
        host_ifname: &str,
        inside: Option<&NetnsRef>,
        mtu: u32,
    ) -> anyhow::Result<()> {
        let Some(host_end) = self.link(host_ifname).await? else { return Ok(()) };
        let Some(peer) = host_end.peer else { return Ok(()) };
        if let Some(waiting) = self.link_by_index(peer).await?.filter(|link| are_ends(&host_end, link)) {
            return Ok(self.resize_pair(&host_end, self, &waiting, mtu).await?);
        }
        let Some(netns) = inside else { return Ok(()) };
        let Some(inner) = self.open_container(netns).await? else { return Ok(()) };
        let resized = match inner.link_by_index(peer).await {
            Ok(Some(link)) if are_ends(&host_end, &link) => {
                self.resize_pair(&host_end, &inner, &link, mtu).await
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        inner.close().await;
        Ok(resized?)
    }
}

/// Whether each names the other as its other end. Numbers are those of two namespaces, so one of them proves little.
fn are_ends(host_end: &Link, other: &Link) -> bool {
    other.kind == Some(InfoKind::Veth)
        && other.peer == Some(host_end.index)
        && host_end.peer == Some(other.index)
}
