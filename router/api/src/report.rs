//! The whole state of a router, as `weave report` prints it and every status view is made from it.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use weave_model::{ContainerId, Interface, Mac, PeerName, Subnet};

/// Everything a router knows about itself. Lists are sorted; equal states give equal documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the software, such as `0.1.0`.
    pub version: String,
    /// Whether every part has started.
    pub ready: bool,
    /// Seconds since the router started.
    #[serde(default)]
    pub uptime_s: u64,
    /// What is wrong right now, worst first.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// Peers, links and routes.
    pub router: RouterReport,
    /// Addresses; absent when address management is switched off.
    #[serde(default)]
    pub ipam: Option<IpamReport>,
    /// Names; absent when DNS is switched off.
    #[serde(default)]
    pub dns: Option<DnsReport>,
    /// Packets.
    #[serde(default)]
    pub data_plane: DataPlaneReport,
    /// What is attached here: the host itself (`weave:expose`) first, then by id.
    #[serde(default)]
    pub containers: Vec<ContainerReport>,
}

/// Something that an operator should know about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// One sentence that says what is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
}

/// How bad a [`Problem`] is, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something may stop working, or works badly.
    Warning,
}

/// Peers, links and routes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouterReport {
    /// This router's name.
    #[serde(with = "crate::text")]
    pub name: PeerName,
    /// Its label for people; the host's name unless given.
    pub nickname: String,
    /// Random per start, 16 hexadecimal digits.
    pub uid: String,
    /// UDP port of control links and sleeve.
    pub port: u16,
    /// Oldest protocol version spoken.
    #[serde(default)]
    pub protocol_min: u16,
    /// Newest protocol version spoken.
    #[serde(default)]
    pub protocol_max: u16,
    /// Whether a password is set.
    pub encryption: bool,
    /// Whether peers are discovered through the mesh.
    pub discovery: bool,
    /// Addresses to keep links to, as they were given, sorted.
    pub targets: Vec<String>,
    /// Underlay subnets whose links need no encryption.
    #[serde(default)]
    pub trusted_subnets: Vec<Subnet>,
    /// Every known router, ourselves first, then by name.
    pub peers: Vec<PeerReport>,
    /// Our own links and attempts: in the order of [`ConnectionState`], then by address.
    pub connections: Vec<ConnectionReport>,
    /// Next hops, by destination.
    pub unicast_routes: Vec<UnicastRoute>,
    /// Whom broadcasts are passed on to, by source.
    pub broadcast_routes: Vec<BroadcastRoute>,
    /// Links that have ended since the start.
    pub terminations: u64,
}

/// One router of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its name.
    #[serde(with = "crate::text")]
    pub name: PeerName,
    /// Its label for people.
    pub nickname: String,
    /// Random per start, 16 hexadecimal digits.
    pub uid: String,
    /// Version of its facts: grows with each change.
    pub version: u64,
    /// Whether a path to it is known.
    pub reachable: bool,
    /// Its links as it describes them, by name.
    pub connections: Vec<PeerConnection>,
}

/// One link as the peer at its near end describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerConnection {
    /// The peer at the far end.
    #[serde(with = "crate::text")]
    pub name: PeerName,
    /// That peer's label.
    pub nickname: String,
    /// That peer's address and port.
    pub address: String,
    /// Whether the near end dialled.
    pub outbound: bool,
    /// Established or pending.
    pub state: ConnectionState,
}

/// Where a link is in its life; the order is that of summaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// Control and data flow.
    Established,
    /// Authenticated; the data path is not proven yet.
    Pending,
    /// Lost, and being dialled again.
    Retrying,
    /// The last attempt failed; `info` says why and `retry` when the next is due.
    Failed,
    /// Being dialled.
    Connecting,
}

/// What carries the frames of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlay {
    /// VXLAN in the kernel.
    Fastdp,
    /// The user-space UDP tunnel.
    Sleeve,
}

/// When a failed link is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// After this many seconds.
    InS(u64),
    /// Not at all: it is ourselves, or the name is taken.
    Never,
}

