//! A socket in front of the engine's: what arrives there reaches the engine as it is, except that containers which ask for
//! no network in particular get ours.
//!
//! Nothing else need be changed for a container to have its address before its entrypoint runs: the engine itself joins it to
//! the network between making and starting it. So no image's entrypoint is rewritten, and the engine restarts such a
//! container by itself as well.

mod create;
mod forward;
mod hostname;
mod inspect;
mod remote;

use std::{convert::Infallible, io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use weave_api::PsRequest;
use weave_model::ContainerId;

pub use self::{
    hostname::Hostnames,
    remote::{Remote, TlsFiles},
};

use self::create::{Joining, Place};
use crate::{engine::EngineError, listen::Listener, plugin::Driver};

/// Clients at once. Each `docker run`, `logs --follow` or `attach` holds one or two for as long as it lasts.
const MAX_CLIENTS: usize = 512;

/// How long a client may take to send its request's head.
const SLOW: Duration = Duration::from_secs(30);

/// The largest description of a container that is read, bytes. The engine's own limit is as much.
const MAX_CREATE: usize = 4 << 20;

/// The largest description of a container that is rewritten, bytes.
const MAX_ANSWER: usize = 16 << 20;

/// What a request or an answer carries.
type Body = BoxBody<Bytes, hyper::Error>;

/// What is asked of the proxy.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// Where clients of this host come, who may do there what they may do at the engine's own socket.
    pub socket: PathBuf,
    /// Where clients of other hosts come.
    pub remote: Option<Remote>,
    /// Containers are left alone unless they have `WEAVE_CIDR` among their environment.
    pub no_default_ipalloc: bool,
    /// Containers are not told of the name server.
    pub without_dns: bool,
    /// Descriptions of containers have the network's addresses where the engine has its own bridge's.
    pub rewrite_inspect: bool,
    /// Host names of containers that have none of their own.
    pub hostnames: Hostnames,
}

/// Listening for clients of the engine.
pub(crate) struct Proxy {
    local: Listener,
    remote: Option<(Remote, TcpListener)>,
    options: Arc<ProxyOptions>,
    driver: Arc<Driver>,
}

impl Proxy {
    pub(crate) async fn listen(options: ProxyOptions, driver: &Arc<Driver>) -> anyhow::Result<Self> {
        let local = Listener::bind(&options.socket).await?;
        local.share_with_group_of(driver.engine.socket());
        let remote = match &options.remote {
            Some(remote) => Some((remote.clone(), remote.listen().await?)),
            None => None,
        };
        Ok(Self { local, remote, options: Arc::new(options), driver: Arc::clone(driver) })
    }

    /// Accepts clients until it is dropped.
    pub(crate) async fn serve(&self) {
        let permits = Arc::new(Semaphore::new(MAX_CLIENTS));
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            let (driver, options) = (Arc::clone(&self.driver), Arc::clone(&self.options));
            let accepted = tokio::select! {
                accepted = self.local.accept() => accepted.map(|stream| {
                    tokio::spawn(async move {
                        converse(stream, driver, options).await;
                        drop(permit);
                    });
                }),
                accepted = self.accept_remote() => accepted.map(|(remote, stream)| {
                    tokio::spawn(async move {
                        match remote.greet(stream).await {
                            Ok(stream) => converse(stream, driver, options).await,
                            Err(error) => tracing::info!(%error, "a client from another host is not let in"),
                        }
                        drop(permit);
                    });
                }),
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "cannot accept a client of Docker");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn accept_remote(&self) -> io::Result<(Remote, TcpStream)> {
        match &self.remote {
            Some((remote, listener)) => listener.accept().await.map(|(stream, _)| (remote.clone(), stream)),
            None => std::future::pending().await,
        }
    }
}

async fn converse<S>(stream: S, driver: Arc<Driver>, options: Arc<ProxyOptions>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (driver, options) = (Arc::clone(&driver), Arc::clone(&options));
        async move { Ok::<_, Infallible>(respond(request, &driver, &options).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SLOW)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a client of Docker broke off");
    }
}

async fn respond(request: Request<Incoming>, driver: &Driver, options: &ProxyOptions) -> Response<Body> {
    let answered = match (request.method(), call(request.uri().path()).as_slice()) {
        (&Method::POST, ["containers", "create"]) => create(request, driver, options).await,
        (&Method::GET, ["containers", _, "json"]) if options.rewrite_inspect => {
            inspect(request, driver).await
        }
        _ => forward::forward(request.map(|body| body.boxed()), &driver.engine).await,
    };
    answered.unwrap_or_else(|error| refusal(&error))
}

/// The words of a path, without the version that it may begin with.
fn call(path: &str) -> Vec<&str> {
    let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let is_version =
        |word: &str| word.strip_prefix('v').is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()));
    match words.as_slice() {
        [version, call @ ..] if is_version(version) => call.to_vec(),
        _ => words,
    }
}

