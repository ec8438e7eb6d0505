//! The control API's commands, each carried out in a task of its own.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use weave_api::{
    AddressesResponse, AllocateRequest, ApiError, Call as _, ClaimRequest, ConnectRequest, DnsLookupRequest,
    DnsLookupResponse, ErrorCode, ForgetRequest, FreeRequest, ListResponse, LogLevelRequest,
    LogLevelResponse, LookupRequest, PrimeRequest, PrimeResponse, PsRequest, PsResponse, ReadyResponse,
    Report, RmpeerRequest, RmpeerResponse, TakenOver, TargetsResponse,
};
use weave_control::{Command, Reply as Answer};
use weave_ipam::Reply;
use weave_mesh::Target;
use weave_model::{AddressSpec, ContainerId, PeerName};

use super::{Ops, stopping};
use crate::{app, identity, report};

impl Ops {
    /// Carries out commands until the control server ends.
    pub(crate) async fn serve(self: Arc<Self>, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.recv().await {
            tokio::spawn(Arc::clone(&self).carry_out(command));
        }
    }

    async fn carry_out(self: Arc<Self>, command: Command) {
        match command {
            Command::Report { reply } => answer(reply, self.report()).await,
            Command::Metrics { reply } => answer(reply, self.metrics()).await,
            Command::Ready(_, reply) => answer(reply, self.ready()).await,
            Command::Connect(request, reply) => answer(reply, self.connect(request)).await,
            Command::Forget(request, reply) => answer(reply, self.forget(request)).await,
            Command::Attach(request, reply) => answer(reply, self.attach(request)).await,
            Command::Detach(request, reply) => answer(reply, self.detach(request)).await,
            Command::Release(request, reply) => answer(reply, self.release_container(request)).await,
            Command::Inspect(request, reply) => answer(reply, self.inspect(request)).await,
            Command::Network(_, reply) => answer(reply, self.network()).await,
            Command::Expose(request, reply) => answer(reply, self.expose(request)).await,
            Command::Hide(request, reply) => answer(reply, self.hide(request)).await,
            Command::Allocate(request, reply) => answer(reply, self.allocate(request)).await,
            Command::Claim(request, reply) => answer(reply, self.claim(request)).await,
            Command::Free(request, reply) => answer(reply, self.free(request)).await,
            Command::Lookup(request, reply) => answer(reply, self.lookup(request)).await,
            Command::List(_, reply) => answer(reply, self.list()).await,
            Command::Prime(request, reply) => answer(reply, self.prime(request)).await,
            Command::Ps(request, reply) => answer(reply, self.ps(request)).await,
            Command::DnsAdd(request, reply) => answer(reply, self.dns_add(request)).await,
            Command::DnsRemove(request, reply) => answer(reply, self.dns_remove(request)).await,
            Command::DnsLookup(request, reply) => answer(reply, self.dns_lookup(request)).await,
            Command::Rmpeer(request, reply) => answer(reply, self.rmpeer(request)).await,
            Command::Leave(request, reply) => self.carry_out_leave(request, reply).await,
            Command::Reset(request, reply) => self.carry_out_reset(request, reply).await,
            Command::Trace(request, reply) => answer(reply, self.trace(request)).await,
            Command::Repair(request, reply) => answer(reply, self.repair(request)).await,
            Command::LogLevel(request, reply) => answer(reply, self.log_level(request)).await,
            Command::Doctor(_, reply) => answer(reply, self.doctor()).await,
            Command::EndpointCreate(request, reply) => answer(reply, self.endpoint_create(request)).await,
            Command::EndpointJoin(request, reply) => answer(reply, self.endpoint_join(request)).await,
            Command::EndpointName(request, reply) => answer(reply, self.endpoint_name(request)).await,
            Command::EndpointRemove(request, reply) => answer(reply, self.endpoint_remove(request)).await,
            Command::EndpointList(_, reply) => answer(reply, self.endpoint_list()).await,
        }
    }

    pub(crate) async fn report(&self) -> Result<Box<Report>, ApiError> {
        let facts = Arc::clone(&self.facts);
        let (attached, mtu) = (self.attached(), self.mtu());
        self.engine
            .run(move |engine, now| Box::new(report::build(engine, &facts, &attached, mtu, now)))
            .await
            .map_err(stopping)
    }

    /// Requests are carried out only once everything has started, so to answer is to be ready.
    #[expect(clippy::unused_async, reason = "one shape for all commands")]
    async fn ready(&self) -> Result<ReadyResponse, ApiError> {
        Ok(ReadyResponse {
            version: app::VERSION.to_owned(),
            name: self.local,
            nickname: self.facts.nickname.clone(),
            pid: std::process::id(),
        })
    }

