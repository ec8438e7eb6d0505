//! The nouns of the network: names, addresses and secrets that every other crate speaks of, and the sum that every
//! packet carries.
//!
//! A leaf: it knows no protocol, no clock and no socket. Every type that is parsed from text or bytes is valid
//! once it exists, so nothing downstream checks it again.
#![forbid(unsafe_code)]

mod address;
mod container;
mod esp;
mod link;
mod mac;
mod password;
mod peer;

pub mod checksum;

pub use address::{AddressError, AddressSpec, Interface, Subnet};
pub use container::{ContainerId, ContainerIdError};
pub use esp::EspOver;
pub use link::LinkId;
pub use mac::{Mac, MacError};
pub use password::{Password, PasswordError};
pub use peer::{PeerName, PeerNameError, Uid};

/// Default UDP port of control links and sleeve (Weave Net's `WEAVE_PORT`).
pub const DEFAULT_PORT: u16 = 6783;
