//! The handle on all workers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use weave_datapath::Forwarding;
use weave_hostnet::udp::Socket;
use weave_model::LinkId;
use weave_sleeve::{LinkParams, MAX_LANES};

use crate::{
    command::{Command, Mailbox},
    config::WorkersConfig,
    counters::{Counters, Tally},
    shared::{LinkShared, Shared},
    udp_sender::UdpSender,
    worker::Worker,
};

/// Stack of a worker, bytes. Nothing it calls recurses.
const STACK_SIZE: usize = 256 << 10;

/// The data plane of a router. Dropping it stops the threads.
pub struct Workers {
    shared: Arc<Shared>,
    /// By link, for those who want to know about them.
    links: Mutex<BTreeMap<LinkId, Arc<LinkShared>>>,
    sender: Socket,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts one thread for each socket and TAP queue.
    ///
    /// # Errors
    /// When the numbers of sockets and queues differ or are none or too many, or the system is out of descriptors or
    /// threads.
    pub fn start(config: WorkersConfig) -> anyhow::Result<Self> {
        let WorkersConfig { local, sockets, taps, quic, events } = config;
        let count = sockets.len();
        ensure!(count == taps.len(), "{count} sockets and {} TAP queues given for the workers", taps.len());
        ensure!((1..=MAX_LANES).contains(&count), "{count} workers asked for; 1 to {MAX_LANES} are possible");
        let mailboxes = (0..count).map(|_| Mailbox::new()).collect::<Result<_, _>>();
        let shared = Arc::new(Shared {
            local,
            forwarding: ArcSwap::from_pointee(Forwarding::new(local)),
            quic,
            events,
            tallies: (0..count).map(|_| Tally::default()).collect(),
            mailboxes: mailboxes.context("while making the workers' wake-ups")?,
        });
        let sender = sockets[0].try_clone().context("while cloning the data-plane socket")?;
        let mut workers = Self { shared, links: Mutex::default(), sender, threads: Vec::new() };
        for (number, (socket, tap)) in sockets.into_iter().zip(taps).enumerate() {
            let worker = Worker::new(number, Arc::clone(&workers.shared), socket, tap);
            let thread = std::thread::Builder::new()
                .name(format!("weave-worker-{number}"))
                .stack_size(STACK_SIZE)
                .spawn(move || worker.run())
                .with_context(|| format!("while starting worker {number}"))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Decides about frames by this snapshot from now on.
    pub fn publish(&self, forwarding: Arc<Forwarding>) {
        self.shared.forwarding.store(forwarding);
    }

    /// Begins to probe, send and receive on a link; one of the same number is replaced. The keys are fresh: never those
    /// of a link that was added before.
    pub fn add_link(&self, params: LinkParams) {
        let link = Arc::new(LinkShared::new(&params, self.shared.mailboxes.len()));
        self.lock().insert(params.link, Arc::clone(&link));
        // The owner first: it fills in what the others rely on.
        let owner = link.owner;
        let others = (0..self.shared.mailboxes.len()).filter(|worker| *worker != owner);
        for worker in std::iter::once(owner).chain(others) {
            let command = Command::AddLink(Box::new(params.clone()), Arc::clone(&link));
            self.shared.mailboxes[worker].post(command);
        }
    }

    /// Sends to another address from now on. An encrypted link finds that out by itself when the peer sends first.
    pub fn update_remote(&self, link: LinkId, remote: SocketAddr) {
        if let Some(owner) = self.lock().get(&link).map(|link| link.owner) {
            self.shared.mailboxes[owner].post(Command::UpdateRemote(link, remote));
        }
    }

    /// Forgets a link and its keys.
    pub fn remove_link(&self, link: LinkId) {
        self.lock().remove(&link);
        for mailbox in &self.shared.mailboxes {
            mailbox.post(Command::RemoveLink(link));
        }
    }

    /// Gives a frame of the router's own to the bridge, which delivers it to the containers of this host: nothing goes
    /// on to other hosts from the workers' port.
    pub fn deliver(&self, frame: Vec<u8>) {
        self.shared.mailboxes[0].post(Command::Deliver(frame));
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        for tally in &self.shared.tallies {
            counters.add(tally);
        }
        counters.links = self.lock().iter().map(|(id, link)| (*id, link.counters())).collect();
        counters
    }

    /// A handle for sending QUIC's datagrams on the same port.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn udp_sender(&self) -> std::io::Result<UdpSender> {
        self.sender.try_clone().map(UdpSender::new)
    }

    /// Stops the threads and waits for them. The TAP disappears with them, unless others hold it.
    pub fn stop(self) {}

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LinkId, Arc<LinkShared>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for mailbox in &self.shared.mailboxes {
            mailbox.post(Command::Stop);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a data-plane thread panicked");
            }
        }
    }
}
