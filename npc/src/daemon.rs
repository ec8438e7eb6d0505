//! The loop: news of the source become changes of the kernel, and the kernel is kept as it should be.

mod answers;

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use weave_hostnet::nft::{self, Author, Notice, TableWatch};
use weave_policy::{Change, Compiler, Pod, PodId, Scope, World};

use crate::{
    blocked::Listener,
    clock, control,
    expected::Expected,
    explain::blocked_line,
    kernel::Kernel,
    program::{self, Multicast, TABLE},
    source::{Event, News, Readiness, Source},
    web,
};

/// How many events may wait; a source that cannot be heard is looked at anyway.
const QUEUE: usize = 64;
/// How long after a change established connections are looked through: those on their way in are there by then.
const SETTLE_AFTER: Duration = Duration::from_secs(1);
/// How often that is done again while some connection stays forbidden.
const SETTLE_EVERY: Duration = Duration::from_secs(10);
/// How long one waits before trying again what failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the thread that listens to the kernel waits at a time.
const LISTEN: Duration = Duration::from_secs(60);

/// What the daemon is to do.
#[derive(Debug)]
pub struct Config {
    /// Where objects come from.
    pub source: Source,
    /// Whose pods are isolated here.
    pub scope: Scope,
    /// What happens to multicast.
    pub multicast: Multicast,
    /// Where questions are answered.
    pub socket: PathBuf,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
}

/// The daemon.
#[derive(Debug)]
struct Daemon {
    source: Source,
    scope: Scope,
    world: World,
    /// How much of what the source has to tell is in the world.
    readiness: Readiness,
    compiler: Compiler,
    kernel: Kernel,
    /// Whether what we want is in the kernel, not only what an earlier daemon left there.
    is_in_force: bool,
    /// Whether nobody has made our table yet, not even another version: then isolating is better than waiting.
    is_bare: bool,
    /// Whether it was looked for pods of this node when all pods were known.
    has_looked: bool,
    /// Pods that were announced, and are not known yet.
    expected: Expected,
    /// What the compiler knows of them beyond the world.
    overlay: BTreeMap<PodId, Pod>,
    /// Where they are kept for the next start.
    expected_file: PathBuf,
    blocked: Listener,
    /// Times that something failed at first.
    errors: u64,
    /// Transactions, and how long the last took.
    changes: u64,
    last_change: Duration,
    /// When established connections are to be looked through.
    settle_at: Option<Instant>,
    /// When something that failed is to be tried again.
    retry_at: Option<Instant>,
}

/// Runs until something fails that cannot be tried again. What is in the kernel stays there.
///
/// # Errors
/// At the start only: when objects cannot be read, the kernel refuses, or another daemon runs.
pub fn run(config: Config) -> anyhow::Result<()> {
    let (sender, events) = sync_channel(QUEUE);
    see_bridged_traffic();
    control::listen(&config.socket, sender.clone())?;
    let expected_file = config.socket.with_extension("expected");
    let mut source = config.source;
    // First listen, then look: what changes in between is heard.
    source.watch(sender.clone())?;
    if let Some(address) = config.metrics
        && let Err(error) = web::serve(address, sender.clone())
    {
        tracing::warn!("nobody can scrape metrics: {error:#}");
    }
    let blocked = Listener::default();
    if let Err(error) = blocked.start(sender.clone()) {
        tracing::warn!("blocked connections are neither logged nor counted: {error:#}");
    }
    let kernel = Kernel::new(config.multicast)?;
    watch_table(kernel.author(), sender)?;
    let mut daemon = Daemon {
        source,
        compiler: Compiler::new(config.scope.clone()),
        scope: config.scope,
        world: World::default(),
        readiness: Readiness::nothing(),
        kernel,
        is_in_force: false,
        is_bare: !nft::Session::open()?.has_any_rules(&program::program(config.multicast))?,
        has_looked: false,
        expected: read_expected(&expected_file),
        overlay: BTreeMap::new(),
        blocked,
        errors: 0,
        changes: 0,
        last_change: Duration::ZERO,
        expected_file,
        settle_at: None,
        retry_at: None,
    };
    daemon.compiler.handle_change(Change::Policy(Expected::policy()));
    daemon.start()?;
    daemon.serve(&events);
    Ok(())
}

