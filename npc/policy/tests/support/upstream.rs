//! What Kubernetes itself asks of network policies in its end-to-end tests, case by case.

use weave_policy::{
    Change, Labels, Namespace, Policy, PolicyId,
    Protocol::{self, Sctp, Tcp, Udp},
    Rule,
};

use crate::{cases::Case, words::*};

const A: &[&str] = &["pod=a"];

/// All 48 of them.
pub(crate) fn upstream_cases() -> Vec<Case> {
    let mut cases = selectors();
    cases.extend(stacks());
    cases.extend(ports());
    cases.extend(live());
    cases.extend(outwards());
    for protocol in [Udp, Sctp] {
        cases.extend(of_protocol(protocol));
    }
    cases
}

fn case(name: &str, policies: Vec<Policy>) -> Case {
    let policies = policies.into_iter().enumerate().map(|(n, policy)| called(&format!("p{n}"), policy));
    Case { name: format!("upstream: {name}"), steps: vec![policies.map(Change::Policy).collect()] }
}

fn deny_ingress(namespace: &str) -> Policy {
    ingress(namespace, &[], vec![])
}

fn from(peers: Vec<weave_policy::Peer>) -> Policy {
    ingress("x", A, vec![rule(peers, vec![])])
}

fn selectors() -> Vec<Case> {
    let name_of_y = pods_in(&["kubernetes.io/metadata.name=y"], &[]);
    let not_by_name = pods_in(&["kubernetes.io/metadata.name notin y"], &[]);
    vec![
        case("pods of the own namespace", vec![from(vec![own_pods(&["pod=b"])])]),
        case("pods of all namespaces", vec![deny_ingress("x"), from(vec![pods_in(&[], &[])])]),
        case("only another namespace", vec![from(vec![pods_in(&["ns=y"], &[])])]),
        case("pods by expressions", vec![from(vec![own_pods(&["pod in b"])])]),
        case("namespaces by expressions", vec![from(vec![pods_in(&["ns in y"], &[])])]),
        case("pods or namespaces", vec![from(vec![own_pods(&["pod=b"]), pods_in(&["ns=y"], &[])])]),
        case("pods in namespaces", vec![from(vec![pods_in(&["ns=y"], &["pod=b"])])]),
        case(
            "several expressions",
            vec![from(vec![pods_in(&["ns notin x", "ns exists"], &["pod in b,c", "pod notin c"])])],
        ),
        case("any of several", vec![from(vec![own_pods(&["pod=b"]), own_pods(&["pod in c"])])]),
        case("a pod of another namespace", vec![from(vec![pods_in(&["ns=y"], &A[..1])])]),
        case("no other namespaces", vec![ingress("x", &[], vec![rule(vec![own_pods(&[])], vec![])])]),
        case("a namespace by its name", vec![from(vec![name_of_y])]),
        case("all namespaces but one by its name", vec![from(vec![not_by_name])]),
    ]
}

fn stacks() -> Vec<Case> {
    let all_denied = Policy { egress: Some(vec![]), ..deny_ingress("x") };
    let to_80 = || vec![rule(vec![pods_in(&["ns=y"], &[])], vec![port(Tcp, 80)])];
    let to_81 = || vec![rule(vec![pods_in(&["ns=y"], &[])], vec![port(Tcp, 81)])];
    let both = Policy {
        ingress: Some(vec![rule(vec![pods_in(&["ns=y"], &[])], vec![])]),
        egress: Some(vec![rule(vec![pods_in(&["ns=z"], &[])], vec![])]),
        ..ingress("x", A, vec![])
    };
    vec![
        case("nothing comes in", vec![deny_ingress("x")]),
        case("nothing at all", vec![all_denied]),
        case("one pod is let in", vec![deny_ingress("x"), ingress("x", A, vec![anything()])]),
        case("overlapping policies", vec![ingress("x", A, to_80()), ingress("x", A, to_81())]),
        case("everything is let in", vec![ingress("x", &[], vec![anything()])]),
        case("both ways", vec![both]),
        case("two ways in, one for all", vec![ingress("x", A, to_80()), ingress("x", A, vec![anything()])]),
        case("two ways out, one for all", vec![egress("x", A, to_80()), egress("x", A, vec![anything()])]),
        case(
            "the client may not, though the server would",
            vec![egress("x", A, vec![]), ingress("y", &[], vec![anything()])],
        ),
        case("in and out are independent", vec![ingress("x", A, vec![]), egress("x", A, vec![anything()])]),
    ]
}

