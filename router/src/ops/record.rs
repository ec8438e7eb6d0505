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
    /// Name of the container's end, where it is not the customary one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<String>,
    /// The largest MTU that the container wants, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_mtu: Option<u16>,
}

impl Record {
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
