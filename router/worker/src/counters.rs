//! Counters: written by one worker each without locked instructions, read by anybody.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use weave_datapath::DropReason;
use weave_model::LinkId;
use weave_sleeve::{Discard, Sealer};

/// A number that one thread adds to.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

/// What one worker counts. Aligned so that two workers never write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Tally {
    pub(crate) frames_read: Counter,
    pub(crate) bytes_read: Counter,
    pub(crate) frames_written: Counter,
    pub(crate) bytes_written: Counter,
    pub(crate) quic_datagrams: Counter,
    pub(crate) sleeps: Counter,
    pub(crate) rekeys: Counter,
    pub(crate) discards: [Counter; Discard::ALL.len()],
    pub(crate) drops: [Counter; DropReason::ALL.len()],
}

/// What one worker counts for one link.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct LaneTally {
    pub(crate) sent_datagrams: Counter,
    pub(crate) sent_bytes: Counter,
    /// Datagrams with frames in them: neither probes nor answers.
    pub(crate) sent_frames: Counter,
    /// Datagrams longer than every path carries: what a black hole would swallow.
    pub(crate) sent_large: Counter,
    pub(crate) received_datagrams: Counter,
    pub(crate) received_bytes: Counter,
}

/// The sum over all workers at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames and bursts from the local bridge. A burst of up to 64 KiB counts as one.
    pub frames_read: u64,
    /// Bytes of these, Ethernet headers included.
    pub bytes_read: u64,
    /// Frames and bursts to the local bridge.
    pub frames_written: u64,
    /// Bytes of these.
    pub bytes_written: u64,
    /// Datagrams handed on to QUIC.
    pub quic_datagrams: u64,
    /// Times that a worker had nothing to do and went to sleep.
    pub sleeps: u64,
    /// Keys of sending lanes left behind for new ones, over all links.
    pub rekeys: u64,
    /// Frames and datagrams thrown away, by reason; all reasons are listed. Reasons of the forwarding decision and of
    /// the sleeve have different words.
    pub drops: BTreeMap<&'static str, u64>,
    /// By link.
    pub links: BTreeMap<LinkId, LinkCounters>,
}

/// One link at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkCounters {
    /// Where datagrams go.
    pub remote: SocketAddr,
    /// Datagrams sent, probes included.
    pub sent_datagrams: u64,
    /// Bytes of UDP payload sent.
    pub sent_bytes: u64,
    /// Authentic datagrams received.
    pub received_datagrams: u64,
    /// Bytes of UDP payload of these.
    pub received_bytes: u64,
    /// Whether probes are answered.
    pub is_up: bool,
    /// The overlay's MTU over this link.
    pub mtu: u16,
    /// Smoothed time there and back.
    pub rtt: Option<Duration>,
}

impl Counter {
    /// Adds; only one thread may. A plain load and store, which costs nothing.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    pub(crate) fn discard(&self, reason: Discard) {
        self.discard_many(reason, 1);
    }

    pub(crate) fn discard_many(&self, reason: Discard, n: u64) {
        self.discards[reason.index()].add(n);
    }

    /// Takes over what a sealer has counted; mostly nothing.
    pub(crate) fn rekey(&self, sealer: &mut Sealer) {
        match sealer.take_rekeys() {
            0 => {}
            n => self.rekeys.add(n),
        }
    }

    pub(crate) fn drop(&self, reason: DropReason) {
        self.drops[reason.index()].add(1);
    }
}

impl Counters {
    pub(crate) fn add(&mut self, tally: &Tally) {
        self.frames_read += tally.frames_read.load();
        self.bytes_read += tally.bytes_read.load();
        self.frames_written += tally.frames_written.load();
        self.bytes_written += tally.bytes_written.load();
        self.quic_datagrams += tally.quic_datagrams.load();
        self.sleeps += tally.sleeps.load();
        self.rekeys += tally.rekeys.load();
        for reason in Discard::ALL {
            *self.drops.entry(reason.label()).or_default() += tally.discards[reason.index()].load();
        }
        for reason in DropReason::ALL {
            *self.drops.entry(reason.label()).or_default() += tally.drops[reason.index()].load();
        }
    }
}
