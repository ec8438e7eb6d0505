//! Everything that touches Linux: links, addresses, FDB entries, network namespaces, nftables, TAP and UDP batches.
//!
//! It knows Linux and nothing of our protocols: callers hand in plain values (names, addresses, MACs) that describe
//! the state they want, and [`Host`] brings the kernel there by sending only the difference. Four rules hold for
//! every operation:
//!
//! * it may be run twice; the second time changes nothing and succeeds;
//! * it touches only what is ours by name ([`names`]) or by mark ([`reconcile_ports`](Host::reconcile_ports));
//! * what creates, undoes its own work when a later step fails;
//! * what removes, goes on after an error and reports all of them.
//!
//! Nothing here forks `ip` or `nft`: requests go out by netlink. This is the only crate of the workspace in which
//! `unsafe` is allowed, and each use is one system call behind a safe function.
#![allow(
    unsafe_code,
    reason = "the one crate that calls the kernel where the standard library has no safe way"
)]

mod address;
mod announce;
mod attach;
mod batch;
mod bridge;
mod cgroup;
mod datapath;
mod detach;
mod endpoint;
mod error;
mod fdb;
mod host;
mod link;
mod neighbour;
mod netlink;
mod pod;
mod port;
mod port_guard;
mod probe;
mod resize;
mod route;
mod sizes;
mod spec;
mod sysctl;
mod tunnels;
mod vxlan;
mod watch;

pub mod names;
pub mod netns;
pub mod nft;
pub mod packet;
pub mod poll;
pub mod tap;
pub mod udp;
pub mod xfrm;

pub use cgroup::pid_of_container;
pub use endpoint::EndpointSpec;
pub use error::{HostError, Warning};
pub use host::Host;
pub use neighbour::NeighbourDiff;
pub use netns::{Netns, NetnsRef};
pub use packet::PacketSocket;
pub use pod::{Inspection, check_route};
pub use port_guard::{Forgery, PortGuard, Station};
pub use probe::{Capabilities, can_enter_namespaces, has_tun};
pub use spec::{
    AttachSpec, Attached, BridgeSpec, ContainerInterface, Detached, FdbDiff, HostRoute, LinkIndex,
};
pub use tunnels::{Tunnel, TunnelDiff};
pub use vxlan::{Family, VxlanSpec};
pub use watch::{FdbEvent, FdbWatch};
