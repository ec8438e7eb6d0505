//! The driver's socket: one request, one answer, always in time.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{net::UnixStream, sync::Semaphore, time::timeout};
use weave_api::{ApiError, Client};
use weave_model::ContainerId;

use crate::{
    engine::Engine,
    firewall::Firewall,
    lingering::Lingering,
    listen::Listener,
    proxy::{Proxy, ProxyOptions},
    reattach::AttachedByContainer,
    upkeep,
};

/// How long any request of the engine may take. The engine itself sets no limit for answers and holds locks meanwhile;
/// its users and `systemd` lose patience after 30 s and more.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The largest request read, bytes.
const MAX_REQUEST: usize = 1 << 20;

/// Connections at once. The engine opens one for each container that it starts.
const MAX_CONNECTIONS: usize = 512;

/// How long a client may take to send its request's head.
const SLOW: Duration = Duration::from_secs(10);

const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// What the driver is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the engine looks for the driver.
    pub socket: PathBuf,
    /// What the engine calls the driver; by default the socket's file name without `.sock`.
    pub name: Option<String>,
    /// Where the engine listens.
    pub engine: Engine,
    /// The router.
    pub router: Client,
    /// The network to make when it is not there; none makes none.
    pub network: Option<String>,
    /// The packet filter that lets the router's bridge work.
    pub firewall: Firewall,
    /// Whether the host gets an address on the network for its name server.
    pub is_name_server: bool,
    /// Where clients of the engine can come who want our network without asking for it.
    pub proxy: Option<ProxyOptions>,
}

/// Everything that requests share.
pub(crate) struct Driver {
    pub(crate) router: Client,
    pub(crate) engine: Engine,
    /// The driver's name, as networks have it.
    pub(crate) name: String,
    pub(crate) network: Option<String>,
    pub(crate) firewall: Firewall,
    pub(crate) is_name_server: bool,
    lingering: Mutex<Lingering>,
    /// Whether containers send multicast to this network, where that is known.
    multicast_by_network: Mutex<BTreeMap<String, bool>>,
    /// Endpoints that the engine has deleted while the router was away.
    undeleted: Mutex<BTreeSet<ContainerId>>,
    /// What containers had that may be started again.
    attached: Mutex<AttachedByContainer>,
}

