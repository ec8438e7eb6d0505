//! `/metrics`, on the control socket and on a TCP address of its own: for reading only.

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::mpsc};

use crate::{Command, engine::Engine, refusal, refusal::PlainRefusal, server};

/// Scrapes that are under way at once.
const MAX_SCRAPES: usize = 8;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) fn routes() -> Router<Engine> {
    Router::new().route("/metrics", get(metrics))
}

/// Serves `/metrics`, and nothing else, to whoever can reach `listener`, until its task is aborted.
pub async fn serve_metrics(listener: TcpListener, commands: mpsc::Sender<Command>) {
    let router = routes()
        .fallback(refusal::unknown_path)
        .method_not_allowed_fallback(refusal::wrong_method)
        .with_state(Engine::new(commands));
    server::serve_tcp(listener, router, MAX_SCRAPES).await;
}

async fn metrics(State(engine): State<Engine>) -> Result<Response, PlainRefusal> {
    let text = engine.metrics().await?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}