/// One of our own links, or an attempt at one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// Address and port of the far end, or the target as it was given.
    pub address: String,
    /// Whether we dialled.
    pub outbound: bool,
    /// Where it is in its life.
    pub state: ConnectionState,
    /// Whether its data is encrypted.
    pub encrypted: bool,
    /// What carries its frames, once known.
    #[serde(default)]
    pub overlay: Option<Overlay>,
    /// Seconds since that one is in use.
    #[serde(default)]
    pub overlay_for_s: Option<u64>,
    /// The peer at the far end, once known.
    #[serde(default, with = "crate::text::option")]
    pub peer: Option<PeerName>,
    /// That peer's label.
    #[serde(default)]
    pub nickname: Option<String>,
    /// Largest overlay packet that goes through unfragmented, bytes.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Smoothed round-trip time, microseconds.
    #[serde(default)]
    pub rtt_us: Option<u64>,
    /// With what the kernel encrypts frames that leave, when it carries and encrypts them.
    #[serde(default)]
    pub kernel_key: Option<KernelKey>,
    /// How far the clock of its host is ahead of ours, milliseconds; negative when behind. Nothing depends on it.
    #[serde(default)]
    pub clock_skew_ms: Option<i64>,
    /// Seconds in this state.
    #[serde(default)]
    pub since_s: u64,
    /// Why it is in this state: the failure, or why sleeve is used.
    #[serde(default)]
    pub info: Option<String>,
    /// When it is tried again.
    #[serde(default)]
    pub retry: Option<Retry>,
}

/// A key with which the kernel encrypts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelKey {
    /// Name of the algorithm.
    pub cipher: String,
    /// Whether the encrypted packets travel in UDP, because IP protocol 50 does not pass.
    #[serde(default)]
    pub in_udp: bool,
    /// How many keys the link had before this one.
    pub number: u32,
    /// Seconds since it is in use.
    pub age_s: u64,
}

/// The algorithm, and in what its packets travel if that is not usual.
impl fmt::Display for KernelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cipher)?;
        if self.in_udp { f.write_str(" in UDP") } else { Ok(()) }
    }
}

/// The next hop towards a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnicastRoute {
    /// The destination.
    #[serde(with = "crate::text")]
    pub dest: PeerName,
    /// The neighbour that frames are handed to; absent for ourselves.
    #[serde(default, with = "crate::text::option")]
    pub via: Option<PeerName>,
}

/// Whom frames flooded by a peer are passed on to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroadcastRoute {
    /// The peer where the broadcast started.
    #[serde(with = "crate::text")]
    pub source: PeerName,
    /// The neighbours, by name.
    #[serde(with = "crate::text::list")]
    pub via: Vec<PeerName>,
}

/// Addresses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IpamReport {
    /// The state in the words of `weave status`, such as `ready` or `awaiting consensus (quorum: 2, known: 1)`.
    pub status: String,
    /// Whether addresses can be given out.
    pub ready: bool,
    /// How the vote on the first ring stands, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub election: Option<ElectionReport>,
    /// The ranges managed.
    pub ranges: Vec<Subnet>,
    /// Where `net:default` allocates: one subnet per family.
    pub default_subnets: Vec<Subnet>,
    /// Who owns how much: ourselves first, then by name.
    pub owners: Vec<OwnerReport>,
    /// Addresses held by containers of this host.
    pub active: u64,
    /// Requests that wait, oldest first.
    #[serde(default)]
    pub pending: Vec<PendingReport>,
    /// Tokens in the ring.
    #[serde(default)]
    pub entries: u64,
    /// The routers that the ring began with.
    #[serde(default, with = "crate::text::list")]
    pub seeds: Vec<PeerName>,
    /// Disagreements with other rings, in words; traffic flows on.
    #[serde(default)]
    pub conflicts: Vec<String>,
}

/// A vote on the first ring that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElectionReport {
    /// How many routers must agree, this one included.
    pub quorum: u64,
    /// Who votes and is heard: this router first, then by name; each with its label.
    pub heard: Vec<String>,
    /// Who is not heard: routers that were met, with their labels, then targets that nobody answers at.
    pub missing: Vec<String>,
}

impl ElectionReport {
    /// How many must still be heard.
    #[must_use]
    pub const fn lacking(&self) -> u64 {
        self.quorum.saturating_sub(self.heard.len() as u64)
    }
}

