//! Everything outside our domain: other servers, and what they said lately.

mod cache;
mod exchange;
mod forwarder;
mod resolv_conf;

pub(crate) use forwarder::{Failure, Forwarder, Query, Relayed};
pub(crate) use resolv_conf::Servers;
