//! The state as an operator sees it.

use std::collections::BTreeMap;

use weave_model::PeerName;

use crate::{
    ipam::Ipam,
    pending::Want,
    request::WaitReason,
    span::{Span, V4},
    status::{IpamStatus, OwnerStatus, PendingStatus, Problem},
};

impl Ipam {
    /// What there is, what waits and what is wrong.
    #[must_use]
    pub fn status(&self) -> IpamStatus {
        let mut pending: Vec<PendingStatus> = self
            .queue
            .iter()
            .map(|p| PendingStatus {
                request: p.request,
                owner: match &p.want {
                    Want::Allocate { owner, .. } | Want::Claim { owner, .. } => Some(owner.clone()),
                    Want::Prime => None,
                },
                waiting_for: self.wait_reason(&p.want),
            })
            .collect();
        let state = self.state_text(&pending);
        pending.extend(self.settles.iter().filter_map(|(subject, settle)| {
            let waiting_for = WaitReason::Consent { peers: self.missing_consent(*subject) };
            Some(PendingStatus { request: settle.request()?, owner: None, waiting_for })
        }));
        pending.extend(self.leaving.as_ref().and_then(|leaving| leaving.pending()));
        let seeds = self.ring.iter().flat_map(|r| r.seeds()).map(|seed| seed.peer).collect();
        IpamStatus {
            state,
            ranges: self.ranges.clone(),
            default_subnets: self.default_subnets.clone(),
            election: self.election_status(),
            owners: self.owner_table(),
            active: self.ledger.len(),
            pending,
            ring_entries: self.ring.as_ref().map_or(0, |r| r.len()),
            ring_id: self.ring.as_ref().map(|r| r.id()),
            ring_digest: self.ring.as_ref().map(|r| r.digest()),
            seeds,
            problems: self.problems(),
        }
    }

    /// What the oldest request that waits is waiting for.
    #[must_use]
    pub fn waiting_for(&self) -> Option<WaitReason> {
        self.queue.iter().next().map(|pending| self.wait_reason(&pending.want))
    }

    fn state_text(&self, pending: &[PendingStatus]) -> String {
        let first = pending.first().map(|p| &p.waiting_for);
        match (&self.ring, first) {
            (None, None) if self.consensus.as_ref().is_some_and(|c| c.is_under_way()) => "priming".to_owned(),
            (None, None) => "idle".to_owned(),
            (None, Some(WaitReason::Consensus { quorum, known, .. })) if known >= quorum => {
                "priming".to_owned()
            }
            (None, Some(WaitReason::Consensus { quorum, known, .. })) => {
                format!("awaiting consensus (quorum: {quorum}, known: {known})")
            }
            (_, Some(WaitReason::Space { .. })) => "waiting for IP(s) to become available".to_owned(),
            (_, Some(WaitReason::OwnerUnreachable { .. })) => {
                "all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead".to_owned()
            }
            (None, Some(WaitReason::Ring)) => "priming".to_owned(),
            (_, Some(reason)) => reason.to_string(),
            (Some(_), None) => "ready".to_owned(),
        }
    }

    fn owner_table(&self) -> Vec<OwnerStatus> {
        let Some(ring) = &self.ring else { return Vec::new() };
        let mut spans_by_peer: BTreeMap<PeerName, Vec<Span>> = BTreeMap::new();
        for entry in ring.entries() {
            spans_by_peer.entry(entry.stamp.owner.peer).or_default().push(entry.span);
        }
        let mut table: Vec<OwnerStatus> = spans_by_peer
            .into_iter()
            .map(|(peer, spans)| OwnerStatus {
                peer,
                nickname: self.nickname(peer).unwrap_or_default().to_owned(),
                addresses: spans.iter().map(|s| s.len()).sum(),
                percent: self.percent(&spans),
                free: self.free_of(peer),
                reachable: peer == self.local || self.is_reachable(peer),
                local: peer == self.local,
            })
            .collect();
        table.sort_by_key(|row| (!row.local, row.peer));
        table
    }

    fn free_of(&self, peer: PeerName) -> Option<u128> {
        if peer == self.local {
            return Some(self.space.len());
        }
        let fact = self.peers.get(&peer)?.fact.as_ref()?;
        Some(fact.free.iter().map(|(_, free)| free).sum())
    }

    /// Per family, because an IPv6 range would make every IPv4 share vanish.
    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    fn percent(&self, spans: &[Span]) -> f64 {
        let share = |of_v4: bool| {
            let is_family = |span: &&Span| V4.covers(**span) == of_v4;
            let all: u128 = self.universe.iter().filter(is_family).map(|s| s.len()).sum();
            let own: u128 = spans.iter().filter(is_family).map(|s| s.len()).sum();
            (all > 0).then(|| own as f64 * 100.0 / all as f64)
        };
        let shares: Vec<f64> = [share(true), share(false)].into_iter().flatten().collect();
        shares.iter().sum::<f64>() / (shares.len().max(1) as f64)
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let facts = || self.peers.iter().filter_map(|(peer, p)| Some((*peer, p, p.fact.as_ref()?)));
        let ours = self.ring.as_ref().map(|r| r.id());
        let on_other = |fact: &crate::wire::Fact| {
            fact.universe == self.universe_id && fact.ring.is_some_and(|r| Some(r.id) != ours)
        };
        let others: Vec<PeerName> =
            facts().filter(|(_, _, fact)| on_other(fact)).map(|(peer, _, _)| peer).collect();
        if let (Some(ring), false) = (&self.ring, others.is_empty()) {
            let their_seeds = facts().find(|(_, p, fact)| on_other(fact) && !p.other_seeds.is_empty());
            problems.push(Problem::OtherRing {
                peers: others,
                our_seeds: ring.seeds().iter().map(|seed| seed.peer).collect(),
                their_seeds: their_seeds.map(|(_, p, _)| p.other_seeds.clone()).unwrap_or_default(),
            });
        }
        let strangers: Vec<PeerName> = facts()
            .filter(|(_, _, fact)| fact.universe != self.universe_id)
            .map(|(peer, _, _)| peer)
            .collect();
        if !strangers.is_empty() {
            problems.push(Problem::OtherRanges { peers: strangers });
        }
        if let (Some(_), WaitReason::StoreUnconfirmed { peers }) = (&self.ring, self.own_wait_reason()) {
            problems.push(Problem::StoreUnconfirmed { peers });
        } else {
            let spans = self.ring.iter().flat_map(|r| self.owned_before().flat_map(|life| r.owned_by(life)));
            let addresses: u128 = spans.map(|entry| entry.span.len()).sum();
            if addresses > 0 {
                problems.push(Problem::PredecessorUnsettled { addresses });
            }
        }
        if let Some(WaitReason::Witnesses { peers, unsure }) = self.enrolment_wait_reason()
            && !peers.is_empty()
        {
            problems.push(Problem::NotEnrolled { peers, unsure });
        }
        let mut lost: BTreeMap<PeerName, usize> = BTreeMap::new();
        for entry in self.ring.iter().flat_map(|r| r.entries()).filter(|e| e.stamp.owner.peer != self.local) {
            let in_use = self.ledger.used_within(entry.span).count();
            if in_use > 0 {
                *lost.entry(entry.stamp.owner.peer).or_default() += in_use;
            }
        }
        problems.extend(lost.into_iter().map(|(peer, in_use)| Problem::SpaceLost { peer, in_use }));
        let unreadable = self.peers.iter().filter(|(_, p)| p.is_unreadable);
        problems.extend(unreadable.map(|(peer, _)| Problem::Unreadable { peer: *peer }));
        problems
    }
}
