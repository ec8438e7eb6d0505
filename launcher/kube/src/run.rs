//! The life of a node's router: started, followed, ended.

use std::{
    collections::BTreeSet,
    pin::pin,
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::{
    ResourceExt as _,
    api::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use rustix::process::{Pid, kill_process};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    time::{sleep, timeout},
};
use weave_api::{Client, ConnectRequest, ErrorCode, ExposeRequest, NetworkRequest, ReadyRequest};

pub use crate::settings::Settings;
use crate::{
    cluster::Cluster,
    lock::{self, Lock},
    peers::{Cache, Nodes},
    reclaim::reclaim,
    roster::{Member, Roster},
    settings::WITHOUT_MEANING,
};

/// Pause between two questions at the start, where everything waits for the answer.
const SOON: Duration = Duration::from_secs(1);

/// The pause after which what failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How often everything is looked at even when nothing was heard.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// The pause before everything is listed anew.
const WATCH_ANEW: Duration = Duration::from_secs(1);

/// News that come together are looked at together.
const GATHER: Duration = Duration::from_secs(2);

/// What a node knows of itself.
struct Here {
    settings: Settings,
    own: Member,
    cache: Cache,
    router: Client,
    cluster: Cluster,
}

/// Starts the router and follows the cluster until the router ends. Returns the router's own exit code.
///
/// # Errors
/// When the router cannot be started: no program, no name, nobody to connect to on a first start without API server.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    for (variable, why) in WITHOUT_MEANING {
        if std::env::var_os(variable).is_some_and(|value| !value.is_empty()) {
            tracing::info!("{variable} is not needed: {why}");
        }
    }
    // From the first moment: process 1 of a container is deaf to what it has not asked to hear.
    let mut signals = Signals::new()?;
    let here = Arc::new(Here::find(settings).await?);
    let nodes = tokio::select! {
        nodes = here.nodes_at_start() => nodes?,
        () = signals.told_to_end() => return Ok(ExitCode::SUCCESS),
    };
    here.register().await;
    let mut child = here.start(&nodes)?;
    let follower = tokio::spawn(Arc::clone(&here).follow());
    let ended = wait(&mut child, &mut signals).await;
    follower.abort();
    ended
}

/// Whether the router serves pods; or only, with `alive`, whether it answers.
///
/// # Errors
/// When it does not, with the reason.
pub async fn probe(settings: &Settings, alive: bool) -> anyhow::Result<()> {
    let network = router_of(settings)?.call(&NetworkRequest {}).await?;
    anyhow::ensure!(
        alive || network.ipam_status.is_none() || !network.exposed.is_empty(),
        "the host has no address yet: address allocation is {}",
        network.ipam_status.as_deref().unwrap_or("switched off")
    );
    Ok(())
}

fn router_of(settings: &Settings) -> anyhow::Result<Client> {
    let address = std::env::var_os("WEAVE_HTTP_ADDR").and_then(|address| address.into_string().ok());
    Ok(Client::new(weave_api::socket_path(&settings.run_dir, address.as_deref())?))
}

impl Here {
    async fn find(settings: Settings) -> anyhow::Result<Self> {
        let asked = Command::new(&settings.weaver)
            .args(settings.storage_arguments())
            .arg("--print-peer-name")
            .stderr(Stdio::inherit())
            .output();
        let output = asked.await.with_context(|| format!("cannot run {}", settings.weaver.display()))?;
        anyhow::ensure!(output.status.success(), "{} does not say its name", settings.weaver.display());
        let peer_name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let own = Member { peer_name, node_name: settings.node()?.to_owned() };
        let cluster = match &settings.kubeconfig {
            Some(file) => Cluster::from_file(file, &settings.namespace).await?,
            None => Cluster::from_inside(&settings.namespace)?,
        };
        let cache = Cache::new(settings.beside_store("-nodes.json"));
        let router = router_of(&settings)?;
        Ok(Self { settings, own, cache, router, cluster })
    }

    /// The nodes now, or those of the last time when the API server does not answer.
    async fn nodes_at_start(&self) -> anyhow::Result<Nodes> {
        let asking = async {
            loop {
                match self.cluster.nodes().await {
                    Ok(nodes) => break nodes,
                    Err(error) => tracing::warn!("{error:#}"),
                }
                sleep(SOON).await;
            }
        };
        let patience = Duration::from_secs(self.settings.api_patience);
        if let Ok(nodes) = timeout(patience, asking).await {
            self.cache.write(&nodes)?;
            return Ok(nodes);
        }
        if let Some(nodes) = self.cache.read() {
            tracing::warn!(
                nodes = nodes.len(),
                "the API server does not answer; the nodes are those of the last time"
            );
            return Ok(nodes);
        }
        anyhow::ensure!(
            !self.settings.named_peers().is_empty(),
            "the API server does not answer, and this node has no list of an earlier time; KUBE_PEERS would do instead"
        );
        Ok(Nodes::default())
    }

    /// Enters our router into the shared list. When it had been in and is not any more, others may have our space:
    /// then the router must not trust its store before it has asked them, which the mark of this boot would let it.
    async fn register(&self) {
        let known = self.settings.beside_store("-registered");
        let was_known = std::fs::read_to_string(&known).is_ok_and(|text| text == self.own.peer_name);
        let roster = Roster::read(&self.cluster).await;
        let is_known = roster.as_ref().is_ok_and(|roster| roster.peers.contains(&self.own));
        if was_known && !is_known {
            tracing::warn!(
                "this router is not in the shared list any more, or nobody can tell: it asks the others first"
            );
            let _absent = std::fs::remove_file(self.settings.run_dir.join("ring-mark"));
        }
        if roster.is_ok() {
            self.enter().await;
        }
    }

