//! Objects as a server has them.

use serde_json::{Value, json};

pub(crate) fn namespace(name: &str, labels: &Value) -> Value {
    let mut labels = labels.clone();
    labels["kubernetes.io/metadata.name"] = json!(name);
    json!({"metadata": {"name": name, "labels": labels, "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
}

/// A pod on `node` with label `app`, made in second `created`; without an address it has not been started yet.
pub(crate) fn pod(
    namespace: &str,
    name: &str,
    app: &str,
    node: &str,
    address: Option<&str>,
    created: u8,
) -> Value {
    let ips: Vec<Value> = address.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app},
            "creationTimestamp": format!("2024-05-06T07:08:{created:02}Z"), "annotations": {"a": "b"}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i",
            "ports": [{"name": "web", "containerPort": 80, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": ips},
    })
}

pub(crate) fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": spec})
}

/// Pods of `subject` may be reached by those of `friend` in namespaces of team `team`, by port 80.
pub(crate) fn allow(namespace: &str, name: &str, subject: &str, friend: &str, team: &str) -> Value {
    let peer = json!({"podSelector": {"matchLabels": {"app": friend}},
        "namespaceSelector": {"matchLabels": {"team": team}}});
    policy(
        namespace,
        name,
        json!({"podSelector": {"matchLabels": {"app": subject}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [peer], "ports": [{"port": 80, "protocol": "TCP"}]}]}),
    )
}
