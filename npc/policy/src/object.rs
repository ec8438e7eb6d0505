//! Namespaces and pods as plain values.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::Labels;

/// The label that every namespace has, with its own name for a value (NP-44; Kubernetes sets it at creation).
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Name of a pod, unique at any time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodId {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl PodId {
    /// A pod's name from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    name: String,
    labels: Labels,
}

impl Namespace {
    /// A namespace with these labels, and the one with its name.
    pub fn new(name: impl Into<String>, mut labels: Labels) -> Self {
        let name = name.into();
        labels.insert(NAME_LABEL.to_owned(), name.clone());
        Self { name, labels }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its labels, [`NAME_LABEL`] among them.
    #[must_use]
    pub const fn labels(&self) -> &Labels {
        &self.labels
    }
}

/// A protocol that has ports. All others are judged by rules without ports only (NP-50, NP-90).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Protocol 6.
    Tcp,
    /// Protocol 17.
    Udp,
    /// Protocol 132.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its number in IP headers (IANA, Assigned Internet Protocol Numbers).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol of this number, if it has ports.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.number() == number)
    }
}

/// Text that is none of `TCP`, `UDP`, `SCTP`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a protocol with ports: TCP, UDP, SCTP")]
pub struct UnknownProtocol(String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Ok(Self::Sctp),
            _ => Err(UnknownProtocol(text.to_owned())),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A port that a container of a pod declares, with a name by which rules can ask for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerPort {
    /// Unique neither in a pod nor in a container: the protocol counts too (NP-57).
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// A pod, as far as policies are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub id: PodId,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses: one or two, of different families.
    pub addresses: Vec<IpAddr>,
    /// Named ports of all its containers, init containers that keep running included.
    pub ports: Vec<ContainerPort>,
    /// The node that it runs on; empty before it is scheduled.
    pub node: String,
    /// Whether it uses the node's network and addresses. Such pods are part of the node (NP-73).
    pub is_host_network: bool,
    /// Whether it has run to its end. Its addresses may belong to somebody else by now (NP-76).
    pub is_finished: bool,
    /// When it was created, as any number that grows with time. Of two pods with one address, the younger has it.
    pub created: u64,
}

impl Pod {
    /// A running pod on `node` with nothing else yet.
    #[must_use]
    pub fn new(id: PodId, node: impl Into<String>) -> Self {
        Self {
            id,
            labels: Labels::new(),
            addresses: Vec::new(),
            ports: Vec::new(),
            node: node.into(),
            is_host_network: false,
            is_finished: false,
            created: 0,
        }
    }

    /// The addresses that are this pod's own at present.
    #[must_use]
    pub fn own_addresses(&self) -> &[IpAddr] {
        if self.is_host_network || self.is_finished { &[] } else { &self.addresses }
    }
}
