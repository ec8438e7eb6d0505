//! What runtimes of containers need beyond `attach`: an interface made to their measure, looked at, and taken away.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weave_model::{ContainerId, Interface, Mac, Subnet};

use crate::{AddressesResponse, Call, ContainerRef};

/// How an interface differs from the custom (`ethwe`, an Ethernet address made from the id, no routes). It matters
/// when the interface is made; one that exists keeps its name and its Ethernet address.
///
/// What is as usual is left out of a request: during an upgrade a router may be asked that does not know the newest of these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InterfaceOptions {
    /// Name inside the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Ethernet address.
    #[serde(with = "crate::text::option", skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The largest MTU wanted, bytes; the network's own is used where that is smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Let the container reach itself by an address that the host translates to its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hairpin: bool,
    /// Let the container send from Ethernet and IP addresses that are not its own: for one that forwards for others, or
    /// moves an address about.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub any_source: bool,
    /// The bridge that the asker expects; refused when it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Addresses wanted with the prefix length of the default subnet that each lies in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Send everything that has no other route through this host, in each family that the container has an
    /// address of. The host is given an address in the container's subnet where it has none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default_route: bool,
    /// Further routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

/// A route inside a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where it leads.
    pub destination: Subnet,
    /// By whom; absent means this host, which is given an address in the container's subnet where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// What was made besides addresses and names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MadeInterface {
    /// Name of the host's end.
    pub host_interface: String,
    /// Ethernet address of the host's end.
    #[serde(with = "crate::text")]
    pub host_mac: Mac,
    /// The bridge that it is a port of.
    pub bridge: String,
    /// Ethernet address of the bridge.
    #[serde(with = "crate::text")]
    pub bridge_mac: Mac,
    /// MTU of both ends, bytes.
    pub mtu: u16,
    /// The host's own addresses that routes lead to.
    pub gateways: Vec<IpAddr>,
    /// The routes that were asked for, gateways filled in.
    pub routes: Vec<Route>,
}

/// Takes everything of a container away: interface, addresses, names. Needs no network namespace, and succeeds when
/// there is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Which container.
    pub container: ContainerId,
}

/// Asks what a container's interface looks like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectRequest {
    /// Which container.
    pub container: ContainerRef,
    /// Name of the interface inside it; absent means `ethwe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// What was recorded of a container, and what the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectResponse {
    /// Its addresses as they were recorded; absent when this router has no record of it.
    #[serde(default)]
    pub recorded: Option<Vec<Interface>>,
    /// Its interface; absent when there is none of ours.
    #[serde(default)]
    pub found: Option<FoundInterface>,
}

/// A container's interface as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundInterface {
    /// Its Ethernet address.
    #[serde(with = "crate::text")]
    pub mac: Mac,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Whether both ends are up.
    pub up: bool,
    /// Its addresses, sorted.
    pub addresses: Vec<Interface>,
    /// The routes that leave through it, sorted.
    pub routes: Vec<Route>,
    /// Name of the host's end.
    pub host_interface: String,
    /// The bridge that it is a port of.
    #[serde(default)]
    pub bridge: Option<String>,
    /// Whether the bridge may send a frame back through that port.
    pub hairpin: bool,
}

/// Asks what the network is like on this host, and whether containers can be given addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {}

/// The network on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkResponse {
    /// Name of the bridge.
    pub bridge: String,
    /// MTU that interfaces get, bytes.
    pub mtu: u16,
    /// The host's own addresses on the network.
    pub exposed: Vec<Interface>,
    /// Where addresses come from: one subnet a family; none when address allocation is switched off.
    pub default_subnets: Vec<Subnet>,
    /// Whether addresses can be given out.
    pub ipam_ready: bool,
    /// The state of address allocation in the words of `weave status`.
    #[serde(default)]
    pub ipam_status: Option<String>,
}

impl Call for ReleaseRequest {
    const PATH: &'static str = "/v1/release";
    type Answer = AddressesResponse;
}

impl Call for InspectRequest {
    const PATH: &'static str = "/v1/inspect";
    type Answer = InspectResponse;
}

impl Call for NetworkRequest {
    const PATH: &'static str = "/v1/network";
    type Answer = NetworkResponse;
}

#[cfg(test)]
mod tests {
    use crate::AttachRequest;

    #[test]
    fn options_are_left_out_by_older_askers_and_read_as_people_write_them() {
        let json = r#"{"container":{"netns":"/run/netns/c1"}}"#;
        let request: AttachRequest = serde_json::from_str(json).unwrap();
        assert_eq!(request.options, super::InterfaceOptions::default());
        assert_eq!(serde_json::to_value(&request).unwrap()["options"], serde_json::json!({}));
        let json = r#"{"container":{"id":"c1"},"options":{"name":"eth0","mac":"02:00:00:00:00:07",
            "routes":[{"destination":"10.0.0.0/8"}],"default_route":true}}"#;
        let request: AttachRequest = serde_json::from_str(json).unwrap();
        assert_eq!(request.options.routes[0].destination.to_string(), "10.0.0.0/8");
        assert_eq!(serde_json::to_value(&request).unwrap()["options"]["mac"], "02:00:00:00:00:07");
    }
}
