//! The network driver: every network of ours is the one overlay; they differ by their subnets.

use serde_json::{Value, json};
use weave_api::{
    EndpointCreateRequest, EndpointJoinRequest, EndpointListRequest, EndpointRemoveRequest, EndpointResponse,
};
use weave_model::{ContainerId, Interface, Mac};

use crate::{
    plugin::{Driver, Refusal},
    remote::{self, Options},
    router,
};

/// How the engine is to call the interfaces in containers; it adds a number.
const INTERFACE_PREFIX: &str = "ethwe";

/// The option of a network that switches its route for multicast off.
const MULTICAST: &str = "works.weave.multicast";

/// Seconds to wait for addresses to be claimed.
const WAIT_S: u64 = 8;

impl Driver {
    pub(crate) async fn create_network(&self, request: remote::CreateNetwork) -> Result<Value, Refusal> {
        let options = request.options.unwrap_or_default();
        let multicast = wants_multicast(&options)?;
        for pools in [request.ipv4, request.ipv6] {
            self.check_pools(&pools.unwrap_or_default()).await?;
        }
        self.multicast_by_network().insert(request.network, multicast);
        Ok(json!({}))
    }

    pub(crate) fn delete_network(&self, request: &remote::DeleteNetwork) -> Value {
        self.multicast_by_network().remove(&request.network);
        json!({})
    }

    pub(crate) async fn create_endpoint(&self, request: remote::CreateEndpoint) -> Result<Value, Refusal> {
        let interface = request.interface.unwrap_or_default();
        let mut addresses: Vec<Interface> = Vec::new();
        for text in [&interface.address, &interface.address_ipv6] {
            if !text.is_empty() {
                addresses.push(text.parse().map_err(|e| Refusal(format!("{e}")))?);
            }
        }
        let mac: Option<Mac> = match interface.mac_address.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|e| Refusal(format!("{e}")))?),
        };
        let create = EndpointCreateRequest {
            endpoint: endpoint_id(&request.endpoint)?,
            addresses,
            mac,
            timeout_s: Some(WAIT_S),
        };
        self.undeleted().remove(&create.endpoint);
        let made = router::ask(&self.router, &create).await?;
        Ok(match mac {
            Some(_) => json!({ "Interface": {} }),
            None => json!({ "Interface": { "MacAddress": made.mac.to_string() } }),
        })
    }

    /// Succeeds without a router too: the engine would otherwise keep an endpoint without a container for ever. The
    /// router is told when it is back.
    pub(crate) async fn delete_endpoint(&self, request: remote::DeleteEndpoint) -> Result<Value, Refusal> {
        let endpoint = endpoint_id(&request.endpoint)?;
        match self.router.call(&EndpointRemoveRequest { endpoint: endpoint.clone() }).await {
            Ok(_) => {}
            Err(error) if router::is_away(&error) => {
                tracing::info!(%endpoint, %error, "the endpoint is removed when the router is back");
                self.undeleted().insert(endpoint);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(json!({}))
    }

    pub(crate) async fn join(&self, request: remote::Join) -> Result<Value, Refusal> {
        let join =
            EndpointJoinRequest { endpoint: endpoint_id(&request.endpoint)?, netns: request.sandbox.into() };
        let joined = router::ask(&self.router, &join).await?;
        let mut answer = json!({
            "InterfaceName": { "SrcName": joined.interface, "DstPrefix": INTERFACE_PREFIX },
        });
        let has_multicast = self.multicast_by_network().get(&request.network).copied().unwrap_or(true);
        if has_multicast && !self.has_other_interface(&joined).await? {
            // Route type 1 is a destination on the link itself.
            answer["StaticRoutes"] = json!([{ "Destination": "224.0.0.0/4", "RouteType": 1, "NextHop": "" }]);
        }
        Ok(answer)
    }

    /// Whether the container is in another network of ours: the engine fails if two of them bring the same route.
    async fn has_other_interface(&self, joined: &EndpointResponse) -> Result<bool, Refusal> {
        let all = self.router.call(&EndpointListRequest {}).await?.endpoints;
        Ok(all.iter().any(|other| other.endpoint != joined.endpoint && other.netns == joined.netns))
    }
}

/// The router's name for an endpoint of the engine.
pub(crate) fn endpoint_id(endpoint: &str) -> Result<ContainerId, Refusal> {
    format!("docker:{endpoint}").parse().map_err(|e| Refusal(format!("endpoint `{endpoint}`: {e}")))
}

/// Whether the options of a network leave multicast on.
///
/// # Errors
/// When the option is neither true nor false, or there is one of ours that we do not know.
pub(crate) fn wants_multicast(options: &Options) -> Result<bool, Refusal> {
    let Some(given) = options.get(remote::GENERIC).and_then(Value::as_object) else { return Ok(true) };
    if let Some(name) = given.keys().find(|name| name.starts_with("works.weave.") && *name != MULTICAST) {
        return Err(Refusal(format!("weave has no network option {name}; it has {MULTICAST}=true|false")));
    }
    match given.get(MULTICAST) {
        None => Ok(true),
        Some(value) => match value.as_str().unwrap_or_default() {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(Refusal(format!("{MULTICAST} is true or false, not `{other}`"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multicast_is_on_unless_it_is_switched_off_and_a_typing_error_is_not_silently_ignored() {
        let options = |name: &str, value: &str| -> Options {
            Options::from([(remote::GENERIC.to_owned(), json!({ name: value }))])
        };
        assert!(wants_multicast(&Options::new()).unwrap());
        assert!(wants_multicast(&options("com.example.label", "x")).unwrap());
        assert!(wants_multicast(&options(MULTICAST, "true")).unwrap());
        assert!(!wants_multicast(&options(MULTICAST, "false")).unwrap());
        assert!(wants_multicast(&options(MULTICAST, "maybe")).is_err());
        assert!(wants_multicast(&options("works.weave.multicats", "false")).is_err());
    }
}
