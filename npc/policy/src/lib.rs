//! NetworkPolicy, exactly, as elements of nftables sets.
//!
//! No Kubernetes types and no kernel in here: [`Change`]s of plain objects go in, [`Delta`]s of plain [`Element`]s come
//! out ([`Compiler`]). What a set of elements means is written down once, as [`Facts::verdict`]; the kernel's program
//! does the same. What the specification means is written down once more, from scratch, as [`World::verdict`]; tests
//! hold the two together. Requirements are cited by their numbers (NP-nn, Enn) in tests.
//!
//! Connections of a pod with itself never pass anything that filters; no verdict about them means anything.
#![forbid(unsafe_code)]

mod block;
mod compile;
mod fact;
mod few;
mod labels;
mod number;
mod object;
mod oracle;
mod partition;
mod policy;
mod selector;
mod world;

pub use block::{Block, Family, InvalidCidr};
pub use compile::{Compiler, Scope};
pub use fact::{ClassId, Delta, Element, Elements, Facts, Misfit, PeerId, Ports, RangeId};
pub use labels::Labels;
pub use object::{ContainerPort, NAME_LABEL, Namespace, Pod, PodId, Protocol, UnknownProtocol};
pub use oracle::{Flow, Reason, Traffic, Verdict};
pub use policy::{Direction, Peer, Policy, PolicyId, Port, Rule, WhichPort};
pub use selector::{InvalidSelector, Operator, Requirement, Selector};
pub use world::{Change, World};
