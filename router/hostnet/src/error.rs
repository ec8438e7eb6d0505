//! What can go wrong on a host, by what the caller can do about it.

use std::io;

use rtnetlink::packet_core::ErrorMessage;

use crate::NetnsRef;

/// Why the host could not be brought to the wanted state. Found by `downcast_ref` in the `anyhow` errors of this
/// crate; whatever the failed call had done so far was undone.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// We may not do this here. The operator has to start us differently.
    #[error(
        "no permission for {doing}: this needs CAP_NET_ADMIN in the network namespace; \
         run as root, or inside `unshare --user --map-root-user --net --mount`"
    )]
    NoPermission {
        /// What was tried.
        doing: String,
    },
    /// An interface that is not ours has a name that we need. The operator has to remove or rename it.
    #[error(
        "interface `{name}` is {found}, not {wanted}; it was left untouched: remove or rename it, or use another name"
    )]
    ForeignInterface {
        /// Its name.
        name: String,
        /// What it is.
        found: String,
        /// What it should have been.
        wanted: &'static str,
    },
    /// An interface that should be there is not.
    #[error("there is no interface `{0}`")]
    NoInterface(String),
    /// Text that cannot be an interface name (Linux: `dev_valid_name`, at most 15 bytes).
    #[error(
        "`{0}` cannot be an interface name: 1 to 15 bytes, no spaces, slashes or colons, and not `.` or `..`"
    )]
    InterfaceName(String),
    /// The process or the file that named the namespace is gone; for removals that is success.
    #[error("the network namespace of {0} is gone")]
    NamespaceGone(NetnsRef),
    /// The file is there and is something else.
    #[error("{0} is not a network namespace")]
    NotANamespace(NetnsRef),
    /// The container has no network namespace of its own (`--net=host`).
    #[error("{0} is in the host's own network namespace; only containers with their own one can be attached")]
    HostNamespace(NetnsRef),
    /// One address was given twice, with different prefix lengths.
    #[error("address {0} is wanted with two different prefix lengths")]
    AddressTwice(std::net::IpAddr),
    /// A route of one address family by a gateway of the other.
    #[error("there can be no route to {destination} by {gateway}: they are of different address families")]
    RouteFamilies {
        /// Where it shall lead.
        destination: ipnet::IpNet,
        /// By whom.
        gateway: std::net::IpAddr,
    },
    /// A multicast, loopback or unspecified address.
    #[error(
        "{0} is no address that an interface can have: it is a multicast, loopback or unspecified address"
    )]
    NoHostAddress(std::net::IpAddr),
    /// This kernel lacks a feature.
    #[error("this kernel cannot do {feature} ({source}); {advice}")]
    Unsupported {
        /// What is missing.
        feature: &'static str,
        /// What the operator can do.
        advice: &'static str,
        /// How the kernel said so.
        source: io::Error,
    },
    /// A tunnel device cannot be had because somebody else has what it needs. The operator has to free it, or us
    /// to use another port.
    #[error("{name} cannot have VNI {vni} on UDP port {port} ({source}): {holder}")]
    TunnelTaken {
        /// The device.
        name: String,
        /// Its network identifier.
        vni: u32,
        /// Its UDP port.
        port: u16,
        /// Who has it, as far as the kernel tells.
        holder: &'static str,
        /// How the kernel said so.
        source: io::Error,
    },
    /// Some of many changes were refused; the others took effect.
    #[error("{failed} of {of} changes were refused; the first: {first}")]
    Several {
        /// How many were refused.
        failed: usize,
        /// How many were asked for.
        of: usize,
        /// The first refusal.
        first: Box<Self>,
    },
    /// The kernel said no for another reason.
    #[error("{doing}: {source}")]
    Kernel {
        /// What was tried.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl HostError {
    /// An error from a system call made while `doing`.
    pub(crate) fn from_io(doing: impl Into<String>, source: io::Error) -> Self {
        let doing = doing.into();
        if source.raw_os_error() == Some(libc::EPERM) || source.raw_os_error() == Some(libc::EACCES) {
            Self::NoPermission { doing }
        } else {
            Self::Kernel { doing, source }
        }
    }

    /// A refusal that came by netlink. There, only `EPERM` means that we lack rights.
    pub(crate) fn from_answer(doing: impl Into<String>, source: io::Error) -> Self {
        let doing = doing.into();
        if source.raw_os_error() == Some(libc::EPERM) {
            Self::NoPermission { doing }
        } else {
            Self::Kernel { doing, source }
        }
    }

    /// The error number, where the kernel gave one.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. }
            | Self::Unsupported { source, .. }
            | Self::TunnelTaken { source, .. } => source.raw_os_error(),
            Self::Several { first, .. } => first.errno(),
            Self::NoPermission { .. } => Some(libc::EPERM),
            Self::NoInterface(_) => Some(libc::ENODEV),
            Self::ForeignInterface { .. }
            | Self::InterfaceName(_)
            | Self::NamespaceGone(_)
            | Self::NotANamespace(_)
            | Self::HostNamespace(_)
            | Self::AddressTwice(_)
            | Self::NoHostAddress(_)
            | Self::RouteFamilies { .. } => None,
        }
    }
}

/// Turns an answer of the netlink library into ours; to be used as `.map_err(kernel("adding …"))`.
pub(crate) fn kernel(doing: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> HostError {
    move |error| {
        if let rtnetlink::Error::NetlinkError(answer) = error {
            HostError::from_answer(doing, answer_to_io(&answer))
        } else {
            HostError::Kernel { doing: doing.into(), source: io::Error::other(error.to_string()) }
        }
    }
}

pub(crate) fn answer_to_io(answer: &ErrorMessage) -> io::Error {
    io::Error::from_raw_os_error(answer.raw_code().abs())
}

/// Something that we would have liked to set and could not; the network works without it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// A kernel setting could not be written, typically because `/proc/sys` is mounted read-only.
    Sysctl {
        /// Path below `/proc/sys`.
        key: String,
        /// What it should have been set to.
        value: String,
        /// Why it was not.
        reason: String,
    },
    /// The neighbours were not told of a new address at once; they will find out by themselves.
    Announcement {
        /// Interface inside the container, or the bridge.
        interface: String,
        /// Why not.
        reason: String,
    },
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sysctl { key, value, reason } => write!(f, "could not set {key} to {value}: {reason}"),
            Self::Announcement { interface, reason } => {
                write!(f, "could not announce the addresses of {interface}: {reason}")
            }
        }
    }
}
