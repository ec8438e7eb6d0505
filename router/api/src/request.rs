//! Requests and their answers.
//!
//! Each waits at most `timeout_s` seconds, where it has that field: absent means [`DEFAULT_WAIT`](crate::DEFAULT_WAIT),
//! zero means not at all. When the asker goes away meanwhile, the request is withdrawn and nothing is left behind.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use weave_model::{AddressSpec, ContainerId, Interface, Mac, PeerName, Subnet};

use crate::{
    Call, ContainerRef, ContainerReport, EndpointCreateRequest, EndpointJoinRequest, EndpointListRequest,
    EndpointListResponse, EndpointNameRequest, EndpointRemoveRequest, EndpointRemoveResponse,
    EndpointResponse, InterfaceOptions, MadeInterface, call::wait,
};

/// Adds targets; with `replace`, makes these the only ones.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectRequest {
    /// Hosts as `host`, `host:port`, `address`, `[address]:port`.
    pub peers: Vec<String>,
    /// Forget every target that is not listed.
    #[serde(default)]
    pub replace: bool,
}

/// Removes targets and drops the links to them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetRequest {
    /// Targets as they were given to [`ConnectRequest`].
    pub peers: Vec<String>,
}

/// The targets after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetsResponse {
    /// Sorted.
    pub targets: Vec<String>,
}

/// Gives a container an interface on the network. Idempotent; all or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Which container.
    pub container: ContainerRef,
    /// The addresses wanted; none means `net:default`.
    #[serde(default, with = "crate::text::list")]
    pub addresses: Vec<AddressSpec>,
    /// Names to register in DNS, with or without the domain.
    #[serde(default)]
    pub names: Vec<String>,
    /// Register no names, and change no resolver settings.
    #[serde(default)]
    pub without_dns: bool,
    /// Write the container's `/etc/hosts`.
    #[serde(default)]
    pub rewrite_hosts: bool,
    /// Further lines for `/etc/hosts`.
    #[serde(default)]
    pub add_hosts: Vec<HostEntry>,
    /// Do not route multicast to the network.
    #[serde(default)]
    pub no_multicast_route: bool,
    /// How the interface differs from the custom.
    #[serde(default)]
    pub options: InterfaceOptions,
    /// Seconds to wait for addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// The name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
}

/// What a container now has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachResponse {
    /// The id that owns the addresses.
    pub container: ContainerId,
    /// Name of the interface inside the container, such as `ethwe`.
    pub interface: String,
    /// Its Ethernet address.
    #[serde(with = "crate::text")]
    pub mac: Mac,
    /// The addresses asked for, in the order of the request.
    pub addresses: Vec<Interface>,
    /// The full names registered.
    #[serde(default)]
    pub names: Vec<String>,
    /// The rest of what was made.
    #[serde(default)]
    pub made: MadeInterface,
}

/// Takes addresses away from a container and frees them; without a list, all of them and the interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetachRequest {
    /// Which container; its namespace may be gone.
    pub container: ContainerRef,
    /// Which addresses.
    #[serde(default, with = "crate::text::list")]
    pub addresses: Vec<AddressSpec>,
}

/// Addresses of one owner, as they were given or taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressesResponse {
    /// The owner.
    pub container: ContainerId,
    /// The addresses.
    pub addresses: Vec<Interface>,
}

/// Gives the host itself addresses on the network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposeRequest {
    /// The addresses wanted; none means `net:default`.
    #[serde(default, with = "crate::text::list")]
    pub addresses: Vec<AddressSpec>,
    /// A name to register for them.
    #[serde(default)]
    pub fqdn: Option<String>,
    /// Do not hide the containers behind the host's address towards the outside, nor the outside from them.
    #[serde(default)]
    pub without_masquerade: bool,
    /// Seconds to wait for addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// Takes addresses away from the host; without a list, all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HideRequest {
    /// Which addresses.
    #[serde(default, with = "crate::text::list")]
    pub addresses: Vec<AddressSpec>,
}

