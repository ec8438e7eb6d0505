//! The whole table of every case: what the evaluator says, the elements say.

use weave_policy::Traffic;

use crate::{cases::cases, cluster::*, upstream::upstream_cases, words::*};

#[test]
fn every_cell_of_every_case_is_as_the_specification_says() {
    let traffics = weave_policy::Protocol::ALL
        .into_iter()
        .flat_map(|protocol| [80, 81].map(|port| Traffic::To(protocol, port)))
        .chain([ICMP]);
    let traffics: Vec<Traffic> = traffics.collect();
    let (mut steps, mut cells) = (0, 0);
    let (upstream, mut cases) = (upstream_cases(), cases());
    assert_eq!((upstream.len(), cases.len()), (48, 230));
    cases.extend(upstream);
    for case in &cases {
        let mut cluster = Cluster::new();
        for step in &case.steps {
            for change in step {
                cluster.change(change.clone());
            }
            steps += 1;
            assert!(!cluster.world.pods.is_empty(), "{}", case.name);
            let pods: Vec<_> = cluster.world.pods.values().map(|pod| pod.addresses.clone()).collect();
            for (source, destination) in pods.iter().flat_map(|a| pods.iter().map(move |b| (a, b))) {
                for (source, destination) in source.iter().zip(destination) {
                    for traffic in &traffics {
                        cluster.allows(&source.to_string(), &destination.to_string(), *traffic);
                        cells += 1;
                    }
                }
            }
        }
    }
    assert_eq!((cases.len(), steps), (278, 304));
    assert!(cells > 300_000, "{cells}");
}

/// Some rows of the table by hand, so that a mistake of both sides shows.
#[test]
fn the_base_policy_allows_what_it_says() {
    let mut cluster = Cluster::new();
    for change in cases().swap_remove(0).steps.concat() {
        cluster.change(change);
    }
    assert_eq!(cluster.sources("x/a", TCP_80), "x/b x/c y/b y/c");
    assert_eq!(cluster.sources("x/a", TCP_81), "");
    assert_eq!(cluster.destinations("x/a", TCP_80), "y/a y/b z/a z/b");
    assert_eq!(cluster.destinations("x/a", UDP_80), "");
    assert_eq!(cluster.destinations("x/a", Traffic::To(weave_policy::Protocol::Udp, 53)), all_but("x/a"));
    assert_eq!(cluster.sources("x/b", TCP_80), "x/c y/a y/b y/c z/a z/b z/c 192.168.0.1 198.51.100.7");
}
