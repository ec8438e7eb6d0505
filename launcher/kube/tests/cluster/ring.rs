//! The address space of all routers, as naive as can be: who owns how much, who is alive.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use weave_api::{ApiError, ErrorCode};
use weave_kube::reclaim::Ring;

#[derive(Debug, Default)]
pub(crate) struct Space {
    pub(crate) addresses_by_peer: BTreeMap<String, u128>,
    pub(crate) alive: BTreeSet<String>,
    /// Peers whose space is being taken over right now.
    pub(crate) busy: BTreeSet<String>,
    /// How many take-overs found something.
    pub(crate) taken: usize,
    pub(crate) ready: bool,
}

/// One router's access to it.
#[derive(Debug, Clone)]
pub(crate) struct Router {
    pub(crate) peer: String,
    pub(crate) space: Arc<Mutex<Space>>,
}

impl Ring for Router {
    async fn is_ready(&self) -> Result<bool, ApiError> {
        Ok(self.space.lock().unwrap().ready)
    }

    /// Takes its time, so that two may meet; the ring refuses the second, and whoever is alive is refused.
    async fn take_over(&self, peer: &str) -> Result<u128, ApiError> {
        {
            let mut space = self.space.lock().unwrap();
            if space.alive.contains(peer) {
                return Err(ApiError::new(ErrorCode::PeerAlive, format!("{peer} is alive")));
            }
            if !space.busy.insert(peer.to_owned()) {
                return Err(ApiError::new(ErrorCode::Conflict, format!("{peer} is being taken over")));
            }
        }
        tokio::task::yield_now().await;
        let mut space = self.space.lock().unwrap();
        space.busy.remove(peer);
        let addresses = space.addresses_by_peer.remove(peer).unwrap_or_default();
        space.taken += usize::from(addresses > 0);
        *space.addresses_by_peer.entry(self.peer.clone()).or_default() += addresses;
        Ok(addresses)
    }
}
