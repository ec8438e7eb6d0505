//! Endpoints: interfaces that a container engine takes into its containers by itself.
//!
//! The record of an endpoint is that of a container whose id is the engine's number for it. What the engine leased ahead
//! (`LEASE_PREFIX`) stays the engine's to free; what it brought from elsewhere is claimed here, so that two hosts cannot
//! both hold it.

use std::sync::Arc;

use weave_api::{
    ApiError, Call as _, EndpointCreateRequest, EndpointJoinRequest, EndpointListResponse,
    EndpointNameRequest, EndpointRemoveRequest, EndpointRemoveResponse, EndpointResponse, ErrorCode,
    LEASE_PREFIX,
};
use weave_hostnet::{EndpointSpec, names};
use weave_model::{AddressSpec, ContainerId, Interface, Mac};
use weave_names::RemoveFilter;

use super::{Obtained, Ops, Record, host_error, record::Endpoint, stopping};

impl Ops {
    /// Claims what is not leased, makes the interface, keeps the record, tells the mesh. Like `attach`, it runs to its
    /// end once addresses need not be waited for any more.
    pub(crate) async fn endpoint_create(
        self: &Arc<Self>,
        request: EndpointCreateRequest,
    ) -> Result<EndpointResponse, ApiError> {
        if request.addresses.is_empty() {
            return Err(ApiError::new(ErrorCode::BadRequest, "an endpoint needs an address"));
        }
        let claims = self.not_leased(&request.addresses).await?;
        let obtained = if claims.is_empty() {
            Obtained::new(self.engine.clone(), request.endpoint.clone())
        } else {
            self.obtain(&request.endpoint, &claims, request.timeout()).await?
        };
        let ops = Arc::clone(self);
        tokio::spawn(async move { ops.create_obtained(obtained, request).await })
            .await
            .map_err(ApiError::internal)?
    }

    async fn create_obtained(
        &self,
        mut obtained: Obtained,
        request: EndpointCreateRequest,
    ) -> Result<EndpointResponse, ApiError> {
        let _exclusive = self.exclusive.lock().await;
        self.remove_predecessors(&request).await;
        let record = self.endpoint_record(&request);
        if let Err(error) = self.make(&record).await {
            self.return_fresh(obtained).await;
            return Err(error);
        }
        if let Err(error) = self.keep(&record).await {
            self.unmake(&record).await;
            self.return_fresh(obtained).await;
            return Err(error);
        }
        obtained.settle();
        self.announce(&record).await?;
        tracing::info!(endpoint = %record.container, addresses = ?record.addresses, "endpoint made");
        Ok(shown(&record))
    }

    /// Those of the addresses that no lease of this host holds.
    async fn not_leased(&self, addresses: &[Interface]) -> Result<Vec<AddressSpec>, ApiError> {
        let addresses = addresses.to_vec();
        self.engine
            .run(move |engine, _| {
                let is_leased = |address: &Interface| {
                    let holder = engine.node.ipam().and_then(|ipam| ipam.holder(address.address()));
                    holder.is_some_and(|holder| holder.as_str().starts_with(LEASE_PREFIX))
                };
                addresses.into_iter().filter(|a| !is_leased(a)).map(AddressSpec::Ip).collect()
            })
            .await
            .map_err(stopping)
    }

    /// An endpoint that has one of these addresses is a former one: the engine has given the address away since.
    async fn remove_predecessors(&self, request: &EndpointCreateRequest) {
        let is_former = |record: &Record| {
            record.endpoint.is_some()
                && record.container != request.endpoint
                && record.addresses.iter().any(|address| request.addresses.contains(address))
        };
        for record in self.attached().iter().filter(|record| is_former(record)) {
            tracing::info!(endpoint = %record.container, "the engine has forgotten an endpoint; it is removed");
            self.unmake(record).await;
            self.release(record).await;
        }
    }

    fn endpoint_record(&self, request: &EndpointCreateRequest) -> Record {
        let before = self.records().get(&request.endpoint).cloned();
        Record {
            container: request.endpoint.clone(),
            netns: before.as_ref().map(|record| record.netns.clone()).unwrap_or_default(),
            host_ifname: names::host_ifname(request.endpoint.as_str()),
            mac: request.mac.unwrap_or_else(|| self.endpoint_mac(&request.addresses)),
            addresses: request.addresses.clone(),
            names: before.as_ref().map(|record| record.names.clone()).unwrap_or_default(),
            masquerade: false,
            interface: None,
            max_mtu: None,
            any_source: false,
            endpoint: Some(before.and_then(|record| record.endpoint).unwrap_or_default()),
        }
    }

    /// Follows from the address, so that neighbours which remember a former holder of it on this host are not wrong.
    fn endpoint_mac(&self, addresses: &[Interface]) -> Mac {
        let first = addresses.first().map(|address| address.address().to_string()).unwrap_or_default();
        names::mac_from_seed(&[&self.local.0[..], first.as_bytes()].concat())
    }

