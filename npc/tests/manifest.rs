//! Objects as people write them.
#![allow(clippy::unwrap_used, reason = "in tests a panic is how one fails")]

use weave_npc::manifest::parse;
use weave_policy::{
    Block, Change, Direction, Peer, Policy, Port, Protocol, Requirement, Rule, Selector, WhichPort,
};

fn policy(spec: &str) -> (Policy, Vec<String>) {
    let text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: x}}\nspec: {spec}\n"
    );
    let mut parsed = parse(&text).unwrap();
    let Some(Change::Policy(policy)) = parsed.objects.pop() else { panic!("{:?}", parsed.objects) };
    (policy, parsed.complaints)
}

/// How many rules a policy has for each direction, if it speaks about it.
fn rules(spec: &str) -> [Option<usize>; 2] {
    let (policy, complaints) = policy(spec);
    assert_eq!(complaints, Vec::<String>::new());
    Direction::ALL.map(|direction| policy.rules(direction).map(<[Rule]>::len))
}

fn equals(key: &str, value: &str) -> Selector {
    Selector::from_iter([Requirement::equals(key, value)])
}

/// NP-10 to NP-15, E01, E02.
#[test]
fn directions_and_rules_default_as_the_api_says() {
    let table: [(&str, [Option<usize>; 2]); 14] = [
        ("{}", [Some(0), None]),
        ("{podSelector: {}}", [Some(0), None]),
        ("{ingress: []}", [Some(0), None]),
        ("{ingress: null}", [Some(0), None]),
        ("{ingress: [{}]}", [Some(1), None]),
        ("{egress: []}", [Some(0), None]),
        ("{egress: [{}]}", [Some(0), Some(1)]),
        ("{ingress: [{}], egress: [{}]}", [Some(1), Some(1)]),
        ("{policyTypes: [Egress]}", [None, Some(0)]),
        ("{policyTypes: [Egress], ingress: [{}]}", [None, Some(0)]),
        ("{policyTypes: [Ingress], egress: [{}]}", [Some(0), None]),
        ("{policyTypes: [Ingress, Egress]}", [Some(0), Some(0)]),
        ("{policyTypes: []}", [Some(0), None]),
        ("{policyTypes: [], egress: [{}]}", [Some(0), Some(1)]),
    ];
    for (spec, expected) in table {
        assert_eq!(rules(spec), expected, "{spec}");
    }
    let (everything, _) = policy("{ingress: [{}]}");
    assert_eq!(everything.ingress.unwrap(), [Rule::default()]);
}

/// NP-21 to NP-24, E04: one dash more or less.
#[test]
fn a_dash_makes_two_peers_of_one() {
    let one = "{ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {app: b}}}]}]}";
    let two = "{ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}, {podSelector: {matchLabels: {app: b}}}]}]}";
    let peers = |spec| policy(spec).0.ingress.unwrap().remove(0).peers;
    let (ns, app) = (equals("ns", "y"), equals("app", "b"));
    assert_eq!(peers(one), [Peer::Pods { namespaces: Some(ns.clone()), pods: app.clone() }]);
    let everything = Selector::everything();
    assert_eq!(
        peers(two),
        [Peer::Pods { namespaces: Some(ns), pods: everything }, Peer::Pods { namespaces: None, pods: app }]
    );
}

/// NP-29, NP-51 to NP-55.
#[test]
fn ports_and_blocks_are_read_in_every_form() {
    let spec = "{egress: [{to: [{ipBlock: {cidr: 10.0.0.1/8, except: [10.1.0.0/16]}}], ports: [{}, {port: 80}, \
                {protocol: UDP, port: dns}, {protocol: SCTP}, {port: 1, endPort: 9}]}]}";
    let rule = policy(spec).0.egress.unwrap().remove(0);
    assert_eq!(rule.peers, [Peer::Block(Block::parse("10.0.0.0/8", &["10.1.0.0/16"]).unwrap())]);
    let port = |protocol, which| Port { protocol, which };
    use Protocol::{Sctp, Tcp, Udp};
    let numbers = |first, last| WhichPort::Numbers { first, last };
    let expected = [
        port(Tcp, WhichPort::Any),
        port(Tcp, numbers(80, 80)),
        port(Udp, WhichPort::Named("dns".to_owned())),
        port(Sctp, WhichPort::Any),
        port(Tcp, numbers(1, 9)),
    ];
    assert_eq!(rule.ports, expected);
}

