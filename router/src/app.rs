//! From configuration to a running router, and back.
//!
//! The order of a start is that of what can be undone: first everything is checked and bound that leaves no trace
//! (sockets, ports, overlap with host routes, the TAP), then the store is opened, then the bridge is made, last the
//! threads run. Whatever fails says what and where, and takes back what this start made. The bridge and the containers'
//! interfaces stay when the router stops, so that containers keep their addresses until it is back.

mod bridge;
mod explain;
mod names;
mod node;

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use weave_datapath::{Querier, RekeyConfig};
use weave_hostnet::{Host, HostError, names::mac_from_seed, udp::Socket, xfrm::Encapsulation};
use weave_link::{Credentials, StretchedPassword};
use weave_model::Uid;
use weave_names::Snapshot;
use weave_worker::{Workers, WorkersConfig};

use self::{
    bridge::Bridge,
    names::{domain_of, start_dns},
    node::{Kernel, hello, start_node},
};
use crate::{
    clock,
    config::{Config, IpamConfig},
    doctor::Subject,
    engine::{Engine, Handle, Parts, Sources},
    exit::{Exit, Fatal},
    fastdp::{self, Fastdp, Tasks},
    identity::Local,
    learning,
    logging::Logging,
    mark::MarkFile,
    ops::{Ops, Setup},
    quic::{
        ids::KeyedIds,
        link::{Introduction, Linker},
        socket::{QuicInbox, SharedSocket},
        tls::Tls,
    },
    report::{DnsFacts, Facts},
    store::Store,
    supervisor::Supervisor,
};

/// The software version as peers and users see it.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Link events that may wait for the engine; senders wait beyond that, which slows their peers down.
const LINK_EVENTS: usize = 1024;
/// Commands that may wait for the engine.
const COMMANDS: usize = 256;
/// How long the goodbye to peers may take.
const GOODBYE: Duration = Duration::from_millis(300);

/// How the router was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// For a while: the kernel goes on, and the store stays.
    Stop,
    /// For good: everything of ours is to go; see `cleanup`.
    Reset,
}

/// Runs the router until it is told to end.
pub(crate) async fn run(
    config: &Config,
    logging: &Logging,
    supervisor: &Supervisor,
) -> anyhow::Result<Ending> {
    let control = weave_control::Listener::bind(&config.listen_api)
        .await
        .map_err(|error| Fatal::error(error.exit(), error.to_string()))?;
    let sockets = Socket::bind_group_at(config.listen, config.workers)
        .map_err(|error| explain::port(config, &error))?;
    let metrics = bind_tcp(config.metrics, "for Prometheus", "--metrics-addr").await?;
    let tcp_api = config.tcp_api.as_ref().map(|(address, _)| *address);
    let tcp_api = bind_tcp(tcp_api, "for the control API", "--http-addr").await?;
    let host = Host::open().await?;
    let warnings = match &config.ipam {
        Some(ipam) => check_overlap(&host, ipam, &config.bridge).await?,
        None => Vec::new(),
    };
    let names = Arc::new(ArcSwap::from_pointee(Snapshot::empty(domain_of(config))));
    let dns = start_dns(config, &host, &names).await?;
    let taps = bridge::open_taps(config)?;
    let store = Store::open(&config.db_prefix)?;
    let local = Local::load(&store, config.name)?;
    let mut bridge = Bridge::set_up(&host, config, &local, taps).await?;
    let router = match start(config, &local, store, &host, sockets, &mut bridge, names).await {
        Ok(router) => router,
        Err(error) => {
            bridge.undo(&host).await;
            return Err(error);
        }
    };
    let facts = Arc::new(facts(config, &bridge, dns.as_ref(), warnings));
    let around = Around { control, tcp_api, metrics, logging, supervisor };
    let result = serve(config, &local, router, host, &bridge, facts, around).await;
    // Who still asks for metrics holds on to it; it then goes with the runtime.
    if let Some(dns) = dns.and_then(Arc::into_inner) {
        dns.stop().await;
    }
    result
}

/// Where we are asked things, and whom we tell.
struct Around<'a> {
    control: weave_control::Listener,
    tcp_api: Option<TcpListener>,
    metrics: Option<TcpListener>,
    logging: &'a Logging,
    supervisor: &'a Supervisor,
}

