//! What callers ask for and what they get back: plain values.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;
use weave_model::{Interface, Mac};

use crate::{NetnsRef, names};

/// The kernel's number for an interface, valid in one network namespace while the interface exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub u32);

/// The bridge that containers are attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Interface name; `weave` by default.
    pub name: String,
    /// Ethernet address. `None` keeps the one that the kernel chose. Either way it is pinned, so that it does not
    /// follow the lowest address among the ports, as a bridge's own would.
    pub mac: Option<Mac>,
    /// Bytes of the largest IP packet, 68 to 65535. Pinned: ports with a smaller MTU do not lower it.
    pub mtu: u32,
    /// Forward a multicast group only to ports that joined it, as long as somebody asks who has (IGMP, MLD). Off: to
    /// all ports.
    pub multicast_snooping: bool,
}

impl Default for BridgeSpec {
    fn default() -> Self {
        Self { name: names::BRIDGE.to_owned(), mac: None, mtu: 1500, multicast_snooping: true }
    }
}

/// How [`Host::reconcile_ports`](crate::Host::reconcile_ports) changed a bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FdbDiff {
    /// Entries that were missing.
    pub added: BTreeSet<Mac>,
    /// Entries of ours that lead through another port now; each in one step, so that no frame is lost.
    pub moved: BTreeSet<Mac>,
    /// Entries of ours that were no longer wanted.
    pub removed: BTreeSet<Mac>,
    /// Wanted entries that were left out, because somebody else holds a permanent entry for the address.
    pub blocked: BTreeSet<Mac>,
}

impl FdbDiff {
    /// Whether everything was as wanted already.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { added, moved, removed, blocked: _ } = self;
        [added, moved, removed].iter().all(|set| set.is_empty())
    }
}

/// One interface of a container on the bridge.
#[derive(Debug, Clone)]
pub struct AttachSpec {
    /// The container's network namespace.
    pub netns: NetnsRef,
    /// Name of the bridge, which exists.
    pub bridge: String,
    /// Name of the host's end, from [`names::host_ifname`].
    pub host_ifname: String,
    /// Name of the container's end; `ethwe` by custom.
    pub container_ifname: String,
    /// Ethernet address of the container's end. `None`: the kernel makes one, or the existing one is kept.
    pub mac: Option<Mac>,
    /// Bytes of the largest IP packet, 68 to 65535 (1280 at least where IPv6 is used).
    pub mtu: u32,
    /// The addresses that the interface shall have. Others that it has already are kept.
    pub addresses: Vec<Interface>,
    /// Send multicast (224.0.0.0/4) out of this interface.
    pub multicast_route: bool,
}

/// The state after an attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Ethernet address of the container's end.
    pub mac: Mac,
    /// All addresses of the interface, old and new, in order.
    pub addresses: Vec<Interface>,
    /// Those of them that this call added.
    pub added: Vec<Interface>,
    /// Whether this call made the interface.
    pub created: bool,
}

/// What a detach removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detached {
    /// The addresses that the interface had and has no more.
    pub removed: Vec<Interface>,
    /// Whether the interface went with its last address.
    pub link_deleted: bool,
}

/// An interface inside a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInterface {
    /// Name inside the container.
    pub name: String,
    /// Ethernet address.
    pub mac: Mac,
    /// Addresses, in order, without link-local ones.
    pub addresses: Vec<Interface>,
}

/// A route of the host's main table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    /// Where it leads; prefix length 0 for the default route.
    pub destination: IpNet,
    /// Outgoing interface; none for blackholes and multipath routes.
    pub device: Option<String>,
    /// Next hop.
    pub gateway: Option<IpAddr>,
}

impl fmt::Display for HostRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.destination.fmt(f)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        match &self.device {
            Some(device) => write!(f, " dev {device}"),
            None => Ok(()),
        }
    }
}
