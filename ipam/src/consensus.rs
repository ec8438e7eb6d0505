//! Agreement on who shares the first ring: single-decree Paxos.
//!
//! Every voter publishes its acceptor state as a replicated fact; a reader may miss values in between, never the
//! latest. That is enough: promises only rise, a published promise comes with the value accepted before it, and
//! a value is chosen when a majority shows the same accepted ballot (Lamport, "Paxos made simple", 2001).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weave_model::PeerName;

use crate::{
    mutant::{self, Mutant},
    ring::Owner,
};

/// Number of a proposal; no two proposers share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Ballot {
    round: u32,
    proposer: PeerName,
    /// A proposer that lost its store is another proposer.
    store: u64,
}

/// Who is to share the ring.
pub(crate) type Seeds = Vec<Owner>;

/// What one voter has promised and accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Acceptor {
    pub(crate) promised: Option<Ballot>,
    pub(crate) accepted: Option<(Ballot, Seeds)>,
}

/// One router's view of the vote.
#[derive(Debug)]
pub(crate) struct Consensus {
    local: PeerName,
    store: u64,
    quorum: usize,
    own: Acceptor,
    others: BTreeMap<PeerName, Acceptor>,
}

impl Consensus {
    pub(crate) fn new(local: PeerName, store: u64, peers: usize, own: Acceptor) -> Self {
        Self {
            local,
            store,
            quorum: if mutant::is(Mutant::LoneVote) { 1 } else { peers / 2 + 1 },
            own,
            others: BTreeMap::new(),
        }
    }

    pub(crate) fn quorum(&self) -> usize {
        self.quorum
    }

    pub(crate) fn own(&self) -> &Acceptor {
        &self.own
    }

    /// Whether somebody has begun a vote.
    pub(crate) fn is_under_way(&self) -> bool {
        self.own.promised.is_some() || self.others.values().any(|a| a.promised.is_some())
    }

    pub(crate) fn record(&mut self, peer: PeerName, acceptor: Acceptor) {
        self.others.insert(peer, acceptor);
    }

    /// Begins a round above every one that was seen.
    pub(crate) fn propose(&mut self) {
        let round = self.highest().map_or(0, |ballot| ballot.round).saturating_add(1);
        self.own.promised = Some(Ballot { round, proposer: self.local, store: self.store });
    }

    /// Promises and accepts what the rules allow. Says whether our own state changed: store it, then publish it.
    pub(crate) fn step(&mut self, candidates: impl FnOnce() -> Seeds) -> bool {
        let before = self.own.clone();
        self.own.promised = self.highest();
        self.accept_others();
        self.accept_own(candidates);
        self.own != before
    }

    /// The value that a majority has accepted in one round.
    pub(crate) fn chosen(&self) -> Option<&Seeds> {
        let all = || self.others.values().chain([&self.own]).filter_map(|a| a.accepted.as_ref());
        all()
            .find(|(ballot, _)| all().filter(|(other, _)| other == ballot).count() >= self.quorum)
            .map(|(_, seeds)| seeds)
    }

    fn highest(&self) -> Option<Ballot> {
        self.others.values().chain([&self.own]).filter_map(|a| a.promised).max()
    }

    /// Accepts what another has accepted in a round that we have not promised to ignore.
    fn accept_others(&mut self) {
        let latest =
            self.others.values().filter_map(|a| a.accepted.as_ref()).max_by_key(|(ballot, _)| *ballot);
        if let Some((ballot, seeds)) = latest
            && Some(*ballot) >= self.own.promised
            && self.own.accepted.as_ref().is_none_or(|(own, _)| own < ballot)
        {
            self.own = Acceptor { promised: Some(*ballot), accepted: Some((*ballot, seeds.clone())) };
        }
    }

    /// Once a majority has promised our round: accepts the latest value that any of them had accepted, or ours.
    fn accept_own(&mut self, candidates: impl FnOnce() -> Seeds) {
        let Some(ballot) = self.own.promised else { return };
        if ballot.proposer != self.local || ballot.store != self.store {
            return;
        }
        if self.own.accepted.as_ref().is_some_and(|(accepted, _)| *accepted == ballot) {
            return;
        }
        let promised = || self.others.values().chain([&self.own]).filter(|a| a.promised == Some(ballot));
        if promised().count() < self.quorum {
            return;
        }
        let earlier = promised().filter_map(|a| a.accepted.as_ref()).max_by_key(|(ballot, _)| *ballot);
        let seeds = earlier.map(|(_, seeds)| seeds.clone()).unwrap_or_else(candidates);
        self.own.accepted = Some((ballot, seeds));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(n: usize) -> PeerName {
        PeerName([2, 0, 0, 0, 0, n as u8])
    }

    fn candidate(n: usize) -> Seeds {
        vec![Owner { peer: name(n), generation: n as u64 }]
    }

    proptest! {
        /// Facts arrive late, more than once and with gaps; voters propose at any time and restart from their
        /// stores. Whatever is chosen once stays chosen.
        #[test]
        fn no_two_values_are_ever_chosen(
            peers in 1..6_usize,
            steps in prop::collection::vec((0..6_usize, 0..6_usize, 0..10_u8), 0..120),
        ) {
            let mut nodes: Vec<Consensus> =
                (0..peers).map(|n| Consensus::new(name(n), n as u64, peers, Acceptor::default())).collect();
            let mut chosen: Option<Seeds> = None;
            for (at, to, what) in steps {
                let (at, to) = (at % peers, to % peers);
                match what {
                    0 => nodes[at].propose(),
                    1 => nodes[at] = Consensus::new(name(at), at as u64, peers, nodes[at].own().clone()),
                    _ if at != to => {
                        let fact = nodes[at].own().clone();
                        nodes[to].record(name(at), fact);
                    }
                    _ => {}
                }
                nodes[to].step(|| candidate(to));
                for node in &nodes {
                    if let Some(seeds) = node.chosen() {
                        prop_assert!(chosen.as_ref().is_none_or(|c| c == seeds));
                        chosen = Some(seeds.clone());
                    }
                }
            }
        }
    }

    #[test]
    fn one_proposal_decides_once_promises_and_acceptances_have_come_round() {
        let mut nodes: Vec<Consensus> =
            (0..5).map(|n| Consensus::new(name(n), n as u64, 5, Acceptor::default())).collect();
        nodes[2].propose();
        for _ in 0..4 {
            let facts: Vec<Acceptor> = nodes.iter().map(|n| n.own().clone()).collect();
            for (at, node) in nodes.iter_mut().enumerate() {
                for (from, fact) in facts.iter().enumerate().filter(|(from, _)| *from != at) {
                    node.record(name(from), fact.clone());
                }
                node.step(|| candidate(at));
            }
        }
        assert!(nodes.iter().all(|n| n.chosen() == Some(&candidate(2))));
    }
}