    async fn make(&self, record: &Record) -> Result<(), ApiError> {
        self.guard_port(&record.host_ifname, record.mac, &record.addresses)?;
        let spec = EndpointSpec {
            bridge: self.bridge.clone(),
            host_ifname: record.host_ifname.clone(),
            waiting_ifname: names::waiting_ifname(record.container.as_str()),
            mac: record.mac,
            mtu: self.mtu().into(),
        };
        self.host.ensure_endpoint(&spec).await.map_err(|error| host_error(&error))
    }

    async fn unmake(&self, record: &Record) {
        if let Err(error) = self.host.remove_link(&record.host_ifname).await {
            tracing::warn!(error = format!("{error:#}"), "an endpoint's interface was not removed");
        }
    }

    /// Remembers where the interface goes. The engine asks before it moves it, so it has to be there now.
    pub(crate) async fn endpoint_join(
        &self,
        request: EndpointJoinRequest,
    ) -> Result<EndpointResponse, ApiError> {
        let _exclusive = self.exclusive.lock().await;
        let mut record = self.endpoint_of(&request.endpoint)?;
        record.netns = request.netns;
        self.make(&record).await?;
        self.keep(&record).await?;
        self.announce(&record).await?;
        Ok(shown(&record))
    }

    /// Gives the endpoint to a container, with these names in place of its former ones.
    pub(crate) async fn endpoint_name(
        &self,
        request: EndpointNameRequest,
    ) -> Result<EndpointResponse, ApiError> {
        let _exclusive = self.exclusive.lock().await;
        let before = self.endpoint_of(&request.endpoint)?;
        let mut names = if self.facts.has_dns() {
            self.valid_names(&request.container, request.names).await?
        } else {
            Vec::new()
        };
        names.sort();
        names.dedup();
        let endpoint = Some(Endpoint { container: Some(request.container) });
        let record = Record { names, endpoint, ..before.clone() };
        if record == before {
            return Ok(shown(&record));
        }
        self.withdraw_lost_names(&before, &record).await?;
        let is_new = |name: &&String| !before.names.contains(name);
        self.claim_names(record.holder(), record.names.iter().filter(is_new).cloned().collect()).await?;
        self.keep(&record).await?;
        self.announce(&record).await?;
        Ok(shown(&record))
    }

    async fn withdraw_lost_names(&self, before: &Record, after: &Record) -> Result<(), ApiError> {
        let is_same_holder = before.holder() == after.holder();
        let lost: Vec<String> = before
            .names
            .iter()
            .filter(|name| !is_same_holder || !after.names.contains(name))
            .cloned()
            .collect();
        let (holder, addresses) = (before.holder().clone(), before.addresses.clone());
        self.engine
            .run(move |engine, now| {
                for name in lost {
                    for address in &addresses {
                        let filter = RemoveFilter {
                            container: Some(holder.clone()),
                            name: Some(name.clone()),
                            address: Some(address.address()),
                        };
                        engine.node.remove_names(&filter, now);
                    }
                }
            })
            .await
            .map_err(stopping)
    }

    /// A container may be called what no host can be called; it then has no name here.
    async fn valid_names(
        &self,
        container: &ContainerId,
        names: Vec<String>,
    ) -> Result<Vec<String>, ApiError> {
        let container = container.clone();
        self.engine
            .run(move |engine, _| {
                let Some(table) = engine.node.names() else { return Vec::new() };
                let any = std::net::IpAddr::from([10, 0, 0, 1]);
                names.into_iter().filter(|name| table.add(&container, name, any).is_ok()).collect()
            })
            .await
            .map_err(stopping)
    }

    /// Takes everything of an endpoint away.
    pub(crate) async fn endpoint_remove(
        &self,
        request: EndpointRemoveRequest,
    ) -> Result<EndpointRemoveResponse, ApiError> {
        let _exclusive = self.exclusive.lock().await;
        let Ok(record) = self.endpoint_of(&request.endpoint) else {
            return Ok(EndpointRemoveResponse { existed: false });
        };
        self.host.remove_link(&record.host_ifname).await.map_err(|error| host_error(&error))?;
        self.release(&record).await;
        Ok(EndpointRemoveResponse { existed: true })
    }

    #[expect(clippy::unused_async, reason = "one shape for all commands")]
    pub(crate) async fn endpoint_list(&self) -> Result<EndpointListResponse, ApiError> {
        let endpoints =
            self.attached().iter().filter(|record| record.endpoint.is_some()).map(shown).collect();
        Ok(EndpointListResponse { endpoints })
    }

    fn endpoint_of(&self, endpoint: &ContainerId) -> Result<Record, ApiError> {
        let found = self.records().get(endpoint).filter(|record| record.endpoint.is_some()).cloned();
        found.ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("there is no endpoint {endpoint}")))
    }
}

fn shown(record: &Record) -> EndpointResponse {
    EndpointResponse {
        endpoint: record.container.clone(),
        interface: names::waiting_ifname(record.container.as_str()),
        mac: record.mac,
        addresses: record.addresses.clone(),
        container: record.endpoint.as_ref().and_then(|endpoint| endpoint.container.clone()),
        netns: Some(record.netns.clone()).filter(|netns| !netns.as_os_str().is_empty()),
        names: record.names.clone(),
    }
}