impl Daemon {
    /// Everything is known before anything is touched: a table that an earlier daemon left stays in force till then, and
    /// then only differences are changed. Where there is none, pods are isolated as soon as it is known who is, before all
    /// those are known whom they may talk to: closed first, open later.
    fn start(&mut self) -> anyhow::Result<()> {
        self.take_in()?;
        match self.readiness {
            Readiness::Everything => {}
            Readiness::Isolation if self.is_bare => {}
            Readiness::Isolation | Readiness::Missing(_) => return Ok(()),
        }
        let delta = self.compiler.poll_delta().unwrap_or_default();
        self.kernel.apply(&delta)?;
        self.is_in_force = true;
        self.settle_soon();
        let elements = self.kernel.facts().len();
        match self.waits_for() {
            None => tracing::info!(elements, "policies are in force"),
            Some(_) => tracing::info!(elements, "pods are isolated as they become known"),
        }
        Ok(())
    }

    /// A wrong node name would leave everything open without a word.
    fn look_for_own_pods(&mut self) {
        if self.has_looked || self.readiness != Readiness::Everything {
            return;
        }
        self.has_looked = true;
        if let Scope::Node(node) = &self.scope
            && !self.world.pods.is_empty()
            && !self.world.pods.values().any(|pod| pod.node == *node)
        {
            tracing::warn!(%node, "no pod is on the node of this name: is it the right one?");
        }
    }

