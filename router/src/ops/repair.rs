//! `weave ipam repair`: one ring where two have met, and a store whose space is its own again.

use std::time::Duration;

use futures_util::future::join_all;
use weave_api::{ApiError, Call as _, RepairClaim, RepairRequest, RepairResponse, RingMeeting, RingSide};
use weave_ipam::{Misplaced, RepairPlan, Reply, Side};

use super::{Ops, stopping};
use crate::engine::Handle;

impl Ops {
    /// In order: the other ring, the space of our own earlier stores, what containers hold of others' space.
    pub(super) async fn repair(&self, request: RepairRequest) -> Result<RepairResponse, ApiError> {
        self.need_ipam()?;
        let plan = self.repair_plan().await?;
        let mut answer = describe(plan.clone());
        if !request.confirm {
            return Ok(answer);
        }
        answer.done = true;
        let patience = request.timeout() / 3;
        if let Some(meeting) = plan.meeting.filter(|meeting| meeting.gives_way) {
            let go_over = move |node: &mut weave_node::Node, id, now| {
                node.go_over(id, meeting.theirs.ring, now + patience, now);
            };
            let result = self.engine.ask_ring(go_over).await.map_err(stopping)?;
            result?;
            tracing::info!(peers = ?meeting.theirs.peers, "went over to the ring of others, as the operator wished");
        }
        let plan = self.repair_plan().await?;
        answer.unsettled = if plan.unsettled > 0 { self.settle_own().await? } else { 0 };
        let plan = self.repair_plan().await?;
        let asked = plan.claims.into_iter().map(|claim| reclaim(&self.engine, claim, patience));
        answer.claims = join_all(asked).await;
        answer.silent.clear();
        Ok(answer)
    }

    async fn repair_plan(&self) -> Result<RepairPlan, ApiError> {
        let plan = self.engine.run(|engine, _| engine.node.ipam().map(weave_ipam::Ipam::repair_plan));
        Ok(plan.await.map_err(stopping)?.unwrap_or_default())
    }

    /// Takes over what earlier stores of this router owned; says how many addresses that were.
    async fn settle_own(&self) -> Result<u128, ApiError> {
        let local = self.local;
        let result = self.engine.ask_ring(move |node, id, now| node.take_over(id, local, now)).await;
        match result.map_err(stopping)?? {
            Reply::TakenOver(count) => Ok(count),
            Reply::Done | Reply::Addresses(_) => Ok(0),
        }
    }
}

/// Asks the owner of an address that a container here holds for it.
pub(super) async fn reclaim(engine: &Handle, claim: Misplaced, patience: Duration) -> RepairClaim {
    let (owner, address) = (claim.container.clone(), claim.address);
    let ask = move |node: &mut weave_node::Node, id, now| {
        node.reclaim(id, owner, address, now + patience, now);
    };
    let refusal = match engine.ask_ring(ask).await {
        Ok(Ok(_)) => None,
        Ok(Err(refusal)) => Some(refusal.to_string()),
        Err(stopped) => Some(stopping(stopped).message),
    };
    RepairClaim { refusal, ..self::claim(claim) }
}

fn describe(plan: RepairPlan) -> RepairResponse {
    RepairResponse {
        done: false,
        meeting: plan.meeting.map(|meeting| RingMeeting {
            gives_way: meeting.gives_way,
            ours: side(meeting.ours),
            theirs: side(meeting.theirs),
        }),
        claims: plan.claims.into_iter().map(claim).collect(),
        unsettled: plan.unsettled,
        silent: plan.silent,
    }
}

fn side(side: Side) -> RingSide {
    RingSide { peers: side.peers, seeds: side.seeds, used: side.is_used }
}

fn claim(claim: Misplaced) -> RepairClaim {
    let Misplaced { container, address, peer } = claim;
    RepairClaim { container, address, peer, refusal: None }
}
