//! An engine that answers by simple rules, and a directory that goes when the test ends.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::mpsc;
use weave_api::{
    AddressesResponse, ApiError, AttachResponse, ContainerReport, DataPlaneReport, Diagnosis, DnsEntry,
    DnsLookupResponse, DnsReport, DnsResponse, EndpointListResponse, EndpointRemoveResponse, ErrorCode,
    InspectResponse, IpamReport, LeaveResponse, ListResponse, LogLevelResponse, MadeInterface,
    NetworkResponse, OwnerReport, PrimeResponse, PsResponse, ReadyResponse, RepairResponse, Report,
    ResetResponse, RingMeeting, RingSide, RmpeerResponse, RouterReport, StationTrace, TakenOver,
    TargetsResponse, TraceResponse,
};
use weave_control::{Command, Reply};
use weave_model::{AddressSpec, ContainerId, Interface, Mac, PeerName};

pub(crate) const NAME: PeerName = PeerName([0xaa, 0, 0, 0, 0, 1]);

/// What the engine knows, for tests to look at and to change.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) targets: BTreeSet<String>,
    pub(crate) addresses: BTreeMap<ContainerId, Vec<Interface>>,
    pub(crate) names: BTreeMap<String, std::net::IpAddr>,
    /// Requests that were withdrawn while they waited.
    pub(crate) withdrawn: Vec<ContainerId>,
    /// Switches address management and DNS off.
    pub(crate) without_services: bool,
    /// Not every part has started.
    pub(crate) starting: bool,
    /// Waits end with this reason at once.
    pub(crate) no_ring: Option<String>,
    /// What the doctor says.
    pub(crate) diagnosis: Diagnosis,
}

#[derive(Clone, Default)]
pub(crate) struct Engine(pub(crate) Arc<Mutex<State>>);

impl Engine {
    /// Answers until the server drops its end.
    pub(crate) async fn run(self, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.recv().await {
            self.answer(command);
        }
    }

