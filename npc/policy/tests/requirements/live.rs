//! Changes while everything runs: what they do, and how little of the kernel they touch.

use weave_policy::{Change, Delta, Element, Namespace, Pod, PodId, PolicyId};

use crate::{cluster::*, words::*};

fn size(delta: &Delta) -> usize {
    delta.add.len() + delta.remove.len()
}

#[test]
fn np_80_policies_come_change_and_go() {
    let mut cluster = Cluster::new();
    cluster.change(Change::Policy(ingress("x", &["pod=a"], vec![])));
    assert_eq!(cluster.sources("x/a", TCP_80), "");
    cluster.change(Change::Policy(ingress("x", &["pod=a"], vec![rule(vec![own_pods(&["pod=b"])], vec![])])));
    assert_eq!(cluster.sources("x/a", TCP_80), "x/b");
    cluster.change(Change::Policy(ingress("x", &["pod=b"], vec![])));
    assert_eq!(cluster.sources("x/a", TCP_80), all_but("x/a"));
    assert_eq!(cluster.sources("x/b", TCP_80), "");
    let delta = cluster.change(Change::PolicyGone(PolicyId::new("x", "ingress")));
    assert_eq!(cluster.sources("x/b", TCP_80), all_but("x/b"));
    assert!(
        delta.add.is_empty() && delta.rejudge.is_empty(),
        "to allow more is no reason to judge anything anew"
    );
}

#[test]
fn np_80_labels_of_pods_and_namespaces_change() {
    let rules = vec![rule(vec![pods_in(&["ns=y"], &["pod=b"])], vec![])];
    let mut cluster = Cluster::with([ingress("x", &["pod=a"], rules)]);
    assert_eq!(cluster.sources("x/a", TCP_80), "y/b");
    let delta = cluster.edit("y/c", |pod| pod.labels = labels(&[("pod", "b")]));
    assert_eq!(cluster.sources("x/a", TCP_80), "y/b y/c");
    assert!(delta.rejudge.is_empty());
    let delta = cluster.edit("y/b", |pod| pod.labels = labels(&[]));
    assert_eq!(cluster.sources("x/a", TCP_80), "y/c");
    assert_eq!(delta.rejudge.len(), 2, "both its addresses: {delta:?}");
    cluster.change(Change::Namespace(Namespace::new("z", labels(&[("ns", "y")]))));
    assert_eq!(cluster.sources("x/a", TCP_80), "y/c z/b");
    cluster.change(Change::Namespace(Namespace::new("y", labels(&[]))));
    assert_eq!(cluster.sources("x/a", TCP_80), "z/b");
    cluster.edit("x/a", |pod| pod.labels = labels(&[("pod", "free")]));
    assert_eq!(cluster.sources("x/a", TCP_80), all_but("x/a"));
}

#[test]
fn np_81_a_new_pod_that_a_policy_selects_is_isolated_with_its_address() {
    let mut cluster = Cluster::with([ingress("x", &[], vec![])]);
    let pod =
        Pod { addresses: vec!["10.0.1.9".parse().unwrap()], ..Pod::new(PodId::new("x", "new"), "here") };
    let delta = cluster.change(Change::Pod(pod));
    assert_eq!(size(&delta), 1, "{delta:?}");
    assert!(!cluster.allows("10.0.2.1", "10.0.1.9", TCP_80));
}

#[test]
fn np_76_and_e19_a_finished_pod_leaves_its_address_to_others() {
    let mut cluster =
        Cluster::with([ingress("x", &["pod=a"], vec![rule(vec![own_pods(&["pod=b"])], vec![])])]);
    cluster.edit("x/b", |pod| pod.is_finished = true);
    assert!(!cluster.allows("10.0.1.2", "x/a", TCP_80));
    let heir =
        Pod { addresses: vec!["10.0.1.2".parse().unwrap()], ..Pod::new(PodId::new("y", "heir"), "here") };
    cluster.change(Change::Pod(heir));
    assert!(!cluster.allows("y/heir", "10.0.1.1", TCP_80), "the address is not what was allowed");
}

