//! What operators call the other routers, kept with the members: a dead router is removed by its nickname, and by then
//! the mesh has forgotten it.
//!
//! The mesh says it of whoever joins; each router keeps what it was told, of members only. Nothing of it is gossiped.

use std::{collections::BTreeMap, time::Instant};

use weave_model::PeerName;

use crate::{ipam::Ipam, members::MAX_MEMBERS, store};

/// Longest nickname kept, in bytes: what the mesh's introduction has room for.
const MAX_BYTES: usize = 255;

/// Nicknames by router, as they are in the store.
#[derive(Debug, Default)]
pub(crate) struct Nicknames {
    by_name: BTreeMap<PeerName, String>,
}

impl Nicknames {
    fn get(&self, peer: PeerName) -> Option<&str> {
        self.by_name.get(&peer).map(String::as_str)
    }

    /// Puts in what was stored or is to be; says whether that is new.
    pub(crate) fn set(&mut self, peer: PeerName, nickname: &str) -> bool {
        let has_room = self.by_name.len() < MAX_MEMBERS || self.by_name.contains_key(&peer);
        let is_new = has_room && self.get(peer) != Some(nickname);
        if is_new {
            self.by_name.insert(peer, nickname.to_owned());
        }
        is_new
    }
}

impl Ipam {
    /// The mesh says what a router that joined is called. Kept for when it is dead, once it is a member; an empty
    /// name is none. Longer ones are cut to 255 bytes.
    pub fn handle_nickname(&mut self, peer: PeerName, nickname: &str, now: Instant) {
        if peer != self.local && !nickname.is_empty() {
            let fits = |end: &usize| nickname.is_char_boundary(*end);
            let end = (0..=MAX_BYTES.min(nickname.len())).rev().find(fits).unwrap_or(0);
            let nickname = nickname.get(..end).unwrap_or_default();
            nickname.clone_into(&mut self.peers.entry(peer).or_default().nickname);
            self.keep_nickname(peer);
            self.finish(now);
        }
    }

    /// What a router was last called: a member whether or not it can still be reached, any other while the mesh knows it.
    #[must_use]
    pub fn nickname(&self, peer: PeerName) -> Option<&str> {
        let met = || self.peers.get(&peer).map(|known| known.nickname.as_str());
        self.nicknames.get(peer).or_else(met).filter(|nickname| !nickname.is_empty())
    }

    /// The members that were last called so, in order of name: more than one where a host was set up again.
    pub fn called<'a>(&'a self, nickname: &'a str) -> impl Iterator<Item = PeerName> + 'a {
        self.members.iter().filter(move |peer| self.nicknames.get(*peer) == Some(nickname))
    }

    /// Stores what a member is called, where that is news.
    pub(crate) fn keep_nickname(&mut self, peer: PeerName) {
        let Some(known) = self.peers.get(&peer).filter(|known| !known.nickname.is_empty()) else { return };
        if self.members.contains(peer) && self.nicknames.set(peer, &known.nickname) {
            self.writes.push(store::write_nickname(peer, &known.nickname));
        }
    }
}
