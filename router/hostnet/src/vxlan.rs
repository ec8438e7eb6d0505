//! Tunnel devices: VXLAN with neither learning nor an address of its own, told by entries what goes whereto.
//!
//! A device sends to one family of addresses only, fixed when it is made; two devices of one VNI and port can be
//! beside each other if their families differ.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Context;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, VxlanDf},
    },
};
use weave_model::Mac;

use crate::{
    Host, HostError, LinkIndex,
    link::{Link, change, up},
    names,
    sysctl::{self, Setting},
    tunnels,
};

/// Hops that an outer packet may take, as most hosts' own packets (RFC 1700).
const TTL: u8 = 64;

/// Family of the addresses that a tunnel device sends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A tunnel device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanSpec {
    /// Interface name, one of [`names`].
    pub name: String,
    /// Network identifier, 0 to 2^24 - 1: what it sends carries it, and only what carries it comes in.
    pub vni: u32,
    /// UDP port of both sides.
    pub port: u16,
    /// Family of the other hosts' addresses.
    pub family: Family,
    /// Bytes of the largest inner IP packet. Larger than what the path carries is allowed: the kernel then answers
    /// with ICMP (as a bridge's port), or fragments the outer packet.
    pub mtu: u32,
    /// Never fragment the outer packet: what is too large for the path is lost. (IPv6 never does.)
    pub dont_fragment: bool,
    /// Ethernet address.
    pub mac: Mac,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// An address that nobody has (RFC 5737, RFC 3849).
    const fn documentation(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        }
    }
}

impl Host {
    /// Makes sure that the tunnel device exists, with these settings, and is up. One that is there keeps its
    /// entries and goes on forwarding, unless something differs that the kernel cannot change: then it is made anew.
    ///
    /// # Errors
    /// [`HostError::ForeignInterface`] when something else has that name, [`HostError::TunnelTaken`],
    /// [`HostError::Unsupported`]. A device that was made by this call is removed again when a later step fails.
    pub async fn ensure_vxlan(&self, spec: &VxlanSpec) -> anyhow::Result<LinkIndex> {
        names::check(&spec.name)?;
        let existing = self.adoptable(spec).await?;
        let is_new = existing.is_none();
        let link = match existing {
            Some(link) => link,
            None => self.create_vxlan(spec).await?,
        };
        if let Err(error) = self.configure_vxlan(spec, &link).await {
            if is_new {
                self.delete_link(link.index, &spec.name)
                    .await
                    .context("undoing the creation of the tunnel device")?;
            }
            return Err(error.into());
        }
        Ok(link.index)
    }

    /// The device of that name, if it can be made what it shall be. One that cannot is removed.
    async fn adoptable(&self, spec: &VxlanSpec) -> Result<Option<Link>, HostError> {
        let Some(link) = self.link(&spec.name).await? else { return Ok(None) };
        link.require_kind(&InfoKind::Vxlan, "a VXLAN device")?;
        let mut difference = fixed_difference(spec, &link.vxlan);
        if difference.is_none() && !self.sends_to(&link, spec.family).await? {
            difference = Some("family of its destinations");
        }
        let Some(difference) = difference else { return Ok(Some(link)) };
        tracing::info!(interface = %spec.name, difference, "making the tunnel device anew");
        self.delete_link(link.index, &spec.name).await?;
        Ok(None)
    }

