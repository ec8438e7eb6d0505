//! The plain-text half of the API: addresses.

use std::{fmt::Display, str::FromStr};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, put},
};
use weave_api::{
    AllocateRequest, ApiError, ClaimRequest, ErrorCode, FreeRequest, ListRequest, ListResponse,
    LookupRequest, MAX_WAIT,
};
use weave_model::{ContainerId, Interface, Subnet};

use crate::{engine::Engine, refusal::PlainRefusal};

type Plain<T> = Result<T, PlainRefusal>;

/// Scripts of the original end a request by closing the connection, not by a deadline.
pub(crate) const FOR_EVER: Option<u64> = Some(MAX_WAIT.as_secs());

pub(crate) fn routes() -> Router<Engine> {
    Router::new()
        .route("/ipinfo/defaultsubnet", get(default_subnet))
        .route("/ipinfo/tracker", get(tracker))
        .route("/ip", get(list))
        .route("/ip/{id}", get(lookup).post(allocate).delete(free))
        .route("/ip/{id}/{ip}", axum::routing::delete(free_one))
        .route("/ip/{id}/{ip}/{len}", put(claim).get(lookup_in).post(allocate_in))
}

async fn default_subnet(State(engine): State<Engine>) -> Plain<String> {
    let report = engine.report().await?;
    let off = || ApiError::disabled("address management", "--ipalloc-range ''");
    Ok(joined(&report.ipam.ok_or_else(off)?.default_subnets))
}

/// What follows addresses in a cloud's routing tables: nothing does, which the original told by an empty text.
async fn tracker(State(engine): State<Engine>) -> Plain<()> {
    default_subnet(State(engine)).await.map(drop)
}

async fn list(State(engine): State<Engine>) -> Plain<Json<ListResponse>> {
    Ok(Json(engine.call(ListRequest {}).await?))
}

async fn lookup(State(engine): State<Engine>, Path(id): Path<String>) -> Plain<String> {
    held(&engine, parse(&id)?, None).await
}

async fn lookup_in(
    State(engine): State<Engine>,
    Path((id, ip, len)): Path<(String, String, String)>,
) -> Plain<String> {
    held(&engine, parse(&id)?, Some(subnet(&ip, &len)?)).await
}

async fn held(engine: &Engine, container: ContainerId, subnet: Option<Subnet>) -> Plain<String> {
    let answer = engine.call(LookupRequest { container, subnet }).await?;
    if answer.addresses.is_empty() {
        let message = format!("{} holds no address", answer.container);
        return Err(ApiError::new(ErrorCode::NotFound, message).into());
    }
    Ok(joined(&answer.addresses))
}

async fn allocate(State(engine): State<Engine>, Path(id): Path<String>) -> Plain<String> {
    let request = AllocateRequest { container: parse(&id)?, subnet: None, timeout_s: FOR_EVER };
    Ok(joined(&engine.call(request).await?.addresses))
}

async fn allocate_in(
    State(engine): State<Engine>,
    Path((id, ip, len)): Path<(String, String, String)>,
) -> Plain<String> {
    let (container, subnet) = (parse(&id)?, Some(subnet(&ip, &len)?));
    let answer = engine.call(AllocateRequest { container, subnet, timeout_s: FOR_EVER }).await?;
    Ok(joined(&answer.addresses))
}

async fn claim(
    State(engine): State<Engine>,
    Path((id, ip, len)): Path<(String, String, String)>,
    axum::extract::Query(query): axum::extract::Query<Vec<(String, String)>>,
) -> Plain<StatusCode> {
    let request = ClaimRequest {
        container: parse(&id)?,
        address: parse::<Interface>(&format!("{ip}/{len}"))?,
        no_error_on_unknown: query.iter().any(|(key, value)| key == "noErrorOnUnknown" && value == "true"),
        timeout_s: FOR_EVER,
    };
    engine.call(request).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn free(State(engine): State<Engine>, Path(id): Path<String>) -> Plain<StatusCode> {
    engine.call(FreeRequest { container: parse(&id)?, address: None }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn free_one(State(engine): State<Engine>, Path((id, ip)): Path<(String, String)>) -> Plain<StatusCode> {
    engine.call(FreeRequest { container: parse(&id)?, address: Some(parse(&ip)?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Parses one part of a path.
pub(crate) fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error: T::Err| {
        let message = match error.to_string() {
            sentence if sentence.contains(text) => sentence,
            sentence => format!("`{text}`: {sentence}"),
        };
        ApiError::new(ErrorCode::BadRequest, message)
    })
}

fn subnet(ip: &str, len: &str) -> Result<Subnet, ApiError> {
    parse(&format!("{ip}/{len}"))
}

fn joined<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
