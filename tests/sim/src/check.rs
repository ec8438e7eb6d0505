//! What must hold: after every step, and after quiet.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use weave_ipam::IpamStatus;
use weave_mesh::PeerStatus;
use weave_model::{ContainerId, Mac, PeerName};
use weave_node::Node;

use crate::world::World;

/// An invariant that broke. The plan's number of hosts and seed replay it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The property that everything rests on.
    HeldTwice {
        /// The address.
        address: IpAddr,
        /// Host and container that held it.
        first: (usize, ContainerId),
        /// Host and container that were given it all the same.
        second: (usize, ContainerId),
    },
    /// An honest node's input was refused.
    Refused {
        /// By which host.
        host: usize,
        /// In its words.
        why: String,
    },
    /// A node did not start from its own disk.
    CannotStart {
        /// Which.
        host: usize,
        /// In its words.
        why: String,
    },
    /// After quiet, a host does not know what another knows.
    Disagreement {
        /// Which host.
        host: usize,
        /// About what, and how.
        about: String,
    },
    /// After quiet, frames would not arrive, or not once.
    Misrouted {
        /// Where they enter the mesh.
        from: usize,
        /// What becomes of them.
        how: String,
    },
    /// After quiet, there are free addresses and a host did not get one.
    NoAddress {
        /// Which host.
        host: usize,
    },
    /// Though nothing happens, nodes have much to tell each other.
    Noisy {
        /// What the noisiest sends.
        bytes_per_second: u64,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeldTwice { address, first, second } => write!(
                f,
                "{address} is held by {} on host {} and was given to {} on host {}",
                first.1, first.0, second.1, second.0
            ),
            Self::Refused { host, why } => write!(f, "host {host} refused an honest input: {why}"),
            Self::CannotStart { host, why } => write!(f, "host {host} cannot start: {why}"),
            Self::Disagreement { host, about } => write!(f, "after quiet, host {host} disagrees: {about}"),
            Self::Misrouted { from, how } => {
                write!(f, "after quiet, frames from host {from} go astray: {how}")
            }
            Self::NoAddress { host } => {
                write!(f, "after quiet, host {host} gets no address though there are enough for all")
            }
            Self::Noisy { bytes_per_second } => {
                write!(
                    f,
                    "when nothing happens a host sends {bytes_per_second} B/s, more than a small mesh may"
                )
            }
        }
    }
}

/// What a node knows that all should know alike.
#[derive(Debug, Default, PartialEq)]
struct View {
    /// Who is linked to whom, as each peer tells it, and whether it can be reached.
    graph: BTreeMap<PeerName, (bool, Vec<PeerName>)>,
    names: Vec<String>,
    attached: BTreeSet<(PeerName, Mac)>,
    ring: Option<Ring>,
}

#[derive(Debug, PartialEq)]
struct Ring {
    id: Option<u64>,
    digest: Option<u64>,
    owners: BTreeMap<PeerName, u128>,
}

impl World {
    /// Checks that all living hosts agree on topology, names, attachments and ring, that this is how things are, that the
    /// ring tiles the ranges, and that frames get everywhere.
    ///
    /// # Errors
    /// The first disagreement.
    pub fn check_agreement(&mut self) -> Result<(), Failure> {
        let living = self.living();
        let Some(&first) = living.first() else { return Ok(()) };
        let reference = self.view(first);
        self.check_truth(first, &reference)?;
        for &host in &living {
            let fail = |about: String| Err(Failure::Disagreement { host, about });
            let view = self.view(host);
            if view.graph != reference.graph {
                return fail(format!("its topology {:?} differs from {:?}", view.graph, reference.graph));
            }
            if view.names != reference.names {
                return fail(format!("its names {:?} differ from {:?}", view.names, reference.names));
            }
            if view.attached != reference.attached {
                return fail(format!(
                    "its attachments {:?} differ from {:?}",
                    view.attached, reference.attached
                ));
            }
            if view.ring != reference.ring {
                return fail(format!("its ring {:?} differs from {:?}", view.ring, reference.ring));
            }
            self.check_ring(host)?;
        }
        self.check_walks()
    }

