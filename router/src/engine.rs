//! The one task that owns the node: inputs in, outputs carried out in order.
//!
//! 1. Take what is waiting: link events, data-plane events, requests, the node's own deadline. At most
//!    [`MAX_INPUTS`] at a time, so that no source starves the others.
//! 2. Drain the node's outputs.
//! 3. If any of them is to be kept, write and flush the store, once for all, before any other output is acted on.
//!    An acknowledgement therefore never leaves before what it rests on is on disk.
//! 4. Carry the outputs out in order. None of this waits for the network: messages go to the outbox of their link.

mod counters;
mod links;
mod waiting;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};
use weave_api::ApiError;
use weave_datapath::Plan;
use weave_ipam::{Reply, RequestId};
use weave_mesh::{DialId, Overlay, OverlayKind};
use weave_model::{LinkId, PeerName};
use weave_node::{Node, Output};
use weave_worker::{WorkerEvent, Workers};

pub(crate) use self::counters::{ByWords, Counters, WAIT_BUCKETS};
use self::{links::LiveLink, waiting::Waiting};
use crate::{
    app::Ending,
    clock,
    fastdp::{Fastdp, KeyInUse, Vouch},
    labels::with_nicknames,
    mark::MarkFile,
    ops,
    quic::link::{LinkEvent, Linker},
    store::{Change, Part, Store},
};

/// Inputs taken before outputs are carried out and other sources get their turn.
const MAX_INPUTS: usize = 64;

/// What the engine is made of.
pub(crate) struct Parts {
    pub(crate) node: Node,
    pub(crate) store: Store,
    pub(crate) mark: MarkFile,
    pub(crate) workers: Workers,
    pub(crate) linker: Arc<Linker>,
    pub(crate) names: Arc<ArcSwap<weave_names::Snapshot>>,
    pub(crate) fastdp: Fastdp,
    pub(crate) plans: watch::Sender<Arc<Plan>>,
    pub(crate) mtu: watch::Sender<Option<u16>>,
}

/// Where the engine's inputs come from.
pub(crate) struct Sources {
    pub(crate) links: mpsc::Receiver<LinkEvent>,
    pub(crate) workers: mpsc::UnboundedReceiver<WorkerEvent>,
    pub(crate) fastdp: mpsc::UnboundedReceiver<Vouch>,
    pub(crate) tasks: mpsc::Receiver<Task>,
}

/// Something to be done with the engine's state, by whoever needs it; see [`Handle`].
type Task = Box<dyn FnOnce(&mut Engine, Instant) + Send>;

/// The daemon's state and everything that it acts through.
pub(crate) struct Engine {
    pub(crate) node: Node,
    pub(crate) workers: Workers,
    pub(crate) counters: Counters,
    store: Store,
    mark: MarkFile,
    linker: Arc<Linker>,
    names: Arc<ArcSwap<weave_names::Snapshot>>,
    fastdp: Fastdp,
    plans: watch::Sender<Arc<Plan>>,
    mtu: watch::Sender<Option<u16>>,
    links: BTreeMap<LinkId, LiveLink>,
    dials: BTreeMap<DialId, AbortHandle>,
    /// Who waits for the ring, and since when.
    requests: BTreeMap<RequestId, (oneshot::Sender<Result<Reply, ApiError>>, Instant)>,
    next_request: u64,
    waiting: Waiting,
}

/// Lets other tasks work with the engine's state, one at a time.
#[derive(Clone)]
pub(crate) struct Handle(mpsc::Sender<Task>);

/// The engine has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

impl Handle {
    /// A handle and the end that the engine reads. 256 tasks may wait; who sends more waits.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Task>) {
        let (sender, receiver) = mpsc::channel(256);
        (Self(sender), receiver)
    }

    /// Runs `work` on the engine and gives its result, after everything that it made durable is on disk.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine, Instant) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (sender, receiver) = oneshot::channel();
        let task: Task = Box::new(move |engine, now| {
            // Nobody waits any more: the work is done all the same.
            let _ = sender.send(work(engine, now));
        });
        self.0.send(task).await.map_err(|_| Stopped)?;
        receiver.await.map_err(|_| Stopped)
    }

    /// Asks the ring for something and waits for its answer. When the caller stops waiting, the request is withdrawn.
    pub(crate) async fn ask_ring(
        &self,
        ask: impl FnOnce(&mut Node, RequestId, Instant) + Send + 'static,
    ) -> Result<Result<Reply, ApiError>, Stopped> {
        let (id, receiver) = self.run(move |engine, now| engine.ask_ring(ask, now)).await?;
        let mut guard = Withdraw { handle: self.clone(), id: Some(id) };
        let answer = receiver.await;
        guard.id = None;
        answer.map_err(|_| Stopped)
    }
}

