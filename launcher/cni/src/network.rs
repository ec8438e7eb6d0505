//! `weave-net`: a container's interface on the network.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;
use weave_api::{
    ApiError, AttachRequest, AttachResponse, ContainerRef, ErrorCode, InterfaceOptions, ListRequest,
    PsRequest, ReleaseRequest, Route,
};
use weave_model::{AddressSpec, ContainerId, Interface};

use crate::{
    CniError, CniInterface, CniIp, CniResult, CniRoute, Code, Config, Environment, Verb,
    attachment::Attachment,
    check,
    delegate::Delegate,
    ipam, policy,
    router::{Router, is_away},
};

/// Carries out one request.
pub(crate) async fn run(
    verb: Verb,
    environment: &Environment,
    config: &Config,
    notes: &mut Vec<String>,
) -> Result<Option<Value>, CniError> {
    let router = Router::of(config);
    match verb {
        Verb::Add => {
            let result = add(&router, environment, config).await?;
            Ok(Some(result.document(config.version)))
        }
        Verb::Del => del(&router, environment, config, notes).await.map(|()| None),
        Verb::Check => check::run(&router, environment, config).await.map(|()| None),
        Verb::Gc => gc(&router, environment, config).await.map(|()| None),
        Verb::Status => status(&router, environment, config).await.map(|()| None),
        Verb::Version => Ok(None),
    }
}

/// What is wanted; then addresses from the other plugin, if one is named; then the interface; then the announcement of the
/// pod. What fails takes back what was done before it.
async fn add(router: &Router, environment: &Environment, config: &Config) -> Result<CniResult, CniError> {
    let attachment = environment.attachment(config)?;
    let netns = environment.netns()?;
    if config.previous()?.is_some() {
        let message = "this plugin makes an interface of its own: it must be the first of its list";
        return Err(CniError::new(Code::InvalidConfig, message));
    }
    let mut request = request(environment, config, &attachment, &netns)?;
    let Some(delegate) = Delegate::of(config, environment) else {
        let answer = connect(router, environment, config, &request).await?;
        return Ok(result(&answer, &attachment, &netns, config, None));
    };
    let given = delegate.add()?;
    request.addresses = given.ips.iter().map(|ip| AddressSpec::Ip(Interface(ip.address))).collect();
    request.options.addresses.clear();
    let connected = match use_given_routes(&mut request.options, &given) {
        Ok(()) => connect(router, environment, config, &request).await,
        Err(error) => Err(error),
    };
    match connected {
        Ok(answer) => Ok(result(&answer, &attachment, &netns, config, Some(&given))),
        Err(error) => match delegate.run(Verb::Del) {
            Ok(_) => Err(error),
            Err(undo) => Err(error.and_also(&format!("its addresses were not given back: {undo}"))),
        },
    }
}

/// Attaches, and announces the pod: until ADD has succeeded nothing runs in it that could send.
async fn connect(
    router: &Router,
    environment: &Environment,
    config: &Config,
    request: &AttachRequest,
) -> Result<AttachResponse, CniError> {
    let answer = attach(router, request).await?;
    let addresses: Vec<_> = answer.addresses.iter().map(|address| address.address()).collect();
    let Err(error) = policy::announce(config, environment, &addresses).await else { return Ok(answer) };
    let Some(container) = request.container.id.clone() else { return Err(error) };
    match router.call(&ReleaseRequest { container }).await {
        Ok(_) => Err(error),
        Err(undo) => Err(error.and_also(&format!("its interface was not taken back: {undo}"))),
    }
}

fn request(
    environment: &Environment,
    config: &Config,
    attachment: &Attachment,
    netns: &Path,
) -> Result<AttachRequest, CniError> {
    let wanted = config.wanted(environment)?;
    let fields = &config.fields;
    let routes = config.routes()?;
    // A gateway by itself means that everything goes there; with nothing said, everything goes through this host.
    let default_route = routes.is_none() && fields.ipam.gateway.is_none();
    let mut routes = routes.unwrap_or_default();
    if let Some(gateway) = fields.ipam.gateway.filter(|_| routes.is_empty() && !default_route) {
        routes.extend(default_by(gateway));
    }
    Ok(AttachRequest {
        container: ContainerRef { id: Some(attachment.owner()?), ..ContainerRef::netns(netns) },
        addresses: wanted.addresses,
        without_dns: true,
        no_multicast_route: default_route,
        options: InterfaceOptions {
            name: Some(attachment.interface.clone()),
            mac: wanted.mac,
            mtu: Some(fields.mtu).filter(|mtu| *mtu > 0),
            hairpin: fields.hairpin_mode.unwrap_or(true),
            any_source: fields.any_source,
            bridge: Some(fields.bridge.clone()).filter(|bridge| !bridge.is_empty()),
            addresses: wanted.bare,
            default_route,
            routes,
        },
        timeout_s: Some(config.wait_s()),
        ..AttachRequest::default()
    })
}

fn default_by(gateway: std::net::IpAddr) -> Option<Route> {
    let text = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    Some(Route { destination: text.parse().ok()?, gateway: Some(gateway) })
}

