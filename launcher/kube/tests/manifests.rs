//! What users apply: it is what Kubernetes understands, allows exactly what we ask for, and names what is there.
#![allow(clippy::unwrap_used, reason = "a manifest that cannot be read is a failed test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Container, PodSpec, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weave_kube::{cluster::CALLS, manifest::Manifest};

/// What `weave-npc` asks: it follows these.
const NPC_FOLLOWS: [&str; 3] = ["pods", "namespaces", "networkpolicies"];

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")
}

fn documents() -> Vec<Value> {
    parse(&fs::read_to_string(manifests().join("kubernetes/weave.yaml")).unwrap())
}

fn parse(text: &str) -> Vec<Value> {
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

/// The one object of this kind, with no field that the type does not have.
fn object<T: DeserializeOwned + serde::Serialize>(kind: &str) -> T {
    let all = documents();
    let found: Vec<&Value> = all.iter().filter(|document| document["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}");
    let typed: T = serde_json::from_value(found[0].clone()).unwrap();
    same(&serde_json::to_value(&typed).unwrap(), found[0], kind);
    typed
}

/// Every field that was written was understood.
fn same(typed: &Value, written: &Value, place: &str) {
    match written {
        Value::Object(fields) => {
            for (key, value) in fields {
                let place = format!("{place}.{key}");
                same(typed.get(key).unwrap_or_else(|| panic!("{place} is no field")), value, &place);
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                same(&typed[number], item, &format!("{place}[{number}]"));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            assert_eq!(typed, written, "{place}")
        }
    }
}

fn pod() -> PodSpec {
    object::<DaemonSet>("DaemonSet").spec.unwrap().template.spec.unwrap()
}

type Permission = (String, String, Option<String>);

fn permissions(rules: Vec<PolicyRule>) -> BTreeSet<Permission> {
    let mut all = BTreeSet::new();
    for rule in rules {
        let names: Vec<Option<String>> = match rule.resource_names {
            Some(names) => names.into_iter().map(Some).collect(),
            None => vec![None],
        };
        for resource in rule.resources.unwrap_or_default() {
            for verb in &rule.verbs {
                all.extend(names.iter().map(|name| (verb.clone(), resource.clone(), name.clone())));
            }
        }
    }
    all
}

#[test]
fn the_roles_allow_exactly_what_is_asked() {
    let mut allowed = permissions(object::<ClusterRole>("ClusterRole").rules.unwrap());
    allowed.extend(permissions(object::<Role>("Role").rules.unwrap()));
    let ours =
        CALLS.map(|(verb, resource, name)| (verb.to_owned(), resource.to_owned(), name.map(str::to_owned)));
    let npc = NPC_FOLLOWS
        .iter()
        .flat_map(|resource| ["list", "watch"].map(|verb| (verb.to_owned(), (*resource).to_owned(), None)));
    assert_eq!(allowed, ours.into_iter().chain(npc).collect());
}

#[test]
fn the_account_is_bound_to_its_roles() {
    let account = object::<ServiceAccount>("ServiceAccount").metadata.name;
    let cluster = object::<ClusterRoleBinding>("ClusterRoleBinding");
    let local = object::<RoleBinding>("RoleBinding");
    for (role, subjects) in [(cluster.role_ref, cluster.subjects), (local.role_ref, local.subjects)] {
        assert_eq!(role.name, "weave-net");
        assert_eq!(subjects.unwrap()[0].name, account.clone().unwrap());
    }
    assert_eq!(pod().service_account_name, account);
}

#[test]
fn every_container_is_as_little_trusted_as_it_can_be_and_says_what_it_needs() {
    let pod = pod();
    assert_eq!(
        (pod.host_network, pod.priority_class_name.as_deref()),
        (Some(true), Some("system-node-critical"))
    );
    assert_ne!(pod.host_pid, Some(true));
    let volumes: BTreeSet<String> = pod.volumes.unwrap().into_iter().map(|volume| volume.name).collect();
    let mut used = BTreeSet::new();
    let all: Vec<Container> = pod.init_containers.unwrap().into_iter().chain(pod.containers).collect();
    for container in &all {
        let name = &container.name;
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(security.read_only_root_filesystem, Some(true), "{name}");
        assert!(container.resources.as_ref().unwrap().requests.is_some(), "{name}");
        assert_eq!(container.readiness_probe.is_some(), name != "weave-init", "{name}");
        let mounts = container.volume_mounts.iter().flatten().map(|mount| mount.name.clone());
        used.extend(mounts);
    }
    assert_eq!(used, volumes, "volumes that are mounted, and volumes that are there");
    let npc = all.iter().find(|container| container.name == "weave-npc").unwrap();
    let security = npc.security_context.as_ref().unwrap();
    assert_eq!((security.privileged, security.allow_privilege_escalation), (None, Some(false)));
    let capabilities = security.capabilities.as_ref().unwrap();
    assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]));
    assert_eq!(capabilities.add.as_deref(), Some(&["NET_ADMIN".to_owned()][..]));
}