    /// What all say alike must also be true.
    fn check_truth(&self, host: usize, view: &View) -> Result<(), Failure> {
        let fail = |about: String| Err(Failure::Disagreement { host, about });
        let living: Vec<PeerName> = self.living().into_iter().map(|host| self.hosts[host].name).collect();
        let known: Vec<PeerName> = view.graph.keys().copied().collect();
        if known != living {
            return fail(format!("knows {known:?}, alive are {living:?}"));
        }
        for (peer, (is_reachable, links)) in &view.graph {
            let is_mutual = |to: &&PeerName| view.graph.get(to).is_some_and(|(_, back)| back.contains(peer));
            let is_right = match self.plan.conn_limit {
                0 => links.len() + 1 == living.len(),
                limit => links.len() <= limit * 2,
            };
            if !is_reachable || !is_right || links.iter().any(|to| !is_mutual(&to)) {
                return fail(format!(
                    "thinks that {peer} (reachable: {is_reachable}) has links to {links:?}"
                ));
            }
        }
        let (names, attached) = self.expected();
        if view.names != names {
            return fail(format!("knows the names {:?}, but containers are {names:?}", view.names));
        }
        if view.attached != attached {
            return fail(format!("knows {:?} attached, but there are {attached:?}", view.attached));
        }
        Ok(())
    }

    /// The names and interfaces of the containers on living hosts.
    fn expected(&self) -> (Vec<String>, BTreeSet<(PeerName, Mac)>) {
        let (mut names, mut attached) = (Vec::new(), BTreeSet::new());
        for host in self.living().into_iter().map(|host| &self.hosts[host]) {
            for container in host.containers.values() {
                attached.insert((host.name, container.mac));
                names.extend(
                    container.addresses.iter().map(|a| format!("{} {}", container.name, a.address())),
                );
            }
        }
        names.sort();
        (names, attached)
    }

    /// The ring tiles the ranges, nothing is wrong, and containers hold what they were given.
    fn check_ring(&self, host: usize) -> Result<(), Failure> {
        let fail = |about: String| Err(Failure::Disagreement { host, about });
        let Some(node) = &self.hosts[host].node else { return Ok(()) };
        let (Some(status), Some(ipam)) = (node.ipam_status(), node.ipam()) else { return Ok(()) };
        let total: u128 = status.owners.iter().map(|owner| owner.addresses).sum();
        if status.ring_id.is_some() && total != self.universe() {
            return fail(format!("its ring has {total} addresses, the ranges have {}", self.universe()));
        }
        if let Some(problem) = status.problems.first() {
            return fail(format!("its ring has a problem: {problem}"));
        }
        for (id, container) in &self.hosts[host].containers {
            for address in container.addresses.iter().map(|a| a.address()) {
                if ipam.holder(address) != Some(id) {
                    return fail(format!("{id} has {address}, but the ring says {:?}", ipam.holder(address)));
                }
            }
        }
        let (held, used) = (ipam.allocations().count(), self.hosts[host].containers.values());
        let used: usize = used.map(|container| container.addresses.len()).sum();
        if held != used {
            return fail(format!("{held} addresses are allocated, containers have {used}"));
        }
        Ok(())
    }

    fn universe(&self) -> u128 {
        let sizes = self.plan.ranges.iter().map(|range| {
            let bits = range.net().max_prefix_len() - range.net().prefix_len();
            1_u128 << bits
        });
        sizes.sum()
    }

    fn view(&self, host: usize) -> View {
        let Some(node) = &self.hosts[host].node else { return View::default() };
        View {
            graph: node.mesh_status(self.now).peers.iter().map(|peer| (peer.name, linked(peer))).collect(),
            names: names(node),
            attached: node.attachments().map(|(peer, mac, _)| (peer, mac)).collect(),
            ring: node.ipam_status().map(ring),
        }
    }
}

/// Only links that both ends call established.
fn linked(peer: &PeerStatus) -> (bool, Vec<PeerName>) {
    let mut far: Vec<PeerName> =
        peer.links.iter().filter(|link| link.established).map(|link| link.peer).collect();
    far.sort();
    (peer.reachable, far)
}

fn names(node: &Node) -> Vec<String> {
    let records = node.names().into_iter().flat_map(weave_names::Names::records);
    let mut names: Vec<String> = records
        .map(|(_, record)| {
            let short = record.hostname.as_str().split('.').next().unwrap_or_default();
            format!("{short} {}", record.address)
        })
        .collect();
    names.sort();
    names
}

fn ring(status: IpamStatus) -> Ring {
    let owners = status.owners.iter().map(|owner| (owner.peer, owner.addresses));
    let owners = owners.filter(|(_, addresses)| *addresses > 0).collect();
    Ring { id: status.ring_id, digest: status.ring_digest, owners }
}
