//! Giving a container its interface. All or nothing, and the second time only what is missing.

use std::{
    future::Future,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use anyhow::Context;
use rtnetlink::{
    RouteMessageBuilder,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo},
        neighbour_table::{NeighbourTableAttribute, NeighbourTableMessage, NeighbourTableParameter},
        route::RouteScope,
    },
};
use weave_model::Interface;

use crate::{
    AttachSpec, Attached, Host, HostError, LinkIndex, Warning, address,
    link::{Link, change, up},
    names,
    sysctl::{self, Setting},
};

/// How long an attach waits until the bridge forwards from the new port, before it announces the addresses.
/// The kernel takes about a millisecond; a bridge that is down never does.
const FORWARDING_DEADLINE: Duration = Duration::from_millis(500);
const FORWARDING_POLL: Duration = Duration::from_millis(1);

/// How soon a container notices that an address moved: neighbour entries are trusted for 5 s instead of 30, checked
/// after 2 s instead of 5, by one question instead of three. In milliseconds, as the kernel wants them.
const NEIGHBOUR_REACHABLE_MS: u64 = 5_000;
const NEIGHBOUR_DELAY_PROBE_MS: u64 = 2_000;
const NEIGHBOUR_UNICAST_PROBES: u32 = 1;

/// What an attach has done so far.
#[derive(Debug, Default)]
struct Done {
    /// The host's end of the interface that was made.
    created: Option<Link>,
    /// The two ends of an interface that existed, with the MTU that they had.
    resized: Option<(Link, Link)>,
    /// The addresses that were added to an interface that existed.
    added: Option<(Link, Vec<Interface>)>,
}

impl Host {
    /// Gives a container an interface on the bridge, with these addresses; or, if it has one, the addresses that it
    /// lacks. The host's and the container's end are made in one step, the latter directly in its namespace. At the
    /// end the neighbours are told.
    ///
    /// An interface that existed keeps its Ethernet address, even if another one is asked for.
    ///
    /// # Errors
    /// [`HostError::NamespaceGone`], [`HostError::HostNamespace`], [`HostError::ForeignInterface`] (the container has
    /// an interface of that name which is not ours), and whatever the kernel refuses. Everything is as before then.
    pub async fn attach(&self, spec: &AttachSpec) -> anyhow::Result<Attached> {
        names::check(&spec.host_ifname)?;
        names::check(&spec.container_ifname)?;
        address::check(&spec.addresses)?;
        let bridge = self.require_link(&spec.bridge).await?;
        bridge.require_kind(&InfoKind::Bridge, "a bridge")?;
        let netns = spec.netns.open()?;
        if self.is_in(&netns)? {
            return Err(HostError::HostNamespace(spec.netns.clone()).into());
        }
        let netns_fd = netns.as_fd().try_clone_to_owned().context("keeping the namespace open")?;
        let inner = Self::open_in(netns).await?;
        let mut done = Done::default();
        let attempt =
            Attempt { host: self, inner: &inner, spec, bridge: &bridge, netns_fd: netns_fd.as_fd() };
        let outcome = attempt.run(&mut done).await;
        let undone = if outcome.is_err() { attempt.undo(done).await } else { Ok(()) };
        self.adopt_warnings(&inner);
        inner.close().await;
        match (outcome, undone) {
            (Err(error), Err(undo)) => Err(error
                .context(format!("what was done so far could not be undone ({undo:#}), after this failure"))),
            (outcome, _) => outcome,
        }
    }

    /// The interface of that name in the namespace of `inner`, if it is the other end of one of our host's ends.
    /// `Err` if it is something else.
    pub(crate) async fn our_interface(
        &self,
        inner: &Self,
        name: &str,
    ) -> Result<Option<(Link, Link)>, HostError> {
        let Some(link) = inner.link(name).await? else { return Ok(None) };
        match self.host_end(&link).await? {
            Some(host_end) => Ok(Some((link, host_end))),
            None => {
                let found = "not one of ours".to_owned();
                Err(HostError::ForeignInterface {
                    name: name.to_owned(),
                    found,
                    wanted: "an interface that we attached",
                })
            }
        }
    }

