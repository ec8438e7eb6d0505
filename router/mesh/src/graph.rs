//! Cheapest paths through the links that both ends report, each meaning the router that we know by the other's name.
//!
//! Everybody who agrees on the links computes the same distances and the same trees: costs are small integers that come from
//! the facts alone, and among equally cheap parents the lowest name is taken. There is no further hysteresis here;
//! it is in the RTT classes, which their owner changes only by a clear margin (see [`crate::rtt`]).

use weave_model::PeerName;

use crate::{
    link_state::{KeyTag, LinkState, carries, is_fast},
    peers::{Peers, finalise},
};

/// What a hop costs beside its RTT class (0 to 15), which costs [`CLASS`] each, and its overlay. One hop is always cheaper than
/// two, so a neighbour is reached directly; three fast hops may be cheaper than two slow ones.
const HOP: u8 = 32;
/// What each RTT class adds.
const CLASS: u8 = 2;
/// What frames pay for a hop that the kernel does not carry: less than one RTT class.
const SLEEVE: u8 = 1;
/// More than any hop costs.
const BUCKETS: usize = 64;
const _: () = assert!(HOP + 15 * CLASS + SLEEVE < 2 * HOP, "one hop costs less than two");
const _: () = assert!(((HOP + 15 * CLASS + SLEEVE) as usize) < BUCKETS, "every cost has its bucket");

/// What travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plane {
    /// Messages of the mesh: any link will do.
    Control,
    /// Frames: an overlay must be up at both ends.
    Data,
}

impl Plane {
    /// What crossing a link costs, if this plane can.
    pub(crate) fn cost(self, (forth, back): (LinkState, LinkState)) -> Option<u8> {
        let cost = HOP + CLASS * forth.class().max(back.class());
        match self {
            Self::Control => (forth.is_up() && back.is_up()).then_some(cost),
            Self::Data if carries(forth) && carries(back) => {
                Some(cost + if is_fast((forth, back)) { 0 } else { SLEEVE })
            }
            Self::Data => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    to: u32,
    control: u8,
    /// `None` if no overlay is up.
    data: Option<u8>,
    is_fast: bool,
}

impl Edge {
    fn cost(self, plane: Plane) -> Option<u8> {
        match plane {
            Plane::Control => Some(self.control),
            Plane::Data => self.data,
        }
    }
}

/// The links among peers at one moment.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    names: Vec<PeerName>,
    /// Where each peer's edges start, and one more.
    starts: Vec<usize>,
    edges: Vec<Edge>,
}

/// Each peer's parent on the cheapest path from one source; `None` for the source and for who cannot be reached.
#[derive(Debug)]
pub(crate) struct Tree {
    parents: Vec<Option<u32>>,
    /// In order of distance.
    order: Vec<u32>,
}

impl Graph {
    /// All links that both ends report, of all peers that we know, in reach or not.
    pub(crate) fn new(peers: &Peers) -> Self {
        let names: Vec<PeerName> = peers.iter().map(|(name, _)| name).collect();
        let keys: Vec<u64> = names.iter().map(|name| key(*name)).collect();
        let tags: Vec<KeyTag> = peers.iter().map(|(_, peer)| peer.tag()).collect();
        let mut told: Vec<(u32, LinkState)> = Vec::new();
        let mut starts = Vec::with_capacity(names.len() + 1);
        for (_, peer) in peers.iter() {
            starts.push(told.len());
            let links = peer.record.links();
            let known = links.filter_map(|(to, state)| {
                let to = keys.binary_search(&key(to)).ok()?;
                (state.far() == Some(tags[to])).then_some((to as u32, state))
            });
            told.extend(known);
        }
        starts.push(told.len());
        let mut graph =
            Self { starts: Vec::with_capacity(starts.len()), edges: Vec::with_capacity(told.len()), names };
        // What each peer tells is in order, and so are those who ask for it: one walk through each list answers all.
        let mut walks = starts.clone();
        for from in 0..graph.names.len() {
            graph.starts.push(graph.edges.len());
            for (to, forth) in &told[starts[from]..starts[from + 1]] {
                let (walk, end) = (&mut walks[*to as usize], starts[*to as usize + 1]);
                while *walk < end && told[*walk].0 < from as u32 {
                    *walk += 1;
                }
                let Some((_, back)) = told[*walk..end].first().filter(|(to, _)| *to == from as u32) else {
                    continue;
                };
                let both = (*forth, *back);
                let Some(control) = Plane::Control.cost(both) else { continue };
                let (data, is_fast) = (Plane::Data.cost(both), is_fast(both));
                graph.edges.push(Edge { to: *to, control, data, is_fast });
            }
        }
        graph.starts.push(graph.edges.len());
        graph
    }

