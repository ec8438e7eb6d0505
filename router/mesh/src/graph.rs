//! Cheapest paths through the links that both ends report.
//!
//! Everybody who agrees on the links computes the same distances and the same trees: costs are small integers that come from
//! the facts alone, and among equally cheap parents the lowest name is taken. There is no further hysteresis here;
//! it is in the RTT classes, which their owner changes only by a clear margin (see [`crate::rtt`]).

use std::{cmp::Reverse, collections::BinaryHeap};

use weave_model::PeerName;

use crate::{
    peers::{Peers, carries},
    record::LinkState,
};

/// What a hop costs beside its RTT class (0 to 15). One hop is always cheaper than two, so a neighbour is reached directly;
/// three fast hops may be cheaper than two slow ones.
const HOP: u32 = 16;

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
    pub(crate) fn cost(self, (forth, back): (LinkState, LinkState)) -> Option<u32> {
        let usable = match self {
            Self::Control => forth.is_up() && back.is_up(),
            Self::Data => carries(forth) && carries(back),
        };
        usable.then(|| HOP + u32::from(forth.class().max(back.class())))
    }
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    to: u32,
    cost: u16,
    carries_data: bool,
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
        let mut told: Vec<(u32, LinkState)> = Vec::new();
        let mut starts = Vec::with_capacity(names.len() + 1);
        for (_, peer) in peers.iter() {
            starts.push(told.len());
            let known =
                peer.record.links().filter_map(|(to, state)| Some((names.binary_search(&to).ok()?, state)));
            told.extend(known.map(|(to, state)| (to as u32, state)));
        }
        starts.push(told.len());
        let mut graph =
            Self { starts: Vec::with_capacity(starts.len()), edges: Vec::with_capacity(told.len()), names };
        for from in 0..graph.names.len() {
            graph.starts.push(graph.edges.len());
            for (to, forth) in &told[starts[from]..starts[from + 1]] {
                let answers = &told[starts[*to as usize]..starts[*to as usize + 1]];
                let Ok(at) = answers.binary_search_by_key(&(from as u32), |(to, _)| *to) else { continue };
                let both = (*forth, answers[at].1);
                let Some(cost) = Plane::Control.cost(both) else { continue };
                graph.edges.push(Edge {
                    to: *to,
                    cost: cost as u16,
                    carries_data: Plane::Data.cost(both).is_some(),
                });
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

    fn edges(&self, from: usize) -> &[Edge] {
        self.edges.get(self.starts[from]..self.starts[from + 1]).unwrap_or_default()
    }

    /// Cheapest paths from a peer to all others (Dijkstra).
    pub(crate) fn tree(&self, source: usize, plane: Plane) -> Tree {
        let mut distances = vec![u32::MAX; self.names.len()];
        let mut parents = vec![None; self.names.len()];
        let mut order = Vec::with_capacity(self.names.len());
        let mut queue = BinaryHeap::from([Reverse((0, source as u32))]);
        distances[source] = 0;
        while let Some(Reverse((distance, from))) = queue.pop() {
            if distance > distances[from as usize] {
                continue;
            }
            order.push(from);
            let usable =
                self.edges(from as usize).iter().filter(|e| plane == Plane::Control || e.carries_data);
            for edge in usable {
                let (to, through) = (edge.to as usize, distance + u32::from(edge.cost));
                if through < distances[to] {
                    distances[to] = through;
                    parents[to] = Some(from);
                    queue.push(Reverse((through, edge.to)));
                } else if through == distances[to] && parents[to].is_some_and(|parent| from < parent) {
                    // All cheapest parents come by before `to` itself does, since every hop costs something.
                    parents[to] = Some(from);
                }
            }
        }
        Tree { parents, order }
    }
}

impl Tree {
    /// To whom `index` hands on what comes from the source.
    pub(crate) fn children(&self, index: usize) -> impl Iterator<Item = usize> {
        let parent = Some(index as u32);
        self.parents.iter().enumerate().filter(move |(_, p)| **p == parent).map(|(child, _)| child)
    }

    /// From whom `index` gets what comes from the source.
    pub(crate) fn parent(&self, index: usize) -> Option<usize> {
        self.parents.get(index).copied().flatten().map(|parent| parent as usize)
    }

    /// For each peer that can be reached, the neighbour of the source that leads there.
    pub(crate) fn first_hops(&self) -> Vec<(usize, usize)> {
        let mut first: Vec<Option<u32>> = vec![None; self.parents.len()];
        let mut hops = Vec::new();
        for index in &self.order {
            let Some(parent) = self.parents[*index as usize] else { continue };
            // The source has no parent, so its children have no first hop of their parent to inherit.
            let hop = first[parent as usize].unwrap_or(*index);
            first[*index as usize] = Some(hop);
            hops.push((*index as usize, hop as usize));
        }
        hops
    }
}