async fn bind_tcp(
    address: Option<SocketAddr>,
    what_for: &str,
    flag: &str,
) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let message = format!("cannot listen {what_for} on {address} ({flag}): another program does");
            Err(Fatal::error(Exit::Conflict, message))
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen {what_for} on {address} ({flag})")),
    }
}

/// What runs once everything is set up.
struct Router {
    engine: Engine,
    sources: Sources,
    handle: Handle,
    store: Store,
    linker: Arc<Linker>,
    endpoint: quinn::Endpoint,
    fastdp: Tasks,
    mtu: watch::Receiver<Option<u16>>,
}

/// Everything between the sockets and the engine.
async fn start(
    config: &Config,
    local: &Local,
    store: Store,
    host: &Host,
    sockets: Vec<Socket>,
    bridge: &mut Bridge,
    names: Arc<ArcSwap<Snapshot>>,
) -> anyhow::Result<Router> {
    let uid = Uid(clock::random_u64());
    let mut node = start_node(config, local, uid, &store, host).await?;
    let mark =
        MarkFile::new(config.listen_api.socket.parent().unwrap_or_else(|| Path::new("/")), local.store_id);
    if let Some(kept) = mark.read()
        && !node.trust_store(kept, clock::now())
    {
        tracing::warn!(
            "the address store is older than its last run: the other routers are asked before it is used"
        );
    }
    let inbox = QuicInbox::default();
    let (worker_events, workers_receiver) = mpsc::unbounded_channel();
    let local_address =
        sockets.first().context("no socket")?.local_addr().context("the UDP socket has no address")?;
    let for_quic = inbox.clone();
    let workers = Workers::start(WorkersConfig {
        local: local.name,
        sockets,
        taps: bridge.take_taps(),
        quic: Box::new(move |datagram| {
            for_quic.push(datagram.from, Bytes::copy_from_slice(datagram.bytes), datagram.segment_size);
        }),
        events: Box::new(move |event| {
            // The engine has stopped: nobody wants to know.
            let _ = worker_events.send(event);
        }),
    })?;
    let socket = SharedSocket::new(inbox, workers.udp_sender()?, local_address);
    let endpoint = start_quic(socket, local)?;
    let (link_events, links_receiver) = mpsc::channel(LINK_EVENTS);
    let can_encrypt = can_encrypt(config);
    let encapsulation = can_encrypt.then(open_encapsulation).flatten();
    let lacks_vxlan = no_fastdp(config, can_encrypt).is_none() && lacks_vxlan(host).await;
    let kernel = Kernel { can_encrypt, takes_udp: encapsulation.is_some(), lacks_vxlan };
    let introduction = Introduction {
        hello: hello(config, local, uid, kernel),
        trusted: config.trusted_subnets.iter().map(|subnet| subnet.net()).collect(),
    };
    let credentials = Credentials {
        identity: local.identity.clone(),
        passwords: config.passwords.iter().map(StretchedPassword::new).collect(),
    };
    let linker = Linker::new(endpoint.clone(), credentials, introduction, link_events);
    let (handle, tasks) = Handle::channel();
    let (plans, plans_receiver) = watch::channel(Arc::default());
    let (mtu, mtu_receiver) = watch::channel(None);
    let (fastdp, fastdp_tasks, vouches) = Fastdp::new(fastdp::Setup {
        host: host.clone(),
        local: local.name,
        bridge: bridge.index,
        bridge_mtu: bridge.mtu.into(),
        tap_port: bridge.tap_port,
        disabled: no_fastdp(config, can_encrypt),
        lacks_vxlan,
        is_private: !config.passwords.is_empty(),
        trusted: config.trusted_subnets.iter().map(|subnet| subnet.net()).collect(),
        can_encrypt,
        encapsulation,
        rekey: RekeyConfig::with_max_age(config.rekey_after),
        plans: plans_receiver,
    })
    .await?;
    let parts = Parts {
        node,
        store: store.clone(),
        mark,
        workers,
        linker: Arc::clone(&linker),
        names,
        fastdp,
        plans,
        mtu,
    };
    Ok(Router {
        engine: Engine::new(parts),
        sources: Sources { links: links_receiver, workers: workers_receiver, fastdp: vouches, tasks },
        handle,
        store,
        linker,
        endpoint,
        fastdp: fastdp_tasks,
        mtu: mtu_receiver,
    })
}