/// Takes the routes of the plugin that gave the addresses: those without a gateway by the one of their family.
fn use_given_routes(options: &mut InterfaceOptions, given: &CniResult) -> Result<(), CniError> {
    let gateways: Vec<_> = given.ips.iter().filter_map(|ip| ip.gateway).collect();
    let route = |route: &CniRoute| {
        let is_same_family = |g: &&std::net::IpAddr| g.is_ipv4() == route.dst.addr().is_ipv4();
        let destination = weave_model::Subnet::new(route.dst.trunc());
        let destination =
            destination.map_err(|error| CniError::new(Code::InvalidConfig, error.to_string()))?;
        Ok(Route { destination, gateway: route.gw.or_else(|| gateways.iter().find(is_same_family).copied()) })
    };
    if !given.routes.is_empty() {
        options.routes = given.routes.iter().map(route).collect::<Result<_, CniError>>()?;
        options.default_route = false;
    } else if !gateways.is_empty() && options.default_route {
        options.routes = gateways.into_iter().filter_map(default_by).collect();
        options.default_route = false;
    }
    Ok(())
}

/// Attaches. When the router breaks off in the middle, nobody knows what it did: then it is taken back.
async fn attach(router: &Router, request: &AttachRequest) -> Result<AttachResponse, CniError> {
    let error = match router.call_when_there(request).await {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    if error.code == Code::TryAgainLater
        && let Some(container) = request.container.id.clone()
    {
        // It may be away altogether; then its next life finds no interface and frees the address by itself.
        let _gone = router.call(&ReleaseRequest { container }).await;
    }
    Err(error)
}

fn result(
    answer: &AttachResponse,
    attachment: &Attachment,
    netns: &Path,
    config: &Config,
    given: Option<&CniResult>,
) -> CniResult {
    let made = &answer.made;
    let mtu = Some(u32::from(made.mtu));
    let on_host = |name: &String, mac: weave_model::Mac| CniInterface {
        name: name.clone(),
        mac: mac.to_string(),
        mtu,
        sandbox: String::new(),
    };
    let inside = CniInterface {
        name: attachment.interface.clone(),
        mac: answer.mac.to_string(),
        mtu,
        sandbox: netns.display().to_string(),
    };
    let gateway = |address: &Interface| {
        let by_plugin = given.and_then(|given| given.ips.iter().find(|ip| ip.address == address.0));
        let of_network = config.fields.ipam.gateway.into_iter().chain(made.gateways.iter().copied());
        let mut all = by_plugin.and_then(|ip| ip.gateway).into_iter().chain(of_network);
        all.find(|gateway| address.subnet().contains(*gateway))
    };
    let ip =
        |address: &Interface| CniIp { address: address.0, gateway: gateway(address), interface: Some(2) };
    let route = |route: &Route| CniRoute { dst: route.destination.net(), gw: route.gateway };
    let own_dns = config.fields.dns.clone();
    let dns = if own_dns == crate::Dns::default() { given.map(|g| g.dns.clone()) } else { Some(own_dns) };
    CniResult {
        interfaces: vec![
            on_host(&made.bridge, made.bridge_mac),
            on_host(&made.host_interface, made.host_mac),
            inside,
        ],
        ips: answer.addresses.iter().map(ip).collect(),
        routes: made.routes.iter().map(route).collect(),
        dns: dns.unwrap_or_default(),
    }
}

/// Takes everything away. It succeeds when nothing is there, and when the router is away: the interface goes with its
/// namespace, and the router's next life frees the addresses of interfaces that are gone.
async fn del(
    router: &Router,
    environment: &Environment,
    config: &Config,
    notes: &mut Vec<String>,
) -> Result<(), CniError> {
    let container = environment.attachment(config)?.owner()?;
    let by_delegate = Delegate::of(config, environment).map_or(Ok(None), |delegate| delegate.run(Verb::Del));
    match router.call(&ReleaseRequest { container: container.clone() }).await {
        Ok(_) => {}
        Err(error) if is_away(&error) => {
            notes.push(format!("{error}; the addresses of {container} are freed when a router runs again"));
        }
        Err(error) => return Err(error.into()),
    }
    by_delegate.map(drop)
}

async fn gc(router: &Router, environment: &Environment, config: &Config) -> Result<(), CniError> {
    let mut owners: BTreeSet<ContainerId> =
        router.call(&PsRequest::default()).await?.containers.into_iter().map(|c| c.id).collect();
    owners.extend(holders(router).await?);
    for container in ipam::dead(owners.into_iter(), config)? {
        router.call(&ReleaseRequest { container }).await?;
    }
    Delegate::of(config, environment).map_or(Ok(None), |delegate| delegate.run(Verb::Gc)).map(drop)
}

/// Who holds addresses of the ring; nobody where there is none.
async fn holders(router: &Router) -> Result<Vec<ContainerId>, ApiError> {
    match router.call(&ListRequest {}).await {
        Ok(list) => Ok(list.addresses_by_owner.into_keys().collect()),
        Err(error) if error.code == ErrorCode::Disabled => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

async fn status(router: &Router, environment: &Environment, config: &Config) -> Result<(), CniError> {
    match Delegate::of(config, environment) {
        None => ipam::status(router).await,
        Some(delegate) => {
            let asked = router.call(&weave_api::NetworkRequest {}).await;
            asked.map_err(|error| CniError::new(Code::NotAvailable, error.to_string()))?;
            delegate.run(Verb::Status).map(drop)
        }
    }
}
