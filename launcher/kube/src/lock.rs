//! One reclaimer at a time, by a Lease. Safety does not rest on it (the ring refuses two take-overs of one peer): it
//! saves the nodes from doing the same work at once.
//!
//! No clocks of two hosts are compared: a lease has run out when it has not changed for its duration by our own clock.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};

use crate::{
    clock,
    cluster::{Cluster, Written},
};

/// How long a lease lasts that is not renewed.
pub const DURATION: Duration = Duration::from_secs(60);

/// The lease as one node sees it.
#[derive(Debug)]
pub struct Lock {
    identity: String,
    duration: Duration,
    /// The version that was seen last, and since when.
    seen: Option<(String, Instant)>,
}

impl Lock {
    /// For this holder.
    #[must_use]
    pub const fn new(identity: String, duration: Duration) -> Self {
        Self { identity, duration, seen: None }
    }

    /// Takes the lease, or renews it. `None`: we have it; else who has it.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn take(&mut self, cluster: &Cluster, now: Instant) -> anyhow::Result<Option<String>> {
        let lease = cluster.lease().await?.unwrap_or_default();
        let holder = holder(&lease);
        if !holder.is_empty() && holder != self.identity && !self.has_run_out(&lease, now) {
            return Ok(Some(holder));
        }
        let is_ours = holder == self.identity;
        let wanted = self.written_over(lease, is_ours);
        match cluster.put_lease(wanted).await? {
            Written::Yes => Ok(None),
            Written::Outdated => Ok(Some("another node, just now".to_owned())),
        }
    }

    /// Gives the lease back, if we have it.
    ///
    /// # Errors
    /// When the server does not answer; it runs out by itself then.
    pub async fn give_back(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let Some(mut lease) = cluster.lease().await? else { return Ok(()) };
        if holder(&lease) != self.identity {
            return Ok(());
        }
        lease.spec.get_or_insert_default().holder_identity = Some(String::new());
        // Who was faster has taken it after it ran out: it is theirs.
        cluster.put_lease(lease).await.map(drop)
    }

    fn has_run_out(&mut self, lease: &Lease, now: Instant) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => now.saturating_duration_since(*since) >= self.duration,
            _ => {
                self.seen = Some((version, now));
                false
            }
        }
    }

    fn written_over(&self, mut lease: Lease, is_ours: bool) -> Lease {
        let before = lease.spec.take().unwrap_or_default();
        let time = clock::of_day();
        let changes = before.lease_transitions.unwrap_or_default();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs())
                .ok()
                .filter(|seconds| *seconds > 0),
            acquire_time: if is_ours { before.acquire_time } else { Some(time.clone()) },
            renew_time: Some(time),
            lease_transitions: Some(if is_ours { changes } else { changes.saturating_add(1) }),
            ..LeaseSpec::default()
        });
        lease
    }
}

fn holder(lease: &Lease) -> String {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default()
}