    /// Which peers links lead to from `source`, by index.
    pub(crate) fn reached(&self, source: usize) -> Vec<bool> {
        let mut seen = vec![false; self.names.len()];
        let mut frontier = vec![source];
        while let Some(from) = frontier.pop() {
            if !std::mem::replace(&mut seen[from], true) {
                frontier.extend(self.edges(from).iter().map(|edge| edge.to as usize).filter(|to| !seen[*to]));
            }
        }
        seen
    }

    /// The part of the graph that is in `keep`, which no link leaves.
    pub(crate) fn part(&self, keep: &[bool]) -> Self {
        let ranks: Vec<u32> = keep
            .iter()
            .scan(0, |rank, kept| Some(std::mem::replace(rank, *rank + u32::from(*kept))))
            .collect();
        let mut part = Self::default();
        for from in (0..self.names.len()).filter(|from| keep[*from]) {
            part.names.push(self.names[from]);
            part.starts.push(part.edges.len());
            part.edges
                .extend(self.edges(from).iter().map(|edge| Edge { to: ranks[edge.to as usize], ..*edge }));
        }
        part.starts.push(part.edges.len());
        part
    }

    pub(crate) fn index(&self, name: PeerName) -> Option<usize> {
        self.names.binary_search(&name).ok()
    }

    pub(crate) fn name(&self, index: usize) -> Option<PeerName> {
        self.names.get(index).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// Every link once, the lower index first.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let ends = (0..self.names.len())
            .flat_map(|from| self.edges(from).iter().map(move |edge| (from, edge.to as usize)));
        ends.filter(|(from, to)| from < to)
    }

    /// A number for a pair of peers that depends on their names alone, and on nothing that anybody would think of.
    pub(crate) fn rank(&self, a: usize, b: usize) -> u64 {
        finalise(finalise(key(self.names[a.min(b)])) ^ key(self.names[a.max(b)]))
    }

    fn edges(&self, from: usize) -> &[Edge] {
        self.edges.get(self.starts[from]..self.starts[from + 1]).unwrap_or_default()
    }

    /// Whether the kernel carries frames between two peers.
    fn is_fast(&self, from: u32, to: u32) -> bool {
        let edges = self.edges(from as usize);
        edges.binary_search_by_key(&to, |edge| edge.to).is_ok_and(|at| edges[at].is_fast)
    }

