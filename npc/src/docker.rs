//! Pods of a plain Docker host: its containers.
//!
//! A thread of its own follows the engine's events. Each makes it list all containers anew, so that nothing that was missed
//! or misunderstood stays wrong; from time to time it lists them without a reason. While the engine cannot be reached, what
//! is known stays.
//!
//! A container is known before it runs: the engine tells that it joins a network before it starts its first process. Lists
//! have the address only later, so networks are asked for those of containers that do not run.

mod container;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use weave_api::{Client as Router, PsRequest};
use weave_engine::{Engine, EngineError, events::Events};
use weave_policy::Pod;

use crate::source::Event;
use container::{Listed, Network};

/// All containers, whatever they do.
const LIST: &str = "/containers/json?all=1";
/// How often everything is listed without a reason, and the router asked who has which address.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How many events may be read before containers are listed.
const MOST_AT_ONCE: usize = 64;
/// The first pause while the engine is away; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a list that somebody waits for may take. The daemon does nothing else meanwhile.
const LIST_WITHIN: Duration = Duration::from_secs(5);

/// Where containers are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The engine's socket.
    pub engine: PathBuf,
    /// The control socket of a router, which knows the addresses that it gave to containers beside the engine. None need
    /// listen there.
    pub router: PathBuf,
    /// The node on which all containers are said to be; empty is this one, whatever it is called.
    pub node: String,
}

/// An engine.
#[derive(Debug)]
pub struct Docker {
    access: Access,
    mailbox: Option<Arc<Mailbox>>,
}

impl Docker {
    pub(crate) const fn new(access: Access) -> Self {
        Self { access, mailbox: None }
    }

    /// Begins to follow the containers, from a thread of its own, until nobody listens.
    pub(crate) fn watch(&mut self, events: SyncSender<Event>) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mailbox = Arc::new(Mailbox::new(events));
        self.mailbox = Some(mailbox.clone());
        let mut follower = Follower::new(&self.access, mailbox);
        let follow = move || runtime.block_on(follower.follow());
        thread::Builder::new().name("npc-docker".to_owned()).spawn(follow).context("following Docker")?;
        Ok(())
    }

    /// The containers; `None` as long as they were not listed.
    pub(crate) fn pods(&self) -> Option<Vec<Pod>> {
        self.mailbox.as_ref().and_then(|mailbox| mailbox.take())
    }

    /// Waits until everything that the engine knows now is known.
    ///
    /// # Errors
    /// When it does not say so.
    pub(crate) fn catch_up(&self) -> anyhow::Result<()> {
        self.mailbox.as_ref().map_or(Ok(()), |mailbox| mailbox.catch_up())
    }

    /// Whether the engine cannot be followed at present.
    pub(crate) fn is_troubled(&self) -> bool {
        self.mailbox.as_ref().is_some_and(|mailbox| mailbox.state().trouble.is_some())
    }
}

/// Between the thread that follows and the daemon.
#[derive(Debug)]
struct Mailbox {
    state: Mutex<State>,
    /// A list has come, or failed.
    listed: Condvar,
    /// Somebody wants a list.
    wanted: Notify,
    events: SyncSender<Event>,
    /// Whether the daemon was told that there is something, and has not looked since.
    is_told: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// None before the first list.
    pods: Option<Vec<Pod>>,
    /// Why there are no news at present.
    trouble: Option<String>,
    /// The number of the last list that somebody asked for, and of the last that was begun after it was asked for.
    asked: u64,
    answered: u64,
    /// Whether the daemon has not looked since something changed.
    is_unseen: bool,
}

impl State {
    fn learn(&mut self, pods: Vec<Pod>) {
        if self.trouble.take().is_some() {
            tracing::info!("Docker tells of containers again");
        }
        if self.pods.as_ref() != Some(&pods) {
            self.pods = Some(pods);
            self.is_unseen = true;
        }
    }

    fn note_trouble(&mut self, trouble: String) {
        if self.trouble.is_none() {
            tracing::warn!("no news of containers: {trouble}; what is known stays, and it is tried again");
        }
        self.trouble = Some(trouble);
    }
}

impl Mailbox {
    fn new(events: SyncSender<Event>) -> Self {
        Self {
            state: Mutex::default(),
            listed: Condvar::new(),
            wanted: Notify::new(),
            events,
            is_told: AtomicBool::new(false),
        }
    }