    fn answer(&self, command: Command) {
        let mut state = self.0.lock().unwrap();
        match command {
            Command::Report { reply } => say(reply, Ok(Box::new(report(&state)))),
            Command::Metrics { reply } => say(reply, Ok("# EOF\n".to_owned())),
            Command::Ready(_, reply) => say(reply, ready(&state)),
            Command::Connect(request, reply) => {
                if request.peers.iter().any(|peer| peer.contains(' ')) {
                    let message = "`host two` is not a host; write host, host:port, or [address]:port";
                    return say(reply, Err(ApiError::new(ErrorCode::BadRequest, message)));
                }
                if request.replace {
                    state.targets.clear();
                }
                state.targets.extend(request.peers);
                say(reply, Ok(targets(&state)));
            }
            Command::Forget(request, reply) => {
                state.targets.retain(|target| !request.peers.contains(target));
                say(reply, Ok(targets(&state)));
            }
            Command::Attach(request, reply)
                if request.container.container_id().unwrap().as_str() == "waits" =>
            {
                self.wait("waits".parse().unwrap(), reply);
            }
            Command::Attach(request, reply) => {
                let container = request.container.container_id().unwrap();
                let given = self.give(&mut state, &container, &request.addresses);
                let names = request.names.iter().map(|n| format!("{n}.weave.local.")).collect();
                let mac = Mac([2, 0, 0, 0, 0, 9]);
                let interface = "ethwe".to_owned();
                let made = |addresses| AttachResponse {
                    container,
                    interface,
                    mac,
                    addresses,
                    names,
                    made: MadeInterface::default(),
                };
                say(reply, given.map(made));
            }
            Command::Detach(request, reply) => {
                let container = request.container.container_id().unwrap();
                say(reply, Ok(take(&mut state, container)));
            }
            Command::Release(request, reply) => say(reply, Ok(take(&mut state, request.container))),
            Command::Inspect(request, reply) => {
                let container = request.container.container_id().unwrap();
                let recorded = state.addresses.get(&container).cloned();
                say(reply, Ok(InspectResponse { recorded, found: None }));
            }
            Command::Network(_, reply) => say(reply, Ok(network(&state))),
            Command::Expose(request, reply) => {
                let container = ContainerId::expose();
                let given = self.give(&mut state, &container, &request.addresses);
                say(reply, given.map(|addresses| AddressesResponse { container, addresses }));
            }
            Command::Hide(_, reply) => say(reply, Ok(take(&mut state, ContainerId::expose()))),
            Command::Allocate(request, reply) if request.container.as_str() == "waits" => {
                self.wait(request.container, reply);
            }
            Command::Allocate(request, reply) => {
                let given = self.give(&mut state, &request.container, &[]);
                say(
                    reply,
                    given.map(|addresses| AddressesResponse { container: request.container, addresses }),
                );
            }
            Command::Claim(request, reply) => {
                let holder = state.addresses.iter().find(|(_, held)| held.contains(&request.address));
                if let Some((holder, _)) = holder {
                    let message = format!("{} is held by {holder}", request.address);
                    let error =
                        ApiError::new(ErrorCode::Conflict, message).with_hint("detach it there first");
                    return say(reply, Err(error));
                }
                let held = state.addresses.entry(request.container.clone()).or_default();
                held.push(request.address);
                let addresses = held.clone();
                say(reply, Ok(AddressesResponse { container: request.container, addresses }));
            }
            Command::Free(request, reply) => say(reply, Ok(take(&mut state, request.container))),
            Command::Lookup(request, reply) => {
                let addresses = state.addresses.get(&request.container).cloned().unwrap_or_default();
                say(reply, Ok(AddressesResponse { container: request.container, addresses }));
            }
            Command::List(_, reply) => {
                say(reply, Ok(ListResponse { addresses_by_owner: state.addresses.clone() }));
            }
            Command::Prime(_, reply) => {
                say(reply, ring(&state).map(|()| PrimeResponse { seeds: vec![NAME] }))
            }
            Command::Ps(request, reply) => {
                let wanted =
                    |id: &ContainerId| request.containers.is_empty() || request.containers.contains(id);
                let mut containers = containers(&state);
                containers.retain(|container| wanted(&container.id));
                say(reply, Ok(PsResponse { containers }));
            }
            Command::DnsAdd(request, reply) => {
                let name = request.fqdn.unwrap_or_else(|| "web.weave.local".to_owned());
                let entries = request.addresses.len() as u64;
                state.names.extend(request.addresses.into_iter().map(|address| (name.clone(), address)));
                say(reply, Ok(DnsResponse { entries }));
            }
            Command::DnsRemove(request, reply) => {
                let before = state.names.len();
                state.names.retain(|name, _| request.fqdn.as_ref().is_some_and(|fqdn| fqdn != name));
                say(reply, Ok(DnsResponse { entries: (before - state.names.len()) as u64 }));
            }
            Command::DnsLookup(request, reply) => {
                let addresses = state.names.get(&request.name).copied().into_iter().collect();
                say(reply, Ok(DnsLookupResponse { addresses }));
            }
            Command::Rmpeer(request, reply) => {
                let count = |peer: &str| if peer == "node-b" { 4096 } else { 0 };
                let taken = |peer: String| TakenOver { addresses: count(&peer), peer };
                say(reply, Ok(RmpeerResponse { taken_over: request.peers.into_iter().map(taken).collect() }));
            }
            Command::Leave(_, reply) => say(reply, Ok(LeaveResponse { heir: None, addresses: 0 })),
            Command::Reset(request, reply) => say(reply, reset(request.force)),
            Command::LogLevel(request, reply) => {
                let level = request.level.unwrap_or_else(|| "info".to_owned());
                say(reply, Ok(LogLevelResponse { level }));
            }
            Command::Repair(request, reply) => say(reply, Ok(repair(&state, request.confirm))),
            Command::Trace(request, reply) => say(reply, Ok(trace(&state, request.target))),
            Command::Doctor(_, reply) => say(reply, Ok(state.diagnosis.clone())),
            Command::EndpointCreate(_, reply) => say(reply, Err(no_endpoints())),
            Command::EndpointJoin(_, reply) => say(reply, Err(no_endpoints())),
            Command::EndpointName(_, reply) => say(reply, Err(no_endpoints())),
            Command::EndpointRemove(_, reply) => say(reply, Ok(EndpointRemoveResponse { existed: false })),
            Command::EndpointList(_, reply) => say(reply, Ok(EndpointListResponse { endpoints: Vec::new() })),
        }
    }

    fn give(
        &self,
        state: &mut State,
        container: &ContainerId,
        wanted: &[AddressSpec],
    ) -> Result<Vec<Interface>, ApiError> {
        ring(state)?;
        let next = state.addresses.len() + 1;
        let exact = |spec: &AddressSpec| match spec {
            AddressSpec::Ip(address) => *address,
            AddressSpec::Net(_) | AddressSpec::NetDefault => format!("10.32.0.{next}/12").parse().unwrap(),
        };
        let held = state.addresses.entry(container.clone()).or_default();
        if held.is_empty() {
            let wanted = if wanted.is_empty() { &[AddressSpec::NetDefault] } else { wanted };
            held.extend(wanted.iter().map(exact));
        }
        Ok(held.clone())
    }

    /// Never answers; notices when nobody waits for the answer any more.
    fn wait<T: Send + 'static>(&self, container: ContainerId, mut reply: Reply<T>) {
        let state = Arc::clone(&self.0);
        tokio::spawn(async move {
            reply.closed().await;
            state.lock().unwrap().withdrawn.push(container);
        });
    }
}

/// A ring that has met another, while there are addresses.
fn repair(state: &State, done: bool) -> RepairResponse {
    if state.addresses.is_empty() {
        return RepairResponse { done, ..RepairResponse::default() };
    }
    let side = |last| RingSide { peers: vec![PeerName([2, 0, 0, 0, 0, last])], seeds: vec![], used: true };
    let meeting = Some(RingMeeting { ours: side(1), theirs: side(2), gives_way: true });
    RepairResponse { done, meeting, ..RepairResponse::default() }
}

fn no_endpoints() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there are no endpoints here")
}

