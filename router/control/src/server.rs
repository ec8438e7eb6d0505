//! Accepts connections and serves one request on each.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::header,
    middleware::{Next, from_fn},
    response::IntoResponse as _,
};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixStream},
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use weave_api::{ApiError, ErrorCode, Token};

use crate::{
    Command, Listener,
    crowd::{Crowd, Place},
    engine::Engine,
    json, metrics, plain,
    refusal::{self, Refusal},
};

/// How many connections are open at once. Who has not asked for anything yet gives way to who comes; while all have, more are
/// turned away at once, in words. A busy Kubernetes node starts
/// some 250 containers at a time; the common limit of 1,024 open files leaves the rest to the router.
pub const MAX_CONNECTIONS: usize = 256;

/// How long a client may take to send its headers, and to take its answer.
const SLOW: Duration = Duration::from_secs(10);

/// How long requests that were under way get to finish when the server stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// Pause after a failed accept, so that running out of files does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Largest request head, bytes, which is also hyper's least buffer.
const MAX_HEAD: usize = 16 << 10;

/// Serves until `shutdown` completes; then lets running requests finish for a moment and removes the socket.
///
/// The engine at the other end of `commands` must go on answering (or drop its replies) meanwhile.
pub async fn serve(listener: Listener, commands: mpsc::Sender<Command>, shutdown: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(router(Engine::new(commands)));
    let crowd = Crowd::new(MAX_CONNECTIONS);
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.inner.accept() => match accepted {
                Ok((stream, _)) => match crowd.admit() {
                    Some(place) => {
                        connections.spawn(converse(stream, service.clone(), place, stopped.clone()));
                    }
                    None => turn_away(&stream),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let all_done = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(FAREWELL, all_done).await;
    connections.shutdown().await;
}

/// Serves `router` over TCP, to `most` clients at once; who comes beyond that waits for one of them to be answered.
pub(crate) async fn serve_tcp(listener: TcpListener, router: Router, most: usize) {
    let service = TowerToHyperService::new(router);
    let crowd = Crowd::new(most);
    let (_stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let place = crowd.admit_in_time().await;
                connections.spawn(converse(stream, service.clone(), place, stopped.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept over TCP");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// How many clients over TCP are served at once. Fewer than on the socket: who comes there has shown nothing yet.
const MAX_TCP: usize = 64;

/// Serves the whole API over TCP to who shows `token`, until its task is aborted.
pub async fn serve_with_token(listener: TcpListener, token: Token, commands: mpsc::Sender<Command>) {
    let guarded = router(Engine::new(commands)).layer(from_fn(move |request: Request<Body>, next: Next| {
        let shown = request.headers().get(header::AUTHORIZATION);
        let is_right = shown.is_some_and(|shown| token.is_shown_by(shown.as_bytes()));
        async move { if is_right { next.run(request).await } else { Refusal(not_shown()).into_response() } }
    }));
    serve_tcp(listener, guarded, MAX_TCP).await;
}

fn not_shown() -> ApiError {
    ApiError::new(ErrorCode::PermissionDenied, "this address of the API is for those who show its token")
        .with_hint("send the header `Authorization: Bearer TOKEN`; `weave` does so with --http-token-file")
}

fn router(engine: Engine) -> Router {
    json::routes()
        .merge(plain::routes())
        .merge(metrics::routes())
        .fallback(refusal::unknown_path)
        .method_not_allowed_fallback(refusal::wrong_method)
        .with_state(engine)
}

/// Serves one request and its answer, within bounds.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    service: TowerToHyperService<Router>,
    place: Place,
    mut stopped: watch::Receiver<bool>,
) {
    let answered = Arc::new(Notify::new());
    let service = service_fn(|request: Request<Incoming>| {
        place.keep();
        let response = service.call(request.map(Body::new));
        let answered = Arc::clone(&answered);
        async move {
            let response = response.await;
            answered.notify_one();
            response.map_err(|never: Infallible| never)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SLOW)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let too_slow = async {
        answered.notified().await;
        sleep(SLOW).await;
    };
    tokio::pin!(too_slow);
    let mut stopping = false;
    loop {
        tokio::select! {
            result = &mut connection => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a client of the control API broke off");
                }
                return;
            }
            () = &mut too_slow => {
                tracing::debug!("a client of the control API does not take its answer");
                return;
            }
            () = place.lost() => {
                tracing::debug!("a client of the control API that has not asked for anything gives way");
                return;
            }
            _ = stopped.changed(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Says that there are too many, without reading anything and without waiting.
fn turn_away(stream: &UnixStream) {
    let error = ApiError::new(
        ErrorCode::TooBusy,
        format!("{MAX_CONNECTIONS} requests are under way, which is the most there may be"),
    )
    .with_hint("try again later");
    let body = serde_json::to_string(&error).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.try_write(answer.as_bytes());
}
