//! What callers see.

use std::{net::IpAddr, time::Duration};

use weave_ipam::{ElectionStatus, Init, Refusal, Reply, WaitReason};

use crate::lab::{Lab, addresses, config, container, name};

fn lone() -> Lab {
    Lab::consensus(1, &["10.32.0.0/24"])
}

#[test]
fn the_lowest_free_address_is_given_and_never_the_first_or_last_of_the_subnet() {
    let mut lab = lone();
    assert_eq!(lab.allocate(0, "a", None), addresses(&["10.32.0.1/24"]));
    assert_eq!(lab.allocate(0, "b", None), addresses(&["10.32.0.2/24"]));
    lab.free(0, "a").unwrap();
    assert_eq!(lab.allocate(0, "c", None), addresses(&["10.32.0.1/24"]));
    assert_eq!(lab.allocate(0, "d", Some("10.32.0.4/30")), addresses(&["10.32.0.5/30"]));
    assert_eq!(lab.allocate(0, "e", Some("10.32.0.4/30")), addresses(&["10.32.0.6/30"]));
    let full = "10.32.0.4/30".parse().unwrap();
    assert_eq!(lab.allocate(0, "f", Some("10.32.0.4/30")), Err(Refusal::Exhausted { subnet: full }));
}

#[test]
fn a_container_that_asks_again_in_the_same_subnet_keeps_its_address_and_may_have_others_elsewhere() {
    let mut lab = lone();
    let first = lab.allocate(0, "a", None);
    assert_eq!(lab.allocate(0, "a", None), first);
    assert_eq!(lab.allocate(0, "a", Some("10.32.0.128/25")), addresses(&["10.32.0.129/25"]));
    let held: Vec<String> = lab.node(0).lookup(&container("a")).iter().map(ToString::to_string).collect();
    assert_eq!(held, ["10.32.0.1/24", "10.32.0.129/25"]);
    lab.free(0, "a").unwrap();
    assert_eq!(lab.node(0).allocations().count(), 0);
}

#[test]
fn with_two_families_an_allocation_has_one_address_of_each() {
    let mut lab = Lab::consensus(2, &["10.32.0.0/24", "fd00:1::/64"]);
    assert_eq!(lab.allocate(0, "a", None), addresses(&["10.32.0.1/24", "fd00:1::1/64"]));
    assert_eq!(lab.allocate(1, "b", Some("fd00:1::/64")), addresses(&["fd00:1::8000:0:0:0/64"]));
}

#[test]
fn subnets_that_are_too_small_or_outside_are_refused_at_once() {
    let mut lab = lone();
    let subnet = "10.32.0.0/31".parse().unwrap();
    assert_eq!(lab.allocate(0, "a", Some("10.32.0.0/31")), Err(Refusal::SubnetTooSmall { subnet }));
    let subnet = "10.99.0.0/24".parse().unwrap();
    assert_eq!(lab.allocate(0, "a", Some("10.99.0.0/24")), Err(Refusal::OutOfRange { subnet }));
}

#[test]
fn a_claim_takes_a_free_address_wherever_it_is_owned_and_is_refused_where_it_is_in_use() {
    let mut lab = Lab::consensus(2, &["10.32.0.0/24"]);
    assert_eq!(lab.claim(0, "a", "10.32.0.9/24"), addresses(&["10.32.0.9/24"]));
    assert_eq!(lab.claim(0, "a", "10.32.0.9/24"), addresses(&["10.32.0.9/24"]));
    let address: IpAddr = "10.32.0.9".parse().unwrap();
    assert_eq!(lab.claim(0, "b", "10.32.0.9/24"), Err(Refusal::Conflict { address, holder: container("a") }));
    assert_eq!(lab.claim(1, "c", "10.32.0.10/24"), addresses(&["10.32.0.10/24"]));
    assert_eq!(lab.claim(1, "c", "10.32.0.9/24"), Err(Refusal::OwnedByOther { address, peer: name(0) }));
}

#[test]
fn a_claim_outside_the_ranges_is_recorded_without_a_ring_and_only_once() {
    let mut lab = Lab::consensus(3, &["10.32.0.0/24"]);
    for other in 1..3 {
        lab.kill(other);
    }
    assert_eq!(lab.claim(0, "a", "192.168.1.4/24"), addresses(&["192.168.1.4/24"]));
    let address: IpAddr = "192.168.1.4".parse().unwrap();
    assert_eq!(
        lab.claim(0, "b", "192.168.1.4/24"),
        Err(Refusal::Conflict { address, holder: container("a") })
    );
}

