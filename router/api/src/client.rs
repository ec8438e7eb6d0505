//! Asks a router.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use crate::{
    ApiError, Call, ErrorCode, Report,
    call::{QUICK, REPORT_PATH},
};

/// The largest answer read, bytes. A report of a thousand peers in a full mesh has about 100 MB of links at worst;
/// one such peer's own share is far below this.
const MAX_ANSWER: usize = 256 << 20;

/// How much longer than the router we wait, so that its own account of a deadline arrives.
const GRACE: Duration = Duration::from_secs(5);

/// Name of the socket in the run directory.
const SOCKET: &str = "weave.sock";

/// Speaks to one router over its unix socket, one connection per request.
///
/// Dropping the future of a call that waits closes the connection, and the router withdraws the request.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// Where the socket is: where `http_addr` says (a path, with or without `unix://`), else in the run directory.
///
/// # Errors
/// When `http_addr` is no absolute path: a TCP address, for instance.
pub fn socket_path(run_dir: &Path, http_addr: Option<&str>) -> Result<PathBuf, ApiError> {
    let Some(given) = http_addr.filter(|address| !address.is_empty()) else {
        return Ok(run_dir.join(SOCKET));
    };
    let path = Path::new(given.strip_prefix("unix://").unwrap_or(given));
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let message = format!("WEAVE_HTTP_ADDR is `{given}`, which is not the absolute path of a unix socket");
    Err(ApiError::new(ErrorCode::BadRequest, message)
        .with_hint("the control API listens on a unix socket, such as /run/weave/weave.sock"))
}

impl Client {
    /// A client of the router that listens at `socket`. Nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where the router is expected to listen.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends a request and waits for the answer as long as the request says, and a little more.
    ///
    /// # Errors
    /// The router's refusal; or, when there is no answer from it, why not.
    pub async fn call<C: Call>(&self, request: &C) -> Result<C::Answer, ApiError> {
        let body = serde_json::to_vec(request).map_err(ApiError::internal)?;
        let answer = self.exchange(Method::POST, C::PATH, body, request.timeout() + QUICK + GRACE).await?;
        parse(&answer)
    }

    /// The router's whole state.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn report(&self) -> Result<Report, ApiError> {
        let answer = self.exchange(Method::GET, REPORT_PATH, Vec::new(), QUICK + GRACE).await?;
        parse(&answer)
    }

    /// The process at the other end of the socket; none when it lives in a process namespace that we cannot see.
    ///
    /// # Errors
    /// When nothing listens.
    pub async fn router_pid(&self) -> Result<Option<i32>, ApiError> {
        let credentials = self.open().await?.peer_cred().map_err(|e| self.broken(&e))?;
        Ok(credentials.pid().filter(|pid| *pid > 0))
    }

    async fn open(&self) -> Result<UnixStream, ApiError> {
        match timeout(QUICK, UnixStream::connect(&self.socket)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.refused(&error)),
            Err(_) => Err(self.silent(QUICK)),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Bytes, ApiError> {
        let exchange = async {
            let stream = self.open().await?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::HOST, "weave")
                .header(header::CONNECTION, "close")
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(body)))
                .map_err(ApiError::internal)?;
            let answer = async move {
                let response = sender.send_request(request).await.map_err(|e| self.broken(&e))?;
                let status = response.status();
                let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
                Ok((status, body.map_err(|e| self.broken(e.as_ref()))?.to_bytes()))
            };
            // The sender goes with the answer, which ends the connection. Driven here rather than in a task of its own, so that dropping this future closes the connection.
            let (answer, _closed) = tokio::join!(answer, connection);
            answer
        };
        let (status, body) = timeout(patience, exchange).await.map_err(|_| self.silent(patience))??;
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }

    fn refused(&self, error: &io::Error) -> ApiError {
        let socket = self.socket.display();
        let kind = error.kind();
        let (code, message, hint) = if kind == io::ErrorKind::NotFound {
            let message = format!("no weaver is running here: {socket} does not exist");
            (ErrorCode::NotRunning, message, "start one with `weave launch`")
        } else if kind == io::ErrorKind::ConnectionRefused {
            let message = format!(
                "no weaver is running here: nobody listens at {socket}, a leftover of one that was killed"
            );
            (ErrorCode::NotRunning, message, "start one with `weave launch`")
        } else if kind == io::ErrorKind::PermissionDenied {
            let message = format!("you may not use {socket}");
            (ErrorCode::PermissionDenied, message, "run as root, or as a member of the socket's group")
        } else {
            let message = format!("cannot connect to {socket}: {error}");
            (ErrorCode::Unreachable, message, "it should be the socket of a weaver")
        };
        ApiError::new(code, message).with_hint(hint)
    }

    fn broken(&self, error: &(impl std::error::Error + ?Sized)) -> ApiError {
        let message = format!("the router at {} broke off: {error}", self.socket.display());
        ApiError::new(ErrorCode::Unreachable, message).with_hint("its log says why")
    }

    fn silent(&self, patience: Duration) -> ApiError {
        let (socket, seconds) = (self.socket.display(), patience.as_secs());
        ApiError::new(ErrorCode::Unreachable, format!("the router at {socket} did not answer in {seconds} s"))
            .with_hint("it may be stopped or overloaded")
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::new(ErrorCode::Unreachable, format!("the router's answer makes no sense: {error}"))
            .with_hint("it may be of another version; see `weave version`")
    })
}

fn refusal(status: StatusCode, body: &[u8]) -> ApiError {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let excerpt: String = String::from_utf8_lossy(body).chars().take(200).collect();
        ApiError::new(ErrorCode::Unreachable, format!("unexpected answer {status}: {excerpt}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_in_the_run_directory_unless_the_environment_names_one() {
        let run = Path::new("/run/weave");
        assert_eq!(socket_path(run, None).unwrap(), Path::new("/run/weave/weave.sock"));
        assert_eq!(socket_path(run, Some("")).unwrap(), Path::new("/run/weave/weave.sock"));
        assert_eq!(socket_path(run, Some("unix:///tmp/w.sock")).unwrap(), Path::new("/tmp/w.sock"));
        assert_eq!(socket_path(run, Some("/tmp/w.sock")).unwrap(), Path::new("/tmp/w.sock"));
        let error = socket_path(run, Some("127.0.0.1:6784")).unwrap_err();
        assert!(error.to_string().contains("not the absolute path"), "{error}");
    }

    #[test]
    fn a_user_without_permission_is_told_how_to_get_it() {
        let client = Client::new("/run/weave/weave.sock");
        let error = client.refused(&io::ErrorKind::PermissionDenied.into());
        assert_eq!(error.code.exit(), crate::Exit::Permission);
        let sentence =
            "you may not use /run/weave/weave.sock; run as root, or as a member of the socket's group";
        assert_eq!(error.to_string(), sentence);
    }

    #[test]
    fn an_answer_that_is_no_api_error_is_quoted() {
        let error = refusal(StatusCode::BAD_GATEWAY, b"<html>nginx</html>");
        assert_eq!(error.to_string(), "unexpected answer 502 Bad Gateway: <html>nginx</html>");
    }
}
