//! Next hops, computed once per change of the graph.
//!
//! In a full mesh nothing is computed: everybody is a neighbour, our own broadcasts go to all of them, and those of others
//! end here. Otherwise the graph is laid out once, unicast hops are found at once, and the tree of a source when it is first asked for.
//!
//! Changed facts follow the tree of their owner too. In a big partial mesh a tree of each peer's own would take a computation
//! for each of them whenever a link changes. There a few trees are shared, by broadcasts and facts alike, each rooted at some
//! peer and used in both directions: paths are a little longer, and still everything arrives once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use weave_model::{LinkId, PeerName};

use crate::{
    graph::{Graph, Plane},
    link_state::is_fast,
    peers::Peers,
};

/// Peers up to which each has its own tree.
const OWN_TREES: usize = 64;
/// Trees that are shared beyond.
const SHARED_TREES: usize = 16;
/// The longest path that [`Routes::fast_hops`] tells: relaying in the kernel takes a VXLAN network of its own for each number of
/// hops that remain.
const MAX_FAST_HOPS: u8 = 4;

/// Where frames (or messages) go next. A snapshot: [`crate::Event::RoutesChanged`] tells of a new one.
#[derive(Debug)]
pub struct Routes {
    me: PeerName,
    plane: Plane,
    /// Neighbours over links that this plane can use.
    neighbours: BTreeMap<PeerName, Neighbour>,
    /// Everybody else in reach.
    far: BTreeMap<PeerName, Far>,
    /// Neighbours that lead to somebody else.
    relays: BTreeSet<PeerName>,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Neighbour {
    link: LinkId,
    /// Both ends say that the kernel carries frames.
    is_fast: bool,
}

/// Somebody in reach who is no neighbour.
#[derive(Debug, Clone, Copy)]
struct Far {
    /// The neighbour that leads there.
    via: PeerName,
    /// The hops to it, if the kernel carries frames over all of them.
    fast_hops: Option<u8>,
}

#[derive(Debug)]
enum Shape {
    /// Everybody has a link to everybody.
    Full,
    /// Anything else.
    Partial {
        graph: Arc<Graph>,
        /// By index of the source.
        trees: Vec<OnceLock<Vec<LinkId>>>,
        shared: Vec<OnceLock<Shared>>,
    },
}

/// Our place in a tree that is used in both directions.
#[derive(Debug)]
struct Shared {
    /// The links of the tree that end here.
    links: Vec<LinkId>,
    /// By index: which of them leads to each peer; `None` for us and for whom the tree does not reach.
    towards: Vec<Option<LinkId>>,
    /// Those of the links that lead to a single peer.
    leaves: BTreeSet<LinkId>,
}

impl Routes {
    /// Routes of one who knows nobody.
    pub(crate) const fn alone(me: PeerName, plane: Plane) -> Self {
        Self {
            me,
            plane,
            neighbours: BTreeMap::new(),
            far: BTreeMap::new(),
            relays: BTreeSet::new(),
            shape: Shape::Full,
        }
    }

    /// Routes over the given links; `graph` is made when it is first needed, and shared.
    pub(crate) fn new(
        plane: Plane,
        peers: &Peers,
        links: &BTreeMap<PeerName, LinkId>,
        graph: &mut Option<Arc<Graph>>,
    ) -> Self {
        let me = peers.me();
        let neighbour = |(name, link): (&PeerName, &LinkId)| {
            let edge = peers.edge(me, *name).filter(|edge| plane.cost(*edge).is_some())?;
            let is_fast = plane == Plane::Data && is_fast(edge);
            peers.is_reachable(*name).then_some((*name, Neighbour { link: *link, is_fast }))
        };
        let neighbours: BTreeMap<_, _> = links.iter().filter_map(neighbour).collect();
        let (full_control, full_data) = peers.is_full_mesh();
        let is_full = match plane {
            Plane::Control => full_control,
            Plane::Data => full_data,
        };
        if is_full && neighbours.len() + 1 == peers.reachable_len() {
            return Self { neighbours, ..Self::alone(me, plane) };
        }
        let graph = Arc::clone(graph.get_or_insert_with(|| Arc::new(Graph::new(peers))));
        let far = if neighbours.len() + 1 == peers.reachable_len() {
            BTreeMap::new()
        } else {
            far(me, plane, &graph, &neighbours)
        };
        let trees = locks(graph.len());
        Self {
            me,
            plane,
            neighbours,
            relays: far.values().map(|far| far.via).collect(),
            far,
            shape: Shape::Partial { graph, trees, shared: locks(SHARED_TREES) },
        }
    }

    /// The link, and the neighbour at its end, over which to send to `peer`.
    #[must_use]
    pub fn next_hop(&self, peer: PeerName) -> Option<(LinkId, PeerName)> {
        let neighbour = if self.neighbours.contains_key(&peer) { peer } else { self.far.get(&peer)?.via };
        Some((self.neighbours.get(&neighbour)?.link, neighbour))
    }

    /// How many hops our path to `peer` has, the one that [`Routes::next_hop`] begins, if both ends of every link on it say that
    /// they use fastdp, and if there are at most four; 1 for such a neighbour. The relays' paths are the rest of ours
    /// wherever they know the same links.
    #[must_use]
    pub fn fast_hops(&self, peer: PeerName) -> Option<u8> {
        match self.neighbours.get(&peer) {
            Some(neighbour) => neighbour.is_fast.then_some(1),
            None => self.far.get(&peer)?.fast_hops,
        }
    }

