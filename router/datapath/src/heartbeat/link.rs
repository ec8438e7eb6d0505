//! The sealed side of one path: whose it is, what it answers, what it lets through.

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use weave_model::{LinkId, Mac, PeerName};
use zeroize::Zeroizing;

use super::{
    HeartbeatDiscard,
    budget::Budget,
    frame::{Key, Kind, Message, Unverified, heartbeat_mac},
    prober::{Moment, Prober},
};
use crate::Family;

/// Probes that are answered in a burst, and the time for one more: a search asks for ten sizes at once, ten times a second at most.
const FRESH: (u32, Duration) = (64, Duration::from_millis(10));
/// The same for probes that came before: duplicated or overtaken on the way, or sent again by who heard them.
const REPEATED: (u32, Duration) = (4, Duration::from_millis(200));

/// Lives of a peer that are remembered. It seldom has more than one under the same keys.
const MAX_LIVES: usize = 8;

/// The kernel's path of a link, as it is to be vouched for.
#[derive(Clone)]
pub struct LinkPath {
    /// The link whose frames would take it.
    pub link: LinkId,
    /// The router at the other end.
    pub peer: PeerName,
    /// Seals what we send; the peer's `receive_key`.
    pub send_key: [u8; 32],
    /// Opens what the peer sends; its `send_key`.
    pub receive_key: [u8; 32],
    /// The largest overlay MTU worth trying: what the underlay's interface carries, or what the operator fixed. Bytes.
    pub ceiling: u16,
    /// The peer's address on the underlay; its family decides how much the tunnel takes.
    pub remote: IpAddr,
}

impl std::fmt::Debug for LinkPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { link, peer, ceiling, remote, .. } = self;
        write!(f, "LinkPath {{ {link}, {peer} at {remote}, ceiling: {ceiling} }}")
    }
}

/// One path, with its keys.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer_mac: Mac,
    pub(crate) prober: Prober,
    /// When the timer that is set for it fires.
    pub(crate) armed: Option<Instant>,
    send_key: Zeroizing<Key>,
    receive_key: Zeroizing<Key>,
    /// Random in each life: answers to an earlier one mean nothing.
    token: u64,
    lives: Lives,
    fresh: Budget,
    repeated: Budget,
}

impl Link {
    pub(crate) fn new(path: &LinkPath, token: u64, now: Instant) -> Self {
        Self {
            peer_mac: heartbeat_mac(path.peer),
            prober: Prober::new(Family::of(path.remote).overhead(), path.ceiling, now),
            armed: None,
            send_key: Zeroizing::new(path.send_key),
            receive_key: Zeroizing::new(path.receive_key),
            token,
            lives: Lives::default(),
            fresh: Budget::new(FRESH.0, FRESH.1, now),
            repeated: Budget::new(REPEATED.0, REPEATED.1, now),
        }
    }

    #[cfg(test)]
    pub(crate) const fn token(&self) -> u64 {
        self.token
    }

    /// What a frame says, if it is of this link.
    pub(crate) fn verify(&self, frame: &Unverified<'_>) -> Option<Message> {
        frame.verify(&self.receive_key)
    }

    /// Takes in what the peer said. Returns the answer that it is to get.
    pub(crate) fn handle(
        &mut self,
        message: Message,
        local: Mac,
        moment: &mut Moment<'_>,
    ) -> Result<Option<Vec<u8>>, HeartbeatDiscard> {
        match message.kind {
            Kind::Answer if message.token == self.token => {
                let is_asked = self.prober.handle_answer(message.sequence, message.size, moment);
                is_asked.then_some(None).ok_or(HeartbeatDiscard::NotAsked)
            }
            Kind::Answer => Err(HeartbeatDiscard::NotAsked),
            Kind::Probe => {
                let is_fresh = self.lives.is_fresh(message.token, message.sequence);
                let budget = if is_fresh { &mut self.fresh } else { &mut self.repeated };
                let may_answer = budget.take(moment.now);
                if is_fresh {
                    self.prober.handle_peer(message.hears, moment);
                }
                if message.size > self.prober.ceiling() {
                    return Err(HeartbeatDiscard::TooLarge);
                }
                if !may_answer {
                    return Err(HeartbeatDiscard::TooMany);
                }
                let answer = Message { kind: Kind::Answer, hears: self.prober.hears(), ..message };
                Ok(Some(answer.encode(self.peer_mac, local, &self.send_key)))
            }
        }
    }

    /// The next probe that is to be sent.
    pub(crate) fn poll_probe(&mut self, local: Mac) -> Option<Vec<u8>> {
        let probe = self.prober.poll_probe()?;
        let message = Message {
            kind: Kind::Probe,
            hears: self.prober.hears(),
            size: probe.size,
            token: self.token,
            sequence: probe.sequence,
        };
        Some(message.encode(self.peer_mac, local, &self.send_key))
    }
}

/// The tokens that the peer used, with the highest sequence number of each, newest last.
#[derive(Debug, Default)]
struct Lives(VecDeque<(u64, u64)>);

impl Lives {
    /// Whether a probe, which the peer did seal, is later than all before it.
    fn is_fresh(&mut self, token: u64, sequence: u64) -> bool {
        if let Some((_, highest)) = self.0.iter_mut().find(|(known, _)| *known == token) {
            return sequence > std::mem::replace(highest, sequence.max(*highest));
        }
        if self.0.len() >= MAX_LIVES {
            self.0.pop_front();
        }
        self.0.push_back((token, sequence));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_fresh_once_and_only_if_no_later_one_came_before() {
        let mut lives = Lives::default();
        assert!(lives.is_fresh(1, 5));
        assert!(!lives.is_fresh(1, 5));
        assert!(!lives.is_fresh(1, 4));
        assert!(lives.is_fresh(1, 6));
        assert!(lives.is_fresh(2, 1));
        assert!(!lives.is_fresh(1, 6), "an earlier life is remembered");
        (0..1000).for_each(|token| _ = lives.is_fresh(token, 1));
        assert_eq!(lives.0.len(), MAX_LIVES);
    }
}
