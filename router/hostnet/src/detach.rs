//! Taking a container's addresses and interface away again, and looking at what it has.

use crate::{ContainerInterface, Detached, Host, HostError, Netns, NetnsRef};
use weave_model::Interface;

impl Host {
    /// Takes addresses (`None`: all) off a container's interface, and the interface with the last of them. A
    /// namespace or an interface that is gone already is fine.
    ///
    /// # Errors
    /// [`HostError::ForeignInterface`] when the interface of that name is not ours: it is left alone. Otherwise all
    /// errors of the kernel, joined; what could be removed is gone.
    pub async fn detach(
        &self,
        netns: &NetnsRef,
        container_ifname: &str,
        addresses: Option<&[Interface]>,
    ) -> anyhow::Result<Detached> {
        let Some(inner) = self.open_container(netns).await? else { return Ok(Detached::default()) };
        let outcome = self.detach_from(&inner, container_ifname, addresses).await;
        self.adopt_warnings(&inner);
        inner.close().await;
        outcome
    }

    async fn detach_from(
        &self,
        inner: &Self,
        container_ifname: &str,
        addresses: Option<&[Interface]>,
    ) -> anyhow::Result<Detached> {
        let Some((link, host_end)) = self.our_interface(inner, container_ifname).await? else {
            return Ok(Detached::default());
        };
        let before = inner.addresses_of(link.index).await?;
        let goes =
            |a: &Interface| addresses.is_none_or(|list| list.iter().any(|u| u.address() == a.address()));
        if before.iter().all(goes) {
            // Removed as a whole: no moment in which the container has an interface without an address.
            self.delete_link(host_end.index, &host_end.name).await?;
            return Ok(Detached { removed: before.into_iter().collect(), link_deleted: true });
        }
        let removed = inner.remove_addresses(&link, addresses).await?;
        Ok(Detached { removed, link_deleted: false })
    }

    /// The interfaces in a container that are ours. A namespace that is gone has none.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn container_interfaces(&self, netns: &NetnsRef) -> anyhow::Result<Vec<ContainerInterface>> {
        let Some(inner) = self.open_container(netns).await? else { return Ok(Vec::new()) };
        let interfaces = self.interfaces_in(&inner).await;
        inner.close().await;
        Ok(interfaces?)
    }

    async fn interfaces_in(&self, inner: &Self) -> Result<Vec<ContainerInterface>, HostError> {
        let mut interfaces = Vec::new();
        for link in inner.links().await? {
            if self.host_end(&link).await?.is_none() {
                continue;
            }
            let addresses = inner.addresses_of(link.index).await?.into_iter().collect();
            interfaces.push(ContainerInterface { name: link.name, mac: link.mac, addresses });
        }
        Ok(interfaces)
    }

    /// A handle on a container's namespace. `None` when it is gone, or is the host's own: nothing of ours is there.
    pub(crate) async fn open_container(&self, netns: &NetnsRef) -> anyhow::Result<Option<Self>> {
        let netns: Netns = match netns.open() {
            Err(HostError::NamespaceGone(_)) => return Ok(None),
            other => other?,
        };
        if self.is_in(&netns)? {
            return Ok(None);
        }
        match Self::open_in(netns).await {
            // The file that held the namespace is still there, and empty.
            Err(error) if matches!(error.downcast_ref(), Some(HostError::NotANamespace(_))) => Ok(None),
            other => other.map(Some),
        }
    }
}
