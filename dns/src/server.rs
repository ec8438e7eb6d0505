//! Binds sockets and runs them.

use std::{io, net::SocketAddr, sync::Arc};

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use rand_chacha::ChaCha8Rng;
use rand_core::{OsRng, SeedableRng};
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};
use weave_names::Snapshot;

use crate::{
    config::DnsConfig,
    front::{Shared, serve_tcp, serve_udp},
    responder::Responder,
    stats::{Counters, Stats},
    upstream::{Forwarder, Servers},
};

/// How often a free port is looked for that UDP and TCP can both have.
const PORT_ATTEMPTS: usize = 16;
/// Connections that the kernel keeps until we accept them.
const TCP_BACKLOG: i32 = 128;

/// A running DNS server. Stops when dropped.
#[derive(Debug)]
pub struct Server {
    local_addrs: Vec<SocketAddr>,
    counters: Arc<Counters>,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Binds every address and begins to answer. `names` is read anew for every query.
    ///
    /// # Errors
    /// When an address cannot be bound: the message names it and says what to do. When the names are of another
    /// domain than the configuration. Nothing listens then.
    #[expect(clippy::unused_async, reason = "needs the runtime that it is awaited on")]
    pub async fn start(config: DnsConfig, names: Arc<ArcSwap<Snapshot>>) -> anyhow::Result<Self> {
        ensure!(
            *names.load().domain() == config.domain,
            "the names are below {}, but the server is for {}",
            names.load().domain(),
            config.domain
        );
        let mut sockets = Vec::new();
        for address in &config.listen {
            sockets.push(bind(*address)?);
        }
        let local_addrs: Vec<SocketAddr> = sockets.iter().map(|(address, _, _)| *address).collect();
        let servers = Servers::new(config.upstreams, local_addrs.clone());
        let forwarder = Forwarder::new(servers, config.fallback_timeout);
        let responder = Responder::new(names, forwarder, &config.domain, config.ttl)?;
        let counters = Arc::default();
        let shared = Arc::new(Shared::new(responder, Arc::clone(&counters), config.allow));
        let mut tasks = JoinSet::new();
        for (address, udp, tcp) in sockets {
            let udp_shared = Arc::clone(&shared);
            tasks.spawn(async move {
                if let Err(error) = serve_udp(udp, udp_shared, new_rng()).await {
                    tracing::error!(%address, %error, "the DNS socket failed; names are not served there any more");
                }
            });
            tasks.spawn(serve_tcp(tcp, Arc::clone(&shared), new_rng));
        }
        tracing::info!(?local_addrs, domain = %config.domain, "DNS serves");
        Ok(Self { local_addrs, counters, shared, tasks })
    }

    /// Where it listens, ports filled in; UDP and TCP alike.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// The servers that other names are asked of now, in order.
    #[must_use]
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        self.shared.responder.upstreams()
    }

    /// Counts since start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Stops listening, drops what waits for upstream servers, and returns when no task is left.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Binds UDP and TCP to one address, and to one port when the system picks it.
fn bind(address: SocketAddr) -> anyhow::Result<(SocketAddr, UdpSocket, TcpListener)> {
    let mut attempt = 1;
    loop {
        let (bound, tcp) = bind_tcp(address).with_context(|| cannot_listen(address, "TCP"))?;
        match bind_udp(bound) {
            Ok(udp) => return Ok((bound, udp, tcp)),
            Err(error)
                if address.port() == 0
                    && error.kind() == io::ErrorKind::AddrInUse
                    && attempt < PORT_ATTEMPTS =>
            {
                attempt += 1;
            }
            Err(error) => return Err(error).with_context(|| cannot_listen(bound, "UDP")),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<(SocketAddr, TcpListener)> {
    let socket = new_socket(address, Type::STREAM)?;
    // Connections of a server that ran before us may linger.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(TCP_BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    Ok((listener.local_addr()?, listener))
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = new_socket(address, Type::DGRAM)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn new_socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        // Else `[::]` would take the port of `0.0.0.0` too, and both could not be named.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn cannot_listen(address: SocketAddr, transport: &str) -> String {
    format!(
        "cannot listen for DNS on {address} ({transport}): if another DNS server has it (`ss -lnptu 'sport = :{port}'` \
         shows which), stop that, or choose another address with --dns-listen-address, or do without with --no-dns",
        port = address.port()
    )
}

fn new_rng() -> ChaCha8Rng {
    let mut seed = <ChaCha8Rng as SeedableRng>::Seed::default();
    rand_core::RngCore::fill_bytes(&mut OsRng, &mut seed);
    ChaCha8Rng::from_seed(seed)
}
