//! A request to the engine and its answer back, whatever their length; and connections that become something else.

use http_body_util::BodyExt as _;
use hyper::{Request, Response, StatusCode, client::conn::http1, upgrade};
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, net::UnixStream};

use super::Body;
use crate::engine::{Engine, EngineError};

/// Sends it on. When the engine agrees to speak something else on the connection (a terminal, a build's session), both
/// connections are joined until one of them ends in both directions.
pub(super) async fn forward(
    mut request: Request<Body>,
    engine: &Engine,
) -> Result<Response<Body>, EngineError> {
    let broken = |error: &dyn std::error::Error| EngineError::Broken(error.to_string());
    let stream = UnixStream::connect(engine.socket()).await.map_err(|_| EngineError::Absent)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    tokio::spawn(connection.with_upgrades());
    let client = upgrade::on(&mut request);
    let mut response = sender.send_request(request).await.map_err(|e| broken(&e))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let server = upgrade::on(&mut response);
        tokio::spawn(join(client, server));
    }
    Ok(response.map(|body| body.boxed()))
}

async fn join(client: upgrade::OnUpgrade, server: upgrade::OnUpgrade) {
    let joined = tokio::try_join!(client, server);
    match joined {
        Ok((client, server)) => {
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
                tracing::debug!(%error, "a terminal or session broke off");
            }
        }
        Err(error) => tracing::debug!(%error, "a connection did not become a terminal or session"),
    }
}
