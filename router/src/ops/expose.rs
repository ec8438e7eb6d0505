//! Expose and hide: addresses of the host itself on the network.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use weave_api::{AddressesResponse, ApiError, Call as _, ErrorCode, ExposeRequest, HideRequest};
use weave_hostnet::nft::{self, NftSpec, Standing};
use weave_model::{ContainerId, Interface, Mac, Subnet};

use super::{Obtained, Ops, Record, host_error};

/// The containers of this host that see who calls from outside, if that is wanted: those for which the kernel was told so.
pub(super) struct Sources(Option<Mutex<BTreeSet<IpAddr>>>);

impl Sources {
    pub(super) fn new(is_wanted: bool) -> Self {
        Self(is_wanted.then(Mutex::default))
    }

    fn lock(&self) -> Option<MutexGuard<'_, BTreeSet<IpAddr>>> {
        Some(self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ops {
    /// Puts addresses on the bridge, so that this host reaches the network. Runs to its end like `attach`.
    pub(crate) async fn expose(
        self: &Arc<Self>,
        request: ExposeRequest,
    ) -> Result<AddressesResponse, ApiError> {
        if request.fqdn.is_some() && !self.facts.has_dns() {
            return Err(ApiError::disabled("the name service", "--no-dns"));
        }
        let obtained = self.obtain(&ContainerId::expose(), &request.addresses, request.timeout()).await?;
        let ops = Arc::clone(self);
        tokio::spawn(async move { ops.expose_obtained(obtained, request).await })
            .await
            .map_err(ApiError::internal)?
    }

    async fn expose_obtained(
        &self,
        mut obtained: Obtained,
        request: ExposeRequest,
    ) -> Result<AddressesResponse, ApiError> {
        let container = ContainerId::expose();
        let _exclusive = self.exclusive.lock().await;
        if let Err(error) = self.host.expose(&self.bridge, &obtained.all).await {
            self.return_fresh(obtained).await;
            return Err(host_error(&error));
        }
        let before = self.records().get(&container).cloned();
        let record = self.exposed_record(before.as_ref(), &obtained.all, &request);
        let done = match self.masquerade(Some(&record)) {
            Ok(()) => self.keep(&record).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            self.unexpose(&obtained.fresh).await;
            self.return_fresh(obtained).await;
            if let Err(error) = self.masquerade(before.as_ref()) {
                tracing::warn!(%error, "the rules of before were not put back");
            }
            return Err(error);
        }
        obtained.settle();
        self.claim_names(&container, request.fqdn.into_iter().collect()).await?;
        self.announce(&record).await?;
        let addresses = std::mem::take(&mut obtained.all);
        tracing::info!(?addresses, "exposed");
        Ok(AddressesResponse { container, addresses })
    }

    fn exposed_record(
        &self,
        before: Option<&Record>,
        added: &[Interface],
        request: &ExposeRequest,
    ) -> Record {
        let mut addresses: Vec<Interface> = before.map(|record| record.addresses.clone()).unwrap_or_default();
        addresses.extend(added);
        addresses.sort();
        addresses.dedup();
        let mut names: Vec<String> = before.map(|record| record.names.clone()).unwrap_or_default();
        names.extend(request.fqdn.clone());
        names.sort();
        names.dedup();
        Record {
            container: ContainerId::expose(),
            netns: PathBuf::new(),
            host_ifname: self.bridge.clone(),
            mac: self.bridge_mac(),
            addresses,
            names,
            masquerade: !request.without_masquerade,
            endpoint: None,
            interface: None,
            max_mtu: None,
            any_source: false,
        }
    }

    /// The bridge's own address: pinned, and the same after every start.
    pub(super) fn bridge_mac(&self) -> Mac {
        self.facts.bridge_mac
    }

    /// Brings the nftables rules in line with what is exposed.
    pub(super) fn masquerade(&self, record: Option<&Record>) -> Result<(), ApiError> {
        let subnets: Vec<Subnet> = record
            .filter(|record| record.masquerade)
            .map(|record| record.addresses.iter().map(|address| address.subnet()).collect())
            .unwrap_or_default();
        let kept = self.sources.lock();
        let local = kept.is_some().then(|| self.local_addresses());
        nft::apply(&NftSpec {
            bridge: self.bridge.clone(),
            masquerade: subnets,
            protected_ports: vec![self.facts.port],
            local: local.clone(),
        })
        .map_err(|error| host_error(&error))?;
        if let (Some(mut kept), Some(local)) = (kept, local) {
            *kept = local;
        }
        *self.standing() = nft::standing().ok();
        Ok(())
    }

    fn local_addresses(&self) -> BTreeSet<IpAddr> {
        let records = self.records();
        let attached = records.values().filter(|record| record.container != ContainerId::expose());
        attached.flat_map(|record| &record.addresses).map(|interface| interface.address()).collect()
    }

    /// Tells the kernel which containers are here, if they are to see who calls from outside.
    pub(super) fn keep_sources(&self) {
        let exposed = self.records().get(&ContainerId::expose()).cloned();
        let Some(exposed) = exposed.filter(|record| record.masquerade) else { return };
        let told = {
            let Some(mut kept) = self.sources.lock() else { return };
            let local = self.local_addresses();
            let gone: BTreeSet<IpAddr> = kept.difference(&local).copied().collect();
            let come: BTreeSet<IpAddr> = local.difference(&kept).copied().collect();
            if gone.is_empty() && come.is_empty() {
                return;
            }
            let told = nft::keep_sources(&gone, &come);
            if told.is_ok() {
                *kept = local;
            }
            told
        };
        // Somebody changed the table; it is made anew.
        if told.is_err()
            && let Err(error) = self.masquerade(Some(&exposed))
        {
            tracing::warn!(%error, "our rules in the packet filter were not put back; trying again");
        }
    }

    /// Puts rules back that somebody flushed, and lets our packets past chains that were put up later, by a Docker that starts
    /// after us, for instance.
    pub(super) fn mend_rules(&self) {
        let stands = self.standing().as_mut().map_or(Ok(true), nft::still_stands);
        // What cannot be read now can be in a moment.
        if stands.unwrap_or(true) {
            return;
        }
        let exposed = self.records().get(&ContainerId::expose()).cloned();
        match self.masquerade(exposed.as_ref()) {
            Ok(()) => tracing::info!("somebody changed the packet filter; our rules are in it again"),
            Err(error) => {
                tracing::warn!(%error, "our rules in the packet filter were not put back; trying again")
            }
        }
    }

    fn standing(&self) -> MutexGuard<'_, Option<Standing>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn unexpose(&self, addresses: &[Interface]) {
        if let Err(error) = self.host.hide(&self.bridge, Some(addresses)).await {
            tracing::warn!(error = format!("{error:#}"), "addresses were not taken off the bridge");
        }
    }

    /// Takes addresses off the bridge.
    pub(crate) async fn hide(&self, request: HideRequest) -> Result<AddressesResponse, ApiError> {
        let container = ContainerId::expose();
        let _exclusive = self.exclusive.lock().await;
        let Some(mut record) = self.records().get(&container).cloned() else {
            return match request.addresses.as_slice() {
                [] => Ok(AddressesResponse { container, addresses: Vec::new() }),
                _ => Err(ApiError::new(ErrorCode::NotFound, "no address is exposed on this host")),
            };
        };
        let going = if request.addresses.is_empty() {
            record.addresses.clone()
        } else {
            self.select(&container, &request.addresses, Some(&record)).await?
        };
        self.host.hide(&self.bridge, Some(&going)).await.map_err(|error| host_error(&error))?;
        self.withdraw_names(&container, &going).await?;
        record.addresses.retain(|address| !going.contains(address));
        if record.addresses.is_empty() {
            let mac = record.mac;
            self.engine
                .run(move |engine, now| engine.node.detach(mac, now))
                .await
                .map_err(super::stopping)?;
            self.forget_record(&container).await?;
            self.masquerade(None)?;
        } else {
            self.masquerade(Some(&record))?;
            self.keep(&record).await?;
            self.announce(&record).await?;
        }
        self.give_back(&container, &going).await;
        tracing::info!(addresses = ?going, "hidden");
        Ok(AddressesResponse { container, addresses: going })
    }
}
