//! Which router ran on which node: a list that the nodes share in a ConfigMap, so that whoever is left knows which
//! routers are gone for good.

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, Written};

/// The annotation that holds the list, in the form that Weave Net gave it.
const ANNOTATION: &str = "kube-peers.weave.works/peers";

/// How often a write is tried again when others are faster. With 200 nodes that start at once, each try fails for those
/// who came in between only.
const TRIES: usize = 100;

/// One router and its node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Member {
    /// The router's name in the mesh.
    pub peer_name: String,
    /// The node that it ran on.
    pub node_name: String,
}

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Roster {
    /// Sorted, each router once.
    pub peers: Vec<Member>,
}

impl Roster {
    /// The list as it is now.
    ///
    /// # Errors
    /// When the server does not answer, or the annotation makes no sense.
    pub async fn read(cluster: &Cluster) -> anyhow::Result<Self> {
        let map = cluster.config_map().await?;
        map.as_ref().map_or_else(|| Ok(Self::default()), Self::of)
    }

    /// Adds a router. Returns whether it was new.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn add(cluster: &Cluster, member: &Member) -> anyhow::Result<bool> {
        change(cluster, |roster| {
            if roster.peers.contains(member) {
                return false;
            }
            roster.peers.retain(|other| other.peer_name != member.peer_name);
            roster.peers.push(member.clone());
            roster.peers.sort();
            true
        })
        .await
    }

    /// Removes exactly this entry. Returns whether it was there.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn remove(cluster: &Cluster, member: &Member) -> anyhow::Result<bool> {
        change(cluster, |roster| {
            let before = roster.peers.len();
            roster.peers.retain(|other| other != member);
            roster.peers.len() != before
        })
        .await
    }

    fn of(map: &ConfigMap) -> anyhow::Result<Self> {
        let annotations = map.metadata.annotations.as_ref();
        let Some(text) = annotations.and_then(|all| all.get(ANNOTATION)) else { return Ok(Self::default()) };
        serde_json::from_str(text).with_context(|| format!("annotation {ANNOTATION} makes no sense"))
    }
}

/// Reads, changes, writes; and again when somebody else was faster.
async fn change(cluster: &Cluster, mut change: impl FnMut(&mut Roster) -> bool) -> anyhow::Result<bool> {
    for _ in 0..TRIES {
        let mut map = cluster.config_map().await?.unwrap_or_default();
        let mut roster = Roster::of(&map)?;
        if !change(&mut roster) {
            return Ok(false);
        }
        let annotations = map.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION.to_owned(), serde_json::to_string(&roster)?);
        if cluster.put_config_map(map).await? == Written::Yes {
            return Ok(true);
        }
    }
    bail!("others changed the list of peers {TRIES} times in a row")
}