fn reset(force: bool) -> Result<ResetResponse, ApiError> {
    if !force {
        let message = "no other router can take our addresses over";
        return Err(ApiError::new(ErrorCode::Conflict, message).with_hint("use --force"));
    }
    let abandoned = Some("nobody took our addresses over".to_owned());
    Ok(ResetResponse { abandoned, db_prefix: "/nonexistent/weave".into(), bridge: "weave".to_owned() })
}

fn trace(state: &State, target: String) -> TraceResponse {
    let has = |held: &Vec<Interface>| held.iter().any(|held| held.address().to_string() == target);
    let stations: Vec<StationTrace> = state
        .addresses
        .iter()
        .filter(|(_, held)| has(held))
        .map(|(id, held)| StationTrace {
            mac: Mac([2, 0, 0, 0, 0, 9]),
            container: Some(id.clone()),
            addresses: held.iter().map(|held| held.address()).collect(),
            peer: NAME,
            nickname: "node-a".to_owned(),
            local: true,
            reachable: true,
            mtu: 1376,
            hops: vec![],
        })
        .collect();
    let note = stations.is_empty().then(|| format!("nobody has {target}"));
    TraceResponse { target, stations, note }
}

fn network(state: &State) -> NetworkResponse {
    NetworkResponse {
        bridge: "weave".to_owned(),
        mtu: 1376,
        exposed: state.addresses.get(&ContainerId::expose()).cloned().unwrap_or_default(),
        default_subnets: vec!["10.32.0.0/12".parse().unwrap()],
        ipam_ready: ring(state).is_ok(),
        ipam_status: state.no_ring.clone(),
    }
}

fn say<T>(reply: Reply<T>, answer: Result<T, ApiError>) {
    let _ = reply.send(answer);
}

fn take(state: &mut State, container: ContainerId) -> AddressesResponse {
    AddressesResponse { addresses: state.addresses.remove(&container).unwrap_or_default(), container }
}

fn targets(state: &State) -> TargetsResponse {
    TargetsResponse { targets: state.targets.iter().cloned().collect() }
}

fn ring(state: &State) -> Result<(), ApiError> {
    let late = |reason: &String| Err(ApiError::new(ErrorCode::Deadline, reason.clone()));
    state.no_ring.as_ref().map_or(Ok(()), late)
}

fn ready(state: &State) -> Result<ReadyResponse, ApiError> {
    if state.starting {
        return Err(ApiError::new(ErrorCode::Deadline, "the store is being opened"));
    }
    Ok(ReadyResponse {
        version: "9.9.9".to_owned(),
        name: NAME,
        nickname: "node-a".to_owned(),
        pid: std::process::id(),
    })
}

fn containers(state: &State) -> Vec<ContainerReport> {
    let row = |(id, addresses): (&ContainerId, &Vec<Interface>)| ContainerReport {
        id: id.clone(),
        mac: Some(Mac([2, 0, 0, 0, 0, 9])),
        addresses: addresses.clone(),
    };
    state.addresses.iter().map(row).collect()
}

pub(crate) fn report(state: &State) -> Report {
    let ipam = IpamReport {
        status: state.no_ring.clone().unwrap_or_else(|| "ready".to_owned()),
        ready: state.no_ring.is_none(),
        election: None,
        ranges: vec!["10.32.0.0/12".parse().unwrap()],
        default_subnets: vec!["10.32.0.0/12".parse().unwrap()],
        owners: vec![OwnerReport {
            peer: NAME,
            nickname: "node-a".to_owned(),
            addresses: 1 << 20,
            percent: 100.0,
            reachable: true,
            own: true,
        }],
        active: state.addresses.len() as u64,
        pending: vec![],
        entries: 1,
        seeds: vec![NAME],
        conflicts: vec![],
    };
    let entry = |(name, address): (&String, &std::net::IpAddr)| DnsEntry {
        hostname: format!("{name}."),
        address: *address,
        container: ContainerId::external(),
        peer: NAME,
    };
    let dns = DnsReport {
        domain: "weave.local.".to_owned(),
        listen: vec!["127.0.0.1:53".to_owned()],
        upstream: vec![],
        ttl: 1,
        entries: state.names.iter().map(entry).collect(),
    };
    let services = !state.without_services;
    Report {
        version: "9.9.9".to_owned(),
        ready: !state.starting,
        uptime_s: 1,
        problems: vec![],
        router: RouterReport {
            name: NAME,
            nickname: "node-a".to_owned(),
            uid: "0000000000000001".to_owned(),
            port: 6783,
            protocol_min: 1,
            protocol_max: 1,
            encryption: true,
            discovery: true,
            targets: state.targets.iter().cloned().collect(),
            trusted_subnets: vec![],
            peers: vec![],
            connections: vec![],
            unicast_routes: vec![],
            broadcast_routes: vec![],
            terminations: 0,
        },
        ipam: services.then_some(ipam),
        dns: services.then_some(dns),
        data_plane: DataPlaneReport::default(),
        containers: containers(state),
    }
}

/// A directory of its own, removed when dropped.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("weave-test-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits for a condition, five seconds at most.
pub(crate) async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("waited 5 s for: {what}");
}
