//! Operations that touch both the node and the host: attach, detach, expose, hide.
//!
//! Each is all or nothing. The order is always: addresses from the ring, the interface in the kernel, the record in
//! the store, then what the mesh is told. A failure takes back the steps before it, in reverse.

mod attach;
mod commands;
mod dns;
mod endpoint;
mod expose;
mod guard;
mod leave;
mod pod;
mod record;
mod repair;
mod reset;
mod resize;
mod restore;
mod trace;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex as StdMutex, PoisonError, atomic::AtomicU16},
    time::Duration,
};

use tokio::sync::{Mutex, Notify};
use weave_api::{ApiError, ErrorCode};
use weave_hostnet::{Host, nft::Standing};
use weave_ipam::{Ipam, Refusal, Reply};
use weave_model::{AddressSpec, ContainerId, Interface, PeerName};

pub(crate) use self::record::Record;
use crate::{
    clock,
    doctor::Subject,
    engine::{Handle, Stopped},
    labels::with_nicknames,
    logging::Logging,
    report::Facts,
    store::Store,
};

/// What the operations need.
pub(crate) struct Ops {
    pub(crate) engine: Handle,
    pub(crate) host: Host,
    store: Store,
    pub(crate) facts: Arc<Facts>,
    bridge: String,
    /// What interfaces have, or are about to get.
    mtu: AtomicU16,
    local: PeerName,
    has_ipam: bool,
    pub(crate) subject: Subject,
    logging: Logging,
    ports: guard::Ports,
    /// What stood in the packet filter when its rules were last made.
    standing: StdMutex<Option<Standing>>,
    sources: expose::Sources,
    /// Told when the router is to end and to take everything with it.
    ending: Notify,
    /// What is attached here, as the store has it.
    records: StdMutex<BTreeMap<ContainerId, Record>>,
    by_hand: dns::ByHand,
    /// Host operations run one at a time: two on one container would undo each other's work.
    exclusive: Mutex<()>,
}

/// What [`Ops::new`] takes.
pub(crate) struct Setup {
    pub(crate) engine: Handle,
    pub(crate) host: Host,
    pub(crate) store: Store,
    pub(crate) facts: Arc<Facts>,
    pub(crate) bridge: String,
    pub(crate) mtu: u16,
    pub(crate) local: PeerName,
    pub(crate) has_ipam: bool,
    /// Whether containers may only send from their own addresses.
    pub(crate) port_guard: bool,
    /// Whether containers of this host see who calls from outside.
    pub(crate) keeps_sources: bool,
    /// What the doctor examines.
    pub(crate) subject: Subject,
    pub(crate) logging: Logging,
}

impl Ops {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup { engine, host, store, facts, bridge, mtu, local, has_ipam, subject, logging, .. } = setup;
        let (mtu, records) = (AtomicU16::new(mtu), StdMutex::new(BTreeMap::new()));
        let ports = guard::Ports::new(setup.port_guard);
        let (ending, exclusive) = (Notify::new(), Mutex::new(()));
        Self {
            engine,
            host,
            store,
            facts,
            bridge,
            mtu,
            local,
            has_ipam,
            subject,
            logging,
            ports,
            standing: StdMutex::default(),
            sources: expose::Sources::new(setup.keeps_sources),
            ending,
            records,
            by_hand: dns::ByHand::default(),
            exclusive,
        }
    }

    fn records(&self) -> std::sync::MutexGuard<'_, BTreeMap<ContainerId, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything attached here, in the order of ids.
    pub(crate) fn attached(&self) -> Vec<Record> {
        self.records().values().cloned().collect()
    }

    /// Gets the addresses that were asked for. On failure, those that were new go back.
    async fn obtain(
        &self,
        owner: &ContainerId,
        specs: &[AddressSpec],
        timeout: Duration,
    ) -> Result<Obtained, ApiError> {
        let held = self.held(owner).await?;
        let mut obtained = Obtained::new(self.engine.clone(), owner.clone());
        let specs = if specs.is_empty() { &[AddressSpec::NetDefault] } else { specs };
        for spec in specs {
            match self.obtain_one(owner, *spec, timeout).await {
                Ok(addresses) => {
                    for address in addresses {
                        if self.has_ipam && !held.contains(&address) {
                            obtained.fresh.push(address);
                        }
                        obtained.all.push(address);
                    }
                }
                Err(error) => {
                    self.return_fresh(obtained).await;
                    return Err(error);
                }
            }
        }
        obtained.all.sort();
        obtained.all.dedup();
        Ok(obtained)
    }

    async fn obtain_one(
        &self,
        owner: &ContainerId,
        spec: AddressSpec,
        timeout: Duration,
    ) -> Result<Vec<Interface>, ApiError> {
        let owner = owner.clone();
        let answer = match (spec, self.has_ipam) {
            (AddressSpec::Ip(address), false) => return Ok(vec![address]),
            (_, false) => return Err(ApiError::disabled("address allocation", "--ipalloc-range \"\"")),
            (AddressSpec::Ip(address), true) => {
                let claim = move |node: &mut weave_node::Node, id, now| {
                    node.claim(id, owner, address, now + timeout, now);
                };
                self.engine.ask_ring(claim).await
            }
            (AddressSpec::Net(_) | AddressSpec::NetDefault, true) => {
                let subnet = match spec {
                    AddressSpec::Net(subnet) => Some(subnet),
                    AddressSpec::NetDefault | AddressSpec::Ip(_) => None,
                };
                let allocate = move |node: &mut weave_node::Node, id, now| {
                    node.allocate(id, owner, subnet, now + timeout, now);
                };
                self.engine.ask_ring(allocate).await
            }
        };
        match answer.map_err(stopping)?? {
            Reply::Addresses(addresses) => Ok(addresses),
            Reply::Done | Reply::TakenOver(_) => match spec {
                AddressSpec::Ip(address) => Ok(vec![address]),
                AddressSpec::Net(_) | AddressSpec::NetDefault => Ok(Vec::new()),
            },
        }
    }

    /// The addresses that the ring has recorded for an owner.
    async fn held(&self, owner: &ContainerId) -> Result<Vec<Interface>, ApiError> {
        let owner = owner.clone();
        self.engine
            .run(move |engine, _| engine.node.ipam().map(|ipam| ipam.lookup(&owner)).unwrap_or_default())
            .await
            .map_err(stopping)
    }

    /// Frees addresses, going on after a failure.
    async fn give_back(&self, owner: &ContainerId, addresses: &[Interface]) {
        if self.has_ipam {
            free_all(&self.engine, owner, addresses).await;
        }
    }

    /// Takes back what a failed operation had obtained.
    async fn return_fresh(&self, mut obtained: Obtained) {
        let fresh = obtained.settle();
        let owner = obtained.owner.clone();
        self.give_back(&owner, &fresh).await;
    }
}

