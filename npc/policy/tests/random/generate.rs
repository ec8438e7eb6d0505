//! Small worlds in which everything meets: few names, labels, addresses and ports.

use std::net::IpAddr;

use proptest::{
    collection::{btree_set, vec},
    option,
    prelude::*,
    sample::select,
};
use weave_policy::{
    Block, Change, ContainerPort, Labels, Namespace, Peer, Pod, PodId, Policy, PolicyId, Port, Protocol,
    Requirement, Rule, Selector, WhichPort,
};

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const KEYS: [&str; 2] = ["app", "tier"];
const VALUES: [&str; 3] = ["a", "b", "c"];
const PORT_NAMES: [&str; 2] = ["web", "alt"];

/// The addresses that there are: of pods, and of nobody.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let v4 = (1..=6).map(|n| IpAddr::from([10, 0, 0, n]));
    let v6 = (1..=3).map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]));
    let outside = ["192.0.2.1", "10.0.0.200"].map(|text| text.parse().expect("an address"));
    v4.chain(v6).chain(outside).collect()
}

pub(crate) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => (select(&NAMESPACES[..]), labels()).prop_map(|(n, l)| Change::Namespace(Namespace::new(n, l))),
        1 => select(&NAMESPACES[..]).prop_map(|name| Change::NamespaceGone(name.to_owned())),
        7 => pod().prop_map(Change::Pod),
        2 => pod_id().prop_map(Change::PodGone),
        6 => policy().prop_map(Change::Policy),
        2 => policy_id().prop_map(Change::PolicyGone),
    ]
}

fn labels() -> impl Strategy<Value = Labels> {
    proptest::collection::btree_map(text(&KEYS), text(&VALUES), 0..=2).prop_map(Labels::from)
}

fn text(of: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(of).prop_map(str::to_owned)
}

fn selector() -> impl Strategy<Value = Selector> {
    vec(requirement(), 0..=2).prop_map(|requirements| requirements.into_iter().collect())
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let values = btree_set(text(&VALUES), 1..=2).prop_map(|values| values.into_iter().collect::<Vec<_>>());
    let with_values = (text(&KEYS), select(&["In", "In", "NotIn"][..]), values);
    let without = (text(&KEYS), select(&["Exists", "DoesNotExist"][..]), Just(Vec::new()));
    prop_oneof![3 => with_values, 1 => without]
        .prop_map(|(key, operator, values)| Requirement::parse(&key, operator, &values).expect("valid"))
}

fn pod_id() -> impl Strategy<Value = PodId> {
    (select(&NAMESPACES[..]), select(&["one", "two", "three"][..]))
        .prop_map(|(ns, name)| PodId::new(ns, name))
}

fn pod() -> impl Strategy<Value = Pod> {
    let one_of = |addresses: Vec<IpAddr>| option::weighted(0.8, select(addresses));
    let (v4, v6): (Vec<_>, Vec<_>) = addresses().into_iter().take(9).partition(IpAddr::is_ipv4);
    let addresses = (one_of(v4), one_of(v6)).prop_map(|(v4, v6)| v4.into_iter().chain(v6).collect());
    let node = select(&["here", "here", "there", ""][..]);
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.1), 0u64..3);
    (pod_id(), labels(), addresses, vec(container_port(), 0..=2), node, flags).prop_map(
        |(id, labels, addresses, ports, node, (is_host_network, is_finished, created))| Pod {
            labels,
            addresses,
            ports,
            is_host_network,
            is_finished,
            created,
            ..Pod::new(id, node)
        },
    )
}

fn container_port() -> impl Strategy<Value = ContainerPort> {
    (text(&PORT_NAMES), protocol(), 80u16..=82).prop_map(|(name, protocol, number)| ContainerPort {
        name,
        protocol,
        number,
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp][..])
}

fn policy_id() -> impl Strategy<Value = PolicyId> {
    (select(&NAMESPACES[..]), select(&["p", "q", "r"][..])).prop_map(|(ns, name)| PolicyId::new(ns, name))
}

fn policy() -> impl Strategy<Value = Policy> {
    let rules = || option::weighted(0.7, vec(rule(), 0..=3));
    (policy_id(), selector(), rules(), rules()).prop_map(|(id, subject, ingress, egress)| Policy {
        id,
        subject,
        ingress,
        egress,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    (vec(peer(), 0..=2), vec(port(), 0..=3)).prop_map(|(peers, ports)| Rule { peers, ports })
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        2 => (option::of(selector()), selector()).prop_map(|(namespaces, pods)| Peer::Pods { namespaces, pods }),
        1 => block().prop_map(Peer::Block),
    ]
}

fn block() -> impl Strategy<Value = Block> {
    const CIDRS: [&str; 7] =
        ["0.0.0.0/0", "10.0.0.0/24", "10.0.0.2/31", "10.0.0.3/32", "192.0.2.0/24", "::/0", "fd00::2/127"];
    const EXCEPT: [&str; 5] = ["10.0.0.0/30", "10.0.0.4/32", "10.0.0.3/32", "fd00::2/128", "10.0.0.0/25"];
    (select(&CIDRS[..]), vec(select(&EXCEPT[..]), 0..=2))
        .prop_map(|(cidr, except)| Block::parse(cidr, &except).expect("valid"))
}

fn port() -> impl Strategy<Value = Port> {
    let which = prop_oneof![
        1 => Just(WhichPort::Any),
        2 => (80u16..=82).prop_map(|n| WhichPort::Numbers { first: n, last: n }),
        2 => (79u16..=82, 0u16..=3).prop_map(|(n, more)| WhichPort::Numbers { first: n, last: n + more }),
        1 => Just(WhichPort::Numbers { first: 1, last: u16::MAX }),
        2 => text(&PORT_NAMES).prop_map(WhichPort::Named),
    ];
    (protocol(), which).prop_map(|(protocol, which)| Port { protocol, which })
}
