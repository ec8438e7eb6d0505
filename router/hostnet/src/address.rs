//! Addresses of interfaces, and `expose` and `hide`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use anyhow::anyhow;
use ipnet::IpNet;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    },
};
use weave_model::Interface;

use crate::{Host, HostError, LinkIndex, link::Link, sysctl, sysctl::Setting};

impl Host {
    /// The addresses of an interface, in order, without link-local ones.
    pub(crate) async fn addresses_of(&self, link: LinkIndex) -> Result<BTreeSet<Interface>, HostError> {
        let all = self.all_addresses().await?;
        Ok(all
            .into_iter()
            .filter(|(index, _)| *index == link)
            .map(|(_, address)| Interface(address))
            .collect())
    }

    /// Every address of every interface, without link-local and loopback ones.
    pub(crate) async fn all_addresses(&self) -> Result<Vec<(LinkIndex, IpNet)>, HostError> {
        let everything = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump(everything, "listing addresses", |answer| {
            if let RouteNetlinkMessage::NewAddress(message) = answer { read(&message) } else { None }
        })
        .await
    }

    /// Gives an interface those of `wanted` that it lacks, and returns them. On failure it has what it had before.
    pub(crate) async fn add_addresses(
        &self,
        link: &Link,
        wanted: &[Interface],
    ) -> anyhow::Result<Vec<Interface>> {
        check(wanted)?;
        let present = self.addresses_of(link.index).await?;
        let missing: BTreeSet<Interface> = wanted.iter().copied().filter(|a| !present.contains(a)).collect();
        if missing.iter().any(|a| a.address().is_ipv6()) {
            self.apply_sysctls(&[Setting::new(sysctl::ipv6(&link.name, "disable_ipv6"), "0")])?;
        }
        let mut added = Vec::new();
        for address in missing {
            if let Err(error) = self.add_address(link, address).await {
                for address in added {
                    self.delete_address(link, address).await?;
                }
                return Err(error.into());
            }
            added.push(address);
        }
        Ok(added)
    }

    /// Takes those of `unwanted` that an interface has off it (by address, whatever prefix length it has there),
    /// or all, and returns them. Goes on after an error.
    pub(crate) async fn remove_addresses(
        &self,
        link: &Link,
        unwanted: Option<&[Interface]>,
    ) -> anyhow::Result<Vec<Interface>> {
        let present = self.addresses_of(link.index).await?;
        let goes =
            |a: &Interface| unwanted.is_none_or(|list| list.iter().any(|u| u.address() == a.address()));
        let (removed, kept): (Vec<Interface>, Vec<Interface>) = present.into_iter().partition(goes);
        let mut errors = Vec::new();
        for address in &removed {
            errors.extend(self.delete_address(link, *address).await.err().map(|e| e.to_string()));
        }
        // With the first IPv4 address of a subnet the kernel drops the others (unless promote_secondaries is set).
        if !removed.is_empty() && !kept.is_empty() {
            errors.extend(self.add_addresses(link, &kept).await.err().map(|e| e.to_string()));
        }
        if errors.is_empty() { Ok(removed) } else { Err(anyhow!(errors.join("; "))) }
    }

    async fn add_address(&self, link: &Link, address: Interface) -> Result<(), HostError> {
        let message = RouteNetlinkMessage::NewAddress(message(link.index, address));
        let doing = format!("adding address {address} to {}", link.name);
        match self.request(message, NLM_F_CREATE | NLM_F_EXCL, doing).await {
            Err(error) if error.errno() == Some(libc::EEXIST) => {
                // An IPv4 address that somebody else added meanwhile is there, and that is what we want; an IPv6
                // address is also "there" when it has another prefix length.
                let present = self.addresses_of(link.index).await?;
                if present.contains(&address) { Ok(()) } else { Err(error) }
            }
            other => other,
        }
    }

