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
    peers::Peers,
};

/// Peers up to which each has its own tree.
const OWN_TREES: usize = 64;
/// Trees that are shared beyond.
const SHARED_TREES: usize = 16;

/// Where frames (or messages) go next. A snapshot: [`crate::Event::RoutesChanged`] tells of a new one.
#[derive(Debug)]
pub struct Routes {
    me: PeerName,
    plane: Plane,
    /// Neighbours over links that this plane can use.
    neighbours: BTreeMap<PeerName, LinkId>,
    /// Everybody else in reach, and the neighbour that leads there.
    via: BTreeMap<PeerName, PeerName>,
    shape: Shape,
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
}

impl Routes {
    /// Routes of one who knows nobody.
    pub(crate) const fn alone(me: PeerName, plane: Plane) -> Self {
        Self { me, plane, neighbours: BTreeMap::new(), via: BTreeMap::new(), shape: Shape::Full }
    }

    /// Routes over the given links; `graph` is made when it is first needed, and shared.
    pub(crate) fn new(
        plane: Plane,
        peers: &Peers,
        links: &BTreeMap<PeerName, LinkId>,
        graph: &mut Option<Arc<Graph>>,
    ) -> Self {
        let me = peers.me();
        let usable = |name: PeerName| peers.edge(me, name).and_then(|edge| plane.cost(edge)).is_some();
        let neighbours = links.iter().filter(|(name, _)| peers.is_reachable(**name) && usable(**name));
        let neighbours: BTreeMap<_, _> = neighbours.map(|(name, link)| (*name, *link)).collect();
        let (full_control, full_data) = peers.is_full_mesh();
        let is_full = match plane {
            Plane::Control => full_control,
            Plane::Data => full_data,
        };
        if is_full && neighbours.len() + 1 == peers.reachable_len() {
            return Self { me, plane, neighbours, via: BTreeMap::new(), shape: Shape::Full };
        }
        let graph = Arc::clone(graph.get_or_insert_with(|| Arc::new(Graph::new(peers))));
        let via = if neighbours.len() + 1 == peers.reachable_len() {
            BTreeMap::new()
        } else {
            far(me, plane, &graph, &neighbours)
        };
        let trees = locks(graph.len());
        Self {
            me,
            plane,
            neighbours,
            via,
            shape: Shape::Partial { graph, trees, shared: locks(SHARED_TREES) },
        }
    }

    /// The link, and the neighbour at its end, over which to send to `peer`.
    #[must_use]
    pub fn next_hop(&self, peer: PeerName) -> Option<(LinkId, PeerName)> {
        let neighbour = if self.neighbours.contains_key(&peer) { peer } else { *self.via.get(&peer)? };
        Some((*self.neighbours.get(&neighbour)?, neighbour))
    }

    /// The links over which what `source` broadcasts goes on from here; all of our tree's first hops if that is us.
    #[must_use]
    pub fn broadcast_hops(&self, source: PeerName) -> Vec<LinkId> {
        match &self.shape {
            Shape::Full if source == self.me => self.neighbours.values().copied().collect(),
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
        all.extend(&self.via);
        all.into_iter()
    }

    /// The neighbour at the end of a link.
    #[must_use]
    pub fn neighbour(&self, link: LinkId) -> Option<PeerName> {
        self.neighbours.iter().find(|(_, l)| **l == link).map(|(name, _)| *name)
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
        self.links_to(graph, graph.tree(source, self.plane).children(me))
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
        let nowhere = || Shared { links: Vec::new(), towards: vec![None; graph.len()] };
        let Some(me) = graph.index(self.me) else { return nowhere() };
        let link_of = |peer: usize| graph.name(peer).and_then(|name| self.neighbours.get(&name).copied());
        let towards = graph.tree(root, self.plane).ways_from(me, graph.len());
        let towards: Vec<Option<LinkId>> = towards.into_iter().map(|via| link_of(via?)).collect();
        let links: BTreeSet<LinkId> = towards.iter().flatten().copied().collect();
        Shared { links: links.into_iter().collect(), towards }
    }

    fn links_to(&self, graph: &Graph, peers: impl Iterator<Item = usize>) -> Vec<LinkId> {
        peers.filter_map(|peer| self.neighbours.get(&graph.name(peer)?).copied()).collect()
    }
}

fn locks<T>(count: usize) -> Vec<OnceLock<T>> {
    std::iter::repeat_with(OnceLock::new).take(count).collect()
}

fn far(
    me: PeerName,
    plane: Plane,
    graph: &Graph,
    neighbours: &BTreeMap<PeerName, LinkId>,
) -> BTreeMap<PeerName, PeerName> {
    let Some(index) = graph.index(me) else { return BTreeMap::new() };
    let hops = graph.tree(index, plane).first_hops().into_iter();
    let named = hops.filter_map(|(to, via)| Some((graph.name(to)?, graph.name(via)?)));
    named.filter(|(to, _)| !neighbours.contains_key(to)).collect()
}
