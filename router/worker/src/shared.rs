//! What all workers, and the handle on them, look at together.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use weave_datapath::Forwarding;
use weave_model::{LinkId, PeerName};
use weave_sleeve::{LinkParams, TAG_LEN, overlay_mtu};

use crate::{
    command::Mailbox,
    config::{EventSink, QuicSink},
    counters::{LaneTally, LinkCounters, Tally},
};

/// Everything that belongs to no worker alone.
pub(crate) struct Shared {
    pub(crate) local: PeerName,
    pub(crate) forwarding: ArcSwap<Forwarding>,
    pub(crate) quic: QuicSink,
    pub(crate) events: EventSink,
    /// One for each worker.
    pub(crate) tallies: Vec<Tally>,
    /// One for each worker.
    pub(crate) mailboxes: Vec<Mailbox>,
}

/// The state of a link that its owner (the worker that receives for it) tells the others.
#[derive(Debug)]
pub(crate) struct LinkShared {
    pub(crate) link: LinkId,
    /// The worker that receives for it.
    pub(crate) owner: usize,
    pub(crate) tag_len: usize,
    remote: Mutex<SocketAddr>,
    /// Changes whenever `remote` does, so that a look at it costs no lock.
    generation: AtomicU32,
    /// Longest datagram, bytes of UDP payload.
    usable: AtomicU32,
    /// Longest datagram that every path carries.
    safe: AtomicU32,
    /// Microseconds, 0: unknown.
    rtt: AtomicU32,
    is_up: AtomicBool,
    /// The owner looks at the traffic about once a second, because there is some.
    is_watched: AtomicBool,
    /// One for each worker.
    pub(crate) lanes: Vec<LaneTally>,
}

impl Shared {
    pub(crate) fn tally(&self, worker: usize) -> &Tally {
        &self.tallies[worker]
    }
}

impl LinkShared {
    pub(crate) fn new(params: &LinkParams, workers: usize) -> Self {
        Self {
            link: params.link,
            owner: params.local_index as usize % workers,
            tag_len: if params.keys.is_some() { TAG_LEN } else { 0 },
            remote: Mutex::new(params.remote),
            generation: AtomicU32::new(0),
            usable: AtomicU32::new(0),
            safe: AtomicU32::new(0),
            rtt: AtomicU32::new(0),
            is_up: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
            lanes: (0..workers).map(|_| LaneTally::default()).collect(),
        }
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        *self.lock()
    }

    /// Sends datagrams elsewhere from now on; returns whether that is news.
    pub(crate) fn set_remote(&self, remote: SocketAddr) -> bool {
        let mut current = self.lock();
        let is_new = *current != remote;
        if is_new {
            *current = remote;
            self.generation.fetch_add(1, Ordering::Release);
        }
        is_new
    }

    pub(crate) fn usable(&self) -> usize {
        self.usable.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn safe(&self) -> usize {
        self.safe.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn set_usable(&self, usable: usize, safe: usize) {
        self.usable.store(usable as u32, Ordering::Relaxed);
        self.safe.store(safe as u32, Ordering::Relaxed);
    }

    pub(crate) fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Ordering::Relaxed);
    }

    pub(crate) fn set_rtt(&self, rtt: Duration) {
        let micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        self.rtt.store(micros.max(1), Ordering::Relaxed);
    }

    /// Called after sending: whether the owner must be told that there is traffic again.
    pub(crate) fn begin_watch(&self) -> bool {
        !self.is_watched.load(Ordering::SeqCst) && !self.is_watched.swap(true, Ordering::SeqCst)
    }

    /// Called by the owner when a second went by without traffic. Look at the counters once more afterwards: who sent
    /// in between relied on being watched.
    pub(crate) fn end_watch(&self) {
        self.is_watched.store(false, Ordering::SeqCst);
    }

    /// Datagrams with frames sent, long ones among them, and all received, by all workers since the link was added.
    pub(crate) fn traffic(&self) -> (u64, u64, u64) {
        let sum = |pick: fn(&LaneTally) -> u64| self.lanes.iter().map(pick).sum();
        let sent = sum(|lane| lane.sent_frames.load());
        (sent, sum(|lane| lane.sent_large.load()), sum(|lane| lane.received_datagrams.load()))
    }

    pub(crate) fn counters(&self) -> LinkCounters {
        let sum = |pick: fn(&LaneTally) -> u64| self.lanes.iter().map(pick).sum();
        let rtt = self.rtt.load(Ordering::Relaxed);
        LinkCounters {
            remote: self.remote(),
            sent_datagrams: sum(|lane| lane.sent_datagrams.load()),
            sent_bytes: sum(|lane| lane.sent_bytes.load()),
            received_datagrams: sum(|lane| lane.received_datagrams.load()),
            received_bytes: sum(|lane| lane.received_bytes.load()),
            is_up: self.is_up.load(Ordering::Relaxed),
            mtu: overlay_mtu(self.usable(), self.tag_len),
            rtt: (rtt > 0).then(|| Duration::from_micros(rtt.into())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, SocketAddr> {
        // An address is valid whatever happened to the thread that wrote it.
        self.remote.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
