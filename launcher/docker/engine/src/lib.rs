//! A client of Docker's engine, for the little that we ask of it: the driver and `weave-npc` share it.
#![forbid(unsafe_code)]

pub mod events;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

/// How long the engine may take for an answer. It has long stalls while it starts many containers.
const PATIENCE: Duration = Duration::from_secs(20);

/// The largest answer read, bytes: some thousand containers with everything about them.
const MAX_ANSWER: usize = 64 << 20;

/// Docker's engine behind a unix socket; a connection for each question.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum EngineError {
    /// Nobody listens there.
    Absent,
    /// It says no: status and reason.
    Refused(u16, String),
    /// It broke off, was too slow, or spoke nonsense.
    Broken(String),
}

impl std::fmt::Display for EngineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("no Docker engine listens"),
            Self::Refused(status, reason) => write!(f, "Docker refused ({status}): {reason}"),
            Self::Broken(reason) => write!(f, "Docker did not answer: {reason}"),
        }
    }
}

impl std::error::Error for EngineError {}

/// A container, as far as we look at it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// All 64 digits.
    pub id: String,
    /// With a slash in front.
    pub name: String,
    /// What it does.
    pub state: State,
    /// What it was made with.
    pub config: Config,
    /// Where it is connected.
    pub network_settings: NetworkSettings,
}

/// What a container does.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    /// Whether it runs.
    #[serde(default)]
    pub running: bool,
    /// Its first process; zero when it does not run.
    #[serde(default)]
    pub pid: u32,
}

/// What a container was made with.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// The first twelve digits of its id unless given.
    #[serde(default)]
    pub hostname: String,
    /// Usually empty.
    #[serde(default)]
    pub domainname: String,
}

/// The networks of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// By the network's name.
    #[serde(default)]
    pub networks: BTreeMap<String, Connection>,
}

/// A container's place in a network.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Connection {
    /// Empty while the container does not run.
    #[serde(default, rename = "EndpointID")]
    pub endpoint: String,
    /// Further names there.
    #[serde(default)]
    pub aliases: Option<Vec<String>>,
}

impl Engine {
    /// A client of the engine at `socket`. Nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where it is expected.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The container of this name, id, or beginning of an id.
    ///
    /// # Errors
    /// [`EngineError`]; status 404 when there is none.
    pub async fn container(&self, name: &str) -> Result<Container, EngineError> {
        self.get(&format!("/containers/{name}/json")).await
    }

    /// Whether there is a network of this name.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn has_network(&self, name: &str) -> Result<bool, EngineError> {
        match self.get::<serde::de::IgnoredAny>(&format!("/networks/{name}")).await {
            Ok(_) => Ok(true),
            Err(EngineError::Refused(404, _)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What it says about `path`.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        parse(&self.exchange(Method::GET, path, Bytes::new()).await?)
    }

    /// What it says when `body` is sent to `path`.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, EngineError> {
        parse(&self.exchange(Method::POST, path, Bytes::from(body.to_string())).await?)
    }

    /// The whole answer to a request, of 64 MiB at most and within 20 s.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, EngineError> {
        let exchange = async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|e| EngineError::Broken(e.to_string()))?.to_bytes();
            if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
        };
        timeout(PATIENCE, exchange)
            .await
            .map_err(|_| EngineError::Broken(format!("nothing in {} s", PATIENCE.as_secs())))?
    }

    /// Sends a request; the answer's body is still to come, and nobody limits when.
    ///
    /// # Errors
    /// [`EngineError`]; never [`EngineError::Refused`], which the status says.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, EngineError> {
        let broken = |error: &dyn std::error::Error| EngineError::Broken(error.to_string());
        let stream = UnixStream::connect(&self.socket).await.map_err(|_| EngineError::Absent)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "docker")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| broken(&e))?;
        sender.send_request(request).await.map_err(|e| broken(&e))
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, EngineError> {
    let body = if body.is_empty() { b"null" } else { body };
    serde_json::from_slice(body).map_err(|error| EngineError::Broken(format!("it makes no sense: {error}")))
}

fn refusal(status: StatusCode, body: &[u8]) -> EngineError {
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    let text = serde_json::from_slice::<Message>(body)
        .map_or_else(|_| String::from_utf8_lossy(body).chars().take(200).collect(), |m| m.message);
    EngineError::Refused(status.as_u16(), text)
}
