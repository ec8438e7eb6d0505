//! Attach and detach.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use weave_api::{
    AddressesResponse, ApiError, AttachRequest, AttachResponse, Call as _, ContainerRef, DetachRequest,
    ErrorCode, InterfaceOptions,
};
use weave_hostnet::{AttachSpec, Attached, NetnsRef, names, pid_of_container};
use weave_model::{AddressSpec, ContainerId, Interface};
use weave_names::RemoveFilter;
use weave_node::Attachment;

use super::{Obtained, Ops, Record, dns, host_error, pod::Paths, stopping};
use crate::store::{Change, Part};

/// Where `ip netns add` puts namespaces; a container id may be the name of one.
const NAMED_NETNS: [&str; 2] = ["/run/netns", "/var/run/netns"];

impl Ops {
    /// Gives a container its interface, addresses and names.
    ///
    /// While addresses are waited for, dropping this withdraws the request. From then on it runs to its end in a task
    /// of its own, so that nothing is left half made when the asker goes away.
    pub(crate) async fn attach(self: &Arc<Self>, request: AttachRequest) -> Result<AttachResponse, ApiError> {
        self.refuse_unsupported(&request)?;
        self.check_options(&request.options)?;
        let container = request.container.container_id()?;
        let netns = self.find_netns(&request.container, &container)?;
        self.check_names(&container, &request.names).await?;
        let wanted = self.wanted_addresses(&request)?;
        let obtained = self.obtain(&container, &wanted, request.timeout()).await?;
        let paths = match self.paths_for(&obtained.all, &request).await {
            Ok(paths) => paths,
            Err(error) => {
                self.return_fresh(obtained).await;
                return Err(error);
            }
        };
        let ops = Arc::clone(self);
        tokio::spawn(async move { ops.attach_obtained(container, netns, obtained, paths, request).await })
            .await
            .map_err(ApiError::internal)?
    }

    async fn attach_obtained(
        &self,
        container: ContainerId,
        netns: PathBuf,
        mut obtained: Obtained,
        paths: Paths,
        mut request: AttachRequest,
    ) -> Result<AttachResponse, ApiError> {
        let _exclusive = self.exclusive.lock().await;
        let attached = match self.plug(&container, &netns, &obtained.all, &request).await {
            Ok(attached) => attached,
            Err(error) => {
                self.return_fresh(obtained).await;
                return Err(error);
            }
        };
        let names = if request.without_dns { Vec::new() } else { std::mem::take(&mut request.names) };
        let claimed = names.clone();
        let record = self.record_for(&container, &netns, &attached, names, &request.options);
        let made = async {
            let made = self.equip(&record, paths, request.options.hairpin).await?;
            self.keep(&record).await?;
            Ok(made)
        };
        let made = match made.await {
            Ok(made) => made,
            Err(error) => {
                self.unplug(&netns, record.ifname(), &attached).await;
                self.return_fresh(obtained).await;
                return Err(error);
            }
        };
        obtained.settle();
        self.claim_names(&container, claimed).await?;
        self.announce(&record).await?;
        tracing::info!(%container, addresses = ?record.addresses, "attached");
        Ok(AttachResponse {
            container,
            interface: record.ifname().to_owned(),
            mac: record.mac,
            addresses: std::mem::take(&mut obtained.all),
            names: record.names,
            made,
        })
    }

    fn refuse_unsupported(&self, request: &AttachRequest) -> Result<(), ApiError> {
        if request.rewrite_hosts || !request.add_hosts.is_empty() {
            let message =
                "/etc/hosts of a container can be rewritten only for containers of a container engine";
            return Err(ApiError::new(ErrorCode::BadRequest, message)
                .with_hint("leave out --rewrite-hosts and --add-host; names are answered by DNS"));
        }
        if !request.names.is_empty() && !self.facts.has_dns() && !request.without_dns {
            return Err(ApiError::disabled("the name service", "--no-dns"));
        }
        Ok(())
    }