/// Runs engine, links and control API until a signal or a failure.
async fn serve(
    config: &Config,
    local: &Local,
    router: Router,
    host: Host,
    bridge: &Bridge,
    facts: Arc<Facts>,
    around: Around<'_>,
) -> anyhow::Result<Ending> {
    let Router { engine, sources, handle, store, linker, endpoint, fastdp, mtu } = router;
    let learning = learning::run(host.clone(), bridge.index, handle.clone());
    let alive = around.supervisor.stay_alive(handle.clone());
    let querier = Querier::new(mac_from_seed(&[b"querier", &local.name.0[..]].concat()), clock::now());
    let asking = handle.clone();
    let ops = Arc::new(Ops::new(Setup {
        engine: handle,
        host,
        store,
        facts,
        bridge: config.bridge.clone(),
        mtu: bridge.mtu,
        local: local.name,
        has_ipam: config.ipam.is_some(),
        port_guard: config.port_guard,
        keeps_sources: config.keeps_sources,
        subject: Subject::new(config),
        logging: around.logging.clone(),
    }));
    let (stop_engine, engine_stopped) = tokio::sync::oneshot::channel();
    let running = tokio::spawn(engine.run(sources, async move {
        // A dropped sender is one that failed.
        engine_stopped.await.unwrap_or(Ending::Stop)
    }));
    tokio::spawn(Arc::clone(&linker).accept_all());
    ops.restore().await?;
    linker.open();
    fastdp.spawn();
    tokio::spawn(learning);
    tokio::spawn(keep_mtu(Arc::clone(&ops), mtu));
    tokio::spawn(ask_for_listeners(querier, asking));
    tokio::spawn(Arc::clone(&ops).sweep());
    let (commands, commands_receiver) = mpsc::channel(COMMANDS);
    tokio::spawn(Arc::clone(&ops).serve(commands_receiver));
    let (stop_control, control_stopped) = tokio::sync::oneshot::channel::<()>();
    let scraping =
        around.metrics.map(|listener| tokio::spawn(weave_control::serve_metrics(listener, commands.clone())));
    let remote = around.tcp_api.zip(config.tcp_api.as_ref()).map(|(listener, (_, token))| {
        tokio::spawn(weave_control::serve_with_token(listener, token.clone(), commands.clone()))
    });
    let controlling = tokio::spawn(weave_control::serve(around.control, commands, async move {
        let _ = control_stopped.await;
    }));
    tracing::info!(name = %local.name, nickname = config.nickname, port = config.listen.port(), "router is ready");
    around.supervisor.ready(&local.name.to_string());

    let mut running = running;
    let result = tokio::select! {
        stopped = told_to_stop() => stopped.map(|()| Ending::Stop),
        () = ops.reset_wanted() => Ok(Ending::Reset),
        () = alive => Ok(Ending::Stop),
        failed = &mut running => {
            failed.context("the engine panicked").and_then(|result| result).map(|()| Ending::Stop)
        }
    };
    tracing::info!("router is stopping");
    around.supervisor.stopping();
    for task in [scraping, remote].into_iter().flatten() {
        task.abort();
    }
    let _ = stop_control.send(());
    let _ = stop_engine.send(*result.as_ref().unwrap_or(&Ending::Stop));
    let _ = controlling.await;
    if !running.is_finished() {
        running.await.context("the engine panicked")??;
    }
    endpoint.close(0u32.into(), b"router is stopping");
    let _ = tokio::time::timeout(GOODBYE, endpoint.wait_idle()).await;
    result
}

async fn told_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Gives all interfaces the size that the paths carry, whenever that changes.
async fn keep_mtu(ops: Arc<Ops>, mut mtu: watch::Receiver<Option<u16>>) {
    while mtu.changed().await.is_ok() {
        let wanted = *mtu.borrow_and_update();
        if let Some(mtu) = wanted {
            ops.resize_all(mtu).await;
        }
    }
}

/// Asks the containers of this host which groups they listen to, until the engine has stopped.
async fn ask_for_listeners(mut querier: Querier, engine: Handle) {
    loop {
        tokio::time::sleep_until(querier.poll_timeout().into()).await;
        let Some(frames) = querier.poll_transmit(clock::now()).cloned() else { continue };
        let deliver = move |engine: &mut Engine, _now| {
            for frame in frames {
                engine.workers.deliver(frame);
            }
        };
        if engine.run(deliver).await.is_err() {
            return;
        }
    }
}

