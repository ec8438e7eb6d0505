//! Whom policies select, and what isolation means.

use crate::{cluster::*, words::*};

#[test]
fn np_01_subjects_are_pods_of_the_policys_own_namespace() {
    let cluster = Cluster::with([ingress("x", &["pod=a"], vec![])]);
    assert_eq!(cluster.sources("x/a", TCP_80), "");
    assert_eq!(cluster.sources("y/a", TCP_80), all_but("y/a"));
    assert_eq!(cluster.sources("x/b", TCP_80), all_but("x/b"));
    let cluster = Cluster::with([ingress("x", &[], vec![])]);
    for pod in ["x/a", "x/b", "x/c"] {
        assert_eq!(cluster.sources(pod, TCP_80), "");
    }
    assert_eq!(cluster.sources("z/c", TCP_80), all_but("z/c"));
}

#[test]
fn np_02_and_np_03_directions_are_isolated_independently() {
    let cluster = Cluster::with([ingress("x", &["pod=a"], vec![])]);
    assert_eq!(cluster.destinations("x/a", TCP_80), all_but("x/a"));
    let cluster = Cluster::with([egress("x", &["pod=a"], vec![])]);
    assert_eq!(cluster.destinations("x/a", TCP_80), "");
    assert_eq!(cluster.sources("x/a", TCP_80), all_but("x/a"));
    let cluster = Cluster::with([ingress("x", &["pod=a"], vec![]), egress("x", &["pod=a"], vec![])]);
    assert_eq!(cluster.destinations("x/a", TCP_80), "");
    assert_eq!(cluster.sources("x/a", TCP_80), "");
}

#[test]
fn np_04_policies_add_up_in_any_order_and_under_any_name() {
    let from = |pod: &str| rule(vec![own_pods(&[pod])], vec![]);
    for names in [["p", "q", "r"], ["r", "q", "p"]] {
        let policies = [vec![], vec![from("pod=b")], vec![from("pod=c")]]
            .map(|rules| ingress("x", &["pod=a"], rules))
            .into_iter()
            .zip(names)
            .map(|(policy, name)| called(name, policy));
        assert_eq!(Cluster::with(policies).sources("x/a", TCP_80), "x/b x/c");
    }
}

#[test]
fn np_05_both_ends_must_allow_a_connection() {
    let out = |pod: &str| egress("x", &["pod=a"], vec![rule(vec![own_pods(&[pod])], vec![])]);
    let into = ingress("x", &["pod=b"], vec![rule(vec![own_pods(&["pod=a"])], vec![])]);
    assert!(Cluster::with([out("pod=b"), into.clone()]).allows("x/a", "x/b", TCP_80));
    assert!(!Cluster::with([out("pod=c"), into]).allows("x/a", "x/b", TCP_80));
    let deny = ingress("x", &["pod=b"], vec![]);
    assert!(!Cluster::with([out("pod=b"), deny]).allows("x/a", "x/b", TCP_80));
}

#[test]
fn np_15_and_np_20_an_empty_rule_allows_everybody_and_everything() {
    let cluster = Cluster::with([ingress("x", &[], vec![anything()]), egress("x", &[], vec![anything()])]);
    for traffic in [TCP_80, UDP_80, SCTP_80, ICMP, TCP_81] {
        assert_eq!(cluster.sources("x/a", traffic), all_but("x/a"));
        assert_eq!(cluster.destinations("x/a", traffic), all_but("x/a"));
    }
}

#[test]
fn np_41_and_e03_every_operator_selects_subjects() {
    let isolated = |subject: &[&str]| {
        let cluster = Cluster::with([ingress("x", subject, vec![])]);
        let pods = ["x/a", "x/b", "x/c"].into_iter().filter(|pod| cluster.sources(pod, TCP_80).is_empty());
        pods.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(isolated(&["pod in a,b"]), "x/a x/b");
    assert_eq!(isolated(&["pod notin a,b"]), "x/c");
    assert_eq!(isolated(&["pod exists"]), "x/a x/b x/c");
    assert_eq!(isolated(&["pod absent"]), "");
    assert_eq!(isolated(&["other notin a"]), "x/a x/b x/c");
    assert_eq!(isolated(&["pod in a,b", "pod notin b"]), "x/a");
    assert_eq!(isolated(&["pod=a", "other exists"]), "");
}

#[test]
fn np_73_and_e12_pods_on_the_hosts_network_are_neither_subjects_nor_peers() {
    let mut cluster = Cluster::with([
        ingress("x", &[], vec![rule(vec![pods_in(&[], &[]), block("192.168.0.1/32", &[])], vec![])]),
        egress("y", &[], vec![rule(vec![pods_in(&[], &[])], vec![])]),
    ]);
    for pod in ["x/b", "y/b"] {
        cluster.edit(pod, |pod| {
            pod.is_host_network = true;
            pod.addresses = vec![NODE.parse().unwrap()];
        });
    }
    assert!(cluster.allows("y/a", "x/a", TCP_80));
    assert!(!cluster.allows("y/a", NODE, TCP_80), "the node's address is nobody's peer");
    assert!(cluster.allows(NODE, "x/a", TCP_80), "but it is in the block");
    assert!(cluster.allows(NODE, OUTSIDE, TCP_80), "and not isolated by policies of its pods");
    assert!(cluster.allows(OUTSIDE, NODE, TCP_80));
}

#[test]
fn pods_of_other_nodes_are_isolated_there() {
    let mut cluster = Cluster::with([ingress("x", &[], vec![])]);
    cluster.edit("x/b", |pod| pod.node = "there".to_owned());
    assert!(cluster.allows("y/a", "x/b", TCP_80));
    assert!(!cluster.allows("y/a", "x/a", TCP_80));
    assert!(!cluster.allows("x/b", "x/a", TCP_80));
    cluster.edit("x/b", |pod| pod.node = String::new());
    assert!(!cluster.allows("y/a", "x/b", TCP_80), "of which it is not known where they are, everywhere");
}