    /// Whether the device takes destinations of this family. The kernel does not show it: it is asked to change an
    /// entry that nobody has, and looks at the family first (`vxlan_fdb_add`).
    async fn sends_to(&self, link: &Link, family: Family) -> Result<bool, HostError> {
        let nobody = Mac::local_unicast([0; 6]);
        let message = tunnels::message(link.index, nobody, Some((family.documentation(), None)));
        let doing = format!("asking {} for its family", link.name);
        match self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_EXCL, doing).await {
            Ok(()) => Ok(true),
            Err(error) => match error.errno() {
                Some(libc::ENOENT | libc::EEXIST) => Ok(true),
                Some(libc::EAFNOSUPPORT) => Ok(false),
                _ => Err(error),
            },
        }
    }

    async fn create_vxlan(&self, spec: &VxlanSpec) -> Result<Link, HostError> {
        let mut settings = vec![InfoVxlan::Id(spec.vni), InfoVxlan::Port(spec.port)];
        settings.extend(changeable(spec));
        if spec.family == Family::V6 {
            // The unspecified address: no address of its own, and the family is known.
            settings.push(InfoVxlan::Local6(Ipv6Addr::UNSPECIFIED));
        }
        let kind = LinkInfo::Kind(InfoKind::Vxlan);
        let attributes = [
            LinkAttribute::IfName(spec.name.clone()),
            LinkAttribute::Mtu(spec.mtu),
            LinkAttribute::Address(spec.mac.0.to_vec()),
            LinkAttribute::LinkInfo(vec![kind, LinkInfo::Data(InfoData::Vxlan(settings))]),
        ];
        let message = RouteNetlinkMessage::NewLink(change(LinkIndex(0), attributes));
        let doing = format!("creating the tunnel device {}", spec.name);
        self.request(message, NLM_F_CREATE | NLM_F_EXCL, doing).await.map_err(|e| explain(spec, e))?;
        self.require_link(&spec.name).await
    }

    async fn configure_vxlan(&self, spec: &VxlanSpec, link: &Link) -> Result<(), HostError> {
        self.silence(link).await?;
        self.apply_sysctls(&[Setting::new(sysctl::ipv6(&spec.name, "accept_ra"), "0")])?;
        let settings = changeable(spec);
        let doing = || format!("configuring the tunnel device {}", spec.name);
        if settings.iter().any(|setting| !link.vxlan.contains(setting)) {
            let data = LinkInfo::Data(InfoData::Vxlan(settings));
            let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), data]);
            self.change_link(change(link.index, [info]), doing()).await?;
        }
        // Not in one request with the settings: the kernel refuses that (`vxlan_nl2conf`).
        let mut attributes = Vec::new();
        if link.mac != spec.mac {
            attributes.push(LinkAttribute::Address(spec.mac.0.to_vec()));
        }
        if link.mtu != spec.mtu {
            attributes.push(LinkAttribute::Mtu(spec.mtu));
        }
        if !attributes.is_empty() {
            self.change_link(change(link.index, attributes), doing()).await?;
        }
        if link.is_up {
            return Ok(());
        }
        let doing = format!("bringing {} up", spec.name);
        self.change_link(up(change(link.index, [])), doing).await.map_err(|e| explain(spec, e))
    }
}

/// The settings that an existing device can be given.
fn changeable(spec: &VxlanSpec) -> Vec<InfoVxlan> {
    let fragment = if spec.dont_fragment { VxlanDf::Set } else { VxlanDf::Unset };
    vec![InfoVxlan::Learning(false), InfoVxlan::Ttl(TTL), InfoVxlan::Df(fragment)]
}

/// What of a device's settings is not as it shall be and cannot be changed (`vxlan_changelink`), or is not worth it.
fn fixed_difference(spec: &VxlanSpec, settings: &[InfoVxlan]) -> Option<&'static str> {
    use InfoVxlan as Has;
    let has = |pick: &dyn Fn(&Has) -> bool| settings.iter().any(pick);
    let differences = [
        (!settings.contains(&Has::Id(spec.vni)), "VNI"),
        (!settings.contains(&Has::Port(spec.port)), "UDP port"),
        (
            has(&|s| matches!(s, Has::Group(_) | Has::Group6(_) | Has::Local(_) | Has::Local6(_))),
            "fixed address",
        ),
        (has(&|s| matches!(s, Has::Link(index) if *index != 0)), "fixed interface"),
        (
            has(&|s| {
                matches!(
                    s,
                    Has::UDPCsum(false)
                        | Has::UDPZeroCsumTX(true)
                        | Has::UDPZeroCsumRX(true)
                        | Has::RemCsumTX(true)
                        | Has::RemCsumRX(true)
                )
            }),
            "checksums",
        ),
        (
            has(&|s| {
                matches!(
                    s,
                    Has::CollectMetadata(true)
                        | Has::Vnifilter(true)
                        | Has::Gbp
                        | Has::Gpe
                        | Has::Proxy(true)
                        | Has::Rsc(true)
                        | Has::L2Miss(true)
                        | Has::L3Miss(true)
                )
            }),
            "mode",
        ),
        (has(&|s| matches!(s, Has::TtlInherit(1))), "TTL"),
        (has(&|s| matches!(s, Has::Limit(limit) if *limit != 0)), "limit of entries"),
    ];
    differences.into_iter().find_map(|(differs, what)| differs.then_some(what))
}