    /// The host's end of a container's interface, if that is ours: each end names the other.
    pub(crate) async fn host_end(&self, link: &Link) -> Result<Option<Link>, HostError> {
        let Some(peer) = link.peer.filter(|_| link.kind == Some(InfoKind::Veth)) else { return Ok(None) };
        let host_end = self.link_by_index(peer).await?;
        Ok(host_end.filter(|h| {
            h.kind == Some(InfoKind::Veth) && h.peer == Some(link.index) && names::is_host_veth(&h.name)
        }))
    }
}

/// One attach on its way.
struct Attempt<'a> {
    host: &'a Host,
    inner: &'a Host,
    spec: &'a AttachSpec,
    bridge: &'a Link,
    netns_fd: std::os::fd::BorrowedFd<'a>,
}

impl Attempt<'_> {
    /// 1. find or make the two ends; 2. settings that must precede the first packet; 3. up; 4. addresses;
    /// 5. multicast route; 6. tell the neighbours.
    async fn run(&self, done: &mut Done) -> anyhow::Result<Attached> {
        let existing = self.host.our_interface(self.inner, &self.spec.container_ifname).await?;
        let created = existing.is_none();
        let (link, host_end) = match existing {
            Some(ends) => ends,
            None => self.create(done).await?,
        };
        if !created && (link.mtu != self.spec.mtu || host_end.mtu != self.spec.mtu) {
            done.resized = Some((link.clone(), host_end.clone()));
        }
        self.configure_host_end(&host_end).await?;
        self.configure(&link).await?;
        let added = self.inner.add_addresses(&link, &self.spec.addresses).await?;
        if !created {
            done.added = Some((link.clone(), added.clone()));
        }
        if self.spec.multicast_route {
            self.ensure_multicast_route(link.index).await?;
        }
        let addresses = self.inner.addresses_of(link.index).await?.into_iter().collect();
        self.announce(&link, host_end.index, &added).await?;
        Ok(Attached { mac: link.mac, addresses, added, created })
    }

    async fn create(&self, done: &mut Done) -> anyhow::Result<(Link, Link)> {
        self.clear_stale_host_end().await?;
        let mut peer = vec![
            LinkAttribute::IfName(self.spec.container_ifname.clone()),
            LinkAttribute::Mtu(self.spec.mtu),
            LinkAttribute::NetNsFd(self.netns_fd.as_raw_fd()),
        ];
        peer.extend(self.spec.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        let peer = InfoData::Veth(InfoVeth::Peer(change(LinkIndex(0), peer)));
        let message = change(
            LinkIndex(0),
            [
                LinkAttribute::IfName(self.spec.host_ifname.clone()),
                LinkAttribute::Mtu(self.spec.mtu),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(peer)]),
            ],
        );
        let doing = format!("creating {} for {}", self.spec.container_ifname, self.spec.netns);
        let message = RouteNetlinkMessage::NewLink(message);
        self.host.request(message, NLM_F_CREATE | NLM_F_EXCL, doing).await?;
        let host_end = self.host.require_link(&self.spec.host_ifname).await?;
        done.created = Some(host_end.clone());
        let link = self.inner.require_link(&self.spec.container_ifname).await?;
        Ok((link, host_end))
    }

    /// A host's end of our name whose other end is not in this namespace is of an earlier life of the container.
    async fn clear_stale_host_end(&self) -> Result<(), HostError> {
        let Some(stale) = self.host.link(&self.spec.host_ifname).await? else { return Ok(()) };
        stale.require_kind(&InfoKind::Veth, "a veth of ours")?;
        if !names::is_host_veth(&stale.name) {
            let found = "somebody else's veth".to_owned();
            return Err(HostError::ForeignInterface { name: stale.name, found, wanted: "a veth of ours" });
        }
        tracing::info!(interface = %stale.name, "removing the interface of an earlier life of this container");
        self.host.delete_link(stale.index, &stale.name).await
    }

    async fn configure_host_end(&self, host_end: &Link) -> Result<(), HostError> {
        self.host.silence(host_end).await?;
        let mut attributes = Vec::new();
        if host_end.master != Some(self.bridge.index) {
            attributes.push(LinkAttribute::Controller(self.bridge.index.0));
        }
        if host_end.mtu != self.spec.mtu {
            attributes.push(LinkAttribute::Mtu(self.spec.mtu));
        }
        let doing = format!("adding {} to {}", host_end.name, self.bridge.name);
        self.host.change_link(change(host_end.index, attributes), doing).await?;
        self.host.apply_sysctls(&[Setting::new(sysctl::ipv6(&host_end.name, "accept_ra"), "0")])?;
        self.host.change_link(up(change(host_end.index, [])), format!("bringing {} up", host_end.name)).await
    }

    async fn configure(&self, link: &Link) -> Result<(), HostError> {
        self.inner.apply_sysctls(&[
            Setting::new(sysctl::ipv6(&link.name, "accept_ra"), "0"),
            Setting::new(sysctl::ipv4(&link.name, "promote_secondaries"), "1"),
        ])?;
        for table in ["arp_cache", "ndisc_cache"] {
            self.tune_neighbours(link, table).await?;
        }
        let mtu = (link.mtu != self.spec.mtu).then_some(LinkAttribute::Mtu(self.spec.mtu));
        self.inner.change_link(up(change(link.index, mtu)), format!("bringing {} up", link.name)).await
    }

    /// By netlink, not by sysctl: it works with a read-only `/proc/sys` and in user namespaces. A family that the
    /// container does not have is passed over.
    async fn tune_neighbours(&self, link: &Link, table: &str) -> Result<(), HostError> {
        let mut message = NeighbourTableMessage::default();
        message.header.family = if table == "arp_cache" { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.attributes = vec![
            NeighbourTableAttribute::Name(table.to_owned()),
            NeighbourTableAttribute::Parms(vec![
                NeighbourTableParameter::Ifindex(link.index.0),
                NeighbourTableParameter::BaseReachableTime(NEIGHBOUR_REACHABLE_MS),
                NeighbourTableParameter::DelayProbeTime(NEIGHBOUR_DELAY_PROBE_MS),
                NeighbourTableParameter::UcastProbes(NEIGHBOUR_UNICAST_PROBES),
            ]),
        ];
        let message = RouteNetlinkMessage::SetNeighbourTable(message);
        match self.inner.request(message, 0, format!("setting neighbour timers of {}", link.name)).await {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    async fn ensure_multicast_route(&self, link: LinkIndex) -> Result<(), HostError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::new(224, 0, 0, 0), 4)
            .output_interface(link.0)
            .scope(RouteScope::Link)
            .build();
        let doing = format!("adding the multicast route to {}", self.spec.container_ifname);
        match self.inner.request(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL, doing).await
        {
            // It is there already, or the container has its own idea of where multicast goes.
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    async fn announce(&self, link: &Link, host_end: LinkIndex, added: &[Interface]) -> Result<(), HostError> {
        if added.is_empty() {
            return Ok(());
        }
        let forwarding = || async {
            let link = self.host.link_by_index(host_end).await?;
            Ok(link.is_some_and(|l| l.is_forwarding))
        };
        if !wait_until(forwarding).await? {
            let reason = format!("bridge {} does not forward; is it up?", self.bridge.name);
            self.host.warn(Warning::Announcement { interface: link.name.clone(), reason });
            return Ok(());
        }
        self.inner.announce(link, link.mac, added)
    }

    async fn undo(&self, done: Done) -> anyhow::Result<()> {
        if let Some(host_end) = done.created {
            self.host.delete_link(host_end.index, &host_end.name).await?;
        }
        if let Some((link, added)) = done.added.filter(|(_, added)| !added.is_empty()) {
            self.inner.remove_addresses(&link, Some(&added)).await?;
        }
        if let Some((link, host_end)) = done.resized {
            let as_before = |link: &Link| change(link.index, [LinkAttribute::Mtu(link.mtu)]);
            let doing = |link: &Link| format!("setting the MTU of {} back", link.name);
            self.inner.change_link(as_before(&link), doing(&link)).await?;
            self.host.change_link(as_before(&host_end), doing(&host_end)).await?;
        }
        Ok(())
    }
}

/// Asks until `condition` holds, or the deadline has passed.
async fn wait_until<F>(condition: impl Fn() -> F) -> Result<bool, HostError>
where
    F: Future<Output = Result<bool, HostError>>,
{
    let asking = async {
        while !condition().await? {
            tokio::time::sleep(FORWARDING_POLL).await;
        }
        Ok(true)
    };
    tokio::time::timeout(FORWARDING_DEADLINE, asking).await.unwrap_or(Ok(false))
}
