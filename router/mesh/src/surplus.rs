//! Which links stay when routers have more than they are allowed.
//!
//! Everybody computes that from the same facts, like paths, so all can give up what is too much at once: the two ends of a link do
//! not each close another one where one would do, and no two routers rely on each other's link to hold the mesh together.
//!
//! First come links that connect everybody, within the limits as far as that goes, then links between two that both have room.
//! Whoever is above its limit after that keeps only what nobody could be reached without. The order is a hash of the
//! ends' names, so that no router is preferred and what stays is spread evenly.

use std::collections::BTreeSet;

use crate::graph::Graph;

/// A link between two peers by index, behind its place in the order.
type Candidate = (u64, usize, usize);

/// The choice so far.
struct Choice<'a> {
    /// How many links each peer may have.
    limits: &'a [usize],
    /// How many links of each peer stay.
    degrees: Vec<usize>,
    /// For each peer another one that it is connected with, or itself.
    groups: Vec<usize>,
    links: Vec<Candidate>,
}

/// The neighbours, by index, to whom `me` has links that do not stay; `limits` are everybody's.
pub(crate) fn surplus(graph: &Graph, limits: &[usize], me: usize) -> Vec<usize> {
    let mut offered: Vec<Candidate> = graph.pairs().map(|(a, b)| (graph.rank(a, b), a, b)).collect();
    offered.sort_unstable();
    let all: BTreeSet<usize> = neighbours(&offered, me).collect();
    let kept: BTreeSet<usize> = neighbours(&choose(offered, limits), me).collect();
    all.difference(&kept).copied().collect()
}

fn neighbours(links: &[Candidate], me: usize) -> impl Iterator<Item = usize> {
    let other = move |(_, a, b): &Candidate| match me {
        _ if *a == me => Some(*b),
        _ if *b == me => Some(*a),
        _ => None,
    };
    links.iter().filter_map(other)
}

/// The links that stay, of those that are offered in order.
fn choose(mut offered: Vec<Candidate>, limits: &[usize]) -> Vec<Candidate> {
    let count = limits.len();
    let mut choice =
        Choice { limits, degrees: vec![0; count], groups: (0..count).collect(), links: Vec::new() };
    offered.retain(|link| !(choice.has_room(*link) && choice.connect(*link)));
    offered.retain(|link| !choice.connect(*link));
    // A link that is dropped makes room at its other end. Who is above its limit never comes below it, so no link is dropped
    // and added again, and this ends.
    loop {
        offered.retain(|link| !(choice.has_room(*link) && choice.add(*link)));
        if !choice.trim() {
            return choice.links;
        }
    }
}

impl Choice<'_> {
    fn has_room(&self, (_, a, b): Candidate) -> bool {
        [a, b].into_iter().all(|end| self.degrees[end] < self.limits[end])
    }

    /// Adds a link if it connects what was not connected; returns whether it did.
    fn connect(&mut self, link: Candidate) -> bool {
        let (group, other) = (self.group(link.1), self.group(link.2));
        self.groups[group] = other;
        group != other && self.add(link)
    }

    fn add(&mut self, link: Candidate) -> bool {
        self.degrees[link.1] += 1;
        self.degrees[link.2] += 1;
        self.links.push(link);
        true
    }

    /// The peer that stands for all that `index` is connected with.
    fn group(&mut self, mut index: usize) -> usize {
        while self.groups[index] != index {
            self.groups[index] = self.groups[self.groups[index]];
            index = self.groups[index];
        }
        index
    }

    /// Drops links of those above their limits where others lead to the same peer: links that were needed to connect everybody
    /// may not be any more, with the ones that were added after them. Returns whether there were any.
    fn trim(&mut self) -> bool {
        let before = self.links.len();
        let is_above = |(_, a, b): &Candidate, degrees: &[usize]| {
            [*a, *b].into_iter().any(|end| degrees[end] > self.limits[end])
        };
        let suspects: Vec<Candidate> =
            self.links.iter().filter(|link| is_above(link, &self.degrees)).copied().collect();
        for suspect in suspects.into_iter().rev() {
            if is_above(&suspect, &self.degrees)
                && is_connected_without(&self.links, suspect, self.limits.len())
            {
                self.links.retain(|link| *link != suspect);
                self.degrees[suspect.1] -= 1;
                self.degrees[suspect.2] -= 1;
            }
        }
        self.links.len() < before
    }
}

