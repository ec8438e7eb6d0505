//! What the engine says of containers, as pods.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;
use weave_policy::{ContainerPort, Labels, Pod, PodId, Protocol};

/// Labels that say in which namespace a container is; the first that is there counts. The second is what Kubernetes puts on
/// the containers of its pods.
const NAMESPACE_LABELS: [&str; 2] = ["weave.namespace", "io.kubernetes.pod.namespace"];
/// The namespace of all others.
const DEFAULT_NAMESPACE: &str = "default";
/// What labels begin with that give a port a name: `weave.port.NAME=NUMBER[/PROTOCOL]`.
const PORT_LABEL: &str = "weave.port.";

/// A container in a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    state: String,
    /// Seconds since 1970.
    #[serde(default)]
    created: u64,
    #[serde(default)]
    host_config: HostConfig,
    #[serde(default)]
    network_settings: Option<NetworkSettings>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    network_mode: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    networks: Option<BTreeMap<String, Option<Joined>>>,
}

/// A container's place in a network; addresses are empty while it does not run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Joined {
    #[serde(rename = "IPAddress")]
    v4: String,
    #[serde(rename = "GlobalIPv6Address")]
    v6: String,
}

impl Listed {
    /// Whether it has processes.
    pub(super) fn runs(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused")
    }

    /// The names of its networks.
    pub(super) fn networks(&self) -> impl Iterator<Item = &str> {
        let networks = self.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        networks.into_iter().flat_map(BTreeMap::keys).map(String::as_str)
    }

    /// The pod that it is, on `node`, with the addresses that `more` knows for its id beside those that the engine tells.
    pub(super) fn pod(self, node: &str, more: impl Fn(&str) -> Vec<IpAddr>) -> Pod {
        let labels = self.labels.unwrap_or_default();
        let namespace = NAMESPACE_LABELS.into_iter().find_map(|key| labels.get(key));
        let namespace = namespace.map_or(DEFAULT_NAMESPACE, String::as_str);
        let networks = self.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let joined = networks.values().flatten().flat_map(|joined| [&joined.v4, &joined.v6]);
        let mut addresses: Vec<IpAddr> =
            joined.filter_map(|text| text.parse().ok()).chain(more(&self.id)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let id = PodId::new(namespace, name(self.names.as_deref(), &self.id));
        Pod {
            ports: labels.iter().filter_map(|(key, value)| named_port(&id, key, value)).collect(),
            addresses,
            is_host_network: self.host_config.network_mode == "host",
            created: self.created,
            labels: Labels::from(labels),
            ..Pod::new(id, node)
        }
    }
}

/// The container's own name: links give it more, which have a second slash. Without any, what Docker prints of its id.
fn name<'a>(names: Option<&'a [String]>, id: &'a str) -> &'a str {
    let mut own = names.into_iter().flatten().filter_map(|name| name.strip_prefix('/'));
    own.find(|name| !name.contains('/')).unwrap_or_else(|| id.get(..12).unwrap_or(id))
}

fn named_port(pod: &PodId, key: &str, value: &str) -> Option<ContainerPort> {
    let name = key.strip_prefix(PORT_LABEL)?;
    let (number, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
    match (number.parse::<u16>(), protocol.to_ascii_uppercase().parse::<Protocol>()) {
        (Ok(number), Ok(protocol)) if !name.is_empty() && number > 0 => {
            Some(ContainerPort { name: name.to_owned(), protocol, number })
        }
        _ => {
            tracing::debug!(container = %pod, "label {key}={value} names no port: NUMBER[/tcp|udp|sctp]");
            None
        }
    }
}

/// A network, as far as we look at it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Network {
    #[serde(default)]
    containers: Option<BTreeMap<String, Endpoint>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    /// With a prefix length.
    #[serde(rename = "IPv4Address")]
    v4: String,
    #[serde(rename = "IPv6Address")]
    v6: String,
}

impl Network {
    /// The addresses of a container there.
    pub(super) fn addresses_of(&self, container: &str) -> Vec<IpAddr> {
        let endpoint = self.containers.as_ref().and_then(|containers| containers.get(container));
        let texts = endpoint.into_iter().flat_map(|endpoint| [&endpoint.v4, &endpoint.v6]);
        texts.filter_map(|text| text.split('/').next()?.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(container: Value) -> Pod {
        let attached = |id: &str| if id == "c1" { vec![[10, 32, 0, 1].into()] } else { Vec::new() };
        serde_json::from_value::<Listed>(container).unwrap().pod("here", attached)
    }

    #[test]
    fn a_container_is_the_pod_that_its_labels_say() {
        let labels = json!({"weave.namespace": "shop", "io.kubernetes.pod.namespace": "other", "app": "web",
            "weave.port.http": "8080", "weave.port.dns": "53/udp", "weave.port.": "1", "weave.port.x": "http",
            "weave.port.y": "80/icmp", "weave.port.z": "0"});
        let networks = json!({"bridge": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": "fd00::2"},
            "none": null, "stopped": {"IPAddress": "", "GlobalIPv6Address": ""}});
        let web = pod(
            json!({"Id": "c1", "Names": ["/db/alias", "/web"], "Labels": labels, "State": "running",
            "Created": 7, "HostConfig": {"NetworkMode": "default"}, "NetworkSettings": {"Networks": networks}}),
        );
        assert_eq!(web.id, PodId::new("shop", "web"));
        let addresses: Vec<String> = web.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.32.0.1", "172.17.0.2", "fd00::2"]);
        let port = |name: &str, protocol, number| ContainerPort { name: name.to_owned(), protocol, number };
        assert_eq!(web.ports, [port("dns", Protocol::Udp, 53), port("http", Protocol::Tcp, 8080)]);
        assert_eq!((web.created, web.node.as_str(), web.is_host_network), (7, "here", false));
        assert_eq!(web.labels.get("app").map(String::as_str), Some("web"));
    }

    #[test]
    fn what_docker_leaves_out_is_not_there() {
        let bare =
            pod(json!({"Id": "0123456789abcdef", "Names": null, "Labels": null, "NetworkSettings": null}));
        assert_eq!((bare.id, bare.addresses), (PodId::new("default", "0123456789ab"), vec![]));
        let host = json!({"Id": "h", "Names": ["/h"], "HostConfig": {"NetworkMode": "host"}});
        assert!(pod(host).is_host_network);
    }

    #[test]
    fn a_network_tells_the_addresses_of_those_who_join() {
        let network: Network = serde_json::from_value(json!({"Name": "bridge", "Containers":
            {"c1": {"IPv4Address": "172.17.0.2/16", "IPv6Address": "fd00::2/64"}, "c2": {"IPv4Address": ""}}}))
        .unwrap();
        assert_eq!(
            network.addresses_of("c1"),
            [[172, 17, 0, 2].into(), "fd00::2".parse::<IpAddr>().unwrap()]
        );
        assert!(network.addresses_of("c2").is_empty() && network.addresses_of("c3").is_empty());
    }
}