/// What a refusal means to the operator.
fn explain(spec: &VxlanSpec, error: HostError) -> HostError {
    let Some(errno) = error.errno().filter(|_| matches!(error, HostError::Kernel { .. })) else {
        return error;
    };
    let source = io::Error::from_raw_os_error(errno);
    let taken = |holder| HostError::TunnelTaken {
        name: spec.name.clone(),
        vni: spec.vni,
        port: spec.port,
        holder,
        source: io::Error::from_raw_os_error(errno),
    };
    match errno {
        libc::EEXIST => taken("another VXLAN device uses both; `ip -d link show type vxlan` names it"),
        libc::EADDRINUSE => taken("another program has the UDP port; `ss -lunp` names it"),
        libc::EAFNOSUPPORT | libc::EPFNOSUPPORT | libc::EADDRNOTAVAIL if spec.family == Family::V6 => {
            HostError::Unsupported {
                feature: "VXLAN over IPv6",
                advice: "IPv6 is switched off on this host; tunnels over IPv4 do without it",
                source,
            }
        }
        libc::EOPNOTSUPP => unsupported(source),
        _ => error,
    }
}

/// A kernel without VXLAN.
pub(crate) const fn unsupported(source: io::Error) -> HostError {
    HostError::Unsupported {
        feature: "VXLAN",
        advice: "load the kernel module vxlan (`modprobe vxlan`); until then frames go through user space",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> VxlanSpec {
        VxlanSpec {
            name: "weave-vx".to_owned(),
            vni: 1,
            port: 6784,
            family: Family::V4,
            mtu: 1450,
            dont_fragment: false,
            mac: Mac::local_unicast([1; 6]),
        }
    }

    #[test]
    fn a_device_as_the_kernel_shows_ours_is_adopted() {
        let shown = [
            InfoVxlan::Id(1),
            InfoVxlan::Ttl(9),
            InfoVxlan::Learning(true),
            InfoVxlan::CollectMetadata(false),
            InfoVxlan::Limit(0),
            InfoVxlan::Port(6784),
            InfoVxlan::UDPCsum(true),
            InfoVxlan::TtlInherit(0),
        ];
        assert_eq!(fixed_difference(&spec(), &shown), None);
        for (foreign, difference) in [
            (InfoVxlan::Group(Ipv4Addr::new(239, 0, 0, 1)), "fixed address"),
            (InfoVxlan::Link(4), "fixed interface"),
            (InfoVxlan::CollectMetadata(true), "mode"),
            (InfoVxlan::Limit(5), "limit of entries"),
        ] {
            let shown = [shown.as_slice(), &[foreign]].concat();
            assert_eq!(fixed_difference(&spec(), &shown), Some(difference));
        }
        assert_eq!(fixed_difference(&VxlanSpec { vni: 2, ..spec() }, &shown), Some("VNI"));
        assert_eq!(fixed_difference(&VxlanSpec { port: 2, ..spec() }, &shown), Some("UDP port"));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let refused = |family, errno| {
            let source = io::Error::from_raw_os_error(errno);
            explain(&VxlanSpec { family, ..spec() }, HostError::Kernel { doing: String::new(), source })
                .to_string()
        };
        assert!(refused(Family::V4, libc::EOPNOTSUPP).contains("modprobe vxlan"));
        assert!(refused(Family::V4, libc::EEXIST).contains("another VXLAN device"));
        assert!(refused(Family::V4, libc::EADDRINUSE).contains("UDP port 6784"));
        assert!(refused(Family::V6, libc::EAFNOSUPPORT).contains("IPv6 is switched off"));
    }
}