    /// Refuses names that cannot be, before anything is done for them.
    async fn check_names(&self, container: &ContainerId, names: &[String]) -> Result<(), ApiError> {
        let (container, names) = (container.clone(), names.to_vec());
        let checked = self
            .engine
            .run(move |engine, _| {
                let Some(table) = engine.node.names() else { return Ok(()) };
                let any = std::net::IpAddr::from([10, 0, 0, 1]);
                names.iter().try_for_each(|name| table.add(&container, name, any).map(drop))
            })
            .await
            .map_err(stopping)?;
        checked.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))
    }

    async fn plug(
        &self,
        container: &ContainerId,
        netns: &Path,
        addresses: &[Interface],
        request: &AttachRequest,
    ) -> Result<Attached, ApiError> {
        let options = &request.options;
        let seed = [&self.local.0[..], container.as_str().as_bytes()].concat();
        let mac = options.mac.unwrap_or_else(|| names::mac_from_seed(&seed));
        let spec = AttachSpec {
            netns: NetnsRef::Path(netns.to_owned()),
            bridge: self.bridge.clone(),
            host_ifname: names::host_ifname(container.as_str()),
            container_ifname: options.name.clone().unwrap_or_else(|| names::CONTAINER.to_owned()),
            mac: Some(mac),
            mtu: self.mtu().min(options.mtu.unwrap_or(u16::MAX)).into(),
            addresses: addresses.to_vec(),
            multicast_route: !request.no_multicast_route,
        };
        if !options.any_source {
            self.guard_port(&spec.host_ifname, mac, addresses)?;
        }
        self.host.attach(&spec).await.map_err(|error| host_error(&error))
    }

    async fn unplug(&self, netns: &Path, ifname: &str, attached: &Attached) {
        let netns = NetnsRef::Path(netns.to_owned());
        let addresses = (!attached.created).then_some(attached.added.as_slice());
        if let Err(error) = self.host.detach(&netns, ifname, addresses).await {
            tracing::warn!(error = format!("{error:#}"), "an interface was not taken back");
        }
    }

    fn record_for(
        &self,
        container: &ContainerId,
        netns: &Path,
        attached: &Attached,
        mut names: Vec<String>,
        options: &InterfaceOptions,
    ) -> Record {
        if let Some(before) = self.records().get(container) {
            names.extend(before.names.iter().cloned());
        }
        names.sort();
        names.dedup();
        Record {
            container: container.clone(),
            netns: netns.to_owned(),
            host_ifname: names::host_ifname(container.as_str()),
            mac: attached.mac,
            addresses: attached.addresses.clone(),
            names,
            masquerade: false,
            endpoint: None,
            interface: options.name.clone(),
            max_mtu: options.mtu,
            any_source: options.any_source,
        }
    }

    /// Makes a record durable.
    pub(super) async fn keep(&self, record: &Record) -> Result<(), ApiError> {
        let value = record.encode().map_err(ApiError::internal)?;
        self.write(record.container.clone(), Some(value)).await?;
        self.records().insert(record.container.clone(), record.clone());
        self.guard_ports();
        self.keep_sources();
        Ok(())
    }

    /// Forgets a record, durably.
    pub(super) async fn forget_record(&self, container: &ContainerId) -> Result<(), ApiError> {
        self.write(container.clone(), None).await?;
        self.records().remove(container);
        self.guard_ports();
        self.keep_sources();
        Ok(())
    }

    async fn write(&self, container: ContainerId, value: Option<Vec<u8>>) -> Result<(), ApiError> {
        let store = self.store.clone();
        let change = Change { part: Part::Attachment, key: container.as_str().as_bytes().to_vec(), value };
        tokio::task::spawn_blocking(move || store.write(&[change]))
            .await
            .map_err(ApiError::internal)?
            .map_err(|error| ApiError::internal(format!("{error:#}")))
    }

    /// Tells the mesh where the container is and what it is called.
    pub(super) async fn announce(&self, record: &Record) -> Result<(), ApiError> {
        let record = record.clone();
        let removed = self.by_hand.removed(record.holder());
        self.engine
            .run(move |engine, now| {
                let addresses: Vec<_> =
                    record.addresses.iter().map(|interface| interface.address()).collect();
                dns::give_names(engine, &record, &removed, now);
                let attachment = Attachment { container: record.holder().clone(), addresses };
                engine.node.attach(record.mac, &attachment, now);
            })
            .await
            .map_err(stopping)
    }

    /// Takes addresses, and with the last the interface, away from a container.
    pub(crate) async fn detach(&self, request: DetachRequest) -> Result<AddressesResponse, ApiError> {
        let container = request.container.container_id()?;
        let _exclusive = self.exclusive.lock().await;
        let record = self.records().get(&container).cloned();
        if record.is_none() {
            self.refuse_the_engines(&container)?;
        }
        let netns = match (&record, request.container.netns_path()) {
            (_, Some(path)) => path,
            (Some(record), None) => record.netns.clone(),
            (None, None) => self.find_netns(&request.container, &container)?,
        };
        let wanted = if request.addresses.is_empty() {
            None
        } else {
            Some(self.select(&container, &request.addresses, record.as_ref()).await?)
        };
        let detached = self
            .host
            .detach(
                &NetnsRef::Path(netns),
                record.as_ref().map_or(names::CONTAINER, Record::ifname),
                wanted.as_deref(),
            )
            .await
            .map_err(|error| host_error(&error))?;
        let mut removed = detached.removed;
        if wanted.is_none() {
            removed.extend(record.iter().flat_map(|record| record.addresses.iter().copied()));
        } else if let Some(wanted) = wanted {
            removed.extend(wanted);
        }
        removed.sort();
        removed.dedup();
        self.settle_detached(&container, record, &removed).await?;
        self.give_back(&container, &removed).await;
        tracing::info!(%container, ?removed, "detached");
        Ok(AddressesResponse { container, addresses: removed })
    }

    /// What an engine put on the network, the engine takes off it.
    fn refuse_the_engines(&self, container: &ContainerId) -> Result<(), ApiError> {
        let is_theirs = |record: &&Record| record.endpoint.is_some() && record.holder() == container;
        if self.attached().iter().any(|record| is_theirs(&record)) {
            let message =
                format!("container {container} was put on the network by its engine, not by attach");
            return Err(ApiError::new(ErrorCode::Conflict, message)
                .with_hint("take it off with `docker network disconnect NETWORK CONTAINER`"));
        }
        Ok(())
    }

    /// Brings record, names and facts in line after addresses went.
    async fn settle_detached(
        &self,
        container: &ContainerId,
        record: Option<Record>,
        removed: &[Interface],
    ) -> Result<(), ApiError> {
        self.withdraw_names(container, removed).await?;
        let Some(mut record) = record else { return Ok(()) };
        record.addresses.retain(|address| !removed.contains(address));
        if record.addresses.is_empty() {
            let mac = record.mac;
            self.engine.run(move |engine, now| engine.node.detach(mac, now)).await.map_err(stopping)?;
            self.forget_record(container).await
        } else {
            self.keep(&record).await?;
            self.announce(&record).await
        }
    }

    pub(super) async fn withdraw_names(
        &self,
        container: &ContainerId,
        addresses: &[Interface],
    ) -> Result<(), ApiError> {
        let addresses: BTreeSet<_> = addresses.iter().map(|interface| interface.address()).collect();
        self.forget_names(container, &addresses).await?;
        let container = container.clone();
        self.engine
            .run(move |engine, now| {
                for address in addresses {
                    let filter = RemoveFilter {
                        container: Some(container.clone()),
                        address: Some(address),
                        ..RemoveFilter::default()
                    };
                    engine.node.remove_names(&filter, now);
                }
            })
            .await
            .map_err(stopping)
    }

    /// The addresses of a container that the specs mean: `net:` ones are those held in that subnet.
    pub(super) async fn select(
        &self,
        container: &ContainerId,
        specs: &[AddressSpec],
        record: Option<&Record>,
    ) -> Result<Vec<Interface>, ApiError> {
        let mut held = self.held(container).await?;
        held.extend(record.iter().flat_map(|record| record.addresses.iter().copied()));
        let defaults = self.facts.default_subnets();
        let mut selected = Vec::new();
        for spec in specs {
            match spec {
                AddressSpec::Ip(interface) => selected.push(*interface),
                AddressSpec::Net(subnet) => {
                    selected.extend(held.iter().filter(|address| address.subnet() == *subnet));
                }
                AddressSpec::NetDefault => {
                    selected.extend(held.iter().filter(|address| defaults.contains(&address.subnet())));
                }
            }
        }
        selected.sort();
        selected.dedup();
        Ok(selected)
    }

    /// The network namespace of a container that is named by id, path or process.
    fn find_netns(&self, reference: &ContainerRef, container: &ContainerId) -> Result<PathBuf, ApiError> {
        if let Some(path) = reference.netns_path() {
            if !path.exists() {
                let message = format!("there is no network namespace {}", path.display());
                return Err(ApiError::new(ErrorCode::NotFound, message)
                    .with_hint("is the container running, on this host?"));
            }
            return Ok(path);
        }
        for dir in NAMED_NETNS {
            let path = Path::new(dir).join(container.as_str());
            if path.exists() {
                return Ok(path);
            }
        }
        match pid_of_container(container.as_str()) {
            Some(pid) => Ok(PathBuf::from(format!("/proc/{pid}/ns/net"))),
            None => Err(ApiError::new(
                ErrorCode::NotFound,
                format!("no running container {container} on this host"),
            )
            .with_hint("give --netns PATH or --pid N if the container has another id here")),
        }
    }
}
