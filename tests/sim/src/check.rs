//! What must hold: after every step, and after quiet.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use weave_mesh::{MeshStatus, PeerLink};
use weave_model::{ContainerId, PeerName};

use crate::world::World;

/// An invariant that broke. The seed that led there replays it.
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
        }
    }
}

/// Who is connected to whom, as one node sees it: only links that both ends call established.
fn graph(status: &MeshStatus) -> BTreeMap<PeerName, Vec<PeerName>> {
    let established = |link: &&PeerLink| link.established;
    status
        .peers
        .iter()
        .map(|peer| {
            let mut far: Vec<PeerName> =
                peer.links.iter().filter(established).map(|link| link.peer).collect();
            far.sort();
            (peer.name, far)
        })
        .collect()
}

impl World {
    /// Checks that all living hosts agree on topology, names and ring, and that the ring tiles the universe.
    ///
    /// # Errors
    /// The first disagreement.
    pub fn check_agreement(&self) -> Result<(), Failure> {
        let living: Vec<usize> =
            (0..self.hosts.len()).filter(|host| self.hosts[*host].node.is_some()).collect();
        let Some(&first) = living.first() else { return Ok(()) };
        let expected_names: Vec<PeerName> = living.iter().map(|host| self.hosts[*host].name).collect();
        let reference = self.view(first);
        for &host in &living {
            let view = self.view(host);
            let fail = |about: String| Err(Failure::Disagreement { host, about });
            let known: Vec<PeerName> = view.graph.keys().copied().collect();
            if known != expected_names {
                return fail(format!("knows {known:?}, alive are {expected_names:?}"));
            }
            for (peer, links) in &view.graph {
                if links.len() + 1 != living.len() {
                    return fail(format!("thinks that {peer} has links to {links:?} only"));
                }
            }
            if view.graph != reference.graph {
                return fail("its topology differs from host 0's".to_owned());
            }
            if view.names != reference.names {
                return fail(format!("its names {:?} differ from {:?}", view.names, reference.names));
            }
            if view.ring != reference.ring {
                return fail(format!("its ring {:?} differs from {:?}", view.ring, reference.ring));
            }
            let total: u128 = view.ring.values().sum();
            if !view.ring.is_empty() && total != self.universe() {
                return fail(format!("its ring has {total} addresses, the universe {}", self.universe()));
            }
        }
        self.check_names(&reference.names)
    }

    /// Every name of a living container on a living host is known, and no other.
    fn check_names(&self, names: &[String]) -> Result<(), Failure> {
        let mut expected: Vec<String> = self
            .hosts
            .iter()
            .filter(|host| host.node.is_some())
            .flat_map(|host| host.containers.values())
            .flat_map(|container| {
                let name = container.name.clone();
                container
                    .addresses
                    .iter()
                    .filter_map(move |a| Some(format!("{} {}", name.clone()?, a.address())))
            })
            .collect();
        expected.sort();
        if names == expected {
            return Ok(());
        }
        Err(Failure::Disagreement {
            host: 0,
            about: format!("names are {names:?}, containers are {expected:?}"),
        })
    }

    fn universe(&self) -> u128 {
        self.hosts.first().into_iter().flat_map(|host| &host.ranges).fold(0, |sum, range| {
            let bits = range.net().max_prefix_len() - range.net().prefix_len();
            sum + (1u128 << bits)
        })
    }

    fn view(&self, host: usize) -> View {
        let Some(node) = &self.hosts[host].node else { return View::default() };
        let mut names: Vec<String> = node
            .names()
            .into_iter()
            .flat_map(weave_names::Names::records)
            .map(|(_, record)| {
                let short = record.hostname.as_str().split('.').next().unwrap_or_default().to_owned();
                format!("{short} {}", record.address)
            })
            .collect();
        names.sort();
        let ring = node
            .ipam_status()
            .into_iter()
            .flat_map(|status| status.owners)
            .map(|owner| (owner.peer, owner.addresses))
            .filter(|(_, addresses)| *addresses > 0)
            .collect();
        View { graph: graph(&node.mesh_status(self.now)), names, ring }
    }

    /// Whether the ring exists on every living host.
    #[must_use]
    pub fn has_ring_everywhere(&self) -> bool {
        self.hosts
            .iter()
            .filter_map(|host| host.node.as_ref())
            .all(|node| node.ipam_status().is_some_and(|status| status.ring_id.is_some()))
    }
}

#[derive(Default, PartialEq)]
struct View {
    graph: BTreeMap<PeerName, Vec<PeerName>>,
    names: Vec<String>,
    ring: BTreeMap<PeerName, u128>,
}
