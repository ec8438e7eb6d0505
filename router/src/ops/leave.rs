//! Handing our addresses to another router, and taking that back where nothing came of it.

use std::time::Duration;

use futures_util::future::join_all;
use weave_api::{ApiError, Call as _, ErrorCode, LeaveRequest, LeaveResponse};
use weave_control::Reply as Answer;
use weave_ipam::{Misplaced, Reply};

use super::{Ops, repair::reclaim, stopping};
use crate::engine::Handle;

/// How long the heir is asked for the addresses that containers here use, after a leave that was called off.
const RETURN_PATIENCE: Duration = Duration::from_secs(15);

/// A leave that is not to last: unless it is kept, the router stays a member, and asks for what its containers hold.
pub(super) struct Attempt(Option<Handle>);

impl Attempt {
    /// We are gone.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let (Some(engine), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(stay(engine));
        }
    }
}

async fn stay(engine: Handle) {
    let claims = engine.run(|engine, now| {
        engine.node.stay(now);
        engine.node.ipam().map(weave_ipam::Ipam::repair_plan).unwrap_or_default().claims
    });
    let Ok(claims) = claims.await else { return };
    let asked = claims.into_iter().map(|claim: Misplaced| reclaim(&engine, claim, RETURN_PATIENCE));
    for claim in join_all(asked).await {
        if let Some(refusal) = claim.refusal {
            tracing::warn!(
                address = %claim.address, container = %claim.container, %refusal,
                "the leave was called off, and the heir has an address that is in use here; see `weave ipam repair`"
            );
        }
    }
}

impl Ops {
    /// Answers; where nobody is left to hear that, or it failed, the router goes on as before.
    pub(super) async fn carry_out_leave(&self, request: LeaveRequest, mut reply: Answer<LeaveResponse>) {
        tokio::select! {
            result = self.leave(&request) => {
                let (answer, attempt) = match result {
                    Ok((answer, attempt)) => (Ok(answer), Some(attempt)),
                    Err(error) => (Err(error), None),
                };
                if let (Ok(()), Some(attempt)) = (reply.send(answer), attempt) {
                    attempt.keep();
                }
            }
            () = reply.closed() => {}
        }
    }

    /// Gives everything to another router. Whoever called has to keep the attempt once it is told to whom it matters.
    pub(super) async fn leave(&self, request: &LeaveRequest) -> Result<(LeaveResponse, Attempt), ApiError> {
        self.need_ipam()?;
        let attempt = Attempt(Some(self.engine.clone()));
        let leaving = self.engine.ask_ring(|node, id, now| node.leave(id, now));
        let result = tokio::time::timeout(request.timeout(), leaving).await.map_err(|_| {
            ApiError::new(ErrorCode::Deadline, "no other router confirmed in time that it has our addresses")
        })?;
        let addresses = match result.map_err(stopping)?? {
            Reply::TakenOver(addresses) => addresses,
            Reply::Done | Reply::Addresses(_) => 0,
        };
        Ok((LeaveResponse { heir: None, addresses }, attempt))
    }
}