#[test]
fn a_claim_of_an_address_that_no_host_can_have_is_refused() {
    let mut lab = Lab::consensus(1, &["10.32.0.0/12"]);
    for text in ["10.40.0.0/24", "10.40.0.255/24", "10.32.0.0/12", "10.40.0.3/30", "192.168.1.0/24"] {
        let address = text.parse().unwrap();
        assert_eq!(lab.claim(0, "a", text), Err(Refusal::NoHostAddress { address }), "{text}");
    }
    for text in ["10.40.1.0/23", "10.40.2.0/31", "10.40.1.255/32", "10.47.255.255/8", "fd00::/64"] {
        assert_eq!(lab.claim(0, "a", text), addresses(&[text]));
    }
}

#[test]
fn whoever_has_an_address_that_no_host_can_have_from_an_earlier_version_keeps_it() {
    let mut lab = Lab::consensus(1, &["10.32.0.0/12"]);
    lab.claim(0, "a", "10.40.0.0/31").unwrap();
    lab.kill(0);
    // The record ends with the length of the prefix, as it could be stored before.
    let held = lab.disks[0].iter_mut().find(|(key, _)| key.first() == Some(&b'a')).unwrap().1;
    assert_eq!(held.last(), Some(&31));
    *held.last_mut().unwrap() = 24;
    lab.boot(0, config(0, &["10.32.0.0/12"], Init::Consensus { peers: 1 })).unwrap();
    assert_eq!(lab.node(0).lookup(&container("a")), ["10.40.0.0/24".parse().unwrap()]);
    assert_eq!(lab.claim(0, "a", "10.40.0.0/24"), addresses(&["10.40.0.0/24"]));
}

#[test]
fn a_deadline_without_quorum_names_the_quorum_and_who_is_known() {
    let mut lab = Lab::consensus(3, &["10.32.0.0/24"]);
    lab.kill(1);
    lab.kill(2);
    assert_eq!(lab.node(0).status().state, "idle");
    let request = lab.ask_allocate(0, "a", None, 500);
    lab.run(100);
    assert_eq!(lab.node(0).status().state, "awaiting consensus (quorum: 2, known: 1)");
    let missing = vec![name(1), name(2)];
    let election = lab.node(0).status().election.unwrap();
    assert_eq!(election, ElectionStatus { quorum: 2, heard: vec![], missing: missing.clone() });
    let waiting_for = WaitReason::Consensus { quorum: 2, known: 1, missing };
    assert_eq!(
        waiting_for.to_string(),
        "awaiting consensus (quorum: 2, known: 1); not heard: 02:00:00:00:00:02, 02:00:00:00:00:03"
    );
    assert_eq!(lab.answer(request, 600), Err(Refusal::Deadline { waiting_for }));
    assert_eq!(lab.node(0).status().state, "idle");
}

#[test]
fn who_waits_for_routers_that_were_never_met_is_told_how_many() {
    let mut lab = Lab::consensus(1, &["10.32.0.0/24"]);
    lab.add(config(1, &["10.32.0.0/24"], Init::Consensus { peers: 5 }));
    lab.add(config(2, &["10.32.0.0/24"], Init::Observer));
    lab.cut(0, 1);
    lab.link(1, 2);
    lab.ask_allocate(1, "a", None, 5_000);
    lab.run(100);
    let text = "awaiting consensus (quorum: 3, known: 1); 2 more must be launched or connected";
    assert_eq!(lab.node(1).waiting_for().unwrap().to_string(), text);
    assert_eq!(lab.node(0).waiting_for(), None);
}

#[test]
fn a_router_whose_free_addresses_lie_scattered_gives_as_many_as_are_wanted() {
    let mut lab = Lab::consensus(2, &["10.32.0.0/25"]);
    for n in 0..126 {
        lab.allocate(1, &format!("c{n}"), None).unwrap();
    }
    for n in (1..126).step_by(2) {
        lab.free(1, &format!("c{n}")).unwrap();
    }
    lab.run(2_000);
    let requests: Vec<_> = (0..63).map(|n| lab.ask_allocate(0, &format!("d{n}"), None, 5_000)).collect();
    lab.run(1_500);
    for request in requests {
        assert!(lab.answer(request, 0).is_ok());
    }
}

