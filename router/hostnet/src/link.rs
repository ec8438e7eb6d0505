//! Network interfaces: finding, reading, changing and removing them.

use anyhow::Context;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, BridgePortState, In6AddrGenMode, InfoBridgePort, InfoData, InfoKind,
        InfoPortData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    },
};
use weave_model::Mac;

use crate::{Host, HostError, LinkIndex, error::kernel, names};

/// What we look at of an interface.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) index: LinkIndex,
    pub(crate) name: String,
    pub(crate) kind: Option<InfoKind>,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
    /// The bridge (or bond, ...) that it is a port of.
    pub(crate) master: Option<LinkIndex>,
    /// The other end of a veth, by its number in the namespace over there.
    pub(crate) peer: Option<LinkIndex>,
    pub(crate) is_up: bool,
    pub(crate) is_loopback: bool,
    /// As a port of a bridge: whether frames pass.
    pub(crate) is_forwarding: bool,
    /// As a port of a bridge: whether frames may go back to where they came from.
    pub(crate) is_hairpin: bool,
    /// The settings of a tunnel device; none for anything else.
    pub(crate) vxlan: Vec<InfoVxlan>,
}

impl Link {
    fn new(message: LinkMessage) -> Self {
        let mut link = Self {
            index: LinkIndex(message.header.index),
            name: String::new(),
            kind: None,
            mac: Mac::default(),
            mtu: 0,
            master: None,
            peer: None,
            is_up: message.header.flags.contains(LinkFlags::Up),
            is_loopback: message.header.flags.contains(LinkFlags::Loopback),
            is_forwarding: false,
            is_hairpin: false,
            vxlan: Vec::new(),
        };
        for attribute in message.attributes {
            link.read(attribute);
        }
        link
    }

    fn read(&mut self, attribute: LinkAttribute) {
        if let LinkAttribute::IfName(name) = attribute {
            self.name = name;
        } else if let LinkAttribute::Address(bytes) = attribute {
            self.mac = bytes.try_into().map_or_else(|_| Mac::default(), Mac);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            self.mtu = mtu;
        } else if let LinkAttribute::Controller(index) = attribute {
            self.master = Some(LinkIndex(index));
        } else if let LinkAttribute::Link(index) = attribute {
            self.peer = Some(LinkIndex(index));
        } else if let LinkAttribute::LinkInfo(parts) = attribute {
            parts.into_iter().for_each(|part| self.read_info(part));
        }
    }

    fn read_info(&mut self, part: LinkInfo) {
        if let LinkInfo::Kind(kind) = part {
            self.kind = Some(kind);
        } else if let LinkInfo::Data(InfoData::Vxlan(settings)) = part {
            self.vxlan = settings;
        } else if let LinkInfo::PortData(InfoPortData::BridgePort(settings)) = part {
            self.is_forwarding = settings.contains(&InfoBridgePort::State(BridgePortState::Forwarding));
            self.is_hairpin = settings.contains(&InfoBridgePort::HairpinMode(true));
        }
    }

    /// Checks that it is of the kind that we need; if not, it belongs to somebody else.
    pub(crate) fn require_kind(&self, kind: &InfoKind, wanted: &'static str) -> Result<(), HostError> {
        if self.kind.as_ref() == Some(kind) {
            return Ok(());
        }
        let found =
            self.kind.as_ref().map_or_else(|| "no virtual interface".to_owned(), |k| format!("a {k}"));
        Err(HostError::ForeignInterface { name: self.name.clone(), found, wanted })
    }
}

impl Host {
    /// The interface of this name, if there is one.
    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>, HostError> {
        let request = self.handle().link().get().match_name(name);
        found(request.execute().try_next().await.map_err(kernel(format!("looking for interface {name}"))))
    }

    /// The interface of this number, if there is one.
    pub(crate) async fn link_by_index(&self, index: LinkIndex) -> Result<Option<Link>, HostError> {
        let request = self.handle().link().get().match_index(index.0);
        found(
            request.execute().try_next().await.map_err(kernel(format!("looking for interface {}", index.0))),
        )
    }