#[test]
fn overlays_change_what_is_there() {
    let names: BTreeSet<String> = pod().containers.into_iter().map(|container| container.name).collect();
    let mut count = 0;
    for entry in fs::read_dir(manifests().join("overlays")).unwrap() {
        let directory = entry.unwrap().path();
        let read = |file: &str| -> Value {
            serde_saphyr::from_str(&fs::read_to_string(directory.join(file)).unwrap()).unwrap()
        };
        let kustomization = read("kustomization.yaml");
        assert_eq!(kustomization["resources"][0], "../../kubernetes");
        let patch = read(kustomization["patches"][0]["path"].as_str().unwrap());
        assert_eq!((&patch["kind"], &patch["metadata"]["name"]), (&"DaemonSet".into(), &"weave-net".into()));
        for container in patch["spec"]["template"]["spec"]["containers"].as_array().unwrap() {
            assert!(names.contains(container["name"].as_str().unwrap()), "{container}");
            let typed: Container = serde_json::from_value(container.clone()).unwrap();
            assert!(typed.env.is_some() || container["$patch"] == "delete", "{container}");
        }
        count += 1;
    }
    assert_eq!(count, 4);
}

/// What `weave-kube manifest` prints with these flags, or why it refuses.
fn printed(flags: &str) -> Result<String, String> {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        manifest: Manifest,
    }
    let words = std::iter::once("manifest").chain(flags.split_whitespace());
    let line = <Line as clap::Parser>::try_parse_from(words).map_err(|error| error.to_string())?;
    line.manifest.render().map_err(|error| format!("{error:#}"))
}

/// The pod of the DaemonSet in it, and how many documents there are.
fn chosen(flags: &str) -> (Value, usize) {
    let all = parse(&printed(flags).unwrap());
    let set = all.iter().find(|document| document["kind"] == "DaemonSet").unwrap();
    let typed: DaemonSet = serde_json::from_value(set.clone()).unwrap();
    same(&serde_json::to_value(&typed).unwrap(), set, flags);
    (set["spec"]["template"]["spec"].clone(), all.len())
}

fn variables(container: &Value) -> Vec<(&str, &Value)> {
    let all = container["env"].as_array().unwrap().iter();
    all.map(|entry| (entry["name"].as_str().unwrap(), entry)).collect()
}

#[test]
fn what_is_printed_without_choices_is_what_the_repository_has() {
    let (pod, count) = chosen("");
    let wanted = serde_json::to_value(self::pod()).unwrap();
    assert_eq!(serde_json::to_value(serde_json::from_value::<PodSpec>(pod).unwrap()).unwrap(), wanted);
    assert_eq!(count, documents().len());
}

#[test]
fn every_choice_is_found_where_kubernetes_looks_for_it() {
    let flags = "--image r.example:5000/w@sha256:ab --npc-image r.example/n:2 --ipalloc-range 10.40.0.0/16,fd00:7::/64 \
                 --password-secret mesh/key --no-fastdp --env WEAVE_MTU=1410 --env EXTRA_ARGS=--name=a:b";
    let (pod, _) = chosen(flags);
    assert_eq!(pod["initContainers"][0]["image"], "r.example:5000/w@sha256:ab");
    assert_eq!(pod["containers"][0]["image"], "r.example:5000/w@sha256:ab");
    assert_eq!(pod["containers"][1]["image"], "r.example/n:2");
    let variables = variables(&pod["containers"][0]);
    let value = |name: &str| variables.iter().find(|(other, _)| *other == name).unwrap().1.clone();
    assert_eq!(value("IPALLOC_RANGE")["value"], "10.40.0.0/16,fd00:7::/64");
    assert_eq!(value("WEAVE_NO_FASTDP")["value"], "1");
    assert_eq!(value("WEAVE_MTU")["value"], "1410");
    assert_eq!(value("EXTRA_ARGS")["value"], "--name=a:b");
    assert_eq!(
        value("WEAVE_PASSWORD")["valueFrom"],
        json!({ "secretKeyRef": { "name": "mesh", "key": "key" } })
    );
    assert!(value("NODE_NAME")["valueFrom"].is_object());
}

#[test]
fn without_policies_nobody_waits_for_who_enforces_them() {
    let (pod, _) = chosen("--no-npc");
    let names: Vec<&Value> = pod["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["weave"]);
    assert_eq!(variables(&pod["initContainers"][0])[0].1["value"], "0");
    assert!(pod["volumes"].as_array().unwrap().len() > 4);
}

#[test]
fn a_choice_that_makes_no_sense_is_refused() {
    for (flags, word) in [
        ("--ipalloc-range 10.32.0.1/12", "10.32.0.1/12"),
        ("--env WEAVE_MTU", "no `=`"),
        ("--env weave=1", "no variable"),
        ("--env IPALLOC_RANGE=10.0.0.0/8", "already"),
        ("--env WEAVE_PASSWORD=hunter2", "--password-secret"),
        ("--password-secret a/b/c", "no name"),
        ("--image \"", "no image"),
        ("--no-npc --npc-image x", "--npc-image"),
    ] {
        let refused = printed(flags).unwrap_err();
        assert!(refused.contains(word), "{flags}: {refused}");
    }
}
