//! Ports and protocols.

use weave_policy::{
    ContainerPort, Port,
    Protocol::{self, Sctp, Tcp, Udp},
    Traffic,
};

use crate::{cluster::*, words::*};

/// What of some traffic reaches x/a if ingress is allowed to these ports; and, the other way round, gets out to x/b
/// if only egress to these is.
fn reaching(ports: Vec<Port>) -> String {
    let rules = || vec![rule(vec![], ports.clone())];
    let (into, out) = (
        Cluster::with([ingress("x", &["pod=a"], rules())]),
        Cluster::with([egress("x", &["pod=a"], rules())]),
    );
    let all = [("t80", TCP_80), ("t81", TCP_81), ("u80", UDP_80), ("s80", SCTP_80), ("icmp", ICMP)];
    let names = all.into_iter().filter(|(_, traffic)| {
        let allowed = into.allows("y/b", "x/a", *traffic);
        assert_eq!(out.allows("x/a", "x/b", *traffic), allowed, "directions differ");
        allowed
    });
    names.map(|(name, _)| name).collect::<Vec<_>>().join(" ")
}

#[test]
fn np_50_to_np_52_and_np_58_ports_default_and_add_up() {
    assert_eq!(reaching(vec![]), "t80 t81 u80 s80 icmp");
    assert_eq!(reaching(vec![any_port(Tcp)]), "t80 t81");
    assert_eq!(reaching(vec![any_port(Udp)]), "u80");
    assert_eq!(reaching(vec![port(Tcp, 80)]), "t80");
    assert_eq!(reaching(vec![port(Tcp, 80), port(Udp, 80)]), "t80 u80");
    assert_eq!(reaching(vec![port(Tcp, 79)]), "");
    assert_eq!(reaching(vec![port(Tcp, 80), any_port(Tcp)]), "t80 t81");
}

#[test]
fn np_54_and_e09_ranges_include_both_ends_and_overlap() {
    assert_eq!(reaching(vec![range(Tcp, 53, 80)]), "t80");
    assert_eq!(reaching(vec![range(Tcp, 53, 84)]), "t80 t81");
    assert_eq!(reaching(vec![range(Tcp, 81, 84)]), "t81");
    assert_eq!(reaching(vec![range(Udp, 1, 65535)]), "u80");
    assert_eq!(reaching(vec![range(Tcp, 1, 80), range(Tcp, 80, 81)]), "t80 t81");
    assert_eq!(reaching(vec![range(Tcp, 1, 79), port(Tcp, 81), named(Sctp, "serve-80-sctp")]), "t81 s80");
}

#[test]
fn ranges_of_one_policy_do_not_widen_those_of_another() {
    let with = |name: &str, pod: &str, first, last| {
        called(name, ingress("x", &[pod], vec![rule(vec![], vec![range(Tcp, first, last)])]))
    };
    let cluster = Cluster::with([with("p", "pod=a", 70, 80), with("q", "pod=b", 80, 90)]);
    let tcp = |port| Traffic::To(Tcp, port);
    let can = |pod, port| cluster.allows("y/b", pod, tcp(port));
    assert!(can("x/a", 70) && can("x/a", 80) && !can("x/a", 81) && !can("x/a", 69));
    assert!(can("x/b", 80) && can("x/b", 90) && !can("x/b", 79) && !can("x/b", 91));
}

