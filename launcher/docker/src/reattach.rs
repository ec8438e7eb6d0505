//! Containers that were attached by hand (`weave attach`): when the engine starts one again, it gets back what it had.
//!
//! The router forgets a container whose interface is gone for some seconds, so what it had is noted when it dies, and for all
//! of them when the engine itself goes away.

use std::{collections::BTreeMap, time::Instant};

use weave_api::{AttachRequest, ContainerRef, EndpointListRequest, Report};
use weave_model::{AddressSpec, ContainerId, Interface};

use crate::{clock, follow::Trouble, lingering::GRACE, plugin::Driver};

/// Digits of the id that an engine gives a container; other owners of addresses are not the engine's.
const ID_LEN: usize = 64;

/// Seconds to wait for the addresses.
const WAIT_S: u64 = 8;

/// What a container had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attached {
    addresses: Vec<Interface>,
    names: Vec<String>,
    /// Until when it gets that back; none is whenever the engine is back.
    until: Option<Instant>,
}

/// By container, what those had that may be started again.
pub(crate) type AttachedByContainer = BTreeMap<ContainerId, Attached>;

impl Driver {
    /// Notes what a container has that has just died.
    pub(crate) async fn note_dead(&self, container: &str) -> Result<(), Trouble> {
        let Ok(id) = container.parse::<ContainerId>() else { return Ok(()) };
        let had = self.attached_now().await?.remove(&id);
        let mut noted = self.attached();
        match had {
            Some(had) => {
                noted.insert(id, Attached { until: clock::now().checked_add(GRACE), ..had });
            }
            None => {
                noted.remove(&id);
            }
        }
        Ok(())
    }

    /// Notes what all containers have, as the engine has gone and some may be started again when it is back.
    pub(crate) async fn note_all(&self) -> Result<(), Trouble> {
        let now = self.attached_now().await?;
        *self.attached() = now;
        Ok(())
    }

    async fn attached_now(&self) -> Result<AttachedByContainer, Trouble> {
        let endpoints = self.router.call(&EndpointListRequest {}).await?.endpoints;
        let of_endpoints: Vec<Interface> = endpoints.into_iter().flat_map(|e| e.addresses).collect();
        Ok(attached_in(&self.router.report().await?, &of_endpoints))
    }

    /// Gives a container that runs again what it had. `pid` is its first process.
    pub(crate) async fn reattach(&self, id: &ContainerId, pid: u32) -> Result<(), Trouble> {
        let Some(had) = self.attached().remove(id) else { return Ok(()) };
        if pid == 0 || had.until.is_some_and(|until| until < clock::now()) {
            return Ok(());
        }
        let request = AttachRequest {
            container: ContainerRef { id: Some(id.clone()), pid: Some(pid), ..ContainerRef::default() },
            addresses: had.addresses.into_iter().map(AddressSpec::Ip).collect(),
            names: had.names,
            timeout_s: Some(WAIT_S),
            ..AttachRequest::default()
        };
        match self.router.call(&request).await {
            Ok(attached) => {
                tracing::info!(container = %id.short(), addresses = ?attached.addresses, "attached again");
            }
            Err(error) => {
                tracing::warn!(container = %id.short(), %error, "a container was not attached again");
            }
        }
        Ok(())
    }
}

/// The containers of an engine that have other addresses than those of its endpoints.
fn attached_in(report: &Report, of_endpoints: &[Interface]) -> AttachedByContainer {
    let mut attached = AttachedByContainer::new();
    for container in report.containers.iter().filter(|c| c.id.as_str().len() == ID_LEN) {
        let addresses: Vec<Interface> =
            container.addresses.iter().copied().filter(|address| !of_endpoints.contains(address)).collect();
        if addresses.is_empty() {
            continue;
        }
        let is_its_name = |entry: &&weave_api::DnsEntry| {
            entry.container == container.id && addresses.iter().any(|a| a.address() == entry.address)
        };
        let entries = report.dns.iter().flat_map(|dns| &dns.entries).filter(is_its_name);
        let mut names: Vec<String> = entries.map(|entry| entry.hostname.clone()).collect();
        names.sort();
        names.dedup();
        attached.insert(container.id.clone(), Attached { addresses, names, until: None });
    }
    attached
}
