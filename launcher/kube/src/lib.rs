//! The launcher for Kubernetes: what runs in the DaemonSet's containers around a router.
//!
//! `weave-kube init` puts the CNI plugin where kubelets look for it. `weave-kube run` finds the other nodes, starts
//! `weaver` with what the environment says, and from then on follows the cluster: new nodes become targets, the node's
//! network condition is set, and address space of nodes that are gone for good is taken over. The API server may be
//! away at any time, the start included: peers are then those of the last time.
#![forbid(unsafe_code)]

pub mod clock;
pub mod cluster;
pub mod install;
pub mod lock;
pub mod manifest;
pub mod peers;
pub mod reclaim;
pub mod roster;
pub mod run;
pub mod settings;
