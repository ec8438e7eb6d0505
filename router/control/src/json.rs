//! The JSON half of the API: one path per request, all alike.

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::header,
    response::IntoResponse,
    routing::{get, post},
};
use weave_api::{
    AllocateRequest, AttachRequest, ClaimRequest, ConnectRequest, DetachRequest, DnsAddRequest,
    DnsLookupRequest, DnsRemoveRequest, DoctorRequest, EndpointCreateRequest, EndpointJoinRequest,
    EndpointListRequest, EndpointNameRequest, EndpointRemoveRequest, ExposeRequest, ForgetRequest,
    FreeRequest, HideRequest, InspectRequest, LeaveRequest, ListRequest, LogLevelRequest, LookupRequest,
    NetworkRequest, OPENAPI, OPENAPI_PATH, PrimeRequest, PsRequest, REPORT_PATH, ReadyRequest,
    ReleaseRequest, RepairRequest, Report, ResetRequest, RmpeerRequest, TraceRequest,
};

use crate::{body::read_json, command::Dispatch, engine::Engine, refusal::Refusal};

/// The routes under `/v1/`.
pub(crate) fn routes() -> Router<Engine> {
    let router = Router::new().route(REPORT_PATH, get(report)).route(OPENAPI_PATH, get(description));
    let router = with::<ReadyRequest>(router);
    let router = with::<ConnectRequest>(router);
    let router = with::<ForgetRequest>(router);
    let router = with::<AttachRequest>(router);
    let router = with::<DetachRequest>(router);
    let router = with::<ReleaseRequest>(router);
    let router = with::<InspectRequest>(router);
    let router = with::<NetworkRequest>(router);
    let router = with::<ExposeRequest>(router);
    let router = with::<HideRequest>(router);
    let router = with::<AllocateRequest>(router);
    let router = with::<ClaimRequest>(router);
    let router = with::<FreeRequest>(router);
    let router = with::<LookupRequest>(router);
    let router = with::<ListRequest>(router);
    let router = with::<PrimeRequest>(router);
    let router = with::<PsRequest>(router);
    let router = with::<DnsAddRequest>(router);
    let router = with::<DnsRemoveRequest>(router);
    let router = with::<DnsLookupRequest>(router);
    let router = with::<RmpeerRequest>(router);
    let router = with::<LeaveRequest>(router);
    let router = with::<ResetRequest>(router);
    let router = with::<TraceRequest>(router);
    let router = with::<RepairRequest>(router);
    let router = with::<LogLevelRequest>(router);
    let router = with::<EndpointCreateRequest>(router);
    let router = with::<EndpointJoinRequest>(router);
    let router = with::<EndpointNameRequest>(router);
    let router = with::<EndpointRemoveRequest>(router);
    let router = with::<EndpointListRequest>(router);
    with::<DoctorRequest>(router)
}

fn with<C: Dispatch>(router: Router<Engine>) -> Router<Engine> {
    router.route(C::PATH, post(call::<C>))
}

async fn call<C: Dispatch>(State(engine): State<Engine>, body: Body) -> Result<Json<C::Answer>, Refusal> {
    let request: C = read_json(body).await?;
    Ok(Json(engine.call(request).await?))
}

/// What there is to ask, for programs that generate clients.
async fn description() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn report(State(engine): State<Engine>) -> Result<Json<Report>, Refusal> {
    Ok(Json(engine.report().await?))
}