    /// The state, which no panic can leave half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Vec<Pod>> {
        self.is_told.store(false, Ordering::Release);
        let mut state = self.state();
        state.is_unseen = false;
        state.pods.clone()
    }

    /// Takes the result of a list in that was begun when `asked` lists had been asked for. Returns whether anybody is
    /// interested still.
    fn put(&self, asked: u64, result: Result<Vec<Pod>, EngineError>) -> bool {
        let mut state = self.state();
        state.answered = asked;
        match result {
            Ok(pods) => state.learn(pods),
            Err(error) => state.note_trouble(error.to_string()),
        }
        let is_unseen = state.is_unseen;
        drop(state);
        self.listed.notify_all();
        !is_unseen || self.tell()
    }

    /// Wakes the daemon. Where its queue is full, the next list will.
    fn tell(&self) -> bool {
        if self.is_told.swap(true, Ordering::AcqRel) {
            return true;
        }
        let sent = self.events.try_send(Event::News);
        if sent.is_err() {
            self.is_told.store(false, Ordering::Release);
        }
        !matches!(sent, Err(TrySendError::Disconnected(_)))
    }

    fn catch_up(&self) -> anyhow::Result<()> {
        let mut state = self.state();
        state.asked += 1;
        let mine = state.asked;
        self.wanted.notify_one();
        let is_waiting = |state: &mut State| state.answered < mine;
        let waited = self.listed.wait_timeout_while(state, LIST_WITHIN, is_waiting);
        let (state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        match &state.trouble {
            Some(trouble) => bail!("no news of containers: {trouble}"),
            None if result.timed_out() => bail!("Docker does not say which containers there are"),
            None => Ok(()),
        }
    }
}

/// What follows an engine.
#[derive(Debug)]
struct Follower {
    engine: Engine,
    router: Router,
    node: String,
    mailbox: Arc<Mailbox>,
    /// Addresses that the router gave to containers.
    attached: BTreeMap<String, Vec<IpAddr>>,
}

impl Follower {
    fn new(access: &Access, mailbox: Arc<Mailbox>) -> Self {
        Self {
            engine: Engine::new(&access.engine),
            router: Router::new(&access.router),
            node: access.node.clone(),
            mailbox,
            attached: BTreeMap::new(),
        }
    }

    /// Tells the mailbox of all containers, as long as somebody looks there.
    async fn follow(&mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let asked = self.mailbox.state().asked;
            // First listen, then look: what changes in between is heard.
            let error = match Events::follow(&self.engine).await {
                Err(error) => error,
                Ok(mut events) => match self.follow_events(&mut events, &mut pause).await {
                    Err(error) => error,
                    Ok(()) => return,
                },
            };
            if !self.mailbox.put(asked, Err(error)) {
                return;
            }
            let _soon_enough = timeout(pause, self.mailbox.wanted.notified()).await;
            // Who asks does not make us spin.
            sleep(FIRST_PAUSE).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Lists at each event; ends well when nobody listens.
    async fn follow_events(&mut self, events: &mut Events, pause: &mut Duration) -> Result<(), EngineError> {
        loop {
            let asked = self.mailbox.state().asked;
            let pods = self.list().await?;
            *pause = FIRST_PAUSE;
            if !self.mailbox.put(asked, Ok(pods)) {
                return Ok(());
            }
            let next = tokio::select! {
                next = timeout(LOOK_EVERY, events.next()) => next,
                () = self.mailbox.wanted.notified() => continue,
            };
            match next {
                Err(_nothing_new) => {}
                Ok(Some(_)) => {
                    // Those that have come with it need no list of their own. A stream that has ended says so again.
                    for _ in 0..MOST_AT_ONCE {
                        let Ok(Some(_)) = timeout(Duration::ZERO, events.next()).await else { break };
                    }
                }
                Ok(None) => return Err(EngineError::Broken("it ended the stream of events".to_owned())),
            }
        }
    }

    /// The addresses of containers that do not run, which they have while they start: only networks know them then.
    async fn starting(&self, listed: &[Listed]) -> Result<BTreeMap<String, Vec<IpAddr>>, EngineError> {
        let idle = listed.iter().filter(|container| !container.runs());
        let names: BTreeSet<&str> = idle.clone().flat_map(Listed::networks).collect();
        let mut found = BTreeMap::<String, Vec<IpAddr>>::new();
        for name in names {
            let network: Network = match self.engine.get(&format!("/networks/{name}")).await {
                // It is gone, and nobody can start in it.
                Err(EngineError::Refused(404, _)) => continue,
                network => network?,
            };
            for container in idle.clone() {
                let addresses = network.addresses_of(&container.id);
                found.entry(container.id.clone()).or_default().extend(addresses);
            }
        }
        Ok(found)
    }

    async fn list(&mut self) -> Result<Vec<Pod>, EngineError> {
        let listed: Vec<Listed> = self.engine.get(LIST).await?;
        let starting = self.starting(&listed).await?;
        // A router that is away has not taken anything back.
        if let Ok(answer) = self.router.call(&PsRequest::default()).await {
            let addresses = |container: weave_api::ContainerReport| {
                let addresses = container.addresses.iter().map(|interface| interface.address()).collect();
                (container.id.as_str().to_owned(), addresses)
            };
            self.attached = answer.containers.into_iter().map(addresses).collect();
        }
        let more = |id: &str| -> Vec<IpAddr> {
            let known = [starting.get(id), self.attached.get(id)];
            known.into_iter().flatten().flatten().copied().collect()
        };
        Ok(listed.into_iter().map(|container| container.pod(&self.node, more)).collect())
    }
}
