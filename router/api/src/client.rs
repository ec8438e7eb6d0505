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
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{
    Address, ApiError, Call, ErrorCode, Report,
    call::{QUICK, REPORT_PATH},
};

/// The largest answer read, bytes. A report of a thousand peers in a full mesh has about 100 MB of links at worst;
/// one such peer's own share is far below this.
const MAX_ANSWER: usize = 256 << 20;

/// How much longer than the router we wait, so that its own account of a deadline arrives.
const GRACE: Duration = Duration::from_secs(5);

/// Speaks to one router over its unix socket or, where it listens there, over TCP; one connection per request.
///
/// Dropping the future of a call that waits closes the connection, and the router withdraws the request.
#[derive(Debug, Clone)]
pub struct Client {
    address: Address,
}

impl Client {
    /// A client of the router that listens at `socket`. Nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self::at(Address::Unix(socket.into()))
    }

    /// A client of the router that listens at `address`. Nothing is opened yet.
    #[must_use]
    pub fn at(address: Address) -> Self {
        Self { address }
    }

    /// Where the router is expected to listen.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its unix socket; an empty path where it is asked over TCP.
    #[must_use]
    pub fn socket(&self) -> &Path {
        match &self.address {
            Address::Unix(path) => path,
            Address::Tcp { .. } => Path::new(""),
        }
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

    /// The process at the other end of the socket; none when it lives in a process namespace that we cannot see, or on
    /// another host.
    ///
    /// # Errors
    /// When nothing listens.
    pub async fn router_pid(&self) -> Result<Option<i32>, ApiError> {
        let Stream::Unix(stream) = self.open().await? else { return Ok(None) };
        let credentials = stream.peer_cred().map_err(|e| self.broken(&e))?;
        Ok(credentials.pid().filter(|pid| *pid > 0))
    }

    async fn open(&self) -> Result<Stream, ApiError> {
        let open = async {
            match &self.address {
                Address::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
                Address::Tcp { host, .. } => TcpStream::connect(host).await.map(Stream::Tcp),
            }
        };
        match timeout(QUICK, open).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.refused(&error)),
            Err(_) => Err(self.silent(QUICK)),
        }
    }

    /// Sends one request and reads the whole answer.
    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), ApiError> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        let answer = async move {
            let response = sender.send_request(request).await.map_err(|e| self.broken(&e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|e| self.broken(e.as_ref()))?.to_bytes()))
        };
        // The sender goes with the answer, which ends the connection. Driven here rather than in a task of its own, so that
        // dropping this future closes the connection.
        let (answer, _closed) = tokio::join!(answer, connection);
        answer
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Bytes, ApiError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "weave")
            .header(header::CONNECTION, "close")
            .header(header::CONTENT_TYPE, "application/json");
        if let Address::Tcp { token, .. } = &self.address {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(ApiError::internal)?;
        let exchange = async {
            match self.open().await? {
                Stream::Unix(stream) => self.converse(stream, request).await,
                Stream::Tcp(stream) => self.converse(stream, request).await,
            }
        };
        let (status, body) = timeout(patience, exchange).await.map_err(|_| self.silent(patience))??;
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }

    fn refused(&self, error: &io::Error) -> ApiError {
        let socket = &self.address;
        let kind = error.kind();
        if matches!(socket, Address::Tcp { .. }) {
            let message = format!("no weaver answers at {socket}: {error}");
            let hint = "it listens there only when it was launched with --http-addr";
            return ApiError::new(ErrorCode::NotRunning, message).with_hint(hint);
        }
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
        let message = format!("the router at {} broke off: {error}", self.address);
        ApiError::new(ErrorCode::Unreachable, message).with_hint("its log says why")
    }

    fn silent(&self, patience: Duration) -> ApiError {
        let (socket, seconds) = (&self.address, patience.as_secs());
        ApiError::new(ErrorCode::Unreachable, format!("the router at {socket} did not answer in {seconds} s"))
            .with_hint("it may be stopped or overloaded")
    }
}

/// An open connection.
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
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
