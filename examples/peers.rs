//! Prints every router of the mesh as the one on this host sees it: a program's use of the control API.
//!
//! `cargo run --example peers -- /run/weave/weave.sock`
#![forbid(unsafe_code)]

use std::{env, io, io::Write as _};

use weave_api::{Client, ConnectionState};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let socket = env::args().nth(1).unwrap_or_else(|| "/run/weave/weave.sock".to_owned());
    let report = Client::new(socket).report().await?;
    let mut out = io::stdout().lock();
    for peer in &report.router.peers {
        let links = peer.connections.iter().filter(|c| c.state == ConnectionState::Established).count();
        let reachable = if peer.reachable { "reachable" } else { "unreachable" };
        writeln!(out, "{} {:<16} {reachable}, {links} links", peer.name, peer.nickname)?;
    }
    for problem in &report.problems {
        writeln!(out, "problem: {}", problem.message)?;
    }
    Ok(())
}