/// Takes addresses for an owner, without touching any interface. Idempotent per owner and subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllocateRequest {
    /// For whom.
    pub container: ContainerId,
    /// The subnet; absent means the default subnet.
    #[serde(default)]
    pub subnet: Option<Subnet>,
    /// Seconds to wait for an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// Records that an owner holds exactly this address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// Who holds it.
    pub container: ContainerId,
    /// The address.
    pub address: Interface,
    /// Take the owner's word when the address belongs to a peer that cannot be asked.
    #[serde(default)]
    pub no_error_on_unknown: bool,
    /// Seconds to wait for the answer of the address's owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// Frees what an owner holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreeRequest {
    /// Whose.
    pub container: ContainerId,
    /// One address; absent means all.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

/// Tells what an owner holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookupRequest {
    /// Whose.
    pub container: ContainerId,
    /// In this subnet only.
    #[serde(default)]
    pub subnet: Option<Subnet>,
}

/// Tells what every owner on this host holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {}

/// Every owner on this host and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListResponse {
    /// The addresses by owner, sorted.
    pub addresses_by_owner: BTreeMap<ContainerId, Vec<Interface>>,
}

/// Waits until the ring exists, so that addresses can be given out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrimeRequest {
    /// Seconds to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// The ring exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimeResponse {
    /// The routers that it began with.
    #[serde(with = "crate::text::list")]
    pub seeds: Vec<PeerName>,
}

/// Waits until every part of the router has started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadyRequest {
    /// Seconds to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// The router is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyResponse {
    /// Version of the software.
    pub version: String,
    /// Its name.
    #[serde(with = "crate::text")]
    pub name: PeerName,
    /// Its label.
    pub nickname: String,
    /// Its process, as it sees itself.
    pub pid: u32,
}

/// Tells which containers have interfaces, and which.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PsRequest {
    /// Of these (an id or its beginning); none means of all.
    #[serde(default)]
    pub containers: Vec<ContainerId>,
}

/// Containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PsResponse {
    /// The host (`weave:expose`) first, then by id.
    pub containers: Vec<ContainerReport>,
}

/// Registers a name for addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsAddRequest {
    /// Who holds the addresses; absent means nobody of ours (`weave:extern`).
    #[serde(default)]
    pub container: Option<ContainerId>,
    /// The addresses; none means those of the container.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// The name; absent means the container's own.
    #[serde(default)]
    pub fqdn: Option<String>,
    /// What is served there, as `name/transport:port` (`http/tcp:80`): SRV queries for `_http._tcp.NAME` find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Removes names: those that match everything given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsRemoveRequest {
    /// Of this holder, such as `weave:extern`; absent means of any on this host.
    #[serde(default)]
    pub container: Option<ContainerId>,
    /// Of these addresses; none means of all.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// This name; absent means all.
    #[serde(default)]
    pub fqdn: Option<String>,
}

/// How many names changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsResponse {
    /// Entries added or removed.
    pub entries: u64,
}

/// Asks this router's own names, never an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsLookupRequest {
    /// A name with or without the domain.
    pub name: String,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsLookupResponse {
    /// Sorted; empty for an unknown name.
    pub addresses: Vec<IpAddr>,
}

/// Takes over the address space of peers that are gone for good.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RmpeerRequest {
    /// Names or nicknames.
    pub peers: Vec<String>,
    /// Even from a peer that seems alive. Two hosts may then hold the same address.
    #[serde(default)]
    pub force: bool,
}

/// What was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RmpeerResponse {
    /// In the order of the request.
    pub taken_over: Vec<TakenOver>,
}

/// What was taken over from one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenOver {
    /// As it was named in the request.
    pub peer: String,
    /// How many addresses; zero for an unknown peer.
    #[serde(with = "crate::text")]
    pub addresses: u128,
}

