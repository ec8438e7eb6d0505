//! Leaving for good: our addresses go to another router, then this one ends and takes everything with it.
//!
//! Here is only what has to be done while the router runs. What is on the host and on its disk goes when nothing of
//! the router runs any more, so that nothing can come back; see `cleanup`.

use weave_api::{ApiError, ErrorCode, LeaveRequest, ResetRequest, ResetResponse};
use weave_control::Reply as Answer;

use super::{Ops, leave::Attempt, stopping};

impl Ops {
    /// Answers, and lets the router end if it may and the asker is still there to be told. Else it goes on as before.
    pub(super) async fn carry_out_reset(&self, request: ResetRequest, reply: Answer<ResetResponse>) {
        let (result, attempt) = match self.reset(&request).await {
            Ok((answer, attempt)) => (Ok(answer), attempt),
            Err(error) => (Err(error), None),
        };
        let may_end = result.is_ok();
        if reply.send(result).is_ok() && may_end {
            if let Some(attempt) = attempt {
                attempt.keep();
            }
            self.ending.notify_one();
        }
    }

    /// Completes when the router is to end and to take everything with it.
    pub(crate) async fn reset_wanted(&self) {
        self.ending.notified().await;
    }

    async fn reset(&self, request: &ResetRequest) -> Result<(ResetResponse, Option<Attempt>), ApiError> {
        let (abandoned, attempt) = match self.hand_over(request.timeout_s).await {
            Ok(attempt) => (None, attempt),
            Err(error) if request.force => (Some(error.message), None),
            Err(error) => {
                let message = format!("no other router has taken our addresses over: {}", error.message);
                let hint = format!(
                    "`weave reset --force` goes all the same; the others then get the addresses by `weave rmpeer {}`",
                    self.local
                );
                return Err(ApiError::new(ErrorCode::Conflict, message).with_hint(hint));
            }
        };
        let (db_prefix, bridge) = (self.subject.db_prefix.clone(), self.bridge.clone());
        Ok((ResetResponse { abandoned, db_prefix, bridge }, attempt))
    }

    /// Gives all our addresses to another router. With nobody else in the mesh there is nobody to miss them.
    async fn hand_over(&self, timeout_s: Option<u64>) -> Result<Option<Attempt>, ApiError> {
        if !self.has_ipam || self.is_alone().await? {
            return Ok(None);
        }
        self.leave(&LeaveRequest { timeout_s }).await.map(|(_, attempt)| Some(attempt))
    }

    async fn is_alone(&self) -> Result<bool, ApiError> {
        self.engine
            .run(|engine, now| {
                let knows_others = engine.node.mesh_status(now).peers.len() > 1;
                let owners = engine.node.ipam_status().map(|status| status.owners).unwrap_or_default();
                !knows_others && owners.iter().all(|owner| owner.local)
            })
            .await
            .map_err(stopping)
    }
}
