//! Three namespaces x, y, z with three pods a, b, c each, on one node; and words to write policies with.
#![allow(dead_code, reason = "not every test needs every word")]

use std::net::IpAddr;

use weave_policy::{
    Block, Change, ContainerPort, Labels, Namespace, Peer, Pod, PodId, Policy, PolicyId, Port, Protocol,
    Requirement, Rule, Selector, Traffic, WhichPort, World,
};

pub(crate) const TCP_80: Traffic = Traffic::To(Protocol::Tcp, 80);
pub(crate) const TCP_81: Traffic = Traffic::To(Protocol::Tcp, 81);
pub(crate) const UDP_80: Traffic = Traffic::To(Protocol::Udp, 80);
pub(crate) const SCTP_80: Traffic = Traffic::To(Protocol::Sctp, 80);
pub(crate) const ICMP: Traffic = Traffic::Other(1);

/// Pod b of namespace y has addresses 10.0.2.2 and fd00:2::2 and label pod=b; namespaces have labels ns=x, y, z.
pub(crate) fn world() -> World {
    let mut world = World::default();
    for (namespace, n) in ["x", "y", "z"].into_iter().zip(1..) {
        world.apply(Change::Namespace(Namespace::new(namespace, labels(&[("ns", namespace)]))));
        for (name, p) in ["a", "b", "c"].into_iter().zip(1..) {
            world.apply(Change::Pod(pod(namespace, name, n, p)));
        }
    }
    world
}

/// A pod with the addresses of number `p` of namespace number `n`, and label pod=NAME.
pub(crate) fn pod(namespace: &str, name: &str, n: u8, p: u8) -> Pod {
    let v6 = IpAddr::from([0xfd00, u16::from(n), 0, 0, 0, 0, 0, u16::from(p)]);
    Pod {
        labels: labels(&[("pod", name)]),
        addresses: vec![IpAddr::from([10, 0, n, p]), v6],
        ports: served(),
        ..Pod::new(PodId::new(namespace, name), "here")
    }
}

pub(crate) fn id(pod: &str) -> PodId {
    let (namespace, name) = pod.split_once('/').unwrap();
    PodId::new(namespace, name)
}

fn served() -> Vec<ContainerPort> {
    let numbers = [80, 81].into_iter();
    let all = numbers.flat_map(|number| Protocol::ALL.map(|protocol| (number, protocol)));
    all.map(|(number, protocol)| ContainerPort {
        name: format!("serve-{number}-{}", protocol.to_string().to_lowercase()),
        protocol,
        number,
    })
    .collect()
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A selector from texts: `pod=a`, `pod in a,b`, `pod notin a,b`, `pod exists`, `pod absent`; none is everything.
pub(crate) fn selector(texts: &[&str]) -> Selector {
    texts.iter().map(|text| requirement(text)).collect()
}

fn requirement(text: &str) -> Requirement {
    if let Some((key, value)) = text.split_once('=') {
        return Requirement::equals(key, value);
    }
    let words: Vec<&str> = text.split(' ').collect();
    let values = |list: &str| list.split(',').map(str::to_owned).collect::<Vec<_>>();
    match words[..] {
        [key, "in", list] => Requirement::parse(key, "In", &values(list)),
        [key, "notin", list] => Requirement::parse(key, "NotIn", &values(list)),
        [key, "exists"] => Requirement::parse(key, "Exists", &[]),
        [key, "absent"] => Requirement::parse(key, "DoesNotExist", &[]),
        _ => panic!("{text}"),
    }
    .unwrap()
}

/// Ingress rules for some pods of a namespace.
pub(crate) fn ingress(namespace: &str, subject: &[&str], rules: Vec<Rule>) -> Policy {
    let id = PolicyId::new(namespace, "ingress");
    Policy { id, subject: selector(subject), ingress: Some(rules), egress: None }
}

/// Egress rules for some pods of a namespace.
pub(crate) fn egress(namespace: &str, subject: &[&str], rules: Vec<Rule>) -> Policy {
    let id = PolicyId::new(namespace, "egress");
    Policy { id, subject: selector(subject), ingress: None, egress: Some(rules) }
}

pub(crate) fn called(name: &str, policy: Policy) -> Policy {
    Policy { id: PolicyId::new(policy.id.namespace, name), ..policy }
}

pub(crate) fn rule(peers: Vec<Peer>, ports: Vec<Port>) -> Rule {
    Rule { peers, ports }
}

/// Everything.
pub(crate) fn anything() -> Rule {
    Rule::default()
}

/// Pods of the policy's own namespace.
pub(crate) fn own_pods(pods: &[&str]) -> Peer {
    Peer::Pods { namespaces: None, pods: selector(pods) }
}

pub(crate) fn pods_in(namespaces: &[&str], pods: &[&str]) -> Peer {
    Peer::Pods { namespaces: Some(selector(namespaces)), pods: selector(pods) }
}

pub(crate) fn block(cidr: &str, except: &[&str]) -> Peer {
    Peer::Block(Block::parse(cidr, except).unwrap())
}

pub(crate) fn port(protocol: Protocol, number: u16) -> Port {
    range(protocol, number, number)
}

pub(crate) fn range(protocol: Protocol, first: u16, last: u16) -> Port {
    Port { protocol, which: WhichPort::Numbers { first, last } }
}

pub(crate) fn any_port(protocol: Protocol) -> Port {
    Port { protocol, which: WhichPort::Any }
}

pub(crate) fn named(protocol: Protocol, name: &str) -> Port {
    Port { protocol, which: WhichPort::Named(name.to_owned()) }
}
