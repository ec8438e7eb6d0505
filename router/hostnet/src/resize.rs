//! Another MTU for interfaces that are in use.

use rtnetlink::packet_route::link::{InfoKind, LinkAttribute};

use crate::{
    Host, HostError, LinkIndex, NetnsRef,
    link::{Link, change},
    names,
};

impl Host {
    /// Gives an interface an MTU in bytes; of a bridge, those of its ports that are ours as well. What grows, grows
    /// at the ports first, and what shrinks, at the bridge first: a frame that the bridge takes, its ports take too.
    ///
    /// # Errors
    /// [`HostError::NoInterface`]; or what the kernel says of the first interface that it refuses to change; the
    /// others are changed all the same.
    pub async fn set_mtu(&self, link: LinkIndex, mtu: u32) -> anyhow::Result<()> {
        let link = self.require_index(link).await?;
        let mut links = vec![link.clone()];
        if link.kind == Some(InfoKind::Bridge) {
            let is_port = |port: &Link| port.master == Some(link.index) && names::is_ours(&port.name);
            links.extend(self.links().await?.into_iter().filter(is_port));
            if mtu > link.mtu {
                links.reverse();
            }
        }
        let mut first = Ok(());
        for link in &links {
            first = first.and(self.resize(link, mtu).await);
        }
        Ok(first?)
    }

    /// Gives both ends of a container's interface an MTU in bytes: the container's end is made smaller first and
    /// larger last, so that it sends nothing that its other end does not take. A container or an interface that is
    /// gone already is fine.
    ///
    /// # Errors
    /// [`HostError::ForeignInterface`] when it is not one that we attached; or what the kernel says.
    pub async fn set_container_mtu(&self, netns: &NetnsRef, ifname: &str, mtu: u32) -> anyhow::Result<()> {
        let Some(inner) = self.open_container(netns).await? else { return Ok(()) };
        let outcome = self.resize_ends(&inner, ifname, mtu).await;
        inner.close().await;
        Ok(outcome?)
    }

    async fn resize_ends(&self, inner: &Self, ifname: &str, mtu: u32) -> Result<(), HostError> {
        let Some((link, host_end)) = self.our_interface(inner, ifname).await? else { return Ok(()) };
        self.resize_pair(&host_end, inner, &link, mtu).await
    }

    /// The end on this host, and `link`, the other end, in `inner`.
    pub(crate) async fn resize_pair(
        &self,
        host_end: &Link,
        inner: &Self,
        link: &Link,
        mtu: u32,
    ) -> Result<(), HostError> {
        if mtu < link.mtu {
            inner.resize(link, mtu).await?;
            self.resize(host_end, mtu).await
        } else {
            self.resize(host_end, mtu).await?;
            inner.resize(link, mtu).await
        }
    }

    pub(crate) async fn resize(&self, link: &Link, mtu: u32) -> Result<(), HostError> {
        if link.mtu == mtu {
            return Ok(());
        }
        let doing = format!("setting the MTU of {} to {mtu}", link.name);
        match self.change_link(change(link.index, [LinkAttribute::Mtu(mtu)]), doing).await {
            // It went while we were looking.
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }
}
