//! The cases of Cyclonus, a conformance suite for network policies, generated anew: mutations of one policy, pairs of
//! peers, of ports, policies that contradict each other, and changes while everything runs.

use weave_policy::{
    Change, Namespace, Peer, Policy, PolicyId, Port,
    Protocol::{self, Sctp, Tcp, Udp},
    Rule,
};

use crate::words::*;

/// Changes, step by step; after each of them the whole table is looked at.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) steps: Vec<Vec<Change>>,
}

/// All of them. They begin with the objects of [`world`].
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(targets());
    cases.extend(rules());
    cases.extend(peers());
    cases.extend(ports());
    cases.extend(conflicts());
    cases.extend(live());
    cases.extend(end_to_end());
    cases
}

fn one(name: String, policy: Policy) -> Case {
    Case { name, steps: vec![vec![Change::Policy(policy)]] }
}

/// What nearly every case mutates.
fn base() -> Policy {
    Policy {
        id: PolicyId::new("x", "base"),
        subject: selector(&["pod=a"]),
        ingress: Some(vec![ingress_rule()]),
        egress: Some(vec![egress_rule(), dns()]),
    }
}

fn ingress_rule() -> Rule {
    rule(vec![pods_in(&["ns in x,y"], &["pod in b,c"])], vec![port(Tcp, 80)])
}

fn egress_rule() -> Rule {
    rule(vec![pods_in(&["ns in y,z"], &["pod in a,b"])], vec![port(Tcp, 80)])
}

fn dns() -> Rule {
    rule(vec![], vec![port(Udp, 53), port(Tcp, 53)])
}

/// The base with other rules for ingress, and with other rules for egress.
fn both(name: &str, rules: impl Fn(Rule) -> Vec<Rule>) -> [Case; 2] {
    let into = Policy { ingress: Some(rules(ingress_rule())), ..base() };
    let out = Policy { egress: Some(rules(egress_rule()).into_iter().chain([dns()]).collect()), ..base() };
    [one(format!("ingress: {name}"), into), one(format!("egress: {name}"), out)]
}

fn targets() -> Vec<Case> {
    let namespaces = ["x", "y", "z"].map(|namespace| {
        one(format!("policy in {namespace}"), Policy { id: PolicyId::new(namespace, "base"), ..base() })
    });
    let subjects: [&[&str]; 3] = [&[], &["pod=a"], &["pod in a,b"]];
    let subjects = subjects
        .map(|subject| one(format!("subject {subject:?}"), Policy { subject: selector(subject), ..base() }));
    namespaces.into_iter().chain(subjects).collect()
}

fn rules() -> Vec<Case> {
    let deny = ["ingress", "egress"].map(|direction| {
        let denied = if direction == "ingress" {
            Policy { ingress: Some(vec![]), ..base() }
        } else {
            Policy { egress: Some(vec![]), ..base() }
        };
        one(format!("{direction}: nothing"), denied)
    });
    deny.into_iter().chain(both("anything", |_| vec![anything()])).collect()
}

fn ten_peers() -> Vec<(String, Peer)> {
    let mut peers = Vec::new();
    for pods in [&[][..], &["pod=c"]] {
        peers.push((format!("own {pods:?}"), own_pods(pods)));
    }
    for namespaces in [&[][..], &["ns=x"]] {
        for (name, pods) in [("none", &[][..]), ("all", &[]), ("c", &["pod=c"])] {
            peers.push((format!("{namespaces:?} {name}"), pods_in(namespaces, pods)));
        }
    }
    peers.push(("block".to_owned(), block("10.0.3.0/24", &[])));
    peers.push(("block with exception".to_owned(), block("10.0.3.0/24", &["10.0.3.0/28"])));
    peers
}

fn peers() -> Vec<Case> {
    let with = |name: &str, peers: &[Peer]| both(name, |base| vec![Rule { peers: peers.to_vec(), ..base }]);
    let mut cases = Vec::from(with("any peer", &[]));
    let ten = ten_peers();
    for (i, (name, peer)) in ten.iter().enumerate() {
        cases.extend(with(name, std::slice::from_ref(peer)));
        for (other_name, other) in &ten[i + 1..] {
            cases.extend(with(&format!("{name} or {other_name}"), &[peer.clone(), other.clone()]));
        }
    }
    cases
}

fn serve(number: u16, protocol: Protocol) -> Port {
    named(protocol, &format!("serve-{number}-{}", protocol.to_string().to_lowercase()))
}