#[test]
fn e18_an_address_goes_over_to_another_pod_in_either_order_of_events() {
    let rules = vec![rule(vec![own_pods(&["pod=b"])], vec![])];
    let heir = |created| Pod {
        addresses: vec!["10.0.1.2".parse().unwrap()],
        labels: labels(&[("pod", "heir")]),
        created,
        ..Pod::new(PodId::new("x", "heir"), "here")
    };
    for heir_comes_first in [false, true] {
        let mut cluster = Cluster::with([ingress("x", &["pod=a"], rules.clone())]);
        assert!(cluster.allows("10.0.1.2", "10.0.1.1", TCP_80));
        let mut changes = [Change::PodGone(PodId::new("x", "b")), Change::Pod(heir(1))];
        if heir_comes_first {
            changes.reverse();
        }
        for change in changes {
            cluster.change(change);
            assert!(!cluster.allows("10.0.1.2", "10.0.1.1", TCP_80), "at no moment what the old pod could");
        }
        // The younger one stays even if the old one is heard of again.
        let old =
            Pod { addresses: vec!["10.0.1.2".parse().unwrap()], labels: labels(&[("pod", "b")]), ..heir(0) };
        cluster.change(Change::Pod(Pod { id: PodId::new("x", "b"), ..old }));
        assert!(!cluster.allows("10.0.1.2", "10.0.1.1", TCP_80));
    }
}

/// E29: with all that a big cluster has, one label costs what it changes.
#[test]
fn a_change_touches_elements_in_proportion_to_itself() {
    let mut cluster = Cluster::new();
    for n in 0..200u8 {
        let subject = format!("pod=p{n}");
        let peer = format!("pod=p{}", n / 2);
        let rules = vec![rule(vec![pods_in(&[], &[&peer])], vec![port(weave_policy::Protocol::Tcp, 80)])];
        cluster.change(Change::Policy(called(&format!("policy{n}"), ingress("x", &[&subject], rules))));
        let pod = Pod {
            labels: labels(&[("pod", &format!("p{n}"))]),
            addresses: vec![std::net::IpAddr::from([10, 1, 0, n])],
            ..Pod::new(PodId::new("x", format!("pod{n}")), "here")
        };
        cluster.change(Change::Pod(pod));
    }
    let relabel = |name: &'static str| move |pod: &mut Pod| pod.labels = labels(&[("pod", name)]);
    let delta = cluster.edit("y/a", relabel("p7"));
    assert_eq!(size(&delta), 2, "two addresses get the number of a kind that is there: {delta:?}");
    let delta = cluster.edit("y/a", relabel("p8"));
    assert_eq!(size(&delta), 4, "{delta:?}");
    let allows = |delta: &Delta| delta.add.iter().filter(|e| matches!(e, Element::Allow { .. })).count();
    assert_eq!(allows(&delta), 0);
    let rules = vec![rule(vec![pods_in(&[], &["pod=p9"])], vec![port(weave_policy::Protocol::Tcp, 81)])];
    let delta = cluster.change(Change::Policy(called("another", ingress("x", &["pod=p9"], rules))));
    assert!(size(&delta) <= 8, "one row as it was and one more, for a class of its own: {delta:?}");
}

/// E20: with its labels, a namespace takes all its pods along, and nothing else.
#[test]
fn e20_a_namespace_that_is_relabelled_takes_a_thousand_pods_along() {
    let rules = vec![rule(vec![pods_in(&["team=red"], &[])], vec![])];
    let mut cluster = Cluster::with([ingress("x", &["pod=a"], rules)]);
    cluster.change(Change::Namespace(Namespace::new("big", labels(&[("team", "blue")]))));
    for n in 0..1000_u16 {
        let [high, low] = n.to_be_bytes();
        let addresses = vec![std::net::IpAddr::from([10, 9, high, low])];
        cluster
            .change(Change::Pod(Pod { addresses, ..Pod::new(PodId::new("big", format!("p{n}")), "there") }));
    }
    let mut relabel =
        |team| cluster.change(Change::Namespace(Namespace::new("big", labels(&[("team", team)]))));
    for _ in 0..3 {
        let delta = relabel("red");
        assert_eq!(
            (delta.add.len(), delta.rejudge.len()),
            (1002, 0),
            "an address each, a row and what is in it"
        );
        let delta = relabel("blue");
        assert_eq!((delta.remove.len(), delta.rejudge.len()), (1002, 1000));
    }
    assert!(!cluster.allows("10.9.3.7", "10.0.1.1", TCP_80));
}
