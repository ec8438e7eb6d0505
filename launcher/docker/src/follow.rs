//! What containers are called: names go to the router when a container starts, joins a network or is renamed.

use std::collections::BTreeSet;

use serde::Deserialize;
use weave_api::{ApiError, EndpointListRequest, EndpointNameRequest, ErrorCode};
use weave_model::ContainerId;

use crate::{
    engine::{Container, EngineError},
    network::endpoint_id,
    plugin::Driver,
    router,
};

/// Digits of a container id that the engine uses as host name and alias.
const SHORT_ID: usize = 12;

/// Why something could not be brought in line.
#[derive(Debug)]
pub(crate) enum Trouble {
    Engine(EngineError),
    Router(ApiError),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Router(error) => error.fmt(f),
        }
    }
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Self {
        Self::Router(error)
    }
}

impl Driver {
    /// Every container that runs: its names, and which endpoints the engine knows.
    pub(crate) async fn name_all(&self) -> Result<BTreeSet<ContainerId>, Trouble> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: String,
        }
        let listed: Vec<Listed> = self.engine.get("/containers/json").await?;
        let ours: BTreeSet<ContainerId> = self.endpoints().await?;
        let mut known = BTreeSet::new();
        for Listed { id } in listed {
            known.extend(self.name_one(&id, &ours).await?);
        }
        Ok(known)
    }

    /// One container, after something happened to it.
    pub(crate) async fn name(&self, id: &str) -> Result<(), Trouble> {
        let ours = self.endpoints().await?;
        self.name_one(id, &ours).await.map(drop)
    }

    async fn endpoints(&self) -> Result<BTreeSet<ContainerId>, ApiError> {
        let list = router::ask(&self.router, &EndpointListRequest {}).await?;
        Ok(list.endpoints.into_iter().map(|endpoint| endpoint.endpoint).collect())
    }

    /// Returns the container's endpoints that are ours.
    async fn name_one(&self, id: &str, ours: &BTreeSet<ContainerId>) -> Result<Vec<ContainerId>, Trouble> {
        let container = match self.engine.container(id).await {
            Ok(container) => container,
            // Gone already; its endpoints went with it.
            Err(EngineError::Refused(404, _)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let Ok(holder) = container.id.parse::<ContainerId>() else { return Ok(Vec::new()) };
        self.reattach(&holder, container.state.pid).await?;
        let mut found = Vec::new();
        for connection in container.network_settings.networks.values() {
            let Ok(endpoint) = endpoint_id(&connection.endpoint) else { continue };
            if !ours.contains(&endpoint) {
                continue;
            }
            let aliases = connection.aliases.as_deref().unwrap_or_default();
            let request = EndpointNameRequest {
                endpoint: endpoint.clone(),
                container: holder.clone(),
                names: names_of(&container, aliases),
            };
            match self.router.call(&request).await {
                Ok(named) => tracing::debug!(container = %holder.short(), names = ?named.names, "named"),
                // It has left the network meanwhile.
                Err(error) if error.code == ErrorCode::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            found.push(endpoint);
        }
        Ok(found)
    }
}

/// The container's name, its host name and its aliases; not what is only the beginning of its id.
fn names_of(container: &Container, aliases: &[String]) -> Vec<String> {
    let short = container.id.get(..SHORT_ID).unwrap_or(&container.id);
    let config = &container.config;
    let host = match config.domainname.as_str() {
        "" => config.hostname.clone(),
        domain => format!("{}.{domain}", config.hostname),
    };
    let own = [container.name.trim_start_matches('/').to_owned(), host];
    let mut names: Vec<String> = own.into_iter().chain(aliases.iter().cloned()).collect();
    names.retain(|name| !name.is_empty() && name != short);
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(hostname: &str, domain: &str) -> Container {
        let id = "4f1c09aa21be4f1c09aa21be4f1c09aa21be4f1c09aa21be4f1c09aa21be4f1c";
        serde_json::from_value(serde_json::json!({
            "Id": id, "Name": "/web", "State": { "Running": true, "Pid": 7 },
            "Config": { "Hostname": hostname, "Domainname": domain },
            "NetworkSettings": { "Networks": { "weave": { "EndpointID": "e1", "Aliases": null } } },
        }))
        .unwrap()
    }

    #[test]
    fn a_container_has_its_name_its_host_name_and_its_aliases_but_not_its_id() {
        let aliases = ["www".to_owned(), "4f1c09aa21be".to_owned(), "web".to_owned()];
        assert_eq!(names_of(&container("4f1c09aa21be", ""), &aliases), ["web", "www"]);
        assert_eq!(names_of(&container("shop", ""), &[]), ["shop", "web"]);
        assert_eq!(names_of(&container("shop", "weave.local"), &[]), ["shop.weave.local", "web"]);
    }
}