    /// All interfaces.
    pub(crate) async fn links(&self) -> Result<Vec<Link>, HostError> {
        let everything = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump(everything, "listing interfaces", |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer { Some(Link::new(link)) } else { None }
        })
        .await
    }

    /// The interface of this name.
    pub(crate) async fn require_link(&self, name: &str) -> Result<Link, HostError> {
        names::check(name)?;
        self.link(name).await?.ok_or_else(|| HostError::NoInterface(name.to_owned()))
    }

    /// The interface of this number.
    pub(crate) async fn require_index(&self, index: LinkIndex) -> Result<Link, HostError> {
        let link = self.link_by_index(index).await?;
        link.ok_or_else(|| HostError::NoInterface(format!("number {}", index.0)))
    }

    /// Changes an existing interface.
    pub(crate) async fn change_link(&self, message: LinkMessage, doing: String) -> Result<(), HostError> {
        self.request(RouteNetlinkMessage::NewLink(message), 0, doing).await
    }

    /// Takes care that an interface makes no IPv6 link-local address for itself: ports of a bridge need none, and
    /// without one they stay silent.
    pub(crate) async fn silence(&self, link: &Link) -> Result<(), HostError> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let no_address = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
        let doing = format!("switching link-local addresses of {} off", link.name);
        match self.change_link(change(link.index, [no_address]), doing).await {
            // No IPv6 here: switched off, or an MTU below 1280.
            Err(error) if error.errno() == Some(libc::EAFNOSUPPORT) => Ok(()),
            other => other,
        }
    }

    /// Removes an interface; one that is gone already is fine.
    pub(crate) async fn delete_link(&self, index: LinkIndex, name: &str) -> Result<(), HostError> {
        let message = change(index, []);
        let done = self.request(RouteNetlinkMessage::DelLink(message), 0, format!("removing {name}")).await;
        match done {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// The number of the interface of this name, if there is one.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn link_index(&self, name: &str) -> anyhow::Result<Option<LinkIndex>> {
        Ok(self.link(name).await?.map(|link| link.index))
    }

    /// The MTU of the interface of this name in bytes, if there is one.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn link_mtu(&self, name: &str) -> anyhow::Result<Option<u32>> {
        Ok(self.link(name).await?.map(|link| link.mtu))
    }

    /// Removes one of our interfaces. Returns whether there was one.
    ///
    /// # Errors
    /// [`HostError::ForeignInterface`] when the name is not one of ours ([`names::is_ours`]).
    pub async fn remove_link(&self, name: &str) -> anyhow::Result<bool> {
        if !names::is_ours(name) {
            let found = "not ours".to_owned();
            let wanted = "one of our interfaces";
            return Err(HostError::ForeignInterface { name: name.to_owned(), found, wanted }.into());
        }
        let Some(link) = self.link(name).await? else { return Ok(false) };
        self.delete_link(link.index, name).await?;
        Ok(true)
    }

    /// The names of the host's ends of containers' interfaces on `bridge`, in order.
    ///
    /// # Errors
    /// What the kernel says. A bridge that does not exist has none.
    pub async fn host_veths(&self, bridge: &str) -> anyhow::Result<Vec<String>> {
        let Some(bridge) = self.link(bridge).await? else { return Ok(Vec::new()) };
        let links = self.links().await.context("looking for containers' interfaces")?;
        let on_bridge = |link: &Link| link.master == Some(bridge.index) && names::is_host_veth(&link.name);
        let mut names: Vec<String> = links.into_iter().filter(on_bridge).map(|link| link.name).collect();
        names.sort();
        Ok(names)
    }
}

/// A request to change the interface `index`.
pub(crate) fn change(index: LinkIndex, attributes: impl IntoIterator<Item = LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.0;
    message.attributes = attributes.into_iter().collect();
    message
}

/// Makes `message` bring the interface up as well.
pub(crate) fn up(mut message: LinkMessage) -> LinkMessage {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
    message
}

fn found(answer: Result<Option<LinkMessage>, HostError>) -> Result<Option<Link>, HostError> {
    match answer {
        Ok(message) => Ok(message.map(Link::new)),
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}