fn ports() -> Vec<Case> {
    let of_ports = |ports| vec![rule(vec![], ports)];
    let from_y = |ports| vec![rule(vec![pods_in(&["ns=y"], &[])], ports)];
    vec![
        case("a port", vec![ingress("x", A, from_y(vec![port(Tcp, 81)]))]),
        case("a port by its name", vec![ingress("x", A, of_ports(vec![named(Tcp, "serve-81-tcp")]))]),
        case("a port by its name for some", vec![ingress("x", A, from_y(vec![named(Tcp, "serve-81-tcp")]))]),
        case("a port by its name outwards", vec![egress("x", A, of_ports(vec![named(Tcp, "serve-80-tcp")]))]),
        case("a protocol without ports", vec![ingress("x", A, of_ports(vec![any_port(Tcp)]))]),
        case("SCTP is not TCP", vec![ingress("x", A, of_ports(vec![port(Sctp, 80)]))]),
        case("SCTP alone isolates", vec![ingress("x", &[], of_ports(vec![any_port(Sctp)]))]),
        case("UDP does not allow TCP", vec![ingress("x", A, of_ports(vec![port(Udp, 81)]))]),
    ]
}

fn live() -> Vec<Case> {
    let set = |rules: Vec<Rule>| vec![Change::Policy(ingress("x", A, rules))];
    let on = |number| vec![rule(vec![], vec![port(Tcp, number)])];
    let relabel = |pod: &str, label: &str| {
        let mut pod = world().pods.remove(&id(pod)).unwrap();
        pod.labels = Labels::from([("pod".to_owned(), label.to_owned())]);
        vec![Change::Pod(pod)]
    };
    let team = |ns: &str| vec![Change::Namespace(Namespace::new("y", labels(&[("ns", ns)])))];
    let from_new = |peer| set(vec![rule(vec![peer], vec![])]);
    let target = || vec![Change::Policy(ingress("x", &["pod=target"], vec![]))];
    let gone = vec![Change::PolicyGone(PolicyId::new("x", "ingress"))];
    let steps = |name: &str, steps| Case { name: format!("upstream: {name}"), steps };
    vec![
        steps("a policy is updated", vec![set(on(81)), set(on(80))]),
        steps("a namespace is relabelled", vec![from_new(pods_in(&["ns=new"], &[])), team("new"), team("y")]),
        steps("a pod is relabelled", vec![from_new(own_pods(&["pod=new"])), relabel("x/b", "new")]),
        steps("a pod becomes a subject", vec![target(), relabel("x/a", "target"), relabel("x/a", "a")]),
        steps("a policy is deleted", vec![set(vec![]), gone]),
    ]
}

fn outwards() -> Vec<Case> {
    let to = |peers| vec![egress("x", A, vec![rule(peers, vec![])])];
    let b_of_y = || vec![block("10.0.2.2/32", &[]), block("fd00:2::2/128", &[])];
    let all_but_b = || vec![block("10.0.2.0/24", &["10.0.2.2/32"]), block("fd00:2::/64", &["fd00:2::2/128"])];
    vec![
        case("one pod may not go out", vec![egress("x", A, vec![])]),
        case("no pod of a namespace may go out", vec![egress("x", &[], vec![])]),
        case("out to a pod of another namespace", to(vec![pods_in(&["ns=y"], &["pod=b"])])),
        case("out to an address", to(b_of_y())),
        case("out to addresses but one", to(all_but_b())),
        case(
            "out to addresses but one, which another policy allows",
            [to(all_but_b()), to(b_of_y())].concat(),
        ),
    ]
}

fn of_protocol(protocol: Protocol) -> Vec<Case> {
    let name = |what: &str| format!("{what}, {protocol}");
    let peer = pods_in(&["ns=y"], &["pod=b"]);
    vec![
        case(&name("nothing comes in"), vec![ingress("x", A, vec![])]),
        case(&name("a port"), vec![ingress("x", A, vec![rule(vec![], vec![port(protocol, 80)])])]),
        case(
            &name("pods in namespaces"),
            vec![ingress("x", A, vec![rule(vec![peer], vec![any_port(protocol)])])],
        ),
    ]
}