    async fn enter(&self) {
        let entered = async {
            Roster::add(&self.cluster, &self.own).await?;
            let known = self.settings.beside_store("-registered");
            crate::peers::replace(&known, self.own.peer_name.as_bytes(), 0o600)
        };
        if let Err(error) = entered.await {
            tracing::warn!(error = format!("{error:#}"), "this router is not in the shared list yet");
        }
    }

    fn start(&self, nodes: &Nodes) -> anyhow::Result<Child> {
        let arguments = self.settings.weaver_arguments(&self.targets(nodes), nodes.len())?;
        tracing::info!(program = %self.settings.weaver.display(), ?arguments, "starting the router");
        let mut command = Command::new(&self.settings.weaver);
        command.args(arguments).kill_on_drop(true);
        command.spawn().with_context(|| format!("cannot run {}", self.settings.weaver.display()))
    }

    fn targets(&self, nodes: &Nodes) -> Vec<String> {
        let named = self.settings.named_peers();
        if named.is_empty() { nodes.peers(&self.own.node_name) } else { named }
    }

    /// Follows the cluster for as long as the router runs. Nothing that the API server does ends this.
    async fn follow(self: Arc<Self>) {
        until_done("the router does not get ready", || self.router_ready()).await;
        until_done("the host gets no address", || self.expose()).await;
        until_done("the node's condition is not set", || self.cluster.set_network_works(&self.own.node_name))
            .await;
        let news = Arc::new(Notify::new());
        tokio::spawn(watch_names(self.cluster.clone(), Arc::clone(&news)));
        let mut lock = Lock::new(self.own.node_name.clone(), lock::DURATION);
        loop {
            let is_done = match self.look(&mut lock).await {
                Ok(is_done) => is_done,
                Err(error) => {
                    tracing::warn!("{error:#}");
                    false
                }
            };
            let pause = if is_done { LOOK_EVERY } else { AGAIN * 2 };
            // Both ways lead to the next look.
            let _heard = timeout(pause, news.notified()).await;
            sleep(GATHER).await;
        }
    }

    async fn router_ready(&self) -> anyhow::Result<()> {
        self.router.call(&ReadyRequest { timeout_s: Some(10) }).await.map(drop).map_err(Into::into)
    }

    async fn expose(&self) -> anyhow::Result<()> {
        let wish = self.settings.expose_ip.as_str();
        let addresses = if wish.is_empty() { Vec::new() } else { vec![wish.parse()?] };
        let request = ExposeRequest { addresses, timeout_s: Some(60), ..ExposeRequest::default() };
        match self.router.call(&request).await {
            Ok(exposed) => {
                tracing::info!(addresses = ?exposed.addresses, "the host is on the network");
                Ok(())
            }
            // Without allocation the host has an address only if one was named.
            Err(error) if error.code == ErrorCode::Disabled => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Brings everything in line with the cluster as it is. Returns whether nothing is left to do.
    async fn look(&self, lock: &mut Lock) -> anyhow::Result<bool> {
        let nodes = self.cluster.nodes().await?;
        self.cache.write(&nodes)?;
        self.router.call(&ConnectRequest { peers: self.targets(&nodes), replace: true }).await?;
        self.enter().await;
        let progress = reclaim(&self.cluster, &self.router, lock, &self.own).await?;
        let roster = Roster::read(&self.cluster).await?;
        Ok(progress.left.is_empty() && roster.peers.iter().all(|member| nodes.contains(&member.node_name)))
    }
}

/// Tries until it is done.
async fn until_done<F: Future<Output = anyhow::Result<()>>>(what: &str, mut attempt: impl FnMut() -> F) {
    while let Err(error) = attempt().await {
        tracing::warn!("{what}: {error:#}");
        sleep(AGAIN).await;
    }
}

/// Tells whenever a node comes or goes. Other changes of nodes, of which there are many, are not news.
pub async fn watch_names(cluster: Cluster, news: Arc<Notify>) {
    let (mut names, mut listed) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let events = watcher(cluster.node_names(), watcher::Config::default()).default_backoff();
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if is_news(event, &mut names, &mut listed) {
                        news.notify_one();
                    }
                }
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "the watch of nodes broke off");
                    if is_forgotten(&error) {
                        // The server has forgotten where we were, and the watcher would go on asking for it.
                        break;
                    }
                }
            }
        }
        sleep(WATCH_ANEW).await;
    }
}

/// Whether the server no longer knows the version that was asked for.
fn is_forgotten(error: &watcher::Error) -> bool {
    if let watcher::Error::WatchStartFailed(kube::Error::Api(status)) | watcher::Error::WatchError(status) =
        error
    {
        status.code == 410
    } else {
        false
    }
}

fn is_news(
    event: Event<PartialObjectMeta<Node>>,
    names: &mut BTreeSet<String>,
    listed: &mut BTreeSet<String>,
) -> bool {
    match event {
        Event::Apply(node) => names.insert(node.name_any()),
        Event::Delete(node) => names.remove(&node.name_any()),
        Event::Init => {
            listed.clear();
            false
        }
        Event::InitApply(node) => {
            listed.insert(node.name_any());
            false
        }
        Event::InitDone => {
            let is_news = names != listed;
            *names = std::mem::take(listed);
            is_news
        }
    }
}

/// What ends us.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    async fn told_to_end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for the router's end, and passes on that it shall.
async fn wait(child: &mut Child, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.context("cannot wait for the router")?;
                tracing::info!(%status, "the router has ended");
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
            }
            () = signals.told_to_end() => {
                let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
                // One that has ended meanwhile needs no signal.
                let _gone = pid.map(|pid| kill_process(pid, rustix::process::Signal::TERM));
            }
        }
    }
}
