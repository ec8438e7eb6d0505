//! Taking over the address space of nodes that are gone for good.
//!
//! Who is gone: a router of the shared list whose node the API server does not have, asked freshly and under the lock.
//! Safe against everything that may happen meanwhile: the entry goes only after the ring has taken the space over, so a
//! crash in the middle leaves the work to the next; taking over twice takes over nothing; and the ring refuses a router
//! that is alive, whatever the API server says.

use std::future::Future;

use weave_api::{ApiError, Client, ErrorCode, NetworkRequest, RmpeerRequest};

use crate::{
    clock,
    cluster::Cluster,
    lock::Lock,
    roster::{Member, Roster},
};

/// The router, as far as a reclaimer needs it.
pub trait Ring {
    /// Whether it knows the ring.
    fn is_ready(&self) -> impl Future<Output = Result<bool, ApiError>> + Send;
    /// Takes over a peer's space; how many addresses.
    fn take_over(&self, peer: &str) -> impl Future<Output = Result<u128, ApiError>> + Send;
}

impl Ring for Client {
    async fn is_ready(&self) -> Result<bool, ApiError> {
        Ok(self.call(&NetworkRequest {}).await?.ipam_ready)
    }

    async fn take_over(&self, peer: &str) -> Result<u128, ApiError> {
        let request = RmpeerRequest { peers: vec![peer.to_owned()], force: false };
        Ok(self.call(&request).await?.taken_over.iter().map(|taken| taken.addresses).sum())
    }
}

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Routers whose space was taken over, and how many addresses.
    pub taken_over: Vec<(Member, u128)>,
    /// Routers that are to be tried again, and why.
    pub left: Vec<(Member, String)>,
}

/// Takes over what can be.
///
/// # Errors
/// When the API server or the router does not answer. What was done so far is done.
pub async fn reclaim(
    cluster: &Cluster,
    ring: &impl Ring,
    lock: &mut Lock,
    own: &Member,
) -> anyhow::Result<Progress> {
    if gone(cluster, own).await?.is_empty() {
        return Ok(Progress::default());
    }
    if !ring.is_ready().await? {
        // A ring that is not known yet has no owners: everybody's space would look taken over.
        return Ok(Progress::default());
    }
    let mut progress = Progress::default();
    if let Some(holder) = lock.take(cluster, clock::now()).await? {
        tracing::debug!(holder, "another node reclaims");
        return Ok(progress);
    }
    let outcome = reclaim_locked(cluster, ring, lock, own, &mut progress).await;
    if let Err(error) = lock.give_back(cluster).await {
        tracing::debug!(error = format!("{error:#}"), "the lease runs out by itself");
    }
    outcome.map(|()| progress)
}

async fn reclaim_locked(
    cluster: &Cluster,
    ring: &impl Ring,
    lock: &mut Lock,
    own: &Member,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    for member in gone(cluster, own).await? {
        // Renewed for each, so that a long list does not outlast the lease.
        if let Some(holder) = lock.take(cluster, clock::now()).await? {
            progress.left.push((member, format!("{holder} has the lease now")));
            return Ok(());
        }
        match ring.take_over(&member.peer_name).await {
            Ok(addresses) => {
                Roster::remove(cluster, &member).await?;
                let (peer, node) = (&member.peer_name, &member.node_name);
                tracing::info!(peer, node, %addresses, "the node is gone; its address space is taken over");
                progress.taken_over.push((member, addresses));
            }
            // Nobody knows it and nothing in the ring is its own.
            Err(error) if error.code == ErrorCode::NotFound => {
                Roster::remove(cluster, &member).await?;
                progress.taken_over.push((member, 0));
            }
            Err(error) => {
                let (peer, node) = (&member.peer_name, &member.node_name);
                tracing::warn!(peer, node, %error, "the address space of a node that is gone is not taken over yet");
                progress.left.push((member, error.to_string()));
            }
        }
    }
    Ok(())
}

/// The routers that are gone for good: their node is not there, or is ours by now.
async fn gone(cluster: &Cluster, own: &Member) -> anyhow::Result<Vec<Member>> {
    // The list before the nodes: who is in it has had its node by then.
    let roster = Roster::read(cluster).await?;
    let nodes = cluster.nodes().await?;
    // A cluster without our own node is not the one that we run in, or an empty answer.
    anyhow::ensure!(
        nodes.contains(&own.node_name),
        "the API server does not know our own node {}",
        own.node_name
    );
    let is_gone = |member: &Member| {
        member.peer_name != own.peer_name
            && (member.node_name == own.node_name || !nodes.contains(&member.node_name))
    };
    Ok(roster.peers.into_iter().filter(is_gone).collect())
}
