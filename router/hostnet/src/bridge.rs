//! The bridge of the containers, and the bridges that pass tunnelled frames on.

use anyhow::Context;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkInfo},
    },
};

use crate::{
    BridgeSpec, Host, HostError, LinkIndex,
    link::{Link, change, up},
    names,
    sysctl::{self, Setting},
};

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
            // The kernel would ask for listeners through every port, on other hosts too; the router asks, and only here.
            InfoBridge::MulticastQuerier(false),
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

    /// Makes sure that there is a bridge that passes tunnelled frames on, with nothing of the host on it: no
    /// addresses, no IPv6, no snooping. Its ports come by [`ensure_relay_port`](Self::ensure_relay_port).
    ///
    /// # Errors
    /// As [`ensure_bridge`](Self::ensure_bridge).
    pub async fn ensure_relay_bridge(&self, name: &str, mtu: u32) -> anyhow::Result<LinkIndex> {
        let is_new = self.link(name).await?.is_none();
        let spec = BridgeSpec { name: name.to_owned(), mac: None, mtu, multicast_snooping: false };
        let index = self.ensure_bridge(&spec).await?;
        // A bridge without ports has no carrier, so it has no link-local address yet.
        if let Err(error) = self.take_ipv6_off(index).await {
            if is_new {
                self.delete_link(index, name).await.context("undoing the creation of the relay's bridge")?;
            }
            return Err(error.into());
        }
        Ok(index)
    }

    async fn take_ipv6_off(&self, index: LinkIndex) -> Result<(), HostError> {
        let link = self.require_index(index).await?;
        self.silence(&link).await?;
        self.apply_sysctls(&[Setting::new(sysctl::ipv6(&link.name, "disable_ipv6"), "1")])
    }
}
