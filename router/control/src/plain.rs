//! The plain-text half of the API, for scripts that were written for Weave Net: status, peers, names.

use std::net::SocketAddr;

use axum::{
    Form, Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use serde::Deserialize;
use weave_api::{
    ApiError, ConnectRequest, DnsAddRequest, DnsRemoveRequest, DnsReport, ErrorCode, ExposeRequest,
    ForgetRequest, IpamReport, LeaveRequest, PrimeRequest, Report, RmpeerRequest, views,
};
use weave_model::{AddressSpec, ContainerId};

use crate::{
    engine::Engine,
    plain_ip::{self, FOR_EVER, parse},
    refusal::{PlainRefusal, Refusal},
};

type Plain<T> = Result<T, PlainRefusal>;

/// A form or query string, in which a key may be repeated.
type Pairs = Vec<(String, String)>;

pub(crate) fn routes() -> Router<Engine> {
    Router::new()
        .route("/status", get(status))
        .route("/status/{view}", get(view))
        .route("/report", get(report))
        .route("/connect", post(connect))
        .route("/forget", post(forget))
        .route("/expose/{ip}/{len}", post(expose))
        .route("/peer", delete(leave))
        .route("/peer/{name}", delete(rmpeer))
        .route("/ring", get(ring))
        .route("/domain", get(domain))
        .route("/dns-address", get(dns_address))
        .route("/dns-address-port", get(dns_address_port))
        .route("/proxyaddrs", get(no_proxy))
        .route("/name", get(names).delete(remove_names))
        .route("/name/{container}", delete(remove_names_of))
        .route("/name/{container}/{ip}", put(add_name).delete(remove_name))
        .merge(plain_ip::routes())
}

async fn status(State(engine): State<Engine>) -> Plain<Response> {
    let report = engine.report().await?;
    let text = views::status(&report);
    Ok(when_ready(&report, text))
}

async fn view(State(engine): State<Engine>, Path(view): Path<String>) -> Plain<Response> {
    let report = engine.report().await?;
    let text = match view.as_str() {
        "connections" => views::connections(&report.router.connections),
        "peers" => views::peers(&report.router.peers),
        "targets" => views::targets(&report.router.targets),
        "ipam" => views::ipam(ipam_of(&report)?),
        "dns" => views::dns(dns_of(&report)?),
        other => {
            let message = format!("there is no status view `{other}`");
            return Err(ApiError::new(ErrorCode::UnknownPath, message)
                .with_hint("there are connections, peers, targets, ipam and dns")
                .into());
        }
    };
    Ok(when_ready(&report, text))
}

async fn report(State(engine): State<Engine>) -> Result<Json<Report>, Refusal> {
    Ok(Json(engine.report().await?))
}

async fn connect(State(engine): State<Engine>, Form(form): Form<Pairs>) -> Plain<()> {
    let replace = form.iter().any(|(key, value)| key == "replace" && value == "true");
    engine.call(ConnectRequest { peers: peers(form), replace }).await?;
    Ok(())
}

async fn forget(State(engine): State<Engine>, Form(form): Form<Pairs>) -> Plain<()> {
    engine.call(ForgetRequest { peers: peers(form) }).await?;
    Ok(())
}

#[derive(Deserialize)]
struct ExposeOptions {
    #[serde(default, rename = "skipNAT")]
    skip_nat: bool,
}

async fn expose(
    State(engine): State<Engine>,
    Path((ip, len)): Path<(String, String)>,
    Query(options): Query<ExposeOptions>,
) -> Plain<StatusCode> {
    let request = ExposeRequest {
        addresses: vec![AddressSpec::Ip(parse(&format!("{ip}/{len}"))?)],
        without_masquerade: options.skip_nat,
        timeout_s: FOR_EVER,
        ..ExposeRequest::default()
    };
    engine.call(request).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn leave(State(engine): State<Engine>) -> Plain<StatusCode> {
    engine.call(LeaveRequest::default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rmpeer(State(engine): State<Engine>, Path(name): Path<String>) -> Plain<String> {
    let answer = engine.call(RmpeerRequest { peers: vec![name], force: false }).await?;
    Ok(answer
        .taken_over
        .iter()
        .map(|taken| format!("{} IPs taken over from {}\n", taken.addresses, taken.peer))
        .collect())
}

async fn ring(State(engine): State<Engine>) -> Plain<()> {
    engine.call(PrimeRequest { timeout_s: FOR_EVER }).await?;
    Ok(())
}

async fn domain(State(engine): State<Engine>) -> Plain<String> {
    Ok(dns_of(&engine.report().await?)?.domain.clone())
}

/// Without the port: each address once.
async fn dns_address(State(engine): State<Engine>) -> Plain<String> {
    let report = engine.report().await?;
    let all = dns_of(&report)?.listen.iter().filter_map(|text| text.parse::<SocketAddr>().ok());
    let mut addresses: Vec<String> = all.map(|listen| listen.ip().to_string()).collect();
    addresses.dedup();
    Ok(addresses.join(" "))
}

/// Of the original's daemon; here it is another process, of which this one knows nothing.
async fn no_proxy() -> Plain<()> {
    Err(ApiError::new(ErrorCode::Disabled, "this router is no proxy for Docker: `weave docker-plugin` is")
        .with_hint("`weave env` says where it listens")
        .into())
}

async fn dns_address_port(State(engine): State<Engine>) -> Plain<String> {
    Ok(dns_of(&engine.report().await?)?.listen.join(" "))
}

async fn names(State(engine): State<Engine>) -> Plain<Response> {
    Ok(Json(&dns_of(&engine.report().await?)?.entries).into_response())
}

#[derive(Deserialize)]
struct NameOptions {
    fqdn: Option<String>,
}

async fn add_name(
    State(engine): State<Engine>,
    Path((container, ip)): Path<(String, String)>,
    Query(options): Query<NameOptions>,
) -> Plain<StatusCode> {
    let (container, addresses) = (holder(&container)?, vec![parse(&ip)?]);
    engine.call(DnsAddRequest { container, addresses, fqdn: options.fqdn, service: None }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_name(
    State(engine): State<Engine>,
    Path((container, ip)): Path<(String, String)>,
    Query(options): Query<NameOptions>,
) -> Plain<StatusCode> {
    let (container, addresses) = (holder(&container)?, vec![parse(&ip)?]);
    engine.call(DnsRemoveRequest { container, addresses, fqdn: options.fqdn }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_names_of(
    State(engine): State<Engine>,
    Path(container): Path<String>,
    Query(options): Query<NameOptions>,
) -> Plain<StatusCode> {
    let container = holder(&container)?;
    engine.call(DnsRemoveRequest { container, addresses: vec![], fqdn: options.fqdn }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_names(State(engine): State<Engine>, Query(options): Query<NameOptions>) -> Plain<StatusCode> {
    let request = DnsRemoveRequest { fqdn: options.fqdn, ..DnsRemoveRequest::default() };
    engine.call(request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The same text either way; the status tells scripts whether to go on waiting.
fn when_ready(report: &Report, text: String) -> Response {
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text).into_response()
}

fn ipam_of(report: &Report) -> Result<&IpamReport, ApiError> {
    report.ipam.as_ref().ok_or_else(|| ApiError::disabled("address management", "--ipalloc-range ''"))
}

fn dns_of(report: &Report) -> Result<&DnsReport, ApiError> {
    report.dns.as_ref().ok_or_else(|| ApiError::disabled("DNS", "--no-dns"))
}

/// The holder of a name; `_` stands for nobody.
fn holder(container: &str) -> Result<Option<ContainerId>, ApiError> {
    if container == "_" { Ok(None) } else { parse(container).map(Some) }
}

fn peers(form: Pairs) -> Vec<String> {
    form.into_iter().filter(|(key, _)| key == "peer").map(|(_, value)| value).collect()
}