/// Cancels a request when it is dropped before the answer came.
struct Withdraw {
    handle: Handle,
    id: Option<RequestId>,
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let sender = self.handle.0.clone();
            tokio::spawn(async move {
                let cancel: Task = Box::new(move |engine, now| engine.cancel(id, now));
                // A stopped engine has nothing to cancel.
                let _ = sender.send(cancel).await;
            });
        }
    }
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            node: parts.node,
            workers: parts.workers,
            counters: Counters::default(),
            store: parts.store,
            mark: parts.mark,
            linker: parts.linker,
            names: parts.names,
            fastdp: parts.fastdp,
            plans: parts.plans,
            mtu: parts.mtu,
            links: BTreeMap::new(),
            dials: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 1,
            waiting: Waiting::default(),
        }
    }

    /// Runs until `stop` completes or something fails that cannot be lived with, which is only the store.
    pub(crate) async fn run(
        mut self,
        mut sources: Sources,
        stop: impl Future<Output = Ending>,
    ) -> anyhow::Result<()> {
        tokio::pin!(stop);
        self.carry_out()?;
        let ending = loop {
            let deadline = self.node.poll_timeout();
            tokio::select! {
                biased;
                ending = &mut stop => break ending,
                () = sleep_until(deadline.map(|(at, _)| at)) => self.node.handle_timeout(clock::now()),
                Some(event) = sources.workers.recv() => self.on_worker(event),
                Some(vouch) = sources.fastdp.recv() => self.on_vouch(vouch),
                Some(event) = sources.links.recv() => self.on_link(event),
                Some(task) = sources.tasks.recv() => task(&mut self, clock::now()),
            }
            for _ in 1..MAX_INPUTS {
                if !self.take_waiting(&mut sources) {
                    break;
                }
            }
            self.carry_out()?;
            self.tell_waiting();
        };
        self.close_all(ending);
        Ok(())
    }

    fn tell_waiting(&mut self) {
        let ipam = self.node.ipam();
        let reason = || Some(with_nicknames(&ipam?.waiting_for()?.to_string(), ipam));
        self.waiting.look(!self.requests.is_empty(), clock::now(), reason);
    }

    /// Takes one input of each kind if any is waiting; tells whether there was one.
    fn take_waiting(&mut self, sources: &mut Sources) -> bool {
        let mut any = false;
        if let Ok(event) = sources.workers.try_recv() {
            self.on_worker(event);
            any = true;
        }
        if let Ok(vouch) = sources.fastdp.try_recv() {
            self.on_vouch(vouch);
            any = true;
        }
        if let Ok(event) = sources.links.try_recv() {
            self.on_link(event);
            any = true;
        }
        if let Ok(task) = sources.tasks.try_recv() {
            task(self, clock::now());
            any = true;
        }
        any
    }

    /// With which key the kernel encrypts what leaves for a peer, if it does.
    pub(crate) fn key_of(&self, peer: PeerName) -> Option<KeyInUse> {
        self.links_to(peer).find_map(|link| self.fastdp.key_of(link))
    }

    /// How often such a key was changed.
    pub(crate) fn key_changes(&self) -> u64 {
        self.fastdp.key_changes()
    }

    /// Heartbeats of the kernel's paths: sent, and heard.
    pub(crate) fn heartbeats(&self) -> (u64, u64) {
        self.fastdp.heartbeats()
    }

    fn ask_ring(
        &mut self,
        ask: impl FnOnce(&mut Node, RequestId, Instant),
        now: Instant,
    ) -> (RequestId, oneshot::Receiver<Result<Reply, ApiError>>) {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let (sender, receiver) = oneshot::channel();
        self.requests.insert(id, (sender, now));
        ask(&mut self.node, id, now);
        (id, receiver)
    }

    fn cancel(&mut self, id: RequestId, now: Instant) {
        self.requests.remove(&id);
        self.node.cancel(id, now);
    }

    fn on_worker(&mut self, event: WorkerEvent) {
        let now = clock::now();
        let is_turn = !matches!(event, WorkerEvent::LinkMtu { .. });
        let (link, up, mtu, rtt) = match event {
            WorkerEvent::LinkUp { link, mtu, rtt } => (link, true, mtu, rtt),
            WorkerEvent::LinkMtu { link, mtu } => {
                let rtt = self.links.get(&link).map(LiveLink::rtt).unwrap_or_default();
                (link, true, mtu, rtt)
            }
            WorkerEvent::LinkDown { link, reason } => {
                tracing::warn!(%link, %reason, "data path lost");
                (link, false, 0, std::time::Duration::ZERO)
            }
            WorkerEvent::LinkMoved { link, remote } => {
                tracing::info!(%link, %remote, "the other end has a new address");
                return;
            }
        };
        if self.links.contains_key(&link) {
            if is_turn {
                self.counters.turn("sleeve", if up { "up" } else { "down" });
            }
            self.node.handle_overlay(link, Overlay { kind: OverlayKind::Sleeve, up, mtu, rtt }, now);
        }
    }

    /// Carries out everything that the node wants done.
    fn carry_out(&mut self) -> anyhow::Result<()> {
        loop {
            let outputs: Vec<Output> = std::iter::from_fn(|| self.node.poll_output()).collect();
            if outputs.is_empty() {
                return Ok(());
            }
            self.keep(&outputs)?;
            for output in outputs {
                self.act(output);
            }
        }
    }

    /// Makes durable what has to be, in one flush.
    fn keep(&mut self, outputs: &[Output]) -> anyhow::Result<()> {
        let mut changes = Vec::new();
        for output in outputs {
            if let Output::Persist(writes) = output {
                changes.extend(writes.iter().map(|write| Change {
                    part: Part::Ipam,
                    key: write.key.clone(),
                    value: write.value.clone(),
                }));
            } else if let Output::Incarnation(incarnation) = output {
                changes.push(Change {
                    part: Part::Router,
                    key: crate::identity::INCARNATION.as_bytes().to_vec(),
                    value: Some(incarnation.to_le_bytes().to_vec()),
                });
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        tokio::task::block_in_place(|| self.store.write(&changes)).context(
            "cannot keep the state; stopping, so that nothing is acknowledged that could be forgotten",
        )?;
        if let Some(mark) = self.node.store_mark() {
            self.mark.write(mark);
        }
        Ok(())
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Transmit { link, bytes } => self.transmit(link, bytes),
            Output::Dial { dial, target } => self.dial(dial, target),
            Output::AbandonDial { dial } => self.abandon(dial),
            Output::CloseLink { link, reason } => self.close(link, &reason.to_string()),
            Output::LinkAdopted { link, .. } => self.adopt(link),
            Output::Persist(_) => {}
            Output::Incarnation(incarnation) => self.linker.set_incarnation(incarnation),
            Output::Reply { request, result } => {
                self.counters.answer(&result);
                if let Some((waiting, since)) = self.requests.remove(&request) {
                    self.counters.ring_waits.record(clock::now().saturating_duration_since(since));
                    let ipam = self.node.ipam();
                    let result = result.map_err(|refusal| ops::explain_refusal(&refusal, ipam));
                    // Who stopped waiting has withdrawn the request, or is about to.
                    let _ = waiting.send(result);
                }
            }
            Output::Forwarding(forwarding) => self.workers.publish(forwarding),
            Output::Plan(plan) => {
                self.plans.send_replace(plan);
            }
            Output::Mtu(mtu) => {
                tracing::info!(mtu, "the paths carry packets of this size");
                self.mtu.send_replace(Some(mtu));
            }
            Output::Names(snapshot) => self.names.store(snapshot),
            Output::PeerJoined { peer, nickname } => {
                self.counters.joined += 1;
                tracing::info!(%peer, nickname, "peer joined");
            }
            Output::PeerLeft { peer } => {
                self.counters.left += 1;
                tracing::info!(%peer, "peer left");
            }
            Output::Refused(refused) => {
                self.counters.refused_inputs += 1;
                tracing::warn!(peer = %refused.peer, what = refused.what, why = refused.why, "refused");
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
