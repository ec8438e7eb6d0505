//! Meshes without a password, in which the kernel may carry everything.

use anyhow::Result;
use weave_api::{ConnectionReport, ConnectionState, Overlay, Report};

use super::{await_all, settings, start_all};
use crate::{
    lab::Host,
    product::{Programs, Router, Settings},
};

/// Settings without a password: the kernel may carry everything.
pub fn open(routers: usize, peers: &[&Host], flags: &[&str]) -> Settings {
    Settings { password: None, ..settings(routers, peers, flags) }
}

/// Starts a router on each host; all but the first know the first.
pub fn start_open<'h>(programs: &Programs, hosts: &'h [Host], flags: &[&str]) -> Result<Vec<Router<'h>>> {
    start_all(programs, hosts, |host| {
        let peers: &[&Host] = if host.number() == hosts[0].number() { &[] } else { &[&hosts[0]] };
        open(hosts.len(), peers, flags)
    })
}

/// Whether the kernel can do ESP with the cipher that every router wants: tries, and takes it back.
pub fn kernel_encrypts(host: &Host) -> bool {
    const STATE: &str = "src 127.69.83.2 dst 127.69.83.3 proto esp spi 1";
    let key = "5a".repeat(36);
    let aead = format!("mode transport aead rfc4106(gcm(aes)) 0x{key} 128");
    let made = host.run(&format!("ip xfrm state add {STATE} {aead}"));
    made.is_ok() && host.run(&format!("ip xfrm state delete {STATE}")).is_ok()
}

/// A router's established links.
pub fn links(report: &Report) -> impl Iterator<Item = &ConnectionReport> {
    report.router.connections.iter().filter(|link| link.state == ConnectionState::Established)
}

/// Whether this carries the frames of every link of a router.
pub fn is_all(report: &Report, overlay: Overlay) -> bool {
    links(report).all(|link| link.overlay == Some(overlay))
}

/// Waits until this carries the frames of every link of every router.
pub fn await_overlay(routers: &[Router<'_>], overlay: Overlay) -> Result<()> {
    await_all(&format!("{overlay} on every link"), routers, |report| is_all(report, overlay))
}
