//! Repair of the ring by an operator's word.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weave_model::{ContainerId, Interface, PeerName};

use crate::{Call, Exit, call::wait};

/// Tells what a repair of the ring would do on this router; does it if confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairRequest {
    /// Do it.
    #[serde(default)]
    pub confirm: bool,
    /// Seconds to wait for other routers, for each step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// What a repair would do, or has done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RepairResponse {
    /// Whether it was done.
    pub done: bool,
    /// Two rings have met over the same ranges.
    #[serde(default)]
    pub meeting: Option<RingMeeting>,
    /// Addresses that containers here hold, and that other routers have to be asked for.
    #[serde(default)]
    pub claims: Vec<RepairClaim>,
    /// Addresses of earlier stores of this router, to be taken over or taken over by now.
    #[serde(default, with = "crate::text")]
    pub unsettled: u128,
    /// Routers that must agree to that, and cannot be reached.
    #[serde(default, with = "crate::text::list")]
    pub silent: Vec<PeerName>,
}

/// Two rings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingMeeting {
    /// Those on our ring, this router included.
    pub ours: RingSide,
    /// Those on the other.
    pub theirs: RingSide,
    /// Whether ours is the side that goes over. Both sides say the same.
    pub gives_way: bool,
}

/// Routers that share a ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingSide {
    /// Who, by name.
    #[serde(with = "crate::text::list")]
    pub peers: Vec<PeerName>,
    /// The routers that the ring began with; none while unknown.
    #[serde(with = "crate::text::list")]
    pub seeds: Vec<PeerName>,
    /// Whether containers hold addresses of it.
    pub used: bool,
}

/// An address that a container here holds, and that another router owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairClaim {
    /// The container.
    pub container: ContainerId,
    /// What it holds.
    pub address: Interface,
    /// Who owns it, where that is known.
    #[serde(default, with = "crate::text::option")]
    pub peer: Option<PeerName>,
    /// Why it could not be had; absent when it was, or was not asked for yet.
    #[serde(default)]
    pub refusal: Option<String>,
}

impl RepairResponse {
    /// Whether there is nothing to repair.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.meeting.is_none() && self.claims.is_empty() && self.unsettled == 0
    }

    /// How a command that prints this ends: something is to be done, or some addresses are still held twice.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let goes_over = self.meeting.as_ref().is_none_or(|meeting| meeting.gives_way);
        if self.is_idle()
            || (self.done && goes_over && self.claims.iter().all(|claim| claim.refusal.is_none()))
        {
            Exit::Ok
        } else if self.done && goes_over {
            Exit::Conflict
        } else {
            Exit::Warnings
        }
    }
}

impl Call for RepairRequest {
    const PATH: &'static str = "/v1/ipam/repair";
    type Answer = RepairResponse;

    /// Three steps, one after the other.
    fn timeout(&self) -> Duration {
        wait(self.timeout_s) * 3
    }
}