async fn free_all(engine: &Handle, owner: &ContainerId, addresses: &[Interface]) {
    for address in addresses {
        let (owner, ip) = (owner.clone(), address.address());
        let answer = engine.ask_ring(move |node, id, now| node.free_address(id, &owner, ip, now)).await;
        if let Ok(Err(refusal)) = answer {
            tracing::warn!(%address, %refusal, "an address was not given back");
        }
    }
}

/// Addresses of one request. If it is dropped before it is settled (the asker went away), the new ones go back.
struct Obtained {
    engine: Handle,
    owner: ContainerId,
    all: Vec<Interface>,
    /// Those that the owner did not hold before.
    fresh: Vec<Interface>,
}

impl Obtained {
    fn new(engine: Handle, owner: ContainerId) -> Self {
        Self { engine, owner, all: Vec::new(), fresh: Vec::new() }
    }

    /// From here on the addresses are somebody else's to look after; gives those that are new.
    fn settle(&mut self) -> Vec<Interface> {
        std::mem::take(&mut self.fresh)
    }
}

impl Drop for Obtained {
    fn drop(&mut self) {
        let fresh = self.settle();
        if fresh.is_empty() {
            return;
        }
        let (engine, owner) = (self.engine.clone(), self.owner.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { free_all(&engine, &owner, &fresh).await });
        }
    }
}

pub(crate) fn stopping(_: Stopped) -> ApiError {
    ApiError::new(ErrorCode::ShuttingDown, "the router is stopping")
}

/// A host error, with what the kernel said.
fn host_error(error: &anyhow::Error) -> ApiError {
    ApiError::new(ErrorCode::Host, format!("{error:#}"))
}

/// The ring's refusal in the API's terms, with the nicknames of the routers that it names.
pub(crate) fn explain_refusal(refusal: &Refusal, ipam: Option<&Ipam>) -> ApiError {
    ApiError::new(code_of(refusal), with_nicknames(&refusal.to_string(), ipam))
}

/// The kind of a refusal in the API's terms.
pub(crate) fn code_of(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::Deadline { .. } | Refusal::AwaitingConsent { .. } => ErrorCode::Deadline,
        Refusal::Exhausted { .. } => ErrorCode::Exhausted,
        Refusal::OwnersUnreachable { .. } => ErrorCode::OwnersUnreachable,
        Refusal::OutOfRange { .. } | Refusal::SubnetTooSmall { .. } | Refusal::NoHostAddress { .. } => {
            ErrorCode::InvalidAddress
        }
        Refusal::Conflict { .. } | Refusal::OwnedByOther { .. } | Refusal::TakeOverInProgress { .. } => {
            ErrorCode::Conflict
        }
        Refusal::PeerAlive { .. } | Refusal::PeerReturned { .. } | Refusal::SeenAlive { .. } => {
            ErrorCode::PeerAlive
        }
        Refusal::NoHeir => ErrorCode::NotFound,
        Refusal::TooManyRequests => ErrorCode::TooBusy,
        Refusal::Leaving | Refusal::Cancelled => ErrorCode::ShuttingDown,
    }
}

/// The daemon's start, for `uptime`.
pub(crate) fn uptime(since: std::time::Instant) -> Duration {
    clock::now().saturating_duration_since(since)
}
