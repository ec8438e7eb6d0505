//! Whom to link to, the ring they share, and those that are gone.

use weave_api::{ConnectRequest, Exit, ForgetRequest, PrimeRequest, Report, RmpeerRequest, views};

use crate::{
    args::{Connect, Peers, Rmpeer},
    context::{Context, Failure},
};

pub(super) async fn connect(context: &Context, connect: Connect) -> Result<(), Failure> {
    let request = ConnectRequest { peers: connect.peers, replace: connect.replace };
    let answer = context.client.call(&request).await?;
    context.answer(&answer, String::new)
}

pub(super) async fn forget(context: &Context, peers: Peers) -> Result<(), Failure> {
    let answer = context.client.call(&ForgetRequest { peers: peers.peers }).await?;
    context.answer(&answer, String::new)
}

pub(super) async fn prime(context: &Context, seconds: u64) -> Result<(), Failure> {
    let request = PrimeRequest { timeout_s: Some(seconds) };
    let answer = context.with_progress(context.client.call(&request), ring_state).await?;
    context.answer(&answer, String::new)
}

pub(super) async fn rmpeer(context: &Context, rmpeer: Rmpeer) -> Result<(), Failure> {
    let answer = context.client.call(&RmpeerRequest { peers: rmpeer.peers, force: rmpeer.force }).await?;
    context.answer(&answer, || {
        let line = |t: &weave_api::TakenOver| format!("{} IPs taken over from {}\n", t.addresses, t.peer);
        answer.taken_over.iter().map(line).collect()
    })?;
    if answer.taken_over.iter().all(|taken| taken.addresses == 0) {
        return Err(Failure::new(Exit::NotFound, "no such peer owns any addresses; see `weave status ipam`"));
    }
    Ok(())
}

/// Why no addresses can be given out. A ring that nobody waits for any more is idle: whoever asked has been answered.
pub(super) fn ring_state(report: &Report) -> Option<String> {
    let waited_for = report.ipam.as_ref().filter(|ipam| !ipam.ready && ipam.status != "idle");
    waited_for.map(views::ipam_state)
}