/// Why no link can be carried by the kernel, if none can.
fn no_fastdp(config: &Config, can_encrypt: bool) -> Option<&'static str> {
    if !config.fastdp {
        Some("--no-fastdp was given")
    } else if !config.passwords.is_empty() && config.trusted_subnets.is_empty() && !can_encrypt {
        Some(fastdp::CANNOT_ENCRYPT)
    } else {
        None
    }
}

/// Whether the kernel is asked to encrypt what it carries, and can; said once if not.
fn can_encrypt(config: &Config) -> bool {
    if config.passwords.is_empty() || !config.fastdp {
        return false;
    }
    fastdp::can_encrypt()
        .inspect_err(|error| tracing::info!(%error, "the tunnel carries what is to be encrypted"))
        .is_ok()
}

/// The port for ESP in UDP. Without it links need IP protocol 50.
fn open_encapsulation() -> Option<Encapsulation> {
    Encapsulation::open()
        .inspect_err(|error| tracing::warn!(%error, "encrypted frames can only come as IP protocol 50"))
        .ok()
}

/// Looked at once: a module that is loaded later serves from the next start on.
async fn lacks_vxlan(host: &Host) -> bool {
    match host.check_vxlan().await {
        Ok(()) => false,
        Err(error @ HostError::Unsupported { .. }) => {
            tracing::warn!(%error, "the kernel cannot carry frames; the slower tunnel does");
            true
        }
        Err(error) => {
            tracing::debug!(%error, "cannot find out whether the kernel has VXLAN");
            false
        }
    }
}

fn start_quic(socket: SharedSocket, local: &Local) -> anyhow::Result<quinn::Endpoint> {
    let tls = Tls::new()?;
    let mut config = quinn::EndpointConfig::new(Arc::new(local.reset_key()));
    let key = local.connection_id_key();
    config.cid_generator(move || Box::new(KeyedIds::new(key.clone())));
    // The fixed bit is what tells QUIC and sleeve apart (RFC 9443): it must stay set.
    config.grease_quic_bit(false);
    let mut endpoint = quinn::Endpoint::new_with_abstract_socket(
        config,
        Some(tls.server),
        Arc::new(socket),
        Arc::new(quinn::TokioRuntime),
    )
    .context("cannot start QUIC")?;
    endpoint.set_default_client_config(tls.client);
    Ok(endpoint)
}

fn facts(
    config: &Config,
    bridge: &Bridge,
    dns: Option<&Arc<weave_dns::Server>>,
    warnings: Vec<String>,
) -> Facts {
    Facts {
        nickname: config.nickname.clone(),
        port: config.listen.port(),
        encryption: !config.passwords.is_empty(),
        trusted_subnets: config.trusted_subnets.clone(),
        started: clock::now(),
        bridge_mac: bridge.mac,
        default_subnets: config.ipam.as_ref().map(|ipam| ipam.default_subnets.clone()).unwrap_or_default(),
        dns: config.dns.as_ref().zip(dns).map(|(dns, server)| DnsFacts {
            domain: format!("{}.", dns.domain),
            listen: server.local_addrs().iter().map(ToString::to_string).collect(),
            upstream: server.upstreams().iter().map(ToString::to_string).collect(),
            ttl: u32::try_from(dns.ttl.as_secs()).unwrap_or(u32::MAX),
            server: Arc::clone(server),
        }),
        warnings,
    }
}

/// Refuses the default range where the host already routes part of it; an explicit range is only warned of.
async fn check_overlap(host: &Host, ipam: &IpamConfig, bridge: &str) -> anyhow::Result<Vec<String>> {
    let mut warnings = Vec::new();
    for range in &ipam.ranges {
        let Some(route) = host.overlapping_route(*range).await? else { continue };
        if route.device.as_deref() == Some(bridge) {
            continue;
        }
        let message = format!("the address range {range} overlaps the host's route {route}");
        if !ipam.is_explicit {
            return Err(Fatal::error(
                Exit::Conflict,
                format!("{message}; give an --ipalloc-range that is free on all hosts"),
            ));
        }
        tracing::warn!("{message}");
        warnings.push(message);
    }
    Ok(warnings)
}