/// Describes a container with the addresses that it has on the network.
async fn inspect(request: Request<Incoming>, driver: &Driver) -> Result<Response<Body>, EngineError> {
    let response = forward::forward(request.map(|body| body.boxed()), &driver.engine).await?;
    if response.status() != StatusCode::OK {
        return Ok(response);
    }
    let (mut head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|error| EngineError::Broken(error.to_string()))?.to_bytes();
    let Ok(mut document) = serde_json::from_slice::<Value>(&body) else {
        return Ok(Response::from_parts(head, full(body)));
    };
    let holders = inspect::holders(&document);
    // Without an answer of the router the engine's is as good as it was.
    if let Ok(known) = driver.router.call(&PsRequest { containers: holders.clone() }).await {
        inspect::rewrite(&mut document, &holders, &known.containers);
    }
    let body = Bytes::from(document.to_string());
    head.headers.insert(header::CONTENT_LENGTH, body.len().into());
    head.headers.remove(header::TRANSFER_ENCODING);
    Ok(Response::from_parts(head, full(body)))
}

/// Lets the engine make the container, on our network if it is to be there.
async fn create(
    request: Request<Incoming>,
    driver: &Driver,
    options: &ProxyOptions,
) -> Result<Response<Body>, EngineError> {
    let (mut head, body) = request.into_parts();
    let body = Limited::new(body, MAX_CREATE).collect().await;
    let body = body.map_err(|error| EngineError::Refused(400, error.to_string()))?.to_bytes();
    let description = serde_json::from_slice::<Value>(&body).ok().filter(Value::is_object);
    let Some(mut container) = description else {
        // The engine says better what is wrong with it.
        return forward::forward(Request::from_parts(head, full(body)), &driver.engine).await;
    };
    let places = create::places(&container, options.no_default_ipalloc)
        .map_err(|reason| EngineError::Refused(400, reason))?;
    let mut joinings = Vec::new();
    for place in places {
        joinings.push(network_for(driver, place).await?);
    }
    if let Some((first, _)) = joinings.split_first() {
        let name = create::name_in(head.uri.query().unwrap_or_default());
        let hostname = options.hostnames.of(&container, name.as_deref());
        create::join(&mut container, first, hostname);
        if !options.without_dns
            && let Some((server, domain)) = name_server(driver).await
        {
            create::ask(&mut container, &server, &domain);
        }
    }
    let body = Bytes::from(container.to_string());
    head.headers.insert(header::CONTENT_LENGTH, body.len().into());
    head.headers.remove(header::TRANSFER_ENCODING);
    let response = forward::forward(Request::from_parts(head, full(body)), &driver.engine).await?;
    join_further(response, driver, joinings.get(1..).unwrap_or_default()).await
}

/// The network that covers a place, made if it is not there.
async fn network_for(driver: &Driver, place: Place) -> Result<Joining, EngineError> {
    let default = driver.network.clone().unwrap_or_else(|| driver.name.clone());
    let Some(subnet) = place.subnet else { return Ok(Joining { network: default, address: place.address }) };
    let is_default = driver
        .router
        .report()
        .await
        .ok()
        .and_then(|report| report.ipam)
        .is_some_and(|ipam| ipam.default_subnets.contains(&subnet));
    if is_default {
        return Ok(Joining { network: default, address: place.address });
    }
    let network = format!("{default}-{}", subnet.to_string().replace(['/', ':'], "-"));
    if !driver.engine.has_network(&network).await? {
        let wanted = json!({
            "Name": network, "CheckDuplicate": true, "Driver": driver.name,
            "IPAM": { "Driver": driver.name, "Config": [{ "Subnet": subnet.to_string() }] },
        });
        match driver.engine.post::<Value>("/networks/create", &wanted).await {
            Ok(_) | Err(EngineError::Refused(409, _)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Joining { network, address: place.address })
}

/// Where containers ask for names: the host's address on the network, and the domain.
async fn name_server(driver: &Driver) -> Option<(String, String)> {
    let asked = PsRequest { containers: vec![ContainerId::expose()] };
    let exposed = driver.router.call(&asked).await.ok()?;
    let server = exposed.containers.first()?.addresses.first()?.address();
    let domain = driver.router.report().await.ok()?.dns?.domain;
    Some((server.to_string(), domain.trim_end_matches('.').to_owned()))
}

/// Joins a container that was just made to the networks that a request for one cannot name.
async fn join_further(
    response: Response<Body>,
    driver: &Driver,
    further: &[Joining],
) -> Result<Response<Body>, EngineError> {
    if further.is_empty() || response.status() != StatusCode::CREATED {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| EngineError::Broken(error.to_string()))?.to_bytes();
    let made: Value = serde_json::from_slice(&body).unwrap_or_default();
    let id = made["Id"].as_str().unwrap_or_default();
    for joining in further {
        let wanted = json!({ "Container": id, "EndpointConfig": joining.endpoint() });
        let joined =
            driver.engine.post::<Value>(&format!("/networks/{}/connect", joining.network), &wanted).await;
        if let Err(error) = joined {
            // All or nothing: nobody else knows of the container yet.
            let _gone =
                driver.engine.exchange(Method::DELETE, &format!("/containers/{id}"), Bytes::new()).await;
            return Err(error);
        }
    }
    Ok(Response::from_parts(head, full(body)))
}

/// An answer in the engine's own form.
fn refusal(error: &EngineError) -> Response<Body> {
    let (status, reason) = match error {
        EngineError::Refused(status, reason) => (*status, reason.clone()),
        EngineError::Absent | EngineError::Broken(_) => (502, error.to_string()),
    };
    let mut response = Response::new(full(Bytes::from(json!({ "message": reason }).to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}