    #[expect(clippy::unused_async, reason = "one shape for all commands")]
    async fn log_level(&self, request: LogLevelRequest) -> Result<LogLevelResponse, ApiError> {
        if let Some(level) = request.level {
            let set = self.logging.set(&level).map_err(|error| ApiError::internal(format!("{error:#}")))?;
            set.ok_or_else(|| {
                ApiError::new(ErrorCode::BadRequest, format!("`{level}` is not a level"))
                    .with_hint("give error, warn, info, debug or trace")
            })?;
        }
        Ok(LogLevelResponse { level: self.logging.level() })
    }

    async fn connect(&self, request: ConnectRequest) -> Result<TargetsResponse, ApiError> {
        let targets = parse_targets(&request.peers)?;
        self.change_targets(move |engine, now| engine.node.connect(&targets, request.replace, now)).await
    }

    async fn forget(&self, request: ForgetRequest) -> Result<TargetsResponse, ApiError> {
        let targets = parse_targets(&request.peers)?;
        self.change_targets(move |engine, now| engine.node.forget(&targets, now)).await
    }

    async fn change_targets(
        &self,
        change: impl FnOnce(&mut crate::engine::Engine, std::time::Instant) + Send + 'static,
    ) -> Result<TargetsResponse, ApiError> {
        let targets = self
            .engine
            .run(move |engine, now| {
                change(engine, now);
                engine.node.mesh_status(now).targets
            })
            .await
            .map_err(stopping)?;
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        identity::save_targets(&self.store, &targets)
            .map_err(|error| ApiError::internal(format!("{error:#}")))?;
        Ok(TargetsResponse { targets })
    }

    async fn allocate(&self, request: AllocateRequest) -> Result<AddressesResponse, ApiError> {
        let spec = request.subnet.map_or(AddressSpec::NetDefault, AddressSpec::Net);
        let mut obtained = self.obtain(&request.container, &[spec], request.timeout()).await?;
        obtained.settle();
        Ok(AddressesResponse { container: request.container, addresses: std::mem::take(&mut obtained.all) })
    }

    async fn claim(&self, request: ClaimRequest) -> Result<AddressesResponse, ApiError> {
        let spec = AddressSpec::Ip(request.address);
        let timeout = if request.no_error_on_unknown { Duration::ZERO } else { request.timeout() };
        match self.obtain(&request.container, &[spec], timeout).await {
            Ok(mut obtained) => {
                obtained.settle();
                let addresses = std::mem::take(&mut obtained.all);
                Ok(AddressesResponse { container: request.container, addresses })
            }
            Err(error) if request.no_error_on_unknown && error.code == ErrorCode::Deadline => {
                Ok(AddressesResponse { container: request.container, addresses: Vec::new() })
            }
            Err(error) => Err(error),
        }
    }

    async fn free(&self, request: FreeRequest) -> Result<AddressesResponse, ApiError> {
        self.need_ipam()?;
        let mut going = self.held(&request.container).await?;
        if let Some(address) = request.address {
            going.retain(|interface| interface.address() == address);
        }
        if going.is_empty() {
            let what = request.address.map_or_else(|| "no address".to_owned(), |a| format!("not {a}"));
            let message = format!("container {} holds {what}", request.container);
            return Err(ApiError::new(ErrorCode::NotFound, message));
        }
        self.give_back(&request.container, &going).await;
        Ok(AddressesResponse { container: request.container, addresses: going })
    }

    async fn lookup(&self, request: LookupRequest) -> Result<AddressesResponse, ApiError> {
        self.need_ipam()?;
        let mut addresses = self.held(&request.container).await?;
        if let Some(subnet) = request.subnet {
            addresses.retain(|address| address.subnet() == subnet);
        }
        if addresses.is_empty() {
            let message = format!("container {} holds no address", request.container);
            return Err(ApiError::new(ErrorCode::NotFound, message));
        }
        Ok(AddressesResponse { container: request.container, addresses })
    }

    async fn list(&self) -> Result<ListResponse, ApiError> {
        self.need_ipam()?;
        self.engine
            .run(|engine, _| {
                let mut list = ListResponse { addresses_by_owner: std::collections::BTreeMap::new() };
                for (owner, address) in engine.node.ipam().into_iter().flat_map(weave_ipam::Ipam::allocations)
                {
                    list.addresses_by_owner.entry(owner.clone()).or_default().push(address);
                }
                list
            })
            .await
            .map_err(stopping)
    }

