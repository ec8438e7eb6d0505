//! Kubernetes objects as they are written, and what they mean to us.
//!
//! The only file that knows the shape of Kubernetes objects. What is wrong in a policy allows nothing, and is reported:
//! the policy still isolates whom it selects.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;
use serde_json::Value;
use weave_policy::{
    Block, Change, ContainerPort, Direction, InvalidSelector, Labels, Namespace, Peer, Pod, PodId, Policy,
    PolicyId, Port, Protocol, Requirement, Rule, Selector, WhichPort,
};

/// What a document gave.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Objects, as changes that bring them about.
    pub objects: Vec<Change>,
    /// What was wrong, and had to be left out.
    pub complaints: Vec<String>,
}

/// Reads the documents of a file: YAML, of which JSON is a part.
///
/// # Errors
/// When it cannot be read at all, or an object of a kind that we know has another shape; nothing of it counts then.
pub fn parse(text: &str) -> anyhow::Result<Parsed> {
    let mut parsed = Parsed::default();
    // `y` and `on` are words, as they are to those who write manifests.
    let options = serde_saphyr::options! { strict_booleans: true };
    for document in serde_saphyr::from_multiple_with_options::<Value>(text, options)? {
        add(document, &mut parsed)?;
    }
    Ok(parsed)
}

/// Reads one object; of a kind that we do not know, nothing.
///
/// # Errors
/// When an object of a kind that we know has another shape.
pub(crate) fn add(document: Value, parsed: &mut Parsed) -> anyhow::Result<()> {
    let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let object = match kind.as_str() {
        "Namespace" => Change::Namespace(namespace(serde_json::from_value(document)?)),
        "Pod" => Change::Pod(pod(serde_json::from_value(document)?)),
        "NetworkPolicy" => Change::Policy(policy(serde_json::from_value(document)?, &mut parsed.complaints)),
        list if list.ends_with("List") => {
            if let Some(Value::Array(items)) = document.get("items") {
                for item in items {
                    add(with_kind(item.clone(), list.trim_end_matches("List")), parsed)?;
                }
            }
            return Ok(());
        }
        _ => return Ok(()),
    };
    parsed.objects.push(object);
    Ok(())
}

/// Items of a typed list may leave their kind out.
fn with_kind(mut item: Value, kind: &str) -> Value {
    if let Value::Object(fields) = &mut item {
        fields.entry("kind").or_insert_with(|| Value::String(kind.to_owned()));
    }
    item
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<String>,
}

impl Metadata {
    /// NP-07.
    fn namespace(&self) -> String {
        self.namespace.clone().unwrap_or_else(|| "default".to_owned())
    }

    fn labels(&self) -> Labels {
        self.labels.clone().unwrap_or_default().into()
    }

    /// The digits of the time, as `2024-05-06T07:08:09Z`, in a row.
    fn created(&self) -> u64 {
        let digits: String = self
            .creation_timestamp
            .iter()
            .flat_map(|t| t.chars())
            .filter(char::is_ascii_digit)
            .take(14)
            .collect();
        digits.parse().unwrap_or(0)
    }
}

#[derive(Debug, Deserialize)]
struct NamespaceObject {
    metadata: Metadata,
}

fn namespace(object: NamespaceObject) -> Namespace {
    let labels = object.metadata.labels();
    Namespace::new(object.metadata.name, labels)
}

