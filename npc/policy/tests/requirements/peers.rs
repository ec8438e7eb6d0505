//! Who may be at the other end.

use weave_policy::{Change, Labels, Namespace};

use crate::{cluster::*, words::*};

/// Sources that an ingress rule of namespace x with these peers allows to pod x/a.
fn from(peers: Vec<weave_policy::Peer>) -> String {
    Cluster::with([ingress("x", &["pod=a"], vec![rule(peers, vec![])])]).sources("x/a", TCP_80)
}

#[test]
fn np_22_to_np_24_selectors_of_pods_and_namespaces_combine_inside_an_item_and_add_up_between_items() {
    assert_eq!(from(vec![own_pods(&[])]), "x/b x/c");
    assert_eq!(from(vec![own_pods(&["pod=c"])]), "x/c");
    assert_eq!(from(vec![pods_in(&[], &[])]), "x/b x/c y/a y/b y/c z/a z/b z/c");
    assert_eq!(from(vec![pods_in(&["ns=y"], &[])]), "y/a y/b y/c");
    assert_eq!(from(vec![pods_in(&["ns=y"], &["pod=b"])]), "y/b");
    // E04: the same two selectors as two items.
    assert_eq!(from(vec![pods_in(&["ns=y"], &[]), own_pods(&["pod=b"])]), "x/b y/a y/b y/c");
}

#[test]
fn np_25_selectors_never_mean_nodes_or_addresses_outside() {
    let cluster = Cluster::with([egress("x", &[], vec![rule(vec![pods_in(&[], &[])], vec![])])]);
    assert_eq!(cluster.destinations("x/a", TCP_80), "x/b x/c y/a y/b y/c z/a z/b z/c");
}

#[test]
fn e05_a_label_of_another_namespace_does_not_count_without_a_selector_of_namespaces() {
    assert_eq!(from(vec![own_pods(&["pod=b"])]), "x/b");
}

#[test]
fn np_41_every_operator_selects_peers() {
    assert_eq!(from(vec![own_pods(&["pod notin b"])]), "x/c");
    assert_eq!(from(vec![own_pods(&["pod exists"])]), "x/b x/c");
    assert_eq!(from(vec![own_pods(&["pod absent"])]), "");
    assert_eq!(from(vec![pods_in(&["ns notin x,y"], &["pod in a,b"])]), "z/a z/b");
    assert_eq!(from(vec![pods_in(&["ns absent"], &[])]), "");
}

#[test]
fn np_44_namespaces_are_found_by_name() {
    assert_eq!(from(vec![pods_in(&["kubernetes.io/metadata.name=z"], &[])]), "z/a z/b z/c");
    assert_eq!(from(vec![pods_in(&["kubernetes.io/metadata.name notin x,z"], &[])]), "y/a y/b y/c");
}

#[test]
fn of_a_namespace_that_is_not_known_nothing_is_allowed_by_its_labels() {
    let mut cluster = Cluster::with([ingress("x", &["pod=a"], vec![rule(vec![pods_in(&[], &[])], vec![])])]);
    cluster.change(Change::NamespaceGone("y".to_owned()));
    assert_eq!(cluster.sources("x/a", TCP_80), "x/b x/c z/a z/b z/c");
    cluster.change(Change::Namespace(Namespace::new("y", Labels::new())));
    assert_eq!(cluster.sources("x/a", TCP_80), "x/b x/c y/a y/b y/c z/a z/b z/c");
}

/// Sources of IPv4 that ingress rules with these peers allow to pod x/a.
fn from_v4(peers: Vec<weave_policy::Peer>) -> String {
    let cluster = Cluster::with([ingress("x", &["pod=a"], vec![rule(peers, vec![])])]);
    let sources = ["10.0.1.2", "10.0.2.1", "10.0.2.2", "10.0.2.3", NODE, OUTSIDE];
    sources.into_iter().filter(|s| cluster.allows(s, "10.0.1.1", TCP_80)).collect::<Vec<_>>().join(" ")
}