/// One owner of address space.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnerReport {
    /// The owner.
    #[serde(with = "crate::text")]
    pub peer: PeerName,
    /// Its label, empty when unknown.
    pub nickname: String,
    /// How many addresses; decimal text in JSON, as IPv6 ranges exceed its numbers.
    #[serde(with = "crate::text")]
    pub addresses: u128,
    /// Share of the whole, 0 to 100.
    pub percent: f64,
    /// Whether a path to it is known.
    pub reachable: bool,
    /// Whether it is ourselves.
    pub own: bool,
}

/// A request for an address that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingReport {
    /// For whom.
    pub container: ContainerId,
    /// What was asked for, such as `net:default` or `ip:10.32.0.7/12`.
    pub request: String,
    /// Seconds waited so far.
    pub waiting_s: u64,
    /// What it waits for.
    pub reason: String,
}

/// Names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsReport {
    /// The domain with its trailing dot.
    pub domain: String,
    /// Addresses and ports that are answered on.
    pub listen: Vec<String>,
    /// Servers that other names are asked of, in order.
    pub upstream: Vec<String>,
    /// Time to live of our answers, seconds.
    pub ttl: u32,
    /// Live entries, by hostname, address, container.
    pub entries: Vec<DnsEntry>,
}

/// One name of one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsEntry {
    /// The full name with its trailing dot.
    pub hostname: String,
    /// What it stands for.
    pub address: IpAddr,
    /// Who holds the address.
    pub container: ContainerId,
    /// The router that published it.
    #[serde(with = "crate::text")]
    pub peer: PeerName,
}

/// Packets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DataPlaneReport {
    /// Per link, by peer.
    pub links: Vec<LinkReport>,
    /// Over all links, those that have ended included.
    pub total: Counters,
    /// MTU of the bridge and of containers, bytes.
    #[serde(default)]
    pub mtu: u16,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// Packets of one link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    /// The peer at the far end.
    #[serde(with = "crate::text")]
    pub peer: PeerName,
    /// What carries its frames.
    pub overlay: Overlay,
    /// What went over it.
    #[serde(flatten)]
    pub counters: Counters,
}

/// Datagrams and bytes on the underlay, without IP and UDP headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Datagrams sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Datagrams received and accepted.
    pub rx_packets: u64,
    /// Bytes received and accepted.
    pub rx_bytes: u64,
    /// Datagrams received and dropped.
    #[serde(default)]
    pub rx_dropped: u64,
}

/// One attached container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerReport {
    /// Its id; `weave:expose` is the host.
    pub id: ContainerId,
    /// The Ethernet address of its interface, if it has one.
    #[serde(default, with = "crate::text::option")]
    pub mac: Option<Mac>,
    /// Its overlay addresses, sorted.
    pub addresses: Vec<Interface>,
}

impl Report {
    /// Puts every list into its documented order, whatever order the parts delivered.
    pub fn sort(&mut self) {
        let own = self.router.name;
        let router = &mut self.router;
        router.targets.sort();
        router.peers.sort_by_key(|p| (p.name != own, p.name));
        for peer in &mut router.peers {
            peer.connections.sort_by(|a, b| (a.name, &a.address).cmp(&(b.name, &b.address)));
        }
        router.connections.sort_by(|a, b| (a.state, &a.address, a.peer).cmp(&(b.state, &b.address, b.peer)));
        router.unicast_routes.sort_by_key(|r| r.dest);
        router.broadcast_routes.sort_by_key(|r| r.source);
        router.broadcast_routes.iter_mut().for_each(|r| r.via.sort());
        if let Some(ipam) = &mut self.ipam {
            ipam.owners.sort_by_key(|o| (!o.own, o.peer));
            ipam.seeds.sort();
            ipam.pending.sort_by(|a, b| (b.waiting_s, &a.container).cmp(&(a.waiting_s, &b.container)));
        }
        if let Some(dns) = &mut self.dns {
            dns.entries.sort_by(|a, b| {
                (&a.hostname, a.address, &a.container).cmp(&(&b.hostname, b.address, &b.container))
            });
        }
        self.problems.sort_by_key(|p| p.severity);
        self.data_plane.links.sort_by_key(|l| l.peer);
        let host = ContainerId::expose();
        self.containers.sort_by(|a, b| (a.id != host, &a.id).cmp(&(b.id != host, &b.id)));
        self.containers.iter_mut().for_each(|c| c.addresses.sort());
    }
}