/// What makes no sense allows nothing, is told, and isolates all the same.
#[test]
fn mistakes_close_and_are_reported() {
    let table = [
        // A rule of which nothing is left must not become one for everybody.
        ("{ingress: [{from: [{}]}]}", Some(0), "needs a selector or an ipBlock"),
        ("{ingress: [{from: [{ipBlock: {cidr: nonsense}}]}]}", Some(0), "`nonsense` is not a CIDR"),
        ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}", Some(0), "no selectors"),
        ("{ingress: [{ports: [{protocol: ICMP}]}]}", Some(0), "`ICMP` is not a protocol"),
        ("{ingress: [{ports: [{port: 9, endPort: 1}]}]}", Some(0), "endPort 1 is below port 9"),
        ("{ingress: [{ports: [{port: web, endPort: 1}]}]}", Some(0), "endPort needs a numeric port"),
        (
            "{ingress: [{from: [{podSelector: {matchExpressions: [{key: a, operator: In}]}}]}]}",
            Some(0),
            "at least one value",
        ),
        // What does make sense stays.
        ("{ingress: [{from: [{}, {podSelector: {}}]}]}", Some(1), "needs a selector or an ipBlock"),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: Is}]}, ingress: [{}]}",
            Some(1),
            "taken for all pods",
        ),
        ("{policyTypes: [Ingress, Sideways]}", Some(0), "`Sideways` is no policy type"),
    ];
    for (spec, ingress, complaint) in table {
        let (policy, complaints) = policy(spec);
        assert_eq!(policy.ingress.map(|rules| rules.len()), ingress, "{spec}");
        assert!(complaints.len() == 1 && complaints[0].contains(complaint), "{spec}: {complaints:?}");
    }
}

#[test]
fn pods_are_read_with_all_that_policies_ask_about() {
    let text = "
apiVersion: v1
kind: Pod
metadata:
  name: web
  creationTimestamp: '2024-05-06T07:08:09Z'
  labels: {app: web, version: '2'}
spec:
  nodeName: one
  initContainers:
  - name: setup
    ports: [{name: setup, containerPort: 1}]
  - name: mesh
    restartPolicy: Always
    ports: [{name: mesh, containerPort: 15000}]
  containers:
  - name: web
    image: web:1
    ports: [{name: http, containerPort: 80, hostPort: 8080}, {containerPort: 81}]
  - name: dns
    ports: [{name: dns, containerPort: 53, protocol: UDP}]
status:
  phase: Running
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]
---
kind: Pod
metadata: {name: host, namespace: kube-system}
spec: {hostNetwork: true}
status: {podIP: 192.0.2.1, phase: Succeeded}
---
# Nothing here.
---
kind: Deployment
apiVersion: apps/v1
spec: {template: {spec: {containers: 7}}}
";
    let parsed = parse(text).unwrap();
    let [Change::Pod(web), Change::Pod(host)] = &parsed.objects[..] else { panic!("{:?}", parsed.objects) };
    assert_eq!((web.id.to_string().as_str(), web.node.as_str()), ("default/web", "one"));
    assert_eq!(web.labels.len(), 2);
    assert_eq!(web.addresses.len(), 2);
    let mut names: Vec<_> =
        web.ports.iter().map(|port| (port.name.as_str(), port.protocol, port.number)).collect();
    names.sort();
    assert_eq!(
        names,
        [("dns", Protocol::Udp, 53), ("http", Protocol::Tcp, 80), ("mesh", Protocol::Tcp, 15000)]
    );
    assert_eq!(web.created, 20_240_506_070_809);
    assert!(!web.is_finished && !web.is_host_network);
    assert!(host.is_finished && host.is_host_network);
}

#[test]
fn lists_and_json_are_read_too() {
    let list = "kind: List\nitems:\n- kind: Namespace\n  metadata: {name: a, labels: {team: red}}\n";
    let Some(Change::Namespace(namespace)) = parse(list).unwrap().objects.pop() else { panic!() };
    assert_eq!((namespace.name(), namespace.labels().len()), ("a", 2));
    let typed =
        r#"{"kind": "NamespaceList", "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}"#;
    assert_eq!(parse(typed).unwrap().objects.len(), 2);
    for nothing in ["", "---\n", "# nothing\n", "a: b", "[]", "7"] {
        assert_eq!(parse(nothing).unwrap().objects, [], "{nothing:?}");
    }
    for broken in ["kind: Pod\nmetadata: [", "kind: Pod", "kind: Pod\nmetadata: {name: a, labels: {a: [b]}}"]
    {
        assert!(parse(broken).is_err(), "{broken:?}");
    }
}

/// Aliases of aliases, a few hundred bytes that stand for gigabytes.
#[test]
fn a_file_that_explodes_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..20 {
        let previous = format!("*a{}", n - 1);
        text += &format!("a{n}: &a{n} [{}]\n", vec![previous; 10].join(", "));
    }
    assert!(parse(&text).is_err());
}