/// Whether the ends of a link are connected by others.
fn is_connected_without(links: &[Candidate], without: Candidate, count: usize) -> bool {
    let mut near = vec![Vec::new(); count];
    for (_, a, b) in links.iter().filter(|link| **link != without) {
        near[*a].push(*b);
        near[*b].push(*a);
    }
    let (mut seen, mut frontier) = (vec![false; count], vec![without.1]);
    while let Some(at) = frontier.pop() {
        if at == without.2 {
            return true;
        }
        if !std::mem::replace(&mut seen[at], true) {
            frontier.extend(near[at].iter().filter(|to| !seen[**to]));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn degrees(links: &[Candidate], count: usize) -> Vec<usize> {
        (0..count).map(|peer| neighbours(links, peer).count()).collect()
    }

    /// For each peer the lowest one that it is connected with, by passing it along links until nothing changes.
    fn components(links: &[Candidate], count: usize) -> Vec<usize> {
        let mut lowest: Vec<usize> = (0..count).collect();
        for _ in 0..count {
            for (_, a, b) in links {
                let low = lowest[*a].min(lowest[*b]);
                (lowest[*a], lowest[*b]) = (low, low);
            }
        }
        lowest
    }

    proptest! {
        #[test]
        fn everybody_stays_in_reach_and_only_who_must_keeps_more_than_allowed(
            count in 2_usize..20,
            pairs in prop::collection::btree_set((0_usize..20, 0_usize..20), 0..80),
            limit in 1_usize..6,
            generous in 0_usize..20,
        ) {
            let pairs: Vec<_> = pairs.into_iter().filter(|(a, b)| a < b && *b < count).collect();
            check(count, &pairs, limit, generous);
        }
    }

    fn check(count: usize, pairs: &[(usize, usize)], limit: usize, generous: usize) {
        let offered: Vec<Candidate> =
            (0..).zip(pairs).map(|(rank, (a, b))| (rank * 7 % 81, *a, *b)).collect();
        let limits: Vec<usize> =
            (0..count).map(|peer| if peer == generous { usize::MAX } else { limit }).collect();
        let kept = choose(offered.clone(), &limits);
        assert_eq!(components(&kept, count), components(&offered, count));
        let degrees = degrees(&kept, count);
        for link in &kept {
            if [link.1, link.2].into_iter().any(|end| degrees[end] > limits[end]) {
                assert!(!is_connected_without(&kept, *link, count), "a link above the limit for nothing");
            }
        }
        for link in offered.iter().filter(|link| !kept.contains(link)) {
            let is_full = [link.1, link.2].into_iter().any(|end| degrees[end] >= limits[end]);
            assert!(
                is_full || degrees.iter().zip(&limits).any(|(d, l)| d > l),
                "a link was given up for nothing"
            );
        }
    }

    #[test]
    fn a_link_that_is_dropped_makes_room_for_another() {
        let pairs = [(0, 3), (0, 4), (0, 9), (0, 10), (2, 3), (2, 9), (2, 12), (9, 12), (9, 13)];
        check(14, &pairs, 3, 1);
    }

    #[test]
    fn a_crowd_keeps_about_as_many_links_as_it_may() {
        let count = 60;
        let pairs =
            (0..count).flat_map(|a| (0..a).map(move |b| (b, a))).filter(|(a, b)| (a * 31 + b * 17) % 3 == 0);
        let mut offered: Vec<Candidate> =
            pairs.map(|(a, b)| (crate::peers::finalise((a * count + b) as u64), a, b)).collect();
        offered.sort_unstable();
        let kept = choose(offered, &vec![8; count]);
        let degrees = degrees(&kept, count);
        assert!(degrees.iter().all(|degree| (4..=8).contains(degree)), "{degrees:?}");
        assert!(degrees.iter().sum::<usize>() >= count * 15 / 2);
    }
}
