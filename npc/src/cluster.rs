//! Objects from the API server of a cluster.
//!
//! A thread of its own follows pods, namespaces and policies, each by a list and a watch from there on. What they say is
//! kept as the last word about each object until the daemon looks. While the server cannot be reached, what is known
//! stays; when it has forgotten where we were, everything is listed again, and what is missing from the list is gone.

mod inbox;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::SyncSender,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use weave_policy::{Change, World};

pub use inbox::Kind;

use crate::{clock, source::Event};
use inbox::{Inbox, ObjectId};

/// How long after a failure we count as not served: by then it has been tried again.
const TROUBLED_FOR: Duration = Duration::from_secs(90);

/// How long a connection may take to come about. While a node starts, what is sent to the API server's Service is lost until
/// kube-proxy has told the kernel where that leads, and only a new connection finds out.
const CONNECT: Duration = Duration::from_secs(3);

/// An API server.
#[derive(Debug)]
pub struct Cluster {
    access: Access,
    node: String,
    mailbox: Option<Arc<Mailbox>>,
}

/// How to get at the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// As every container of the cluster may: by the service account that is mounted, and the environment.
    FromInside,
    /// As a file says.
    File(PathBuf),
}

impl Cluster {
    pub(crate) const fn new(access: Access, node: String) -> Self {
        Self { access, node, mailbox: None }
    }

    /// Begins to follow the objects, from a thread of its own, until nobody listens.
    pub(crate) fn watch(&mut self, events: SyncSender<Event>) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = {
            let _inside = runtime.enter();
            runtime.block_on(client(&self.access))?
        };
        let mailbox = Arc::new(Mailbox::new(events, &self.node));
        self.mailbox = Some(mailbox.clone());
        let follow = move || {
            let followers =
                Kind::ALL.map(|kind| runtime.spawn(watch::follow(kind, client.clone(), mailbox.clone())));
            runtime.block_on(mailbox.closed.notified());
            followers.iter().for_each(tokio::task::JoinHandle::abort);
        };
        thread::Builder::new()
            .name("npc-cluster".to_owned())
            .spawn(follow)
            .context("following the cluster")?;
        Ok(())
    }

    /// What changed since the last call, and the kinds of which not everything has been told with that.
    pub(crate) fn poll(&self, known: &World) -> (Vec<Change>, Vec<Kind>) {
        let nothing = || (Vec::new(), Kind::ALL.to_vec());
        self.mailbox.as_ref().map_or_else(nothing, |mailbox| mailbox.take(known))
    }

    /// The kinds that cannot be followed at present.
    pub(crate) fn troubled(&self) -> Vec<Kind> {
        let now = clock::now();
        let of = |mailbox: &Arc<Mailbox>| {
            let state = mailbox.state();
            let recent = state.troubles.iter().filter(|(_, t)| now.duration_since(t.last) < TROUBLED_FOR);
            recent.map(|(kind, _)| *kind).collect()
        };
        self.mailbox.as_ref().map(of).unwrap_or_default()
    }
}

async fn client(access: &Access) -> anyhow::Result<Client> {
    let mut config = match access {
        Access::FromInside => {
            kube::Config::incluster().context("not in a cluster: say --kubeconfig or --policy-dir")?
        }
        Access::File(path) => {
            let file = read_kubeconfig(path)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("cannot use kubeconfig {}", path.display()))?
        }
    };
    // Whoever follows waits by himself, and says so.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).context("cannot make a client for the API server")
}

fn read_kubeconfig(path: &Path) -> anyhow::Result<Kubeconfig> {
    Kubeconfig::read_from(path).with_context(|| format!("cannot read kubeconfig {}", path.display()))
}

/// Between the thread that follows and the daemon.
#[derive(Debug)]
struct Mailbox {
    state: Mutex<State>,
    events: SyncSender<Event>,
    /// Whether the daemon was told that there is something, and has not looked since.
    is_told: AtomicBool,
    /// The daemon is gone.
    closed: tokio::sync::Notify,
    seed: u64,
}

#[derive(Debug, Default)]
struct State {
    inbox: Inbox,
    /// Kinds that could not be followed when it was last heard of them.
    troubles: BTreeMap<Kind, Trouble>,
}

#[derive(Debug)]
struct Trouble {
    since: Instant,
    /// The last failure.
    last: Instant,
}

impl Mailbox {
    fn new(events: SyncSender<Event>, node: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        node.hash(&mut hasher);
        Self {
            state: Mutex::default(),
            events,
            is_told: AtomicBool::new(false),
            closed: tokio::sync::Notify::new(),
            seed: hasher.finish(),
        }
    }

    /// The state, which no panic can leave half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another number on each host.
    const fn seed(&self) -> u64 {
        self.seed
    }

    fn put(&self, change: Option<Change>) {
        if let Some(change) = change {
            self.state().inbox.put(change);
            self.tell();
        }
    }

    fn put_list(&self, kind: Kind, seen: BTreeSet<ObjectId>) {
        tracing::info!(kind = kind.plural(), objects = seen.len(), "listed");
        self.state().inbox.put_list(kind, seen);
        self.tell();
    }

    /// Wakes the daemon, which may take a while to have room for that.
    fn tell(&self) {
        if !self.is_told.swap(true, Ordering::AcqRel) && self.events.send(Event::News).is_err() {
            self.closed.notify_one();
        }
    }

    fn take(&self, known: &World) -> (Vec<Change>, Vec<Kind>) {
        self.is_told.store(false, Ordering::Release);
        let mut state = self.state();
        let changes = state.inbox.take(known);
        let missing = Kind::ALL.into_iter().filter(|kind| !state.inbox.is_listed(*kind));
        (changes, missing.collect())
    }

    /// Notes whether a kind can be followed; each change of that is logged once.
    fn note_health(&self, kind: Kind, trouble: Option<String>) {
        let now = clock::now();
        let mut state = self.state();
        match (trouble, state.troubles.get_mut(&kind)) {
            (Some(trouble), None) => {
                state.troubles.insert(kind, Trouble { since: now, last: now });
                tracing::warn!(
                    kind = kind.plural(),
                    "the API server does not serve us: {trouble}; what is known stays in force, and it is tried again"
                );
            }
            (Some(trouble), Some(known)) => {
                known.last = now;
                tracing::debug!(kind = kind.plural(), "still not served: {trouble}");
            }
            (None, Some(known)) => {
                let seconds = now.duration_since(known.since).as_secs();
                state.troubles.remove(&kind);
                tracing::info!(kind = kind.plural(), seconds, "the API server serves us again");
            }
            (None, None) => {}
        }
    }
}