#[derive(Debug, Deserialize)]
struct PodObject {
    metadata: Metadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    ports: Option<Vec<DeclaredPort>>,
    restart_policy: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeclaredPort {
    name: Option<String>,
    container_port: u16,
    protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

fn pod(object: PodObject) -> Pod {
    let PodObject { metadata, spec, status } = object;
    let all = status.pod_ips.unwrap_or_default().into_iter().map(|entry| entry.ip);
    let mut addresses: Vec<IpAddr> = all.chain(status.pod_ip).filter_map(|text| text.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    // NP-57: init containers that keep running beside the others.
    let is_sidecar = |container: &Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.unwrap_or_default().into_iter().filter(is_sidecar);
    let containers = spec.containers.unwrap_or_default().into_iter().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.unwrap_or_default()).filter_map(named_port);
    Pod {
        labels: metadata.labels(),
        addresses,
        ports: ports.collect(),
        is_host_network: spec.host_network.unwrap_or(false),
        is_finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        created: metadata.created(),
        ..Pod::new(PodId::new(metadata.namespace(), metadata.name), spec.node_name.unwrap_or_default())
    }
}

fn named_port(port: DeclaredPort) -> Option<ContainerPort> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP").parse().ok()?;
    Some(ContainerPort { name: port.name?, protocol, number: port.container_port })
}

#[derive(Debug, Deserialize)]
struct PolicyObject {
    metadata: Metadata,
    #[serde(default)]
    spec: PolicySpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PolicySpec {
    pod_selector: Option<SelectorSpec>,
    policy_types: Option<Vec<String>>,
    ingress: Option<Vec<RuleSpec>>,
    egress: Option<Vec<RuleSpec>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuleSpec {
    from: Option<Vec<PeerSpec>>,
    to: Option<Vec<PeerSpec>>,
    ports: Option<Vec<PortSpec>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PeerSpec {
    pod_selector: Option<SelectorSpec>,
    namespace_selector: Option<SelectorSpec>,
    ip_block: Option<BlockSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BlockSpec {
    cidr: String,
    except: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PortSpec {
    protocol: Option<String>,
    port: Option<PortValue>,
    end_port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PortValue {
    Number(u16),
    Name(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SelectorSpec {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<ExpressionSpec>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ExpressionSpec {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

fn policy(object: PolicyObject, complaints: &mut Vec<String>) -> Policy {
    let PolicyObject { metadata, spec } = object;
    let id = PolicyId::new(metadata.namespace(), metadata.name);
    let mut complain = |what: String| complaints.push(format!("policy {id}: {what}"));
    let types: Option<Vec<Direction>> = spec.policy_types.map(|types| {
        let known = |text: &String| match text.as_str() {
            "Ingress" => Some(Direction::Ingress),
            "Egress" => Some(Direction::Egress),
            other => {
                complain(format!("`{other}` is no policy type"));
                None
            }
        };
        types.iter().filter_map(known).collect()
    });
    // A selector that makes no sense selects the whole namespace: that isolates too much rather than too little.
    let subject = selector(spec.pod_selector.unwrap_or_default()).unwrap_or_else(|error| {
        complain(format!("podSelector: {error}; taken for all pods of the namespace"));
        Selector::everything()
    });
    let mut rules = |specs: Option<Vec<RuleSpec>>| -> Vec<Rule> {
        specs.unwrap_or_default().into_iter().filter_map(|spec| rule(spec, &mut complain)).collect()
    };
    let (has_egress, ingress) =
        (spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()), rules(spec.ingress));
    let egress = rules(spec.egress);
    // NP-10 asks whether rules were written, not whether they made sense.
    let written = if has_egress { &Direction::ALL[..] } else { &[Direction::Ingress] };
    let types = types.filter(|types| !types.is_empty()).unwrap_or_else(|| written.to_vec());
    Policy::with_types(id.clone(), subject, Some(&types), ingress, egress)
}

/// A rule; `None` if nothing of its peers or ports is left, which must not be taken for "all".
fn rule(spec: RuleSpec, complain: &mut impl FnMut(String)) -> Option<Rule> {
    let peer_specs: Vec<PeerSpec> = spec.from.into_iter().chain(spec.to).flatten().collect();
    let port_specs = spec.ports.unwrap_or_default();
    let (wanted_peers, wanted_ports) = (peer_specs.len(), port_specs.len());
    let mut valid = |result: Result<_, String>| result.map_err(&mut *complain).ok();
    let peers: Vec<Peer> = peer_specs.into_iter().filter_map(|spec| valid(peer(spec))).collect();
    let mut valid = |result: Result<_, String>| result.map_err(&mut *complain).ok();
    let ports: Vec<Port> = port_specs.into_iter().filter_map(|spec| valid(port(spec))).collect();
    let is_empty = (wanted_peers > 0 && peers.is_empty()) || (wanted_ports > 0 && ports.is_empty());
    (!is_empty).then_some(Rule { peers, ports })
}

/// NP-22 to NP-26.
fn peer(spec: PeerSpec) -> Result<Peer, String> {
    let of = |spec| selector(spec).map_err(|error| error.to_string());
    match (spec.ip_block, spec.namespace_selector, spec.pod_selector) {
        (Some(block), None, None) => {
            let except = block.except.unwrap_or_default();
            Block::parse(&block.cidr, &except).map(Peer::Block).map_err(|error| error.to_string())
        }
        (Some(_), ..) => Err("a peer with ipBlock can have no selectors".to_owned()),
        (None, None, None) => Err("a peer needs a selector or an ipBlock".to_owned()),
        (None, namespaces, pods) => Ok(Peer::Pods {
            namespaces: namespaces.map(of).transpose()?,
            pods: of(pods.unwrap_or_default())?,
        }),
    }
}

/// NP-51, NP-54, NP-55.
fn port(spec: PortSpec) -> Result<Port, String> {
    let protocol: Protocol =
        spec.protocol.as_deref().unwrap_or("TCP").parse().map_err(|error| format!("{error}"))?;
    let which = match (spec.port, spec.end_port) {
        (None, None) => WhichPort::Any,
        (Some(PortValue::Number(first)), None) => WhichPort::Numbers { first, last: first },
        (Some(PortValue::Number(first)), Some(last)) if first <= last => WhichPort::Numbers { first, last },
        (Some(PortValue::Number(first)), Some(last)) => {
            return Err(format!("endPort {last} is below port {first}"));
        }
        (Some(PortValue::Name(name)), None) => WhichPort::Named(name),
        (_, Some(_)) => return Err("endPort needs a numeric port".to_owned()),
    };
    Ok(Port { protocol, which })
}

fn selector(spec: SelectorSpec) -> Result<Selector, InvalidSelector> {
    let labels = spec.match_labels.unwrap_or_default();
    let labels = labels.into_iter().map(|(key, value)| Ok(Requirement::equals(key, value)));
    let expressions = spec.match_expressions.unwrap_or_default().into_iter();
    let expressions = expressions
        .map(|spec| Requirement::parse(&spec.key, &spec.operator, &spec.values.unwrap_or_default()));
    labels.chain(expressions).collect()
}