    /// Cheapest paths from a peer to all others (Dijkstra; hops cost so little that a ring of buckets serves as the queue).
    pub(crate) fn tree(&self, source: usize, plane: Plane) -> Tree {
        let mut distances = vec![u32::MAX; self.names.len()];
        let mut parents = vec![None; self.names.len()];
        let mut order = Vec::with_capacity(self.names.len());
        let mut buckets: [Vec<u32>; BUCKETS] = std::array::from_fn(|_| Vec::new());
        let (mut distance, mut waiting) = (0, 1);
        distances[source] = 0;
        buckets[0].push(source as u32);
        while waiting > 0 {
            let bucket = std::mem::take(&mut buckets[distance as usize % BUCKETS]);
            waiting -= bucket.len();
            for from in bucket {
                if distance > distances[from as usize] {
                    continue;
                }
                order.push(from);
                for edge in self.edges(from as usize) {
                    let Some(cost) = edge.cost(plane) else { continue };
                    let (to, through) = (edge.to as usize, distance + u32::from(cost));
                    if through < distances[to] {
                        distances[to] = through;
                        parents[to] = Some(from);
                        buckets[through as usize % BUCKETS].push(edge.to);
                        waiting += 1;
                    } else if through == distances[to] && parents[to].is_some_and(|parent| from < parent) {
                        // All cheapest parents come by before `to` itself does, since every hop costs something.
                        parents[to] = Some(from);
                    }
                }
            }
            distance += 1;
        }
        Tree { parents, order }
    }
}

/// The same order as that of names, and cheaper to compare.
fn key(name: PeerName) -> u64 {
    let [a, b, c, d, e, f] = name.0;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

impl Tree {
    /// To whom `index` hands on what comes from the source.
    pub(crate) fn children(&self, index: usize) -> impl Iterator<Item = usize> {
        let parent = Some(index as u32);
        self.parents.iter().enumerate().filter(move |(_, p)| **p == parent).map(|(child, _)| child)
    }

    /// For each of `count` peers, by index, the next one on the way through the tree from `me` to it; `None` for `me`, and for
    /// whom the tree does not reach.
    pub(crate) fn ways_from(&self, me: usize, count: usize) -> Vec<Option<usize>> {
        let up = self.parents.get(me).copied().flatten().map(|parent| parent as usize);
        let mut ways = vec![None; count];
        for index in self.order.iter().map(|index| *index as usize) {
            let parent = self.parents[index].map(|parent| parent as usize);
            ways[index] = match parent {
                _ if index == me => None,
                Some(parent) if parent == me => Some(index),
                // Below one of our children, or else up. Parents come before children.
                Some(parent) => ways[parent],
                None => up,
            };
        }
        ways
    }

    /// The path to each peer that can be reached.
    pub(crate) fn paths(&self, graph: &Graph) -> Vec<Path> {
        let mut found: Vec<Option<Path>> = vec![None; self.parents.len()];
        for to in self.order.iter().copied() {
            let Some(parent) = self.parents[to as usize] else { continue };
            // The source has no parent, so its children have no path of their parent to inherit.
            let (via, hops) = found[parent as usize]
                .as_ref()
                .map_or((to as usize, Some(0_u8)), |path| (path.via, path.fast_hops));
            let hops = hops.filter(|_| graph.is_fast(parent, to)).and_then(|hops| hops.checked_add(1));
            found[to as usize] = Some(Path { to: to as usize, via, fast_hops: hops });
        }
        found.into_iter().flatten().collect()
    }
}

/// A way from the source of a tree to one peer, both by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) to: usize,
    /// The neighbour of the source on the way.
    pub(crate) via: usize,
    /// How many hops it has, if the kernel carries frames over all of them.
    pub(crate) fast_hops: Option<u8>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A symmetric graph from random pairs; the cost of an edge comes from its ends.
    fn graph(count: usize, pairs: &[(usize, usize)]) -> Graph {
        let mut costs = vec![vec![None; count]; count];
        for (a, b) in pairs.iter().map(|(a, b)| (a % count, b % count)).filter(|(a, b)| a != b) {
            let cost = Some(HOP + CLASS * ((a * 7 + b * 7) % 16) as u8 + ((a + b) % 2) as u8);
            (costs[a][b], costs[b][a]) = (cost, cost);
        }
        let mut graph = Graph { names: vec![PeerName([0; 6]); count], ..Graph::default() };
        for row in &costs {
            graph.starts.push(graph.edges.len());
            let edges = row.iter().enumerate().filter_map(|(to, cost)| Some((to as u32, (*cost)?)));
            let edge =
                |(to, cost): (u32, u8)| Edge { to, control: cost, data: Some(cost), is_fast: cost % 2 == 0 };
            graph.edges.extend(edges.map(edge));
        }
        graph.starts.push(graph.edges.len());
        graph
    }

    /// Distances by going over all edges until nothing changes.
    fn distances(graph: &Graph, source: usize) -> Vec<Option<u32>> {
        let mut distances = vec![None; graph.len()];
        distances[source] = Some(0);
        for _ in 0..graph.len() {
            for from in 0..graph.len() {
                for edge in graph.edges(from) {
                    let through = distances[from].map(|distance: u32| distance + u32::from(edge.control));
                    let to = &mut distances[edge.to as usize];
                    *to = [*to, through].into_iter().flatten().min();
                }
            }
        }
        distances
    }

    proptest! {
        #[test]
        fn parents_are_the_lowest_on_a_cheapest_path(
            count in 2_usize..20,
            pairs in proptest::collection::vec((0_usize..20, 0_usize..20), 0..60),
            source in 0_usize..20,
        ) {
            let (graph, source) = (graph(count, &pairs), source % count);
            let (tree, naive) = (graph.tree(source, Plane::Data), distances(&graph, source));
            for to in (0..count).filter(|to| *to != source) {
                let leads = |from: usize| {
                    let edge = graph.edges(from).iter().find(|edge| edge.to as usize == to);
                    edge.is_some_and(|e| naive[to].is_some() && naive[from].map(|d| d + u32::from(e.control)) == naive[to])
                };
                prop_assert_eq!(tree.parents[to].map(|parent| parent as usize), (0..count).find(|from| leads(*from)));
            }
        }

        #[test]
        fn ways_through_a_tree_lead_along_its_branches(
            count in 2_usize..20,
            pairs in proptest::collection::vec((0_usize..20, 0_usize..20), 0..60),
            root in 0_usize..20,
        ) {
            let graph = graph(count, &pairs);
            let tree = graph.tree(root % count, Plane::Data);
            let is_in = |index: usize| index == root % count || tree.parents[index].is_some();
            for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
                let (mut at, mut steps) = (from, 0);
                while at != to && is_in(from) && is_in(to) {
                    let way = tree.ways_from(at, count)[to].expect("a way inside the tree");
                    prop_assert!(tree.parents[way] == Some(at as u32) || tree.parents[at] == Some(way as u32));
                    (at, steps) = (way, steps + 1);
                    prop_assert!(steps <= count, "round and round");
                }
            }
        }
    }
}