fn ports() -> Vec<Case> {
    let mut lists = vec![vec![]];
    // Without a protocol TCP is meant: three more of the same.
    for protocol in [Tcp, Tcp, Udp, Sctp] {
        lists.extend([vec![any_port(protocol)], vec![port(protocol, 80)], vec![port(protocol, 81)]]);
    }
    for protocol in Protocol::ALL {
        lists.extend([vec![serve(80, protocol)], vec![serve(81, protocol)]]);
        lists.extend([vec![range(protocol, 53, 80)], vec![range(protocol, 53, 84)]]);
    }
    lists.extend([vec![named(Udp, "serve-80-tcp")], vec![named(Tcp, "nobody")], vec![port(Tcp, 7981)]]);
    lists.extend([
        vec![any_port(Tcp), port(Tcp, 80)],
        vec![any_port(Tcp), serve(80, Tcp)],
        vec![any_port(Tcp), any_port(Udp)],
        vec![port(Tcp, 80), port(Tcp, 81)],
        vec![port(Tcp, 80), serve(81, Tcp)],
        vec![port(Tcp, 80), serve(81, Udp)],
        vec![port(Udp, 80), serve(81, Udp)],
    ]);
    let with =
        |ports: Vec<Port>| both(&format!("{ports:?}"), |base| vec![Rule { ports: ports.clone(), ..base }]);
    lists.into_iter().flat_map(with).collect()
}

/// Policies for x/b that say different things.
fn conflicts() -> Vec<Case> {
    let b = &["pod=b"][..];
    let nobody = || pods_in(&["ns=nobody"], &[]);
    let kinds: [(&str, Vec<Rule>); 6] = [
        ("deny", vec![]),
        ("allow all", vec![anything()]),
        ("allow pods", vec![rule(vec![pods_in(&[], &[])], vec![])]),
        ("allow addresses", vec![rule(vec![block("0.0.0.0/0", &[]), block("::/0", &[])], vec![])]),
        ("deny by address", vec![rule(vec![block("0.0.0.0/31", &[])], vec![])]),
        ("deny by pods", vec![rule(vec![nobody()], vec![])]),
    ];
    let kind = |wanted: &str| {
        kinds.iter().find(|(name, _)| *name == wanted).map(|(_, rules)| rules.clone()).unwrap()
    };
    let stacks: [&[&str]; 7] = [
        &["deny", "allow all"],
        &["deny", "allow pods"],
        &["deny", "allow addresses"],
        &["deny by address", "allow pods"],
        &["deny by pods", "allow addresses"],
        &["deny by address"],
        &["deny by pods"],
    ];
    let mut cases = Vec::new();
    for stack in stacks {
        for make in [ingress, egress] {
            let policies = stack
                .iter()
                .map(|name| Change::Policy(called(&name.replace(' ', "-"), make("x", b, kind(name)))));
            cases.push(Case { name: format!("conflict: {stack:?}"), steps: vec![policies.collect()] });
        }
    }
    for (out, into) in [("deny", "allow all"), ("allow all", "deny")] {
        let policies = [egress("x", b, kind(out)), ingress("y", &["pod=c"], kind(into))].map(Change::Policy);
        cases.push(Case { name: format!("{out} egress, {into} ingress"), steps: vec![policies.into()] });
    }
    for make in [ingress, egress] {
        let rules = vec![rule(vec![pods_in(&["kubernetes.io/metadata.name=z"], &[])], vec![])];
        cases.push(one("namespace by name".to_owned(), make("x", b, rules)));
    }
    cases
}

fn live() -> Vec<Case> {
    let start = || vec![Change::Policy(base())];
    let gone = || vec![Change::PolicyGone(base().id)];
    let case = |name: &str, steps: Vec<Vec<Change>>| Case { name: name.to_owned(), steps };
    let relabelled = |name: &str, label: &str| {
        let mut pod = world().pods.remove(&id("y/b")).unwrap();
        pod.labels = labels(&[("pod", name), ("also", label)]);
        vec![Change::Pod(pod)]
    };
    let namespace = |ns: &str| vec![Change::Namespace(Namespace::new("y", labels(&[("ns", ns)])))];
    let updated = Policy { egress: Some(vec![anything()]), ingress: Some(vec![]), ..base() };
    // The pod y/c as if it were new.
    let leaves = || vec![Change::PodGone(id("y/c"))];
    let comes = || vec![Change::Pod(pod("y", "c", 2, 3))];
    let of_z = || ["z/a", "z/b", "z/c"].map(|pod| Change::PodGone(id(pod)));
    let z_leaves = of_z().into_iter().chain([Change::NamespaceGone("z".to_owned())]).collect();
    let names = vec![Change::Policy(ingress("x", &[], vec![rule(vec![], vec![serve(81, Tcp)])]))];
    let w = || {
        vec![
            Change::Namespace(Namespace::new("w", labels(&[("ns", "w")]))),
            Change::Pod(pod("w", "a", NEW_NAMESPACE, 1)),
        ]
    };
    let (w_empty, w_gone) = (vec![Change::PodGone(id("w/a"))], vec![Change::NamespaceGone("w".to_owned())]);
    vec![
        case("create and delete a policy", vec![start(), gone()]),
        case("create and update a policy", vec![start(), vec![Change::Policy(updated)]]),
        case("delete and create a namespace", vec![start(), z_leaves, back_to_z()]),
        case("relabel a namespace", vec![start(), namespace("other"), namespace("y")]),
        case("delete and create a pod", vec![start(), leaves(), comes()]),
        case("relabel a pod", vec![start(), relabelled("other", "x"), relabelled("b", "x")]),
        case("a named port, and a namespace and a pod that come and go", vec![names, w(), w_empty, w_gone]),
    ]
}

