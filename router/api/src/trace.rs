//! The way that frames to a container take.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weave_model::{ContainerId, Mac, PeerName};

use crate::{Call, KernelKey, Overlay};

/// Asks where an address, a name or an Ethernet address is, and how frames get there from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// `10.32.0.7`, `web`, `web.weave.local` or `6e:02:11:5d:9a:01`.
    pub target: String,
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceResponse {
    /// What was asked for.
    pub target: String,
    /// The interfaces that have it, by Ethernet address; empty when nobody has it.
    pub stations: Vec<StationTrace>,
    /// In words, why there is no station, when there is none.
    #[serde(default)]
    pub note: Option<String>,
}

/// One interface, and the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationTrace {
    /// Its Ethernet address.
    #[serde(with = "crate::text")]
    pub mac: Mac,
    /// Whose it is; absent for what nobody attached and the bridge has seen.
    #[serde(default)]
    pub container: Option<ContainerId>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The router of its host.
    #[serde(with = "crate::text")]
    pub peer: PeerName,
    /// That router's label.
    pub nickname: String,
    /// Whether it is on this host; there are no hops then.
    pub local: bool,
    /// Whether a way leads there.
    pub reachable: bool,
    /// What the largest packet may be on this host's interfaces, bytes.
    pub mtu: u16,
    /// The links that frames pass, in order.
    pub hops: Vec<HopTrace>,
}

/// One link on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopTrace {
    /// The near router.
    #[serde(with = "crate::text")]
    pub from: PeerName,
    /// The far router.
    #[serde(with = "crate::text")]
    pub to: PeerName,
    /// The far router's label.
    pub nickname: String,
    /// What carries frames, as the near router says; absent when nothing does.
    #[serde(default)]
    pub overlay: Option<Overlay>,
    /// Whether frames are encrypted; known of our own links only.
    #[serde(default)]
    pub encrypted: Option<bool>,
    /// With what the kernel encrypts frames that leave, when it carries and encrypts them; known of our own links only.
    #[serde(default)]
    pub kernel_key: Option<KernelKey>,
    /// Bytes of the largest packet; known of our own links only.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Microseconds there and back: measured for our own links, an upper bound for others.
    #[serde(default)]
    pub rtt_us: Option<u64>,
    /// Why it is not as good as it could be.
    #[serde(default)]
    pub info: Option<String>,
}

impl Call for TraceRequest {
    const PATH: &'static str = "/v1/trace";
    type Answer = TraceResponse;
}
