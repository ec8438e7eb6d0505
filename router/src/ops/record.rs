//! What the store remembers of an attached container.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weave_hostnet::names;
use weave_model::{ContainerId, Interface, Mac};

/// One attached container, or the host itself under [`ContainerId::expose`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) container: ContainerId,
    /// Where the interface is; empty for the host.
    pub(crate) netns: PathBuf,
    /// The host's end of it, or the bridge.
    pub(crate) host_ifname: String,
    pub(crate) mac: Mac,
    pub(crate) addresses: Vec<Interface>,
    pub(crate) names: Vec<String>,
    /// Whether the host masquerades for these addresses (`expose` only).
    pub(crate) masquerade: bool,
    /// What only interfaces have that a container engine moves by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<Endpoint>,
    /// Name of the container's end, where it is not the customary one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<String>,
    /// The largest MTU that the container wants, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_mtu: Option<u16>,
    /// Whether it may send from addresses that are not its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) any_source: bool,
}

/// An interface that a container engine takes into a container; the record's container is the engine's endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// The container, once the engine has told.
    pub(crate) container: Option<ContainerId>,
}

impl Record {
    /// Who is shown to have the interface, and to whom names belong.
    pub(crate) fn holder(&self) -> &ContainerId {
        self.endpoint.as_ref().and_then(|endpoint| endpoint.container.as_ref()).unwrap_or(&self.container)
    }

    /// Name of the container's end.
    pub(crate) fn ifname(&self) -> &str {
        self.interface.as_deref().unwrap_or(names::CONTAINER)
    }

    pub(crate) fn encode(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    pub(crate) fn decode(bytes: &[u8]) -> anyhow::Result<Self> {
        Ok(serde_json::from_slice(bytes)?)
    }
}