impl Driver {
    pub(crate) fn lingering(&self) -> MutexGuard<'_, Lingering> {
        self.lingering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn multicast_by_network(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.multicast_by_network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attached(&self) -> MutexGuard<'_, AttachedByContainer> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn undeleted(&self) -> MutexGuard<'_, BTreeSet<ContainerId>> {
        self.undeleted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the engine, follows what happens to its containers, until `shutdown` completes.
///
/// # Errors
/// When the socket cannot be had.
pub async fn serve(options: Options, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let name = match options.name {
        Some(name) => name,
        None => {
            let stem = options.socket.file_stem().and_then(|stem| stem.to_str());
            stem.context("the driver's socket needs a name in UTF-8, such as weave.sock")?.to_owned()
        }
    };
    let listener = Listener::bind(&options.socket).await?;
    let driver = Arc::new(Driver {
        router: options.router,
        engine: options.engine,
        name,
        network: options.network,
        firewall: options.firewall,
        is_name_server: options.is_name_server,
        lingering: Mutex::default(),
        multicast_by_network: Mutex::default(),
        undeleted: Mutex::default(),
        attached: Mutex::default(),
    });
    let proxy = match options.proxy {
        Some(options) => Some(Proxy::listen(options, &driver).await?),
        None => None,
    };
    let serve_proxy = async {
        match &proxy {
            Some(proxy) => proxy.serve().await,
            None => std::future::pending().await,
        }
    };
    tracing::info!(socket = %options.socket.display(), "Docker's engine can ask");
    tokio::select! {
        () = shutdown => {}
        () = accept(&listener, &driver) => {}
        () = serve_proxy => {}
        () = upkeep::run(&driver) => {}
    }
    Ok(())
}

async fn accept(listener: &Listener, driver: &Arc<Driver>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        match listener.accept().await {
            Ok(stream) => {
                let driver = Arc::clone(driver);
                tokio::spawn(async move {
                    converse(stream, driver).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of Docker's engine");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, driver: Arc<Driver>) {
    let service = service_fn(|request: Request<Incoming>| {
        let driver = Arc::clone(&driver);
        async move { Ok::<_, Infallible>(respond(request, &driver).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SLOW)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "the engine broke off");
    }
}

async fn respond(request: Request<Incoming>, driver: &Arc<Driver>) -> Response<Full<Bytes>> {
    let call = request.uri().path().trim_start_matches('/').to_owned();
    let answered = timeout(DEADLINE, async {
        let body = Limited::new(request.into_body(), MAX_REQUEST).collect().await;
        let body = body.map_err(|error| Refusal(format!("the request cannot be read: {error}")))?.to_bytes();
        driver.answer(&call, &body).await
    });
    let answer = answered.await.unwrap_or_else(|_| {
        Err(Refusal(format!("weave did not finish in {} s; `weave status` may say why", DEADLINE.as_secs())))
    });
    let mut status = StatusCode::OK;
    let document = match answer {
        Ok(document) => {
            tracing::debug!(call, "answered");
            document
        }
        Err(Refusal(reason)) => {
            tracing::warn!(call, reason, "refused");
            // Its two kinds of driver call the reason differently in an answer, but not in one with this status.
            status = StatusCode::INTERNAL_SERVER_ERROR;
            json!({ "Err": reason })
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(document.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(CONTENT_TYPE));
    response
}

/// Why the engine does not get what it asked for: a sentence that ends up before its user.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) String);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error.to_string())
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl Driver {
    async fn answer(&self, call: &str, body: &[u8]) -> Result<Value, Refusal> {
        match call {
            "Plugin.Activate" => Ok(json!({ "Implements": ["NetworkDriver", "IpamDriver"] })),
            "NetworkDriver.GetCapabilities" => Ok(json!({ "Scope": "local", "ConnectivityScope": "global" })),
            "NetworkDriver.CreateNetwork" => self.create_network(read(body)?).await,
            "NetworkDriver.DeleteNetwork" => Ok(self.delete_network(&read(body)?)),
            "NetworkDriver.CreateEndpoint" => self.create_endpoint(read(body)?).await,
            "NetworkDriver.EndpointOperInfo" => Ok(json!({ "Value": {} })),
            "NetworkDriver.DeleteEndpoint" => self.delete_endpoint(read(body)?).await,
            "NetworkDriver.Join" => self.join(read(body)?).await,
            "NetworkDriver.Leave"
            | "NetworkDriver.DiscoverNew"
            | "NetworkDriver.DiscoverDelete"
            | "NetworkDriver.ProgramExternalConnectivity"
            | "NetworkDriver.RevokeExternalConnectivity" => Ok(json!({})),
            "IpamDriver.GetCapabilities" => {
                Ok(json!({ "RequiresMACAddress": false, "RequiresRequestReplay": false }))
            }
            "IpamDriver.GetDefaultAddressSpaces" => Ok(json!({
                "LocalDefaultAddressSpace": "weavelocal",
                "GlobalDefaultAddressSpace": "weaveglobal",
            })),
            "IpamDriver.RequestPool" => self.request_pool(read(body)?).await,
            "IpamDriver.ReleasePool" => self.release_pool(&read(body)?),
            "IpamDriver.RequestAddress" => self.request_address(read(body)?).await,
            "IpamDriver.ReleaseAddress" => self.release_address(&read(body)?),
            unknown => Err(Refusal(format!("weave does not know {unknown}"))),
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal(format!("the request makes no sense: {error}")))
}
