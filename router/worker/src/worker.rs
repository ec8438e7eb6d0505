//! The loop of one worker.

use std::{
    hash::{BuildHasher, RandomState},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use weave_datapath::UnknownStations;
use weave_hostnet::{poll::wait_readable, tap::Tap, udp::ReceiveBatch, udp::Socket};
use weave_sleeve::{Joiner, Reassembler};

use crate::{
    clock,
    command::Command,
    egress::Drained,
    idle::Rhythm,
    ingress::JOINERS,
    links::Links,
    outbox::Outbox,
    plane::{FRAME_ROOM, Plane},
    shared::Shared,
};

/// How long a TAP that refuses to be read (its interface is down or gone) is left alone.
const BROKEN_PAUSE: Duration = Duration::from_millis(100);

/// One data-plane thread.
pub(crate) struct Worker {
    plane: Plane,
    batch: ReceiveBatch,
    joiners: [Joiner; JOINERS],
    frame: Box<[u8]>,
    rhythm: Rhythm,
    /// Until when the TAP is left alone.
    tap_pause: Option<Instant>,
}

impl Worker {
    pub(crate) fn new(worker: usize, shared: Arc<Shared>, socket: Socket, tap: Tap) -> Self {
        let now = clock::now();
        let forwarding = shared.forwarding.load_full();
        let plane = Plane {
            worker,
            shared,
            socket,
            tap,
            links: Links::default(),
            outbox: Outbox::new(),
            reassembler: Reassembler::new(),
            forwarding,
            relay: Vec::new(),
            unknown: UnknownStations::new(RandomState::new().hash_one(worker), now),
            now,
            due: None,
        };
        Self {
            plane,
            batch: ReceiveBatch::new(),
            joiners: std::array::from_fn(|_| Joiner::new()),
            frame: vec![0; FRAME_ROOM].into_boxed_slice(),
            rhythm: Rhythm::new(now),
            tap_pause: None,
        }
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        loop {
            if self.obey() {
                return;
            }
            let has_worked = self.round();
            let now = clock::now();
            self.plane.now = now;
            self.plane.handle_timeouts();
            self.plane.expire_fragments();
            if has_worked {
                self.rhythm.worked(now);
            } else if self.rhythm.keeps_looking(now) {
                std::thread::yield_now();
            } else {
                self.sleep();
            }
        }
    }

    /// One look at everything that may bring work; returns whether it did.
    fn round(&mut self) -> bool {
        let plane = &mut self.plane;
        let newest = plane.shared.forwarding.load();
        if !Arc::ptr_eq(&newest, &plane.forwarding) {
            plane.forwarding = Arc::clone(&newest);
        }
        drop(newest);
        let received = plane.drain_socket(&mut self.batch, &mut self.joiners);
        plane.flush();
        self.tap_pause.take_if(|until| *until <= plane.now);
        let read = if self.tap_pause.is_none() { plane.drain_tap(&mut self.frame) } else { Drained::Nothing };
        if read == Drained::Broken {
            self.tap_pause = Some(plane.now + BROKEN_PAUSE);
        }
        while let Some(place) = plane.handle_too_big() {
            plane.drive_path(place);
        }
        received != Drained::Nothing || !matches!(read, Drained::Nothing | Drained::Broken)
    }

    /// Blocks until there is something to do.
    fn sleep(&mut self) {
        let now = self.plane.now;
        let timeout = self.plane.next_timeout().into_iter().chain(self.tap_pause).min();
        let timeout = timeout.map(|at| at.saturating_duration_since(now));
        let plane = &self.plane;
        plane.tally().sleeps.add(1);
        let waker = plane.shared.mailboxes[plane.worker].waker();
        let fds = [waker.as_fd(), plane.socket.as_fd(), plane.tap.as_fd()];
        let watched = if self.tap_pause.is_some() { &fds[..2] } else { &fds[..] };
        if wait_readable(watched, timeout).is_err() {
            // Out of kernel memory, if anything: there is nothing better to do than to try again.
            std::thread::yield_now();
        }
        waker.clear();
        self.plane.now = clock::now();
    }

    /// Carries out what was asked; returns whether to stop.
    fn obey(&mut self) -> bool {
        let plane = &mut self.plane;
        // Places in the table of links may change now; nothing waits that refers to them: a round ends with a flush.
        for command in plane.shared.mailboxes[plane.worker].take() {
            match command {
                Command::AddLink(params, link) => {
                    match plane.links.add(&params, link, plane.worker, plane.now) {
                        Ok(place) => plane.drive_path(place),
                        Err(reason) => tracing::error!(link = %params.link, %reason, "link cannot be set up"),
                    }
                }
                Command::RemoveLink(link) => {
                    plane.links.remove(link);
                    plane.due = None;
                }
                Command::UpdateRemote(link, remote) => {
                    if let Some(place) = plane.links.place(link) {
                        plane.redirect(place, remote);
                    }
                }
                Command::Watch(link) => plane.begin_watch(link),
                Command::TooBig(link, size) => plane.handle_too_big_elsewhere(link, size),
                Command::Deliver(frame) => plane.deliver_plain(&frame),
                Command::Stop => return true,
            }
        }
        false
    }
}
