//! `weave-ipam`: addresses from the ring for other plugins' interfaces.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::Value;
use weave_api::{
    AllocateRequest, ApiError, ClaimRequest, ErrorCode, FreeRequest, ListRequest, LookupRequest,
    NetworkRequest, PrimeRequest,
};
use weave_model::{AddressSpec, ContainerId, Interface};

use crate::{
    CniError, CniIp, CniResult, CniRoute, Code, Config, Environment, Verb, attachment::Attachment,
    config::ValidAttachment, router::Router,
};

/// Carries out one request.
pub(crate) async fn run(
    verb: Verb,
    environment: &Environment,
    config: &Config,
) -> Result<Option<Value>, CniError> {
    let router = Router::of(config);
    match verb {
        Verb::Add => {
            let result = add(&router, environment, config).await?;
            Ok(Some(result.document(config.version)))
        }
        Verb::Del => {
            let owner = environment.attachment(config)?.owner()?;
            // No interface of ours tells the router when the container has gone: without it nothing can be freed.
            release(&router, &owner).await.map(|()| None)
        }
        Verb::Check => check(&router, environment, config).await.map(|()| None),
        Verb::Gc => gc(&router, config).await.map(|()| None),
        Verb::Status => status(&router).await.map(|()| None),
        Verb::Version => Ok(None),
    }
}

async fn add(router: &Router, environment: &Environment, config: &Config) -> Result<CniResult, CniError> {
    let owner = environment.attachment(config)?.owner()?;
    let wanted = config.wanted(environment)?;
    let routes = config.routes()?.unwrap_or_default();
    let mut specs = wanted.addresses;
    specs.extend(with_prefix(router, &wanted.bare).await?);
    if specs.is_empty() {
        specs.push(AddressSpec::NetDefault);
    }
    let mut addresses = Vec::new();
    for spec in specs {
        match obtain(router, &owner, spec, config.wait_s()).await {
            Ok(obtained) => addresses.extend(obtained),
            Err(error) => {
                // What was obtained before must not stay behind.
                release(router, &owner).await?;
                return Err(error);
            }
        }
    }
    let gateway = |address: &Interface| {
        config.fields.ipam.gateway.filter(|gateway| gateway.is_ipv4() == address.address().is_ipv4())
    };
    let ip = |address: &Interface| CniIp { address: address.0, gateway: gateway(address), interface: None };
    Ok(CniResult {
        interfaces: Vec::new(),
        ips: addresses.iter().map(ip).collect(),
        routes: routes.iter().map(|r| CniRoute { dst: r.destination.net(), gw: r.gateway }).collect(),
        dns: config.fields.dns.clone(),
    })
}

/// Addresses without prefix length get that of the default subnet that they lie in.
async fn with_prefix(router: &Router, bare: &[std::net::IpAddr]) -> Result<Vec<AddressSpec>, CniError> {
    if bare.is_empty() {
        return Ok(Vec::new());
    }
    let network = router.call_when_there(&NetworkRequest {}).await?;
    let find = |address: &std::net::IpAddr| {
        let subnet = network.default_subnets.iter().find(|subnet| subnet.contains(*address));
        let net = subnet.and_then(|subnet| IpNet::new(*address, subnet.net().prefix_len()).ok());
        net.map(|net| AddressSpec::Ip(Interface(net))).ok_or_else(|| {
            let message = format!("{address} is outside of every range that this network allocates from");
            CniError::new(Code::InvalidConfig, message)
        })
    };
    bare.iter().map(find).collect()
}

async fn obtain(
    router: &Router,
    owner: &ContainerId,
    spec: AddressSpec,
    wait_s: u64,
) -> Result<Vec<Interface>, CniError> {
    let (container, timeout_s) = (owner.clone(), Some(wait_s));
    let subnet = match spec {
        AddressSpec::Ip(address) => {
            let claim = ClaimRequest { container, address, no_error_on_unknown: false, timeout_s };
            router.call_when_there(&claim).await?;
            return Ok(vec![address]);
        }
        AddressSpec::Net(subnet) => Some(subnet),
        AddressSpec::NetDefault => None,
    };
    let allocate = AllocateRequest { container, subnet, timeout_s };
    Ok(router.call_when_there(&allocate).await?.addresses)
}

/// Frees everything of an owner; who has nothing is fine.
async fn release(router: &Router, owner: &ContainerId) -> Result<(), CniError> {
    match router.call(&FreeRequest { container: owner.clone(), address: None }).await {
        Err(error) if error.code != ErrorCode::NotFound => Err(error.into()),
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn check(router: &Router, environment: &Environment, config: &Config) -> Result<(), CniError> {
    let owner = environment.attachment(config)?.owner()?;
    let Some(previous) = config.previous()? else {
        return Err(CniError::new(Code::InvalidConfig, "CHECK needs prevResult"));
    };
    let held = match router.call(&LookupRequest { container: owner.clone(), subnet: None }).await {
        Ok(held) => held.addresses,
        Err(error) if error.code == ErrorCode::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let recorded: BTreeSet<IpNet> = previous.ips.iter().map(|ip| ip.address).collect();
    let is_ours = |address: &Interface| recorded.contains(&address.0);
    if held.iter().any(is_ours) {
        return Ok(());
    }
    let message = format!("{owner} holds none of the addresses that it was given");
    Err(CniError::new(Code::Changed, message))
}

async fn gc(router: &Router, config: &Config) -> Result<(), CniError> {
    let owners = router.call(&ListRequest {}).await?.addresses_by_owner.into_keys();
    for owner in dead(owners, config)? {
        release(router, &owner).await?;
    }
    Ok(())
}

/// Those owners that are attachments of this network and not among the valid ones.
pub(crate) fn dead(
    owners: impl Iterator<Item = ContainerId>,
    config: &Config,
) -> Result<BTreeSet<ContainerId>, CniError> {
    let Some(valid) = &config.fields.valid_attachments else {
        let message = "GC needs cni.dev/valid-attachments: without it everything would be garbage";
        return Err(CniError::new(Code::InvalidConfig, message));
    };
    let valid: BTreeSet<&ValidAttachment> = valid.iter().collect();
    let is_dead = |owner: &ContainerId| {
        let Some(Attachment { container, interface, .. }) = Attachment::of_owner(owner, &config.name) else {
            return false;
        };
        !valid.contains(&ValidAttachment { container, interface })
    };
    Ok(owners.filter(is_dead).collect())
}

/// How long STATUS waits for the ring, seconds. To wait is to ask for it: nobody makes a ring before it is wanted.
const STATUS_WAIT_S: u64 = 2;

/// Whether ADD can be served.
pub(crate) async fn status(router: &Router) -> Result<(), CniError> {
    let unavailable = |error: ApiError| {
        let message = format!("no address can be given out: {}", error.message);
        CniError::new(Code::NotAvailable, message).with_details(error.hint.unwrap_or_default())
    };
    let network = router.call(&NetworkRequest {}).await.map_err(unavailable)?;
    if network.ipam_ready {
        return Ok(());
    }
    let prime = PrimeRequest { timeout_s: Some(STATUS_WAIT_S) };
    router.call(&prime).await.map(drop).map_err(unavailable)
}