#[test]
fn np_27_blocks_mean_pods_and_nodes_too() {
    assert_eq!(from_v4(vec![block("10.0.2.2/32", &[])]), "10.0.2.2");
    assert_eq!(from_v4(vec![block("192.168.0.0/16", &[])]), NODE);
    assert_eq!(from_v4(vec![block("10.0.2.2/31", &[])]), "10.0.2.2 10.0.2.3");
}

#[test]
fn np_28_e06_and_e07_exceptions_count_for_their_block_only() {
    assert_eq!(from_v4(vec![block("10.0.2.0/24", &["10.0.2.2/32"])]), "10.0.2.1 10.0.2.3");
    assert_eq!(from_v4(vec![block("10.0.2.0/24", &["10.0.2.2/31", "10.0.2.1/32"])]), "");
    let again = vec![block("10.0.2.0/24", &["10.0.2.2/32"]), block("10.0.2.2/32", &[])];
    assert_eq!(from_v4(again), "10.0.2.1 10.0.2.2 10.0.2.3");
    // The other policy goes: the exception counts again.
    let with = |name, peer| called(name, ingress("x", &["pod=a"], vec![rule(vec![peer], vec![])]));
    let mut cluster = Cluster::with([
        with("wide", block("10.0.2.0/24", &["10.0.2.2/32"])),
        with("narrow", block("10.0.2.2/32", &[])),
    ]);
    assert!(cluster.allows("10.0.2.2", "10.0.1.1", TCP_80));
    cluster.change(Change::PolicyGone(weave_policy::PolicyId::new("x", "narrow")));
    assert!(!cluster.allows("10.0.2.2", "10.0.1.1", TCP_80));
    assert!(cluster.allows("10.0.2.1", "10.0.1.1", TCP_80));
}

#[test]
fn np_30_np_93_and_e23_a_block_of_one_family_says_nothing_about_the_other() {
    let v4 = Cluster::with([ingress("x", &[], vec![rule(vec![block("0.0.0.0/0", &[])], vec![])])]);
    assert!(v4.allows("10.0.2.2", "10.0.1.1", TCP_80) && v4.allows(OUTSIDE, "10.0.1.1", TCP_80));
    assert!(!v4.allows("fd00:2::2", "fd00:1::1", TCP_80));
    let v6 = Cluster::with([ingress("x", &[], vec![rule(vec![block("::/0", &["fd00:3::/32"])], vec![])])]);
    assert!(v6.allows("fd00:2::2", "fd00:1::1", TCP_80) && v6.allows("2001:db8::1", "fd00:1::1", TCP_80));
    assert!(!v6.allows("fd00:3::2", "fd00:1::1", TCP_80) && !v6.allows("10.0.2.2", "10.0.1.1", TCP_80));
}

#[test]
fn overlapping_blocks_in_rules_with_different_ports_keep_their_ports() {
    use weave_policy::Protocol::Tcp;
    let cluster = Cluster::with([ingress(
        "x",
        &["pod=a"],
        vec![
            rule(vec![block("10.0.0.0/8", &[])], vec![port(Tcp, 80)]),
            rule(vec![block("10.0.2.0/24", &[])], vec![port(Tcp, 81)]),
        ],
    )]);
    let can = |source, traffic| cluster.allows(source, "10.0.1.1", traffic);
    assert!(can("10.0.2.2", TCP_80) && can("10.0.2.2", TCP_81));
    assert!(can("10.0.3.2", TCP_80) && !can("10.0.3.2", TCP_81));
}

#[test]
fn e23_a_pod_of_one_family_is_isolated_in_that() {
    let mut cluster =
        Cluster::with([ingress("x", &["pod=a"], vec![rule(vec![own_pods(&["pod=b"])], vec![])])]);
    cluster.edit("x/a", |pod| pod.addresses.retain(std::net::IpAddr::is_ipv6));
    assert!(
        cluster.allows("fd00:1::2", "fd00:1::1", TCP_80) && !cluster.allows("fd00:2::2", "fd00:1::1", TCP_80)
    );
    assert!(cluster.allows("10.0.2.2", "10.0.1.1", TCP_80), "the address is nobody's");
}