fn back_to_z() -> Vec<Change> {
    let mut without = world();
    without.namespaces.remove("z");
    without.pods.retain(|id, _| id.namespace != "z");
    without.changes_to(&world())
}

/// The number of the namespace that is not there from the beginning.
pub(crate) const NEW_NAMESPACE: u8 = 4;

/// Those that Cyclonus has of the end-to-end tests of Kubernetes, with the policies that it gives them.
fn end_to_end() -> Vec<Case> {
    let a = &["pod=a"][..];
    let all = &[][..];
    let case = |name: &str, steps: Vec<Vec<Change>>| Case { name: format!("e2e: {name}"), steps };
    let set = |policy: Policy| vec![Change::Policy(policy)];
    let from = |subject: &[&str], peer: Peer| set(ingress("x", subject, vec![rule(vec![peer], vec![])]));
    let from_y = |name: &str, number| {
        let rules = vec![rule(vec![pods_in(&["ns=y"], &[])], vec![port(Tcp, number)])];
        set(called(name, ingress("x", a, rules)))
    };
    let nothing_but_dns = Policy { egress: Some(vec![dns()]), ..ingress("x", all, vec![]) };
    let nothing = Policy { egress: Some(vec![]), ..ingress("x", all, vec![]) };
    let both_ways = Policy {
        egress: Some(vec![rule(vec![], vec![port(Tcp, 80), port(Udp, 53)])]),
        ..ingress("x", a, vec![rule(vec![own_pods(&["pod=b"])], vec![])])
    };
    let labelled = |pod: &str, pairs: &[(&str, &str)]| {
        let mut pod = world().pods.remove(&id(pod)).unwrap();
        pod.labels = labels(pairs);
        vec![Change::Pod(pod)]
    };
    let y_updated = Namespace::new("y", labels(&[("ns", "y"), ("ns2", "updated")]));
    vec![
        case("nothing comes in", vec![set(ingress("x", all, vec![]))]),
        case("nothing at all but names", vec![set(nothing_but_dns)]),
        case("several selectors", vec![from(a, pods_in(&["ns notin x"], &["pod in b,c"]))]),
        case("stacked policies", vec![from_y("via-81", 81), from_y("via-80", 80)]),
        case("everything comes in", vec![set(ingress("x", all, vec![anything()]))]),
        case("a named port", vec![set(ingress("x", all, vec![rule(vec![], vec![serve(81, Tcp)])]))]),
        case(
            "an updated policy",
            vec![set(ingress("x", all, vec![anything()])), set(ingress("x", all, vec![]))],
        ),
        case(
            "an updated namespace",
            vec![from(a, pods_in(&["ns2=updated"], &[])), vec![Change::Namespace(y_updated)]],
        ),
        case(
            "an updated pod",
            vec![
                from(a, own_pods(&["pod=b", "pod2=updated"])),
                labelled("x/b", &[("pod", "b"), ("pod2", "updated")]),
            ],
        ),
        case(
            "a pod that becomes a subject",
            vec![set(ingress("x", &["target=isolated"], vec![])), labelled("x/a", &[("target", "isolated")])],
        ),
        case("both ways", vec![set(both_ways)]),
        case("what the client may not, whatever the servers allow", vec![client_side()]),
        case("a deleted policy", vec![set(nothing), vec![Change::PolicyGone(PolicyId::new("x", "ingress"))]]),
    ]
}

fn client_side() -> Vec<Change> {
    let a = &["pod=a"][..];
    let to_y = rule(vec![pods_in(&["ns=y"], a)], vec![]);
    let from_x = || vec![rule(vec![pods_in(&["ns=x"], a)], vec![])];
    let policies = [
        egress("x", a, vec![to_y, rule(vec![], vec![port(Udp, 53)])]),
        called("on-a", ingress("y", a, from_x())),
        called("on-b", ingress("y", &["pod=b"], from_x())),
    ];
    policies.map(Change::Policy).into()
}