#[test]
fn space_is_asked_of_others_until_nobody_has_any_and_full_is_told_apart_from_unreachable() {
    let mut lab = Lab::consensus(3, &["10.32.0.0/27"]);
    for n in 0..30 {
        assert!(lab.allocate(n % 2, &format!("c{n}"), None).is_ok(), "{n}");
    }
    let subnet = "10.32.0.0/27".parse().unwrap();
    let request = lab.ask_allocate(0, "more", None, 3_000);
    lab.run(1_500);
    assert_eq!(lab.node(0).status().state, "waiting for IP(s) to become available");
    assert_eq!(lab.answer(request, 2_000), Err(Refusal::Exhausted { subnet }));
    lab.kill(1);
    let request = lab.ask_allocate(0, "more", None, 3_000);
    lab.run(100);
    let text = "all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead";
    assert_eq!(lab.node(0).status().state, text);
    assert_eq!(lab.answer(request, 4_000), Err(Refusal::OwnersUnreachable { peers: vec![name(1)] }));
}

#[test]
fn an_address_freed_on_another_router_serves_who_waits() {
    let mut lab = Lab::consensus(2, &["10.32.0.0/28"]);
    for n in 0..14 {
        lab.allocate(1, &format!("c{n}"), None).unwrap();
    }
    let request = lab.ask_allocate(0, "late", None, 20_000);
    lab.run(3_000);
    lab.free(1, "c5").unwrap();
    assert!(lab.answer(request, 5_000).is_ok());
}

#[test]
fn cancelling_withdraws_what_waits_and_frees_what_was_granted() {
    let mut lab = lone();
    let request = lab.ask_allocate(0, "a", None, 1_000);
    assert!(lab.answer(request, 0).is_ok());
    let now = lab.now;
    lab.with(0, |ipam| ipam.cancel(request, now));
    assert_eq!(lab.node(0).allocations().count(), 0);

    let mut lab = Lab::consensus(3, &["10.32.0.0/24"]);
    lab.kill(1);
    lab.kill(2);
    let request = lab.ask_allocate(0, "a", None, 60_000);
    lab.with(0, |ipam| ipam.cancel(request, now));
    assert_eq!(lab.answer(request, 0), Err(Refusal::Cancelled));
    assert!(lab.node(0).status().pending.is_empty());
}

#[test]
fn freeing_a_container_cancels_what_it_waits_for() {
    let mut lab = Lab::consensus(3, &["10.32.0.0/24"]);
    lab.kill(1);
    lab.kill(2);
    let request = lab.ask_allocate(0, "a", None, 60_000);
    assert_eq!(lab.free(0, "a"), Ok(Reply::Done));
    assert_eq!(lab.answer(request, 0), Err(Refusal::Cancelled));
}

#[test]
fn one_address_is_freed_only_by_its_holder() {
    let mut lab = lone();
    lab.allocate(0, "a", None).unwrap();
    let (first, second, third, now) = (lab.request(), lab.request(), lab.request(), lab.now);
    let address: IpAddr = "10.32.0.1".parse().unwrap();
    lab.with(0, |ipam| ipam.free_address(first, &container("b"), address, now));
    assert_eq!(lab.answer(first, 0), Err(Refusal::Conflict { address, holder: container("a") }));
    lab.with(0, |ipam| ipam.free_address(second, &container("a"), address, now));
    lab.with(0, |ipam| ipam.free_address(third, &container("a"), address, now));
    assert_eq!(lab.answer(second, 0), Ok(Reply::Done));
    assert_eq!(lab.answer(third, 0), Ok(Reply::Done));
}

#[test]
fn a_hundred_thousand_allocations_take_the_time_of_a_hundred_thousand_lookups() {
    let mut lab = Lab::consensus(1, &["10.32.0.0/12"]);
    lab.allocate(0, "first", None).unwrap();
    let now = lab.now;
    let owners: Vec<_> = (0..100_000).map(|n| container(&format!("c{n}"))).collect();
    #[expect(clippy::disallowed_methods, reason = "measures the real time that the calls take")]
    let begin = std::time::Instant::now();
    let deadline = now + Duration::from_secs(1);
    for (n, owner) in owners.into_iter().enumerate() {
        let request = weave_ipam::RequestId(1_000_000 + n as u64);
        let ipam = lab.nodes[0].as_mut().unwrap();
        ipam.allocate(request, owner, None, deadline, now);
        while ipam.poll_event().is_some() {}
    }
    let rate = 100_000.0 / begin.elapsed().as_secs_f64();
    println!("{rate:.0} allocations a second");
    assert!(rate > 20_000.0, "{rate:.0} allocations a second");
    assert_eq!(lab.node(0).status().active, 100_001);
}
