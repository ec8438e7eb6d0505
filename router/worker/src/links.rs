//! A worker's view of the links: how to send on each, and how to receive on those it owns.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};

use weave_model::{LinkId, PeerName};
use weave_sleeve::{Discard, LinkParams, Opener, PathMtu, Sealer, Splitter};

use crate::shared::LinkShared;

/// All links of a worker, in a dense table; the maps are only probed.
#[derive(Default)]
pub(crate) struct Links {
    list: Vec<Link>,
    place_by_link: HashMap<LinkId, usize>,
    /// Only links that this worker receives for.
    place_by_index: HashMap<u32, usize>,
}

/// One link, as one worker has it.
pub(crate) struct Link {
    pub(crate) shared: Arc<LinkShared>,
    pub(crate) peer: PeerName,
    pub(crate) local_index: u32,
    pub(crate) sealer: Sealer,
    pub(crate) splitter: Splitter,
    /// Encrypted: follows its peer to another address.
    pub(crate) is_sealed: bool,
    remote: SocketAddr,
    generation: u32,
    /// Only with the worker that receives for it.
    pub(crate) owned: Option<Box<Owned>>,
}

/// What the owner of a link has beside.
pub(crate) struct Owned {
    pub(crate) opener: Opener,
    pub(crate) path: PathMtu,
    pub(crate) watch: Watch,
}

/// What the owner saw of the traffic when it last looked.
#[derive(Default)]
pub(crate) struct Watch {
    /// When to look again; `None` while the link is idle.
    pub(crate) next: Option<Instant>,
    pub(crate) sent: u64,
    pub(crate) sent_large: u64,
    pub(crate) received: u64,
}

impl Links {
    /// Adds a link; one of the same number is replaced.
    pub(crate) fn add(
        &mut self,
        params: &LinkParams,
        shared: Arc<LinkShared>,
        worker: usize,
        now: Instant,
    ) -> Result<usize, Discard> {
        self.remove(params.link);
        let lane = u8::try_from(worker).map_err(|_| Discard::UnknownLane)?;
        let owned = (shared.owner == worker).then(|| {
            let seed = u64::from(params.local_index) << 32 | u64::from(params.remote_index);
            let path = PathMtu::new(params.remote.is_ipv4(), seed, now);
            shared.set_usable(path.usable(), path.safe());
            Box::new(Owned { opener: Opener::new(params), path, watch: Watch::default() })
        });
        let link = Link {
            peer: params.peer,
            local_index: params.local_index,
            sealer: Sealer::new(params, lane)?,
            splitter: Splitter::new(),
            is_sealed: params.keys.is_some(),
            remote: shared.remote(),
            generation: shared.generation(),
            owned,
            shared,
        };
        self.list.push(link);
        self.index(self.list.len() - 1);
        Ok(self.list.len() - 1)
    }

    pub(crate) fn remove(&mut self, link: LinkId) {
        let Some(place) = self.place_by_link.remove(&link) else {
            return;
        };
        let removed = self.list.swap_remove(place);
        if self.place_by_index.get(&removed.local_index) == Some(&place) {
            self.place_by_index.remove(&removed.local_index);
        }
        if place < self.list.len() {
            self.index(place);
        }
    }

    fn index(&mut self, place: usize) {
        let link = &self.list[place];
        self.place_by_link.insert(link.shared.link, place);
        if link.owned.is_some() {
            self.place_by_index.insert(link.local_index, place);
        }
    }

    pub(crate) fn place(&self, link: LinkId) -> Option<usize> {
        self.place_by_link.get(&link).copied()
    }

    /// The link that datagrams with this receiver index belong to, if this worker receives for it.
    pub(crate) fn place_by_index(&self, local_index: u32) -> Option<usize> {
        self.place_by_index.get(&local_index).copied()
    }

    pub(crate) fn at(&mut self, place: usize) -> Option<&mut Link> {
        self.list.get_mut(place)
    }

    pub(crate) const fn len(&self) -> usize {
        self.list.len()
    }
}

impl Link {
    /// Where datagrams go.
    pub(crate) fn remote(&mut self) -> SocketAddr {
        let generation = self.shared.generation();
        if generation != self.generation {
            self.generation = generation;
            self.remote = self.shared.remote();
        }
        self.remote
    }
}
