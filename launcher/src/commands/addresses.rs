//! Interfaces and addresses of containers and of the host.

use weave_api::{AttachRequest, DetachRequest, ExposeRequest, HideRequest, Report};
use weave_model::{ContainerId, Interface};

use crate::{
    args::{Addresses, Attach, Detach, Expose},
    commands::{docker, peers::ring_state, words::addresses_and_container},
    context::{Context, Failure},
};

pub(super) async fn attach(context: &Context, attach: Attach) -> Result<(), Failure> {
    let (addresses, container) = addresses_and_container(&attach.words, &attach.namespace)?;
    let container = docker::resolve(context, container).await;
    let id = container.container_id()?;
    let request = AttachRequest {
        container,
        addresses,
        names: attach.names,
        without_dns: attach.without_dns,
        rewrite_hosts: attach.rewrite_hosts,
        add_hosts: attach.add_hosts,
        no_multicast_route: attach.no_multicast_route,
        options: weave_api::InterfaceOptions {
            any_source: attach.any_source,
            ..weave_api::InterfaceOptions::default()
        },
        timeout_s: Some(attach.wait.timeout),
    };
    let call = context.client.call(&request);
    let answer = context.with_progress(call, |report| waiting_for(report, &id)).await?;
    context.answer(&answer, || line(&answer.addresses))
}

pub(super) async fn detach(context: &Context, detach: Detach) -> Result<(), Failure> {
    let (addresses, container) = addresses_and_container(&detach.words, &detach.namespace)?;
    let container = docker::resolve(context, container).await;
    let answer = context.client.call(&DetachRequest { container, addresses }).await?;
    context.answer(&answer, || line(&answer.addresses))
}

pub(super) async fn expose(context: &Context, expose: Expose) -> Result<(), Failure> {
    let request = ExposeRequest {
        addresses: expose.addresses.addresses,
        fqdn: expose.fqdn,
        without_masquerade: expose.without_masquerade,
        timeout_s: Some(expose.wait.timeout),
    };
    let call = context.client.call(&request);
    let answer = context.with_progress(call, |report| waiting_for(report, &ContainerId::expose())).await?;
    context.answer(&answer, || line(&answer.addresses))
}

pub(super) async fn hide(context: &Context, addresses: Addresses) -> Result<(), Failure> {
    let answer = context.client.call(&HideRequest { addresses: addresses.addresses }).await?;
    context.answer(&answer, || line(&answer.addresses))
}

/// What this container's address is being waited for, or the whole ring.
fn waiting_for(report: &Report, id: &ContainerId) -> Option<String> {
    let pending = report.ipam.iter().flat_map(|ipam| &ipam.pending).find(|p| p.container == *id);
    ring_state(report).or_else(|| pending.map(|p| p.reason.clone()))
}

/// The addresses without their prefixes, on one line; nothing for none.
fn line(addresses: &[Interface]) -> String {
    if addresses.is_empty() {
        return String::new();
    }
    addresses.iter().map(|a| a.address().to_string()).collect::<Vec<_>>().join(" ") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_printed_bare_on_one_line() {
        let addresses = ["10.40.0.3/12", "fd00::7/64"].map(|a| a.parse().unwrap());
        assert_eq!(line(&addresses), "10.40.0.3 fd00::7\n");
        assert_eq!(line(&[]), "");
    }
}
