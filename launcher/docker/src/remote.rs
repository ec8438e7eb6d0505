//! The documents of libnetwork's remote drivers (`docs/remote.md` and `docs/ipam.md` of libnetwork), as far as we read
//! or write them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Meta data under which an address driver names the gateway of a pool, so that the engine does not ask for one.
pub(crate) const GATEWAY: &str = "com.docker.network.gateway";
/// Option that says what an address is asked for.
pub(crate) const ADDRESS_TYPE: &str = "RequestAddressType";
/// Where the user's options of a network are.
pub(crate) const GENERIC: &str = "com.docker.network.generic";

/// Free-form options.
pub(crate) type Options = BTreeMap<String, Value>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RequestPool {
    #[serde(default)]
    pub(crate) pool: String,
    #[serde(default)]
    pub(crate) sub_pool: String,
    #[serde(default, rename = "V6")]
    pub(crate) v6: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Pool {
    #[serde(rename = "PoolID")]
    pub(crate) pool_id: String,
    #[serde(rename = "Pool")]
    pub(crate) pool: String,
    #[serde(rename = "Data")]
    pub(crate) data: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ReleasePool {
    #[serde(rename = "PoolID")]
    pub(crate) pool_id: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RequestAddress {
    #[serde(rename = "PoolID")]
    pub(crate) pool_id: String,
    #[serde(default, rename = "Address")]
    pub(crate) address: String,
    #[serde(default, rename = "Options")]
    pub(crate) options: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ReleaseAddress {
    #[serde(rename = "PoolID")]
    pub(crate) pool_id: String,
    #[serde(rename = "Address")]
    pub(crate) address: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    pub(crate) network: String,
    #[serde(default, rename = "Options")]
    pub(crate) options: Option<Options>,
    #[serde(default, rename = "IPv4Data")]
    pub(crate) ipv4: Option<Vec<IpamData>>,
    #[serde(default, rename = "IPv6Data")]
    pub(crate) ipv6: Option<Vec<IpamData>>,
}

/// Where the addresses of a network come from, whoever gives them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct IpamData {
    #[serde(default)]
    pub(crate) pool: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct DeleteNetwork {
    #[serde(rename = "NetworkID")]
    pub(crate) network: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CreateEndpoint {
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint: String,
    #[serde(default, rename = "Interface")]
    pub(crate) interface: Option<EndpointInterface>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EndpointInterface {
    #[serde(default)]
    pub(crate) address: String,
    #[serde(default, rename = "AddressIPv6")]
    pub(crate) address_ipv6: String,
    #[serde(default)]
    pub(crate) mac_address: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Join {
    #[serde(rename = "NetworkID")]
    pub(crate) network: String,
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint: String,
    #[serde(default, rename = "SandboxKey")]
    pub(crate) sandbox: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct DeleteEndpoint {
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint: String,
}
