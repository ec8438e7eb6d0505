//! What the server is told at start.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use weave_names::Domain;

/// How to run the DNS server.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// Where to listen, UDP and TCP each. Port 0 takes a free one, the same for both. `[::]` is IPv6 only: name
    /// `0.0.0.0` beside it for both families. Default `0.0.0.0:53`.
    pub listen: Vec<SocketAddr>,
    /// The domain that containers' names are below. Default `weave.local`.
    pub domain: Domain,
    /// How long resolvers may keep our answers. Default 1 s: longer means stale addresses after a container moved,
    /// shorter than a second is none at all.
    pub ttl: Duration,
    /// Who answers for everything outside the domain.
    pub upstreams: Upstreams,
    /// How long a query may wait for upstream servers in all. Default 5 s, after which resolvers ask again by
    /// themselves. A silent server is joined by the next one after a quarter of it.
    pub fallback_timeout: Duration,
    /// Whose queries are answered, by source address; those of others are dropped. Empty, the default, is everybody
    /// who can reach the addresses we listen on: name the containers' subnets when that includes strangers.
    pub allow: Vec<IpNet>,
}

/// The servers that queries outside the domain are forwarded to.
#[derive(Debug, Clone)]
pub enum Upstreams {
    /// The `nameserver` lines of a file such as `/etc/resolv.conf`, read again when it changes. Addresses that we
    /// listen on ourselves are left out.
    ResolvConf(PathBuf),
    /// These, and no others.
    List(Vec<SocketAddr>),
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 53))],
            domain: Domain::default(),
            ttl: Duration::from_secs(1),
            upstreams: Upstreams::ResolvConf("/etc/resolv.conf".into()),
            fallback_timeout: Duration::from_secs(5),
            allow: Vec::new(),
        }
    }
}
