//! The control API of a router: what can be asked, what is answered, and the client that asks.
//!
//! Every request is one JSON document posted to its own path over a unix socket; see [`Call`]. Every refusal is an
//! [`ApiError`] with a code for programs and a sentence for people. Lists come in a stable order, so that two
//! reports of one state are equal byte for byte.
//!
//! A leaf: the router, the command line, and the container plugins share it and none of them knows another.
#![forbid(unsafe_code)]

mod address;
mod call;
mod client;
mod container;
mod doctor;
mod endpoint;
mod error;
mod exit;
mod log;
mod pod;
mod repair;
mod report;
mod request;
mod reset;
mod text;
mod trace;
pub mod views;

pub use address::{Address, Token, socket_path, tcp_address};
pub use call::{Call, DEFAULT_WAIT, MAX_WAIT, OPENAPI, OPENAPI_PATH, QUICK, REPORT_PATH};
pub use client::Client;
pub use container::ContainerRef;
pub use doctor::{Diagnosis, DoctorRequest, Finding};
pub use endpoint::{
    EndpointCreateRequest, EndpointJoinRequest, EndpointListRequest, EndpointListResponse,
    EndpointNameRequest, EndpointRemoveRequest, EndpointRemoveResponse, EndpointResponse, LEASE_PREFIX,
};
pub use error::{ApiError, ErrorCode};
pub use exit::Exit;
pub use log::{LogLevelRequest, LogLevelResponse};
pub use pod::{
    FoundInterface, InspectRequest, InspectResponse, InterfaceOptions, MadeInterface, NetworkRequest,
    NetworkResponse, ReleaseRequest, Route,
};
pub use repair::{RepairClaim, RepairRequest, RepairResponse, RingMeeting, RingSide};
pub use report::{
    BroadcastRoute, ConnectionReport, ConnectionState, ContainerReport, Counters, DataPlaneReport, DnsEntry,
    DnsReport, ElectionReport, IpamReport, KernelKey, LinkReport, Overlay, OwnerReport, PeerConnection,
    PeerReport, PendingReport, Problem, Report, Retry, RouterReport, Severity, UnicastRoute,
};
pub use request::{
    AddressesResponse, AllocateRequest, AttachRequest, AttachResponse, ClaimRequest, ConnectRequest,
    DetachRequest, DnsAddRequest, DnsLookupRequest, DnsLookupResponse, DnsRemoveRequest, DnsResponse,
    ExposeRequest, ForgetRequest, FreeRequest, HideRequest, HostEntry, LeaveRequest, LeaveResponse,
    ListRequest, ListResponse, LookupRequest, PrimeRequest, PrimeResponse, PsRequest, PsResponse,
    ReadyRequest, ReadyResponse, RmpeerRequest, RmpeerResponse, TakenOver, TargetsResponse,
};
pub use reset::{Removed, ResetRequest, ResetResponse};
pub use trace::{HopTrace, StationTrace, TraceRequest, TraceResponse};