#[test]
fn np_55_and_e10_names_are_looked_up_in_the_destination() {
    assert_eq!(reaching(vec![named(Tcp, "serve-80-tcp")]), "t80");
    // Ingress: two subjects with different numbers for one name.
    let mut cluster = Cluster::with([ingress("x", &[], vec![rule(vec![], vec![named(Tcp, "web")])])]);
    let web = |number| ContainerPort { name: "web".to_owned(), protocol: Tcp, number };
    cluster.edit("x/a", |pod| pod.ports = vec![web(80)]);
    cluster.edit("x/b", |pod| pod.ports = vec![web(81)]);
    assert!(cluster.allows("y/a", "x/a", TCP_80) && !cluster.allows("y/a", "x/a", TCP_81));
    assert!(cluster.allows("y/a", "x/b", TCP_81) && !cluster.allows("y/a", "x/b", TCP_80));
    assert!(!cluster.allows("y/a", "x/c", TCP_80));
    // Egress: three peers with three numbers, one with two.
    let mut cluster = Cluster::with([egress("x", &["pod=a"], vec![rule(vec![], vec![named(Tcp, "web")])])]);
    cluster.edit("y/a", |pod| pod.ports = vec![web(80)]);
    cluster.edit("y/b", |pod| pod.ports = vec![web(81)]);
    cluster.edit("y/c", |pod| pod.ports = vec![web(80), web(81)]);
    assert!(cluster.allows("x/a", "y/a", TCP_80) && !cluster.allows("x/a", "y/a", TCP_81));
    assert!(cluster.allows("x/a", "y/b", TCP_81) && !cluster.allows("x/a", "y/b", TCP_80));
    assert!(cluster.allows("x/a", "y/c", TCP_80) && cluster.allows("x/a", "y/c", TCP_81));
    assert!(!cluster.allows("x/a", OUTSIDE, TCP_80), "nobody outside declares names");
    // A member of a block is an address, not a pod.
    let rules = vec![rule(vec![block("10.0.0.0/8", &[])], vec![named(Tcp, "serve-80-tcp")])];
    let cluster = Cluster::with([egress("x", &["pod=a"], rules)]);
    assert!(!cluster.allows("10.0.1.1", "10.0.2.2", TCP_80));
}

#[test]
fn np_56_a_name_that_nobody_serves_or_by_another_protocol_allows_nothing() {
    assert_eq!(reaching(vec![named(Tcp, "nobody")]), "");
    assert_eq!(reaching(vec![named(Udp, "serve-80-tcp")]), "");
    assert_eq!(reaching(vec![named(Tcp, "nobody"), port(Udp, 80)]), "u80");
}

#[test]
fn np_57_a_name_may_stand_for_several_protocols() {
    let mut cluster = Cluster::with([ingress("x", &["pod=a"], vec![rule(vec![], vec![named(Udp, "dns")])])]);
    let dns = |protocol, number| ContainerPort { name: "dns".to_owned(), protocol, number };
    cluster.edit("x/a", |pod| pod.ports = vec![dns(Tcp, 80), dns(Udp, 80)]);
    assert!(cluster.allows("y/a", "x/a", UDP_80) && !cluster.allows("y/a", "x/a", TCP_80));
}

#[test]
fn np_59_and_e11_protocols_on_one_number_are_told_apart() {
    for (protocol, expected) in [(Tcp, "t80"), (Udp, "u80"), (Sctp, "s80")] {
        assert_eq!(reaching(vec![port(protocol, 80)]), expected);
    }
    assert_eq!(reaching(Protocol::ALL.map(|protocol| port(protocol, 80)).to_vec()), "t80 u80 s80");
}

#[test]
fn np_50_and_np_90_protocols_without_ports_pass_by_rules_without_ports_only() {
    let cluster = Cluster::with([ingress(
        "x",
        &["pod=a"],
        vec![
            rule(vec![own_pods(&["pod=b"])], vec![]),
            rule(vec![own_pods(&["pod=c"])], Protocol::ALL.map(any_port).to_vec()),
        ],
    )]);
    assert!(cluster.allows("x/b", "x/a", ICMP) && cluster.allows("x/b", "x/a", Traffic::Other(47)));
    assert!(cluster.allows("x/c", "x/a", TCP_80) && !cluster.allows("x/c", "x/a", ICMP));
}

#[test]
fn e10_a_name_means_nothing_at_an_address_without_a_pod() {
    let peers = vec![block("10.0.0.0/8", &[]), block("198.51.100.0/24", &[])];
    let cluster =
        Cluster::with([egress("x", &["pod=a"], vec![rule(peers, vec![named(Tcp, "serve-80-tcp")])])]);
    assert!(
        !cluster.allows("10.0.1.1", "10.0.2.1", TCP_80),
        "a block is no pod, even where one has the address"
    );
    assert!(!cluster.allows("10.0.1.1", OUTSIDE, TCP_80));
}