    /// Whether what we broadcast goes to this neighbour and ends there: it has no children in our broadcast tree. Not so for a
    /// peer that [`Routes::broadcast_hops`] of ourselves does not lead to at once.
    #[must_use]
    pub fn is_leaf(&self, neighbour: PeerName) -> bool {
        let Some(Neighbour { link, .. }) = self.neighbours.get(&neighbour) else { return false };
        match &self.shape {
            Shape::Full => true,
            Shape::Partial { graph, .. } if graph.len() > OWN_TREES => {
                self.shared_tree(self.me).is_some_and(|(_, tree)| tree.leaves.contains(link))
            }
            // In a tree of our own every neighbour is a child of ours, and paths to others go through the same tree.
            Shape::Partial { .. } => !self.relays.contains(&neighbour),
        }
    }

    /// The links over which what `source` broadcasts goes on from here; all of our tree's first hops if that is us.
    #[must_use]
    pub fn broadcast_hops(&self, source: PeerName) -> Vec<LinkId> {
        match &self.shape {
            Shape::Full if source == self.me => self.neighbours.values().map(|to| to.link).collect(),
            Shape::Full => Vec::new(),
            Shape::Partial { graph, .. } if graph.len() > OWN_TREES => {
                let Some((index, tree)) = self.shared_tree(source) else { return Vec::new() };
                match tree.towards.get(index) {
                    Some(Some(back)) => tree.links.iter().copied().filter(|link| link != back).collect(),
                    Some(None) if source == self.me => tree.links.clone(),
                    Some(None) | None => Vec::new(),
                }
            }
            Shape::Partial { graph, trees, .. } => {
                let Some((index, tree)) = graph.index(source).and_then(|i| Some((i, trees.get(i)?))) else {
                    return Vec::new();
                };
                tree.get_or_init(|| self.children(graph, index)).clone()
            }
        }
    }

    /// The links over which changed facts of `source` go on from here; also the one that they came over, if they did.
    pub(crate) fn spread_hops(&self, source: PeerName) -> Vec<LinkId> {
        match &self.shape {
            Shape::Partial { graph, .. } if graph.len() > OWN_TREES => {
                self.shared_tree(source).map(|(_, tree)| tree.links.clone()).unwrap_or_default()
            }
            Shape::Partial { .. } | Shape::Full => self.broadcast_hops(source),
        }
    }

    /// Everybody that can be reached, with the neighbour that is next, by name.
    pub fn unicast(&self) -> impl Iterator<Item = (PeerName, PeerName)> {
        let mut all: BTreeMap<_, _> = self.neighbours.keys().map(|name| (*name, *name)).collect();
        all.extend(self.far.iter().map(|(name, far)| (*name, far.via)));
        all.into_iter()
    }

    /// The neighbour at the end of a link.
    #[must_use]
    pub fn neighbour(&self, link: LinkId) -> Option<PeerName> {
        self.neighbours.iter().find(|(_, to)| to.link == link).map(|(name, _)| *name)
    }

    /// Whether everybody has a link to everybody, so that nothing is ever relayed.
    #[must_use]
    pub const fn is_full_mesh(&self) -> bool {
        matches!(self.shape, Shape::Full)
    }

    /// Whether another snapshot surely answers alike.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is_full_mesh() && other.is_full_mesh() && self.neighbours == other.neighbours
    }

    fn children(&self, graph: &Graph, source: usize) -> Vec<LinkId> {
        let Some(me) = graph.index(self.me) else { return Vec::new() };
        graph.tree(source, self.plane).children(me).filter_map(|child| self.link_of(graph, child)).collect()
    }

    /// The index of `source`, and the shared tree that what it says follows.
    fn shared_tree(&self, source: PeerName) -> Option<(usize, &Shared)> {
        let Shape::Partial { graph, shared, .. } = &self.shape else { return None };
        let index = graph.index(source)?;
        let turn = index % SHARED_TREES;
        let root = turn * graph.len() / SHARED_TREES;
        Some((index, shared.get(turn)?.get_or_init(|| self.share(graph, root))))
    }

    /// Our place in the tree of `root`.
    fn share(&self, graph: &Graph, root: usize) -> Shared {
        let nowhere =
            || Shared { links: Vec::new(), towards: vec![None; graph.len()], leaves: BTreeSet::new() };
        let Some(me) = graph.index(self.me) else { return nowhere() };
        let towards = graph.tree(root, self.plane).ways_from(me, graph.len());
        let towards: Vec<Option<LinkId>> = towards.into_iter().map(|via| self.link_of(graph, via?)).collect();
        let mut peers_by_link: BTreeMap<LinkId, usize> = BTreeMap::new();
        towards.iter().flatten().for_each(|link| *peers_by_link.entry(*link).or_default() += 1);
        let leaves = peers_by_link.iter().filter(|(_, peers)| **peers == 1).map(|(link, _)| *link);
        Shared { leaves: leaves.collect(), links: peers_by_link.into_keys().collect(), towards }
    }

    fn link_of(&self, graph: &Graph, peer: usize) -> Option<LinkId> {
        Some(self.neighbours.get(&graph.name(peer)?)?.link)
    }
}

fn locks<T>(count: usize) -> Vec<OnceLock<T>> {
    std::iter::repeat_with(OnceLock::new).take(count).collect()
}

fn far(
    me: PeerName,
    plane: Plane,
    graph: &Graph,
    neighbours: &BTreeMap<PeerName, Neighbour>,
) -> BTreeMap<PeerName, Far> {
    let Some(index) = graph.index(me) else { return BTreeMap::new() };
    let paths = graph.tree(index, plane).paths(graph).into_iter();
    let named = paths.filter_map(|path| {
        let fast_hops = path.fast_hops.filter(|hops| *hops <= MAX_FAST_HOPS);
        Some((graph.name(path.to)?, Far { via: graph.name(path.via)?, fast_hops }))
    });
    named.filter(|(to, _)| !neighbours.contains_key(to)).collect()
}