/// Hands this router's address space to another, before it goes for good.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaveRequest {
    /// Seconds to wait until the heir has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// Who has the space now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveResponse {
    /// The heir; absent when there is no other router, or nothing to give.
    #[serde(default, with = "crate::text::option")]
    pub heir: Option<PeerName>,
    /// How many addresses were handed over.
    #[serde(with = "crate::text")]
    pub addresses: u128,
}

macro_rules! calls {
    ($($request:ty => $path:literal, $answer:ty;)*) => {
        $(impl Call for $request {
            const PATH: &'static str = $path;
            type Answer = $answer;
        })*
    };
    (waiting $($request:ty => $path:literal, $answer:ty;)*) => {
        $(impl Call for $request {
            const PATH: &'static str = $path;
            type Answer = $answer;

            fn timeout(&self) -> Duration {
                wait(self.timeout_s)
            }
        })*
    };
}

calls! {
    ConnectRequest => "/v1/connect", TargetsResponse;
    ForgetRequest => "/v1/forget", TargetsResponse;
    DetachRequest => "/v1/detach", AddressesResponse;
    HideRequest => "/v1/hide", AddressesResponse;
    FreeRequest => "/v1/ip/free", AddressesResponse;
    LookupRequest => "/v1/ip/lookup", AddressesResponse;
    ListRequest => "/v1/ip/list", ListResponse;
    PsRequest => "/v1/ps", PsResponse;
    DnsAddRequest => "/v1/dns/add", DnsResponse;
    DnsRemoveRequest => "/v1/dns/remove", DnsResponse;
    DnsLookupRequest => "/v1/dns/lookup", DnsLookupResponse;
    RmpeerRequest => "/v1/rmpeer", RmpeerResponse;
    EndpointJoinRequest => "/v1/endpoint/join", EndpointResponse;
    EndpointNameRequest => "/v1/endpoint/name", EndpointResponse;
    EndpointRemoveRequest => "/v1/endpoint/remove", EndpointRemoveResponse;
    EndpointListRequest => "/v1/endpoint/list", EndpointListResponse;
}

calls! { waiting
    AttachRequest => "/v1/attach", AttachResponse;
    EndpointCreateRequest => "/v1/endpoint/create", EndpointResponse;
    ExposeRequest => "/v1/expose", AddressesResponse;
    AllocateRequest => "/v1/ip/allocate", AddressesResponse;
    ClaimRequest => "/v1/ip/claim", AddressesResponse;
    PrimeRequest => "/v1/prime", PrimeResponse;
    ReadyRequest => "/v1/ready", ReadyResponse;
    LeaveRequest => "/v1/leave", LeaveResponse;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attach_request_reads_as_people_write_it() {
        let json = r#"{"container":{"netns":"/run/netns/c1"},"addresses":["10.9.1.7/24","net:default"]}"#;
        let request: AttachRequest = serde_json::from_str(json).unwrap();
        assert_eq!(request.addresses[1], AddressSpec::NetDefault);
        assert_eq!(request.timeout(), crate::DEFAULT_WAIT);
        let back = serde_json::to_value(&request).unwrap();
        assert_eq!(back["addresses"], serde_json::json!(["ip:10.9.1.7/24", "net:default"]));
    }

    #[test]
    fn a_misspelt_field_is_refused_rather_than_ignored() {
        let error = serde_json::from_str::<ConnectRequest>(r#"{"peers":[],"relpace":true}"#).unwrap_err();
        assert!(error.to_string().contains("relpace"), "{error}");
    }

    #[test]
    fn counts_beyond_the_numbers_of_json_survive() {
        let taken = TakenOver { peer: "node-b".to_owned(), addresses: u128::MAX };
        let json = serde_json::to_string(&taken).unwrap();
        assert!(json.contains("\"340282366920938463463374607431768211455\""), "{json}");
        assert_eq!(serde_json::from_str::<TakenOver>(&json).unwrap(), taken);
    }
}
