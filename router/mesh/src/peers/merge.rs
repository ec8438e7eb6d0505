//! Taking in what others tell of somebody.

use std::time::Instant;

use bytes::Bytes;
use weave_model::PeerName;

use super::{INFO, MAX_PEERS, Peer, Peers, mix};
use crate::{
    MessageError,
    info::Info,
    record::{Delta, Life, Merged, News, Record, Stamp},
};

/// What became of another router's record.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Nothing new.
    Stale,
    /// Something before it is missing.
    Gap,
    /// The name belongs to another key that is alive.
    Collision([u8; 32]),
    /// There is no room for another peer.
    Full,
    /// Applied.
    News {
        /// What we had.
        before: Stamp,
        /// Whether this is another run of the router than before.
        restarted: bool,
        /// Whether its description changed.
        described: bool,
        /// What changed.
        news: News,
    },
}

impl Peers {
    /// Takes in another router's record, or a part of it. `pinned` is the key it has proved to us, if it is a neighbour;
    /// what we know of a neighbour is of that key ([`Peers::forget`]).
    ///
    /// # Errors
    /// When no honest router would have passed it on. Nothing was changed.
    pub(crate) fn merge(
        &mut self,
        delta: Delta,
        pinned: Option<[u8; 32]>,
        now: Instant,
    ) -> Result<Taken, MessageError> {
        let described = delta.facts.iter().find(|((ns, key), _)| *ns == INFO && key.is_empty());
        let described = match described {
            Some((_, fact)) => Some(decode_info(&delta, fact.value.as_ref())?),
            None if delta.from == 0 => return Err(MessageError::Misbehaved("a peer without a description")),
            None => None,
        };
        if let Some(info) = &described {
            if pinned.is_some_and(|key| key != info.public_key) {
                return Ok(Taken::Collision(info.public_key));
            }
            if let Some(refusal) = self.judge_key(&delta, info) {
                return Ok(refusal);
            }
        }
        match described {
            _ if self.by_name.contains_key(&delta.peer) => self.update(delta, described),
            Some(info) if delta.from == 0 => self.insert(delta, info, now),
            Some(_) | None => Ok(Taken::Gap),
        }
    }

    /// What speaks against a record because we know its name with another key. Of two that nobody leads to, the later one waits for
    /// links to show which of them is there; the other one is dropped.
    fn judge_key(&mut self, delta: &Delta, info: &Info) -> Option<Taken> {
        let known = self.by_name.get(&delta.peer).filter(|peer| peer.info.public_key != info.public_key)?;
        if known.reachable || known.joined {
            return Some(Taken::Collision(info.public_key));
        }
        if (Stamp { life: delta.life, version: delta.to }) <= known.record.stamp() {
            return Some(Taken::Stale);
        }
        if delta.from != 0 {
            return Some(Taken::Gap);
        }
        self.forget(delta.peer);
        None
    }

    /// Merges into the record that we have.
    fn update(&mut self, delta: Delta, described: Option<Info>) -> Result<Taken, MessageError> {
        let (name, life) = (delta.peer, delta.life);
        let Some(peer) = self.by_name.get_mut(&name) else { return Ok(Taken::Gap) };
        let before = peer.record.stamp();
        let merged = peer.record.merge(delta);
        let described = described.filter(|info| matches!(merged, Merged::News(_)) && peer.info != *info);
        let is_described = described.is_some();
        if let Some(info) = described {
            peer.info = info;
        }
        self.settle_merge(name, before, merged, before.life.tag != life.tag, is_described)
    }

    /// Adds a peer that we do not know.
    fn insert(&mut self, delta: Delta, info: Info, now: Instant) -> Result<Taken, MessageError> {
        if self.by_name.len() >= MAX_PEERS {
            return Ok(Taken::Full);
        }
        let (name, mut record) = (delta.peer, Record::default());
        let merged = record.merge(delta);
        if matches!(merged, Merged::News(_)) {
            self.by_name.insert(name, Peer { record, info, reachable: false, joined: false, since: now });
            self.lost_since.insert(name, now);
        }
        self.settle_merge(name, Stamp::default(), merged, false, true)
    }

    fn settle_merge(
        &mut self,
        name: PeerName,
        before: Stamp,
        merged: Merged,
        restarted: bool,
        described: bool,
    ) -> Result<Taken, MessageError> {
        match merged {
            Merged::Stale => Ok(Taken::Stale),
            Merged::Gap => Ok(Taken::Gap),
            Merged::TooLarge => Err(MessageError::Misbehaved("a peer says more of itself than fits")),
            Merged::News(news) => {
                for (other, from, to) in &news.links {
                    self.count_edge(name, *other, *from, *to);
                }
                if self.is_reachable(name) {
                    let after = mix(name, self.stamp(name));
                    self.hash = self.hash.wrapping_sub(mix(name, before)).wrapping_add(after);
                }
                Ok(Taken::News { before, restarted, described, news })
            }
        }
    }
}

fn decode_info(delta: &Delta, value: Option<&Bytes>) -> Result<Info, MessageError> {
    let value = value.ok_or(MessageError::Misbehaved("a peer without a description"))?;
    let info = Info::decode(value)?;
    if Life::new(delta.life.incarnation, info.uid) == delta.life {
        Ok(info)
    } else {
        Err(MessageError::Misbehaved("a description of another run than its record"))
    }
}
