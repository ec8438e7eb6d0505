//! How the first ring comes about.

use std::time::Duration;

use weave_ipam::{Init, Problem, Reply};

use crate::lab::{Lab, addresses, config, name};

#[test]
fn forty_routers_that_start_at_once_agree_within_a_second_and_with_few_facts() {
    let mut lab = Lab::consensus(40, &["10.32.0.0/12"]);
    let begin = lab.now;
    let requests: Vec<_> = (0..40)
        .map(|index| {
            let (request, now) = (lab.request(), lab.now);
            lab.with(index, |ipam| ipam.prime(request, now + Duration::from_secs(10), now));
            request
        })
        .collect();
    while requests.iter().any(|request| !lab.answers.contains_key(request)) {
        lab.run(5);
        assert!(lab.now - begin < Duration::from_secs(1), "no ring within a second");
    }
    println!("40 routers: {} ms, {} facts", (lab.now - begin).as_millis(), lab.published);
    assert!(requests.iter().all(|request| lab.answers[request] == Ok(Reply::Done)));
    assert!(lab.published <= 6 * 40, "{} facts", lab.published);
    lab.run(10_000);
    let statuses: Vec<_> = (0..40).map(|index| lab.node(index).status()).collect();
    assert!(statuses.iter().all(|s| s.ring_digest == statuses[0].ring_digest && s.owners.len() == 40));
    assert!(lab.published <= 8 * 40, "{} facts", lab.published);
}

#[test]
fn nobody_votes_before_somebody_asks() {
    let mut lab = Lab::consensus(3, &["10.32.0.0/24"]);
    lab.run(10_000);
    assert!((0..3).all(|index| lab.node(index).status().state == "idle"));
}

#[test]
fn an_observer_is_never_counted_but_may_call_the_election() {
    let mut lab = Lab::of(2, &["10.32.0.0/24"], &Init::Consensus { peers: 2 });
    let observer = lab.add(config(2, &["10.32.0.0/24"], Init::Observer));
    lab.link(0, observer);
    lab.link(1, observer);
    lab.cut(0, 1);
    let request = lab.ask_allocate(observer, "a", None, 30_000);
    lab.run(5_000);
    assert!(!lab.answers.contains_key(&request));
    assert_eq!(lab.node(0).status().ring_id, None);
    lab.link(0, 1);
    assert!(lab.answer(request, 5_000).is_ok());
    assert_eq!(lab.node(observer).status().seeds, [name(0), name(1)]);
}

#[test]
fn routers_with_a_seed_list_allocate_apart_and_agree_when_they_meet() {
    let mut lab = Lab::empty();
    for index in 0..3 {
        lab.add(config(index, &["10.32.0.0/24"], Init::Seed(vec![name(0), name(1)])));
    }
    assert_eq!(lab.allocate(0, "a", None), addresses(&["10.32.0.1/24"]));
    assert_eq!(lab.allocate(1, "b", None), addresses(&["10.32.0.128/24"]));
    lab.link_all();
    assert!(lab.allocate(2, "c", None).is_ok());
    assert!(lab.node(2).status().problems.is_empty());
}

#[test]
fn a_router_that_comes_later_gets_the_ring_and_space() {
    let mut lab = Lab::consensus(2, &["10.32.0.0/24"]);
    lab.allocate(0, "a", None).unwrap();
    lab.run(1_000);
    let late = lab.add(config(2, &["10.32.0.0/24"], Init::Consensus { peers: 2 }));
    lab.link(0, late);
    lab.link(1, late);
    lab.run(1_000);
    assert_eq!(lab.node(late).status().state, "ready");
    assert!(lab.allocate(late, "b", None).is_ok());
}

#[test]
fn of_two_rings_that_meet_the_one_without_containers_gives_way() {
    let mut lab = Lab::empty();
    for index in 0..2 {
        lab.add(config(index, &["10.32.0.0/24"], Init::Consensus { peers: 1 }));
        let (request, now) = (lab.request(), lab.now);
        lab.with(index, |ipam| ipam.prime(request, now, now));
    }
    lab.allocate(0, "a", None).unwrap();
    lab.link(0, 1);
    lab.run(5_000);
    let (ours, theirs) = (lab.node(0).status(), lab.node(1).status());
    assert_eq!(ours.ring_id, theirs.ring_id);
    assert_eq!(theirs.seeds, [name(0)]);
    assert!(theirs.problems.is_empty() && ours.problems.is_empty(), "{theirs:?} {ours:?}");
    assert!(lab.allocate(1, "b", None).is_ok());
}

#[test]
fn two_rings_in_use_are_reported_with_both_seed_lists_and_nothing_is_changed() {
    let mut lab = Lab::empty();
    for index in 0..2 {
        lab.add(config(index, &["10.32.0.0/24"], Init::Consensus { peers: 1 }));
        lab.allocate(index, "a", None).unwrap();
    }
    lab.link(0, 1);
    lab.run(10_000);
    let problem =
        Problem::OtherRing { peers: vec![name(1)], our_seeds: vec![name(0)], their_seeds: vec![name(1)] };
    assert_eq!(lab.node(0).status().problems, [problem]);
    assert!(lab.allocate(0, "b", None).is_ok());
}

#[test]
fn routers_on_another_ring_have_no_say_in_ours() {
    let mut lab = Lab::empty();
    for index in 0..2 {
        lab.add(config(index, &["10.32.0.0/24"], Init::Consensus { peers: 1 }));
        lab.allocate(index, "a", None).unwrap();
    }
    lab.link(0, 1);
    let newcomer = lab.add(config(2, &["10.32.0.0/24"], Init::Observer));
    lab.link(0, newcomer);
    assert!(lab.allocate(newcomer, "b", None).is_ok());
    lab.kill(newcomer);
    assert!(lab.take_over(0, name(2)).is_ok());
}

#[test]
fn routers_with_other_ranges_are_reported() {
    let mut lab = Lab::empty();
    lab.add(config(0, &["10.32.0.0/24"], Init::Consensus { peers: 1 }));
    lab.add(config(1, &["10.33.0.0/24"], Init::Consensus { peers: 1 }));
    lab.link(0, 1);
    lab.allocate(0, "a", None).unwrap();
    lab.allocate(1, "a", None).unwrap();
    lab.run(1_000);
    assert_eq!(lab.node(0).status().problems, [Problem::OtherRanges { peers: vec![name(1)] }]);
}
