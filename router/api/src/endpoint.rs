//! Interfaces that a container engine moves into its containers by itself.
//!
//! The engine knows them by a number of its own (an endpoint) before it says which container they are for. So they have
//! a life apart from attachments: made waiting in the host's namespace, joined to a container, named, removed. Each
//! step may be repeated.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weave_model::{ContainerId, Interface, Mac};

/// How the owners of addresses begin that an engine was given ahead of the endpoint that will use them. Such an address
/// is freed by the engine's word, not with the endpoint.
pub const LEASE_PREFIX: &str = "docker:lease:";

/// Makes an interface whose one end is on the bridge and whose other end waits on the host to be taken into a container.
///
/// Addresses that no lease ([`LEASE_PREFIX`]) of this host holds are claimed for the endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointCreateRequest {
    /// The endpoint.
    pub endpoint: ContainerId,
    /// The addresses that the engine will give the interface.
    pub addresses: Vec<Interface>,
    /// Its Ethernet address; absent means one that follows from the first address.
    #[serde(default, with = "crate::text::option")]
    pub mac: Option<Mac>,
    /// Seconds to wait for addresses to be claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// Tells which network namespace the engine takes the interface into. Makes the interface again if it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointJoinRequest {
    /// The endpoint.
    pub endpoint: ContainerId,
    /// Path of the namespace.
    pub netns: PathBuf,
}

/// Tells which container an endpoint is in and what that is called there; these names take the place of former ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointNameRequest {
    /// The endpoint.
    pub endpoint: ContainerId,
    /// The container.
    pub container: ContainerId,
    /// Names to register in DNS, with or without the domain. Those that cannot be names are left out.
    #[serde(default)]
    pub names: Vec<String>,
}

/// Removes an endpoint's interface, names and claimed addresses. One that is gone already is fine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointRemoveRequest {
    /// The endpoint.
    pub endpoint: ContainerId,
}

/// Tells which endpoints there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointListRequest {}

/// An endpoint as it now is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointResponse {
    /// The endpoint.
    pub endpoint: ContainerId,
    /// Name of the waiting end on the host; of no meaning once the engine has taken it.
    pub interface: String,
    /// Its Ethernet address.
    #[serde(with = "crate::text")]
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<Interface>,
    /// The container, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerId>,
    /// The namespace that the engine took it into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// The names registered.
    #[serde(default)]
    pub names: Vec<String>,
}

/// All endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointListResponse {
    /// By id.
    pub endpoints: Vec<EndpointResponse>,
}

/// What remains of an endpoint that was removed: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRemoveResponse {
    /// Whether there was one.
    pub existed: bool,
}
