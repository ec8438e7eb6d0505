//! Hosts, containers and traffic on one machine, for tests, the demo, the bench and the lab.
//!
//! * [`sandbox`] re-executes a program inside namespaces of its own; when it ends, however it ends, the kernel
//!   removes everything that was made there.
//! * [`lab`] builds hosts (network and mount namespace), underlay segments and containers inside the sandbox, and
//!   cuts and heals what joins them.
//! * [`traffic`] measures between two of them with a generator of our own.
//! * [`scene`] is what tests of the product begin and end with.
//! * [`product`] runs the daemon and the command line tool on those hosts; [`rival`] is hand-made kernel VXLAN.
//!
//! * [`faults`] gives a router a host on which something is wrong.
//!
//! This is tooling for developers, so it forks iproute2 and util-linux where the product speaks netlink.
#![forbid(unsafe_code)]

pub mod accounting;
pub mod clock;
pub mod cni;
pub mod cni_clients;
pub mod docker;
pub mod faults;
pub mod lab;
pub mod product;
pub mod rival;
pub mod sandbox;
pub mod scene;
pub mod tool;
pub mod traffic;
