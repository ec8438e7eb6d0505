//! A simulated host: a node that lives and dies, a disk, and containers that outlive it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use weave_datapath::Forwarding;
use weave_ipam::{Init, RequestId, StoreMark, Write};
use weave_mesh::{DialId, Target};
use weave_model::{ContainerId, Interface, LinkId, Mac, PeerName, Subnet, Uid};
use weave_node::{Attachment, Config, Node};

/// What a request was for.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// Addresses for a container: any, or a certain one.
    Addresses(ContainerId),
    /// Giving back.
    Free,
    /// The space of a host, by index.
    TakeOver(usize),
}

/// A container, alive whether its router is or not.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) mac: Mac,
    pub(crate) addresses: Vec<Interface>,
    pub(crate) name: String,
}

/// The state of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    /// Its node runs.
    On,
    /// Its node will run again.
    Off,
    /// Gone, as far as anybody knows for good, with all its containers.
    Lost,
    /// Gone, and its space taken over.
    Removed,
}

/// What outlives a node's process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) records: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) incarnation: u64,
}

impl Disk {
    /// Whether the ring is known; such a store takes part in no vote any more.
    pub(crate) fn has_ring(&self) -> bool {
        // The record of `weave-ipam` that names the ring.
        self.records.contains_key(b"i".as_slice())
    }
}

/// One host.
pub(crate) struct Host {
    pub(crate) index: usize,
    pub(crate) name: PeerName,
    pub(crate) public_key: [u8; 32],
    pub(crate) uid: Uid,
    pub(crate) address: SocketAddr,
    pub(crate) site: u32,
    pub(crate) targets: Vec<Target>,
    pub(crate) peers_expected: usize,
    pub(crate) ranges: Vec<Subnet>,
    pub(crate) conn_limit: usize,
    pub(crate) power: Power,
    /// Counts starts; events of an earlier life are void.
    pub(crate) life: u32,
    pub(crate) node: Option<Node>,
    pub(crate) forwarding: Option<Arc<Forwarding>>,
    pub(crate) disk: Disk,
    /// Earlier states of the disk.
    pub(crate) backups: VecDeque<Disk>,
    persisted: u64,
    /// What a restart of the process finds and a restart of the machine does not.
    pub(crate) mark: Option<StoreMark>,
    pub(crate) store_id: u64,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    pub(crate) asked: BTreeMap<RequestId, Ask>,
    pub(crate) abandoned: BTreeSet<DialId>,
    next_request: u64,
    next_link: u64,
    /// The wake-up that is scheduled; any other is void.
    pub(crate) wake: Option<Instant>,
    /// Bytes of the messages that this host sent.
    pub(crate) bytes: u64,
}

impl Host {
    pub(crate) fn new(index: usize, targets: Vec<usize>) -> Self {
        let name = PeerName([2, 0, 0, 0, (index >> 8) as u8, index as u8]);
        let mut host = Self {
            index,
            name,
            public_key: [0; 32],
            uid: Uid(0),
            address: address(index),
            site: 0,
            targets: targets.into_iter().map(|to| Target::Address(address(to))).collect(),
            peers_expected: 0,
            ranges: Vec::new(),
            conn_limit: 0,
            power: Power::Off,
            life: 0,
            node: None,
            forwarding: None,
            disk: Disk::default(),
            backups: VecDeque::new(),
            persisted: 0,
            mark: None,
            store_id: 0,
            containers: BTreeMap::new(),
            asked: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            next_request: 1,
            next_link: 1,
            wake: None,
            bytes: 0,
        };
        host.begin_store(1);
        host
    }

    /// A machine with an empty disk, the `number`th of this name: a new store and a new key.
    pub(crate) fn begin_store(&mut self, number: u64) {
        self.disk = Disk::default();
        self.backups.clear();
        self.mark = None;
        self.store_id = (number << 32) + self.index as u64;
        self.public_key = [0; 32];
        self.public_key[..8].copy_from_slice(&self.store_id.to_be_bytes());
    }

    /// Starts the node from what is on disk.
    pub(crate) fn start(&mut self, seed: [u8; 32], now: Instant) -> Result<(), String> {
        self.life += 1;
        self.disk.incarnation += 1;
        self.uid = Uid((self.index as u64) << 32 | u64::from(self.life));
        let restored = self.disk.records.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let domain = "weave.local.".parse().map_err(|error| format!("{error}"))?;
        let config =
            Config { mesh: self.mesh(), ipam: Some(self.ipam()), restored, domain: Some(domain), mtu: None };
        let mut node = Node::new(config, seed, now).map_err(|error| error.to_string())?;
        if let Some(mark) = self.mark {
            node.trust_store(mark, now);
        }
        self.announce_containers(&mut node, now);
        self.node = Some(node);
        self.power = Power::On;
        Ok(())
    }

    fn mesh(&self) -> weave_mesh::Config {
        weave_mesh::Config {
            name: self.name,
            uid: self.uid,
            public_key: self.public_key,
            nickname: format!("host{}", self.index),
            incarnation: self.disk.incarnation,
            version: "sim".to_owned(),
            listen_port: self.address.port(),
            conn_limit: self.conn_limit,
            targets: self.targets.clone(),
            addresses: vec![self.address],
            ..weave_mesh::Config::default()
        }
    }

    fn ipam(&self) -> weave_ipam::Config {
        weave_ipam::Config {
            local: self.name,
            ranges: self.ranges.clone(),
            default_subnets: self.ranges.clone(),
            init: Init::Consensus { peers: self.peers_expected },
            store_id: self.store_id,
        }
    }

    /// As the daemon does at its start: the containers that are still there are published again.
    fn announce_containers(&self, node: &mut Node, now: Instant) {
        for (id, container) in &self.containers {
            node.attach(container.mac, &container.attachment(id), now);
            for address in &container.addresses {
                // The name was valid when it was first given.
                let _ = node.add_name(id, &container.name, address.address(), now);
            }
        }
    }

    /// The process ends, this way or that.
    pub(crate) fn stop(&mut self) {
        self.node = None;
        self.forwarding = None;
        self.power = Power::Off;
        self.life += 1;
        self.wake = None;
        self.asked.clear();
        self.abandoned.clear();
    }

    /// All of `writes`, or, when the power goes before, none.
    pub(crate) fn persist(&mut self, writes: Vec<Write>) {
        /// Every so many writes somebody makes a backup, and keeps so many.
        const BACKUP_EVERY: u64 = 7;
        const BACKUPS: usize = 6;
        self.persisted += 1;
        if self.persisted.is_multiple_of(BACKUP_EVERY) && self.disk.has_ring() {
            self.backups.push_back(self.disk.clone());
            if self.backups.len() > BACKUPS {
                self.backups.pop_front();
            }
        }
        for write in writes {
            match write.value {
                Some(value) => self.disk.records.insert(write.key, value),
                None => self.disk.records.remove(&write.key),
            };
        }
        self.mark = self.node.as_ref().and_then(Node::store_mark);
    }

    pub(crate) fn fresh_link(&mut self) -> LinkId {
        self.next_link += 1;
        LinkId(self.next_link)
    }

    /// Notes what is asked, under a new number.
    pub(crate) fn ask(&mut self, ask: Ask) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.asked.insert(request, ask);
        request
    }
}

impl Container {
    pub(crate) fn attachment(&self, id: &ContainerId) -> Attachment {
        Attachment { container: id.clone(), addresses: self.addresses.iter().map(|i| i.address()).collect() }
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
