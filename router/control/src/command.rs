//! What the server asks of the engine that owns the router's state.

use tokio::sync::oneshot;
use weave_api::{
    AddressesResponse, AllocateRequest, ApiError, AttachRequest, AttachResponse, Call, ClaimRequest,
    ConnectRequest, DetachRequest, Diagnosis, DnsAddRequest, DnsLookupRequest, DnsLookupResponse,
    DnsRemoveRequest, DnsResponse, DoctorRequest, EndpointCreateRequest, EndpointJoinRequest,
    EndpointListRequest, EndpointListResponse, EndpointNameRequest, EndpointRemoveRequest,
    EndpointRemoveResponse, EndpointResponse, ExposeRequest, ForgetRequest, FreeRequest, HideRequest,
    InspectRequest, InspectResponse, LeaveRequest, LeaveResponse, ListRequest, ListResponse, LogLevelRequest,
    LogLevelResponse, LookupRequest, NetworkRequest, NetworkResponse, PrimeRequest, PrimeResponse, PsRequest,
    PsResponse, ReadyRequest, ReadyResponse, ReleaseRequest, RepairRequest, RepairResponse, Report,
    ResetRequest, ResetResponse, RmpeerRequest, RmpeerResponse, TargetsResponse, TraceRequest, TraceResponse,
};

/// Where an answer goes. When the asker has gone away, `is_closed` is true (and `closed` completes): whatever waits on its behalf is to be
/// withdrawn.
pub type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// One request. The engine answers each exactly once, or drops the reply when it stops.
///
/// Requests that wait tell for how long (`request.timeout()`, see [`Call::timeout`]); the engine answers with
/// [`Deadline`](weave_api::ErrorCode::Deadline) and the reason when that has passed.
#[derive(Debug)]
pub enum Command {
    /// The whole state.
    Report {
        /// The answer.
        reply: Reply<Box<Report>>,
    },
    /// What Prometheus scrapes, in the text format of OpenMetrics.
    Metrics {
        /// The answer.
        reply: Reply<String>,
    },
    /// Wait until every part has started.
    Ready(ReadyRequest, Reply<ReadyResponse>),
    /// Add or replace targets.
    Connect(ConnectRequest, Reply<TargetsResponse>),
    /// Remove targets.
    Forget(ForgetRequest, Reply<TargetsResponse>),
    /// Give a container an interface and addresses.
    Attach(AttachRequest, Reply<AttachResponse>),
    /// Take them away.
    Detach(DetachRequest, Reply<AddressesResponse>),
    /// Take everything of a container away.
    Release(ReleaseRequest, Reply<AddressesResponse>),
    /// What a container's interface looks like.
    Inspect(InspectRequest, Reply<InspectResponse>),
    /// What the network is like on this host.
    Network(NetworkRequest, Reply<NetworkResponse>),
    /// Give the host addresses.
    Expose(ExposeRequest, Reply<AddressesResponse>),
    /// Take them away.
    Hide(HideRequest, Reply<AddressesResponse>),
    /// Take an address for an owner.
    Allocate(AllocateRequest, Reply<AddressesResponse>),
    /// Record an address for an owner.
    Claim(ClaimRequest, Reply<AddressesResponse>),
    /// Free an owner's addresses.
    Free(FreeRequest, Reply<AddressesResponse>),
    /// What an owner holds; not found when nothing.
    Lookup(LookupRequest, Reply<AddressesResponse>),
    /// What every owner holds.
    List(ListRequest, Reply<ListResponse>),
    /// Wait until the ring exists.
    Prime(PrimeRequest, Reply<PrimeResponse>),
    /// Which containers are attached.
    Ps(PsRequest, Reply<PsResponse>),
    /// Register a name.
    DnsAdd(DnsAddRequest, Reply<DnsResponse>),
    /// Remove names.
    DnsRemove(DnsRemoveRequest, Reply<DnsResponse>),
    /// What a name stands for.
    DnsLookup(DnsLookupRequest, Reply<DnsLookupResponse>),
    /// Take over dead peers' space.
    Rmpeer(RmpeerRequest, Reply<RmpeerResponse>),
    /// Hand our space to another peer.
    Leave(LeaveRequest, Reply<LeaveResponse>),
    /// Leave, and end the router with everything of its own.
    Reset(ResetRequest, Reply<ResetResponse>),
    /// Where something is, and the way there.
    Trace(TraceRequest, Reply<TraceResponse>),
    /// What a repair of the ring would do, or do it.
    Repair(RepairRequest, Reply<RepairResponse>),
    /// How much is logged.
    LogLevel(LogLevelRequest, Reply<LogLevelResponse>),
    /// What is wrong.
    Doctor(DoctorRequest, Reply<Diagnosis>),
    /// Make an interface that a container engine will take.
    EndpointCreate(EndpointCreateRequest, Reply<EndpointResponse>),
    /// It is being taken.
    EndpointJoin(EndpointJoinRequest, Reply<EndpointResponse>),
    /// Whose it is.
    EndpointName(EndpointNameRequest, Reply<EndpointResponse>),
    /// Remove it.
    EndpointRemove(EndpointRemoveRequest, Reply<EndpointRemoveResponse>),
    /// Which there are.
    EndpointList(EndpointListRequest, Reply<EndpointListResponse>),
}

/// A request that has a command.
pub(crate) trait Dispatch: Call {
    fn command(self, reply: Reply<Self::Answer>) -> Command;
}

macro_rules! dispatch {
    ($($request:ty => $variant:ident;)*) => {
        $(impl Dispatch for $request {
            fn command(self, reply: Reply<Self::Answer>) -> Command {
                Command::$variant(self, reply)
            }
        })*
    };
}

dispatch! {
    ReadyRequest => Ready;
    ConnectRequest => Connect;
    ForgetRequest => Forget;
    AttachRequest => Attach;
    DetachRequest => Detach;
    ReleaseRequest => Release;
    InspectRequest => Inspect;
    NetworkRequest => Network;
    ExposeRequest => Expose;
    HideRequest => Hide;
    AllocateRequest => Allocate;
    ClaimRequest => Claim;
    FreeRequest => Free;
    LookupRequest => Lookup;
    ListRequest => List;
    PrimeRequest => Prime;
    PsRequest => Ps;
    DnsAddRequest => DnsAdd;
    DnsRemoveRequest => DnsRemove;
    DnsLookupRequest => DnsLookup;
    RmpeerRequest => Rmpeer;
    LeaveRequest => Leave;
    ResetRequest => Reset;
    TraceRequest => Trace;
    RepairRequest => Repair;
    LogLevelRequest => LogLevel;
    DoctorRequest => Doctor;
    EndpointCreateRequest => EndpointCreate;
    EndpointJoinRequest => EndpointJoin;
    EndpointNameRequest => EndpointName;
    EndpointRemoveRequest => EndpointRemove;
    EndpointListRequest => EndpointList;
}
