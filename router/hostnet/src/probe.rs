//! What this kernel and our rights allow; for `weave doctor`. Asking changes nothing.

use std::fs::OpenOptions;

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoKind, LinkAttribute, LinkInfo},
    },
};

use crate::{Host, HostError, LinkIndex, Netns, link::change, netns, nft, vxlan};

/// What works here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// TAP devices can be made (`/dev/net/tun` can be opened): the sleeve needs them.
    pub tun: bool,
    /// Other network namespaces can be entered: attaching containers needs it.
    pub namespaces: bool,
    /// Bridges can be made: everything needs them.
    pub bridge: bool,
    /// Veth pairs can be made: attaching containers needs them.
    pub veth: bool,
    /// VXLAN devices can be made: the fast datapath needs them.
    pub vxlan: bool,
    /// nf_tables can do NAT: masquerading needs it.
    pub nat: bool,
}

impl Host {
    /// Tries everything that we depend on.
    ///
    /// # Errors
    /// Only when no thread can be started or `/proc` is not there.
    pub async fn capabilities(&self) -> anyhow::Result<Capabilities> {
        Ok(Capabilities {
            tun: has_tun(),
            namespaces: can_enter_namespaces()?,
            bridge: self.can_make(InfoKind::Bridge).await,
            veth: self.can_make(InfoKind::Veth).await,
            vxlan: self.can_make(InfoKind::Vxlan).await,
            nat: self.run_inside(nft::can_masquerade)?,
        })
    }

    /// Whether tunnel devices can be made here, and if not, what the operator can do about it.
    ///
    /// # Errors
    /// [`HostError::Unsupported`], [`HostError::NoPermission`], or what else the kernel says.
    pub async fn check_vxlan(&self) -> Result<(), HostError> {
        match self.ask_for(InfoKind::Vxlan).await {
            // It got as far as looking at the MTU.
            Err(HostError::Kernel { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            Err(HostError::Kernel { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Err(vxlan::unsupported(source))
            }
            other => other,
        }
    }

    /// Asks for an interface with an MTU that no interface can have. The kernel loads the module for the kind and
    /// looks at the rights before it looks at the MTU.
    async fn ask_for(&self, kind: InfoKind) -> Result<(), HostError> {
        let name = LinkAttribute::IfName("weave-probe".to_owned());
        let impossible = LinkAttribute::Mtu(1);
        let attributes = [name, impossible, LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])];
        let message = RouteNetlinkMessage::NewLink(change(LinkIndex(0), attributes));
        self.request(message, NLM_F_CREATE | NLM_F_EXCL, "asking for an interface").await
    }

    async fn can_make(&self, kind: InfoKind) -> bool {
        let answer = self.ask_for(kind).await;
        matches!(answer, Err(HostError::Kernel { source, .. }) if source.raw_os_error() == Some(libc::EINVAL))
    }
}

/// Whether `/dev/net/tun` can be opened.
#[must_use]
pub fn has_tun() -> bool {
    OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok()
}

/// Whether network namespaces can be entered (CAP_SYS_ADMIN), tried with our own.
///
/// # Errors
/// When no thread can be started or `/proc` is not there.
pub fn can_enter_namespaces() -> Result<bool, HostError> {
    match netns::in_netns(&Netns::current()?, || ()) {
        Err(HostError::NoPermission { .. }) => Ok(false),
        other => other.map(|()| true),
    }
}
