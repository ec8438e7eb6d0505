//! Names.

use weave_api::{DnsAddRequest, DnsLookupRequest, DnsRemoveRequest, DnsResponse};

use crate::{
    args::{DnsAdd, DnsLookup, DnsRemove},
    commands::words::ips_and_container,
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
    let answer = context.client.call(&DnsAddRequest { container, addresses, fqdn, service }).await?;
    context.answer(&answer, String::new)
}

pub(super) async fn remove(context: &Context, dns: DnsRemove) -> Result<(), Failure> {
    let (addresses, container) = ips_and_container(&dns.words)?;
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
