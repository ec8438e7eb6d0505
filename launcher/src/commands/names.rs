//! Names.

use serde::Serialize;
use weave_api::{
    ApiError, DnsAddRequest, DnsLookupRequest, DnsRemoveRequest, DnsResponse, ErrorCode, ExposeRequest,
};

use crate::{
    args::{DnsAdd, DnsLookup, DnsRemove},
    commands::{docker, words::ips_and_container},
    context::{Context, Failure, talk},
};

pub(super) async fn add(context: &Context, add: DnsAdd) -> Result<(), Failure> {
    let DnsAdd { words, fqdn, service, .. } = add;
    let (addresses, container) = ips_and_container(&words)?;
    if container.is_none() && fqdn.is_none() {
        return Err(Failure::usage(
            "addresses that belong to no container need a name; give one with -h FQDN",
        ));
    }
    let found = docker::find(context, container.as_ref()).await;
    let own_name = found.as_ref().map(|found| found.name.clone());
    let container = found.map(|found| found.id).or(container);
    let request = DnsAddRequest { container, addresses, fqdn: fqdn.or(own_name), service };
    let answer = context.client.call(&request).await?;
    context.answer(&answer, String::new)
}

pub(super) async fn remove(context: &Context, dns: DnsRemove) -> Result<(), Failure> {
    let (addresses, container) = ips_and_container(&dns.words)?;
    let container = docker::find(context, container.as_ref()).await.map(|found| found.id).or(container);
    let answer = context.client.call(&DnsRemoveRequest { container, addresses, fqdn: dns.fqdn }).await?;
    if let DnsResponse { entries: 0 } = answer {
        talk("no name matches; nothing was removed");
    }
    context.answer(&answer, String::new)
}

pub(super) async fn lookup(context: &Context, lookup: DnsLookup) -> Result<(), Failure> {
    let answer = context.client.call(&DnsLookupRequest { name: lookup.name }).await?;
    context.answer(&answer.addresses, || answer.addresses.iter().map(|a| format!("{a}\n")).collect())
}

/// Where the name server is for containers: an address of this host on the network, which is taken if there is none.
pub(super) async fn docker_args(context: &Context) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Answer {
        server: std::net::IpAddr,
        domain: String,
    }
    let report = context.client.report().await?;
    let Some(dns) = report.dns else {
        let message = "the name service is switched off on this router (--no-dns)";
        return Err(ApiError::new(ErrorCode::Disabled, message).into());
    };
    let exposed = report.containers.into_iter().find(|c| c.id == weave_model::ContainerId::expose());
    let addresses = match exposed {
        Some(exposed) => exposed.addresses,
        None => context.client.call(&ExposeRequest::default()).await?.addresses,
    };
    let server = addresses.first().map(|address| address.address());
    let server = server.ok_or_else(|| ApiError::internal("the host was given no address"))?;
    let answer = Answer { server, domain: dns.domain.trim_end_matches('.').to_owned() };
    context.answer(&answer, || format!("--dns={server} --dns-search={}\n", answer.domain))
}
