//! A simulated host: a node that lives and dies, a disk, and containers that outlive it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Instant,
};

use weave_ipam::{Init, RequestId};
use weave_mesh::{DialId, Target};
use weave_model::{ContainerId, Interface, LinkId, Mac, PeerName, Subnet, Uid};
use weave_node::{Config, Node};

/// What a request was for.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Allocate(ContainerId),
    Free(ContainerId),
    TakeOver,
}

/// A container, alive whether its router is or not.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) mac: Mac,
    pub(crate) addresses: Vec<Interface>,
    pub(crate) name: Option<String>,
}

/// One host.
pub(crate) struct Host {
    pub(crate) index: usize,
    pub(crate) name: PeerName,
    pub(crate) address: SocketAddr,
    pub(crate) targets: Vec<Target>,
    pub(crate) peers_expected: usize,
    pub(crate) ranges: Vec<Subnet>,
    pub(crate) conn_limit: usize,
    /// Counts starts; events of an earlier life are void.
    pub(crate) life: u32,
    pub(crate) node: Option<Node>,
    pub(crate) disk: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) incarnation: u64,
    pub(crate) store_id: u64,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    pub(crate) asked: BTreeMap<RequestId, Ask>,
    pub(crate) abandoned: BTreeSet<DialId>,
    pub(crate) next_request: u64,
    next_link: u64,
    /// The earliest wake-up that is already scheduled.
    pub(crate) wake: Option<Instant>,
    /// Whether the machine is gone for good.
    pub(crate) is_lost: bool,
}

impl Host {
    pub(crate) fn new(
        index: usize,
        targets: Vec<Target>,
        peers_expected: usize,
        ranges: Vec<Subnet>,
    ) -> Self {
        let name = PeerName([2, 0, 0, 0, (index >> 8) as u8, index as u8]);
        Self {
            index,
            name,
            address: address(index),
            targets,
            peers_expected,
            ranges,
            conn_limit: 0,
            life: 0,
            node: None,
            disk: BTreeMap::new(),
            incarnation: 0,
            store_id: 1000 + index as u64,
            containers: BTreeMap::new(),
            asked: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            next_request: 1,
            next_link: 1,
            wake: None,
            is_lost: false,
        }
    }

    /// Starts the node from what is on disk.
    pub(crate) fn start(&mut self, seed: [u8; 32], now: Instant) -> Result<(), String> {
        self.life += 1;
        self.incarnation += 1;
        let uid = Uid((self.index as u64) << 32 | u64::from(self.life));
        let mesh = weave_mesh::Config {
            name: self.name,
            uid,
            public_key: [self.index as u8; 32],
            nickname: format!("host{}", self.index),
            incarnation: self.incarnation,
            version: "sim".to_owned(),
            listen_port: self.address.port(),
            conn_limit: self.conn_limit,
            targets: self.targets.clone(),
            addresses: vec![self.address],
            ..weave_mesh::Config::default()
        };
        let ipam = weave_ipam::Config {
            local: self.name,
            ranges: self.ranges.clone(),
            default_subnets: self.ranges.clone(),
            init: Init::Consensus { peers: self.peers_expected },
            store_id: self.store_id,
        };
        let restored = self.disk.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let domain = "weave.local.".parse().map_err(|error| format!("{error}"))?;
        let config = Config { mesh, ipam: Some(ipam), restored, domain: Some(domain) };
        let mut node = Node::new(config, seed, now).map_err(|error| error.to_string())?;
        self.announce_containers(&mut node, now);
        self.node = Some(node);
        self.wake = None;
        self.asked.clear();
        self.abandoned.clear();
        Ok(())
    }

    /// As the daemon does at its start: the containers that are still there are published again.
    fn announce_containers(&self, node: &mut Node, now: Instant) {
        for (id, container) in &self.containers {
            let addresses = container.addresses.iter().map(|interface| interface.address()).collect();
            let attachment = weave_node::Attachment { container: id.clone(), addresses };
            node.attach(container.mac, &attachment, now);
            for (name, address) in container.name.iter().zip(&container.addresses) {
                // The name was valid when it was first given.
                let _ = node.add_name(id, name, address.address(), now);
            }
        }
    }

    pub(crate) fn stop(&mut self) {
        self.node = None;
        self.life += 1;
        self.asked.clear();
    }

    pub(crate) fn fresh_link(&mut self) -> LinkId {
        self.next_link += 1;
        LinkId(self.next_link)
    }

    pub(crate) fn fresh_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }
}

/// The underlay address of a host.
pub(crate) fn address(index: usize) -> SocketAddr {
    let [high, low] = (index as u16).to_be_bytes();
    SocketAddr::from(([192, 168, high, low], 6783))
}

/// The host that an underlay address belongs to.
pub(crate) fn host_at(address: SocketAddr) -> Option<usize> {
    match address {
        SocketAddr::V4(v4) => {
            let [_, _, high, low] = v4.ip().octets();
            Some(usize::from(u16::from_be_bytes([high, low])))
        }
        SocketAddr::V6(_) => None,
    }
}