    async fn prime(&self, request: PrimeRequest) -> Result<PrimeResponse, ApiError> {
        self.need_ipam()?;
        let timeout = request.timeout();
        let result = self.engine.ask_ring(move |node, id, now| node.prime(id, now + timeout, now)).await;
        result.map_err(stopping)??;
        let seeds = self
            .engine
            .run(|engine, _| engine.node.ipam_status().map(|status| status.seeds).unwrap_or_default())
            .await
            .map_err(stopping)?;
        Ok(PrimeResponse { seeds })
    }

    #[expect(clippy::unused_async, reason = "one shape for all commands")]
    async fn ps(&self, request: PsRequest) -> Result<PsResponse, ApiError> {
        let wanted = |id: &ContainerId| {
            request.containers.is_empty()
                || request
                    .containers
                    .iter()
                    .any(|asked| id == asked || id.as_str().starts_with(asked.as_str()))
        };
        let mut containers: Vec<_> = self.attached().iter().map(report::container).collect();
        containers.retain(|container| wanted(&container.id));
        Ok(PsResponse { containers })
    }

    async fn dns_lookup(&self, request: DnsLookupRequest) -> Result<DnsLookupResponse, ApiError> {
        self.need_dns()?;
        let found = self
            .engine
            .run(move |engine, _| report::lookup(engine, &request.name))
            .await
            .map_err(stopping)?;
        Ok(DnsLookupResponse { addresses: found? })
    }

    async fn rmpeer(&self, request: RmpeerRequest) -> Result<RmpeerResponse, ApiError> {
        self.need_ipam()?;
        let mut taken_over = Vec::new();
        for text in request.peers {
            let wanted = text.clone();
            let found = self
                .engine
                .run(move |engine, now| find_peer(engine, &wanted, now))
                .await
                .map_err(stopping)?;
            let (peer, is_alive) = found?;
            if is_alive && !request.force {
                let message =
                    format!("{text} is alive: its containers use the addresses that would be taken over");
                return Err(ApiError::new(ErrorCode::PeerAlive, message).with_hint(
                    "stop it first; one that has just died is shown as unreachable by `weave status peers` \
                         before long, and one that was started again is alive",
                ));
            }
            let result = self.engine.ask_ring(move |node, id, now| node.take_over(id, peer, now)).await;
            match result.map_err(stopping)?? {
                Reply::TakenOver(addresses) => taken_over.push(TakenOver { peer: text, addresses }),
                Reply::Done | Reply::Addresses(_) => taken_over.push(TakenOver { peer: text, addresses: 0 }),
            }
        }
        Ok(RmpeerResponse { taken_over })
    }

    pub(super) fn need_ipam(&self) -> Result<(), ApiError> {
        if self.has_ipam {
            Ok(())
        } else {
            Err(ApiError::disabled("address allocation", "--ipalloc-range \"\""))
        }
    }
}

/// Answers, unless the asker goes away first: then what is under way is dropped, which withdraws it.
async fn answer<T>(mut reply: Answer<T>, work: impl Future<Output = Result<T, ApiError>>) {
    tokio::select! {
        result = work => {
            // The asker may have gone at the last moment.
            let _ = reply.send(result);
        }
        () = reply.closed() => {}
    }
}

fn parse_targets(texts: &[String]) -> Result<Vec<Target>, ApiError> {
    texts
        .iter()
        .map(|text| {
            text.parse()
                .map_err(|error| ApiError::new(ErrorCode::BadRequest, format!("peer `{text}`: {error}")))
        })
        .collect()
}

fn join(names: &[PeerName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A peer by name or nickname, and whether it can be reached.
fn find_peer(
    engine: &crate::engine::Engine,
    text: &str,
    now: std::time::Instant,
) -> Result<(PeerName, bool), ApiError> {
    let status = engine.node.mesh_status(now);
    let alive = |name: PeerName| status.peers.iter().any(|peer| peer.name == name && peer.reachable);
    if let Ok(name) = text.parse() {
        return Ok((name, alive(name)));
    }
    let met = status.peers.iter().filter(|peer| peer.nickname == text).map(|peer| peer.name);
    // Of those that are gone, the mesh knows nothing any more and the ring remembers what they were called.
    let is_met = |name: &PeerName| status.peers.iter().any(|peer| peer.name == *name);
    let gone = engine.node.ipam().into_iter().flat_map(|ipam| ipam.called(text)).filter(|name| !is_met(name));
    let named: Vec<PeerName> = met.chain(gone).collect();
    match named.as_slice() {
        [name] => Ok((*name, alive(*name))),
        [] => Err(ApiError::new(ErrorCode::NotFound, format!("no peer is called {text}")).with_hint(
            "`weave status ipam` lists the owners of addresses; give the name, six bytes like a MAC",
        )),
        several => Err(ApiError::new(
            ErrorCode::Conflict,
            format!("{} peers are called {text}; give the name of one: {}", several.len(), join(several)),
        )),
    }
}