    async fn delete_address(&self, link: &Link, address: Interface) -> Result<(), HostError> {
        let message = RouteNetlinkMessage::DelAddress(message(link.index, address));
        let doing = format!("removing address {address} from {}", link.name);
        match self.request(message, 0, doing).await {
            Err(error) if matches!(error.errno(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
            other => other,
        }
    }

    /// Gives the host itself addresses on `bridge`, so that it takes part in the network. Returns the addresses
    /// that it did not have yet.
    ///
    /// # Errors
    /// [`HostError::NoInterface`] without a bridge. After an error the bridge has the addresses it had before.
    pub async fn expose(&self, bridge: &str, addresses: &[Interface]) -> anyhow::Result<Vec<Interface>> {
        let link = self.require_link(bridge).await?;
        let added = self.add_addresses(&link, addresses).await?;
        self.announce(&link, link.mac, &added)?;
        Ok(added)
    }

    /// Takes addresses (`None`: all) off `bridge` and returns those that it had. No bridge, no addresses.
    ///
    /// # Errors
    /// All errors of the kernel, joined; what could be removed is gone.
    pub async fn hide(
        &self,
        bridge: &str,
        addresses: Option<&[Interface]>,
    ) -> anyhow::Result<Vec<Interface>> {
        let Some(link) = self.link(bridge).await? else { return Ok(Vec::new()) };
        self.remove_addresses(&link, addresses).await
    }

    /// The host's own addresses on `bridge`, in order.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn exposed(&self, bridge: &str) -> anyhow::Result<Vec<Interface>> {
        let Some(link) = self.link(bridge).await? else { return Ok(Vec::new()) };
        Ok(self.addresses_of(link.index).await?.into_iter().collect())
    }
}

/// Refuses a list in which one address has two prefix lengths, or that has addresses no host can have.
pub(crate) fn check(addresses: &[Interface]) -> Result<(), HostError> {
    let mut prefix_len_by_address = BTreeMap::new();
    for Interface(net) in addresses {
        let prefix_len = net.prefix_len();
        if net.addr().is_multicast() || net.addr().is_unspecified() || net.addr().is_loopback() {
            return Err(HostError::NoHostAddress(net.addr()));
        }
        if *prefix_len_by_address.entry(net.addr()).or_insert(prefix_len) != prefix_len {
            return Err(HostError::AddressTwice(net.addr()));
        }
    }
    Ok(())
}

fn message(link: LinkIndex, Interface(net): Interface) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = link.0;
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    match net {
        IpNet::V4(net) => {
            message.header.family = AddressFamily::Inet;
            // Point-to-point prefixes have no broadcast address (RFC 3021).
            if net.prefix_len() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
        }
        IpNet::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            // IPAM vouches for uniqueness; duplicate detection would only keep the address unusable for seconds.
            message.header.flags = AddressHeaderFlags::Nodad;
        }
    }
    message
}

fn read(message: &AddressMessage) -> Option<(LinkIndex, IpNet)> {
    if !matches!(message.header.scope, AddressScope::Universe | AddressScope::Site) {
        return None;
    }
    let mut address: Option<IpAddr> = None;
    for attribute in &message.attributes {
        // On point-to-point links `Address` is the other side.
        if let AddressAttribute::Local(own) = attribute {
            address = Some(*own);
        } else if let AddressAttribute::Address(own) = attribute {
            address.get_or_insert(*own);
        }
    }
    let net = IpNet::new(address?, message.header.prefix_len).ok()?;
    (net.addr() != IpAddr::V4(Ipv4Addr::UNSPECIFIED)).then_some((LinkIndex(message.header.index), net))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_as_what_was_written() {
        for text in ["10.32.0.7/12", "10.0.0.1/31", "fd00::7/64"] {
            let address: Interface = text.parse().unwrap();
            assert_eq!(read(&message(LinkIndex(9), address)), Some((LinkIndex(9), address.0)));
        }
    }

    #[test]
    fn link_local_addresses_are_passed_over() {
        let mut local = message(LinkIndex(9), "fe80::1/64".parse().unwrap());
        local.header.scope = AddressScope::Link;
        assert_eq!(read(&local), None);
    }

    #[test]
    fn one_address_with_two_prefix_lengths_is_ambiguous() {
        let list = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<Interface>>();
        assert!(check(&list(&["10.0.0.1/24", "10.0.0.2/16", "10.0.0.1/24"])).is_ok());
        assert!(check(&list(&["10.0.0.1/24", "10.0.0.1/16"])).is_err());
    }

    #[test]
    fn groups_and_loopback_are_no_hosts_addresses() {
        for text in ["224.0.0.7/4", "0.0.0.0/8", "127.0.0.1/8", "ff02::1/64", "::1/128", "::/0"] {
            assert!(check(&[text.parse().unwrap()]).is_err(), "{text}");
        }
    }
}
