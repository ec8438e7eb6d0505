//! Tests of every operation against the real kernel, each in user, network and mount namespaces of its own.
//!
//! Each test checks what the call returned *and* what the kernel says (asked through `ip -j`), runs everything
//! twice, and ends by showing that nothing is left. Where namespaces cannot be made, the tests fail.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod attach;
mod bridge;
mod endpoint;
mod esp;
mod fdb;
mod guard;
mod heartbeat;
mod host;
mod lab;
mod news;
mod nft;
mod relay;
mod resize;
mod site;
mod suppress;
mod teardown;
mod tunnels;
mod vxlan;