    fn serve(&mut self, events: &Receiver<Event>) {
        loop {
            let deadline = [self.settle_at, self.retry_at].into_iter().flatten().min();
            let patience = deadline.map_or(LISTEN, |at| at.saturating_duration_since(clock::now()));
            match events.recv_timeout(patience) {
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.handle_timeout(clock::now());
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::News => {
                let result = self.refresh();
                self.note("taking news in", result);
            }
            Event::Table(_) if !self.is_in_force => {}
            Event::Table(notices) => match self.kernel.heed(&notices) {
                Ok(true) => self.settle_soon(),
                Ok(false) => {}
                Err(error) => self.note("mending our table", Err(error)),
            },
            Event::Blocked(blocked) => {
                let awaited = self.waits_for();
                let line = self
                    .with_expected(|world, scope| blocked_line(world, scope, awaited.as_deref(), &blocked));
                tracing::warn!("{line}");
            }
            Event::Request(request, reply) => {
                let answer = self.answer(&request);
                // Nobody may be waiting any more.
                let _gone = reply.try_send(answer);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            let recovered = if self.is_in_force { self.kernel.recover() } else { Ok(()) };
            let result = recovered.and_then(|()| self.refresh());
            self.note("trying again", result);
        }
        if self.settle_at.is_some_and(|at| at <= now) {
            self.settle_at = None;
            if let Err(error) = self.kernel.settle() {
                tracing::warn!(
                    "cannot look through established connections: {error:#}; they are judged packet by packet"
                );
            }
            self.settle_at = self.kernel.is_judging().then(|| now + SETTLE_EVERY);
        }
    }

    fn note(&mut self, doing: &'static str, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.errors += 1;
            tracing::error!("{doing}: {error:#}; trying again");
            self.retry_at = Some(clock::now() + RETRY_AFTER);
        }
    }

    /// Brings the kernel up to date with the source.
    fn refresh(&mut self) -> anyhow::Result<()> {
        if !self.is_in_force {
            return self.start();
        }
        let begun = clock::now();
        self.take_in()?;
        if let Some(delta) = self.compiler.poll_delta() {
            tracing::debug!(remove = delta.remove.len(), add = delta.add.len(), "changing the kernel's sets");
            let result = self.kernel.apply(&delta);
            self.changes += 1;
            self.last_change = begun.elapsed();
            self.settle_soon();
            result?;
        }
        Ok(())
    }

    fn take_in(&mut self) -> anyhow::Result<()> {
        let News { changes, readiness } = self.source.poll(&self.world)?;
        self.readiness = readiness;
        for change in changes {
            self.world.apply(change.clone());
            self.compiler.handle_change(change);
        }
        self.take_in_expected();
        self.look_for_own_pods();
        Ok(())
    }

    /// Tells the compiler what follows from pods that are expected.
    fn take_in_expected(&mut self) {
        if self.expected.forget(&self.world, clock::now()) {
            self.keep_expected();
        }
        let overlay = self.expected.overlay(&self.world);
        for id in self.overlay.keys().filter(|id| !overlay.contains_key(*id)) {
            let change =
                self.world.pods.get(id).cloned().map_or_else(|| Change::PodGone(id.clone()), Change::Pod);
            self.compiler.handle_change(change);
        }
        // All of them, as what the source said in between counts less.
        overlay.values().for_each(|pod| self.compiler.handle_change(Change::Pod(pod.clone())));
        self.overlay = overlay;
    }

    /// Keeps the expected pods for the next start. Without that they would be open after it, until they are known.
    fn keep_expected(&self) {
        let draft = self.expected_file.with_extension("draft");
        let kept =
            fs::write(&draft, self.expected.to_text()).and_then(|()| fs::rename(&draft, &self.expected_file));
        if let Err(error) = kept {
            tracing::warn!(file = %self.expected_file.display(), "cannot keep expected pods: {error}");
        }
    }

    fn expect(&mut self, pod: &PodId, addresses: &[IpAddr]) -> anyhow::Result<()> {
        match self.waits_for() {
            _ if self.is_in_force => {}
            Some(kinds) => anyhow::bail!("{kinds} are not known yet"),
            None => anyhow::bail!("the kernel has not taken our table; see the log"),
        }
        self.expected.expect(pod.clone(), addresses.to_vec(), clock::now())?;
        self.keep_expected();
        self.refresh()?;
        anyhow::ensure!(self.retry_at.is_none(), "the kernel is not up to date; see the log");
        Ok(())
    }

    fn settle_soon(&mut self) {
        if self.kernel.is_judging() {
            self.settle_at = Some(clock::now() + SETTLE_AFTER);
        }
    }
}

fn read_expected(file: &Path) -> Expected {
    let read = || Expected::from_text(&fs::read_to_string(file)?, clock::now());
    read().unwrap_or_else(|error| {
        let is_first =
            error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::NotFound);
        if !is_first {
            tracing::warn!(file = %file.display(), "cannot read which pods are expected: {error:#}");
        }
        Expected::default()
    })
}

/// Tells of changes to our table by others than `us`, from a thread of its own.
fn watch_table(us: Author, events: SyncSender<Event>) -> anyhow::Result<()> {
    let watch = TableWatch::new(TABLE)?;
    let listen = move || {
        loop {
            let notices: Vec<Notice> = match watch.wait(LISTEN) {
                Ok(notices) => notices.into_iter().filter(|n| *n != Notice::ChangedBy(us)).collect(),
                Err(error) => {
                    tracing::error!("cannot hear of changes to our table any more: {error}");
                    return;
                }
            };
            if !notices.is_empty() && events.send(Event::Table(notices)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("npc-table".to_owned()).spawn(listen).context("listening to nftables")?;
    Ok(())
}

/// Has the kernel show frames that pass a bridge to the hooks of IP, where we are.
fn see_bridged_traffic() {
    for family in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        let path = Path::new("/proc/sys/net/bridge").join(family);
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == "1" => {}
            Ok(_) => match fs::write(&path, "1") {
                Ok(()) => {
                    tracing::info!(setting = family, "set to 1, so that traffic through bridges is filtered")
                }
                Err(error) => tracing::warn!(setting = family, "must be 1, and cannot be set: {error}"),
            },
            Err(_) => tracing::warn!(
                "traffic between pods of one bridge is not filtered: load the kernel module br_netfilter"
            ),
        }
    }
}
