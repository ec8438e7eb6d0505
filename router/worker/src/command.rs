//! How a worker is told something by another thread.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use weave_hostnet::poll::Waker;
use weave_model::LinkId;
use weave_sleeve::LinkParams;

use crate::shared::LinkShared;

/// What a worker can be told.
#[derive(Debug)]
pub(crate) enum Command {
    AddLink(Box<LinkParams>, Arc<LinkShared>),
    RemoveLink(LinkId),
    UpdateRemote(LinkId, SocketAddr),
    /// To the owner: somebody sends on this link again.
    Watch(LinkId),
    /// To the owner: the kernel refused a datagram of this size.
    TooBig(LinkId, usize),
    /// A frame for the bridge, as it came from nobody.
    Deliver(Vec<u8>),
    Stop,
}

/// A worker's queue of commands. Commands come at the rate of topology changes; a worker looks at one flag per round.
#[derive(Debug)]
pub(crate) struct Mailbox {
    commands: Mutex<Vec<Command>>,
    is_full: AtomicBool,
    waker: Waker,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { commands: Mutex::default(), is_full: AtomicBool::new(false), waker: Waker::new()? })
    }

    pub(crate) fn post(&self, command: Command) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        self.is_full.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Takes what was posted, in order. Take back the ring ([`Mailbox::waker`]) before, after every sleep: a command
    /// shows in the flag before it rings.
    pub(crate) fn take(&self) -> Vec<Command> {
        if !self.is_full.load(Ordering::Relaxed) || !self.is_full.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) const fn waker(&self) -> &Waker {
        &self.waker
    }
}
