//! Taking our networks from an engine that is to live without us.

use bytes::Bytes;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::{Engine, EngineError};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    id: String,
    name: String,
    #[serde(default)]
    containers: Option<std::collections::BTreeMap<String, Value>>,
}

/// Takes all containers out of the networks of the driver of this name and removes the networks; returns their names. To be
/// done while driver and router still answer.
///
/// # Errors
/// [`EngineError`]; [`EngineError::Absent`] where there is no engine, which is fine.
pub async fn retire(engine: &Engine, driver: &str) -> Result<Vec<String>, EngineError> {
    let filter = format!("/networks?filters=%7B%22driver%22%3A%7B%22{driver}%22%3Atrue%7D%7D");
    let networks: Vec<Network> = engine.get(&filter).await?;
    let mut removed = Vec::new();
    for Network { id, name, .. } in networks {
        // Lists leave the containers out.
        let network: Network = engine.get(&format!("/networks/{id}")).await?;
        for container in network.containers.unwrap_or_default().into_keys() {
            let wanted = json!({ "Container": container, "Force": true });
            let _nothing: Value = engine.post(&format!("/networks/{id}/disconnect"), &wanted).await?;
        }
        engine.exchange(Method::DELETE, &format!("/networks/{id}"), Bytes::new()).await?;
        removed.push(name);
    }
    Ok(removed)
}
