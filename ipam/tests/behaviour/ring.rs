//! Removing, leaving, returning.

use std::time::Duration;

use weave_ipam::{Init, Problem, Refusal, Reply};

use crate::lab::{Lab, addresses, config, container, name};

const RANGE: &[&str] = &["10.32.0.0/24"];

fn primed(count: usize) -> Lab {
    let mut lab = Lab::consensus(count, RANGE);
    for index in 0..count {
        lab.allocate(index, &format!("first{index}"), None).unwrap();
    }
    lab.run(5_000);
    lab
}

#[test]
fn the_space_of_a_dead_router_can_be_had_and_that_of_a_live_one_cannot() {
    let mut lab = primed(3);
    assert_eq!(lab.take_over(0, name(1)), Err(Refusal::PeerAlive { peer: name(1) }));
    lab.kill(1);
    let begin = lab.now;
    assert!(matches!(lab.take_over(0, name(1)), Ok(Reply::TakenOver(n)) if n > 0));
    assert!((lab.now - begin).as_millis() < 100);
    lab.run(5_000);
    let (zero, two) = (lab.node(0).status(), lab.node(2).status());
    assert_eq!(zero.ring_digest, two.ring_digest);
    assert_eq!(zero.owners.iter().map(|o| o.peer).collect::<Vec<_>>(), [name(0), name(2)]);
}

#[test]
fn nobody_takes_space_over_while_a_member_cannot_be_asked_and_all_the_dead_can_be_removed_together() {
    let mut lab = primed(3);
    lab.kill(1);
    lab.kill(2);
    assert_eq!(lab.take_over(0, name(1)), Err(Refusal::AwaitingConsent { peers: vec![name(2)] }));
    let (first, second, now) = (lab.request(), lab.request(), lab.now);
    lab.with(0, |ipam| ipam.take_over(first, name(1), now));
    lab.with(0, |ipam| ipam.take_over(second, name(2), now));
    assert!(lab.answer(first, 2_000).is_ok());
    assert!(lab.answer(second, 2_000).is_ok());
    assert_eq!(lab.node(0).status().owners.len(), 1);
}

#[test]
fn a_removed_router_that_returns_starts_afresh_on_the_ring_of_the_others() {
    let mut lab = primed(3);
    lab.kill(1);
    lab.take_over(0, name(1)).unwrap();
    lab.run(1_000);
    lab.boot(1, config(1, RANGE, Init::Consensus { peers: 3 })).unwrap();
    lab.free(1, "first1").unwrap();
    assert!(lab.allocate(1, "again", None).is_ok());
    lab.run(8_000);
    let digests: Vec<_> = (0..3).map(|i| lab.node(i).status().ring_digest).collect();
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
    assert!(lab.node(1).status().problems.is_empty());
}

#[test]
fn a_router_that_leaves_hands_all_its_space_to_another() {
    let mut lab = primed(3);
    let (request, now) = (lab.request(), lab.now);
    lab.with(1, |ipam| ipam.leave(request, now));
    assert_eq!(lab.answer(request, 1_000), Ok(Reply::Done));
    assert_eq!(lab.allocate(1, "more", None), Err(Refusal::Leaving));
    lab.run(100);
    lab.kill(1);
    lab.run(5_000);
    assert!(lab.node(0).status().owners.iter().all(|o| o.peer != name(1)));
    // Nobody waits for the agreement of one that left.
    lab.kill(2);
    assert!(lab.take_over(0, name(2)).is_ok());
}

#[test]
fn a_leave_that_nobody_confirmed_can_be_called_off_and_the_containers_keep_their_addresses() {
    let mut lab = primed(3);
    let held = lab.node(1).lookup(&container("first1"));
    let (request, now) = (lab.request(), lab.now);
    lab.with(1, |ipam| ipam.leave(request, now));
    lab.hold();
    lab.cut(0, 1);
    lab.cut(1, 2);
    lab.run(2_000);
    assert!(!lab.answers.contains_key(&request));
    let now = lab.now;
    lab.with(1, |ipam| ipam.stay(now));
    assert_eq!(lab.answer(request, 10), Err(Refusal::Cancelled));
    assert_eq!(lab.node(1).lookup(&container("first1")), held);
    lab.link_all();
    lab.release();
    lab.run(8_000);
    let claims = lab.node(1).repair_plan().claims;
    assert_eq!(claims.iter().map(|claim| claim.address).collect::<Vec<_>>(), held);
    let (request, now) = (lab.request(), lab.now);
    let deadline = now + Duration::from_secs(5);
    lab.with(1, |ipam| ipam.reclaim(request, container("first1"), held[0], deadline, now));
    assert!(lab.answer(request, 6_000).is_ok());
    assert!(lab.allocate(1, "more", None).is_ok());
    lab.run(5_000);
    assert!((0..3).all(|index| lab.node(index).status().problems.is_empty()));
    lab.kill(2);
    assert!(lab.take_over(0, name(2)).is_ok(), "with the agreement of the one that stayed");
}

#[test]
fn the_last_router_has_nobody_to_leave_its_space_to() {
    let mut lab = primed(1);
    let (request, now) = (lab.request(), lab.now);
    lab.with(0, |ipam| ipam.leave(request, now));
    assert_eq!(lab.answer(request, 10), Err(Refusal::NoHeir));
    assert!(lab.allocate(0, "more", None).is_ok());
}

#[test]
fn what_a_lost_store_owned_is_fenced_until_the_operator_says_that_all_is_claimed() {
    let mut lab = primed(3);
    lab.kill(1);
    lab.disks[1].clear();
    let mut config = config(1, RANGE, Init::Consensus { peers: 3 });
    config.store_id = 77;
    lab.boot(1, config).unwrap();
    lab.run(2_000);
    let problems = lab.node(1).status().problems;
    assert!(
        matches!(problems[..], [Problem::PredecessorUnsettled { addresses }] if addresses > 0),
        "{problems:?}"
    );
    // Space of others serves it meanwhile.
    assert!(lab.allocate(1, "new", Some("10.32.0.0/25")).is_ok());
    assert!(lab.take_over(1, name(1)).is_ok());
    assert!(lab.node(1).status().problems.is_empty());
}

#[test]
fn a_fact_of_ours_from_the_future_fences_the_store() {
    let mut lab = primed(3);
    let old = lab.disks[1].clone();
    for n in 0..5 {
        lab.allocate(1, &format!("later{n}"), None).unwrap();
    }
    lab.run(3_000);
    let echo = lab.facts[1].clone().unwrap();
    lab.kill(1);
    lab.disks[1] = old;
    lab.cut(0, 1);
    lab.cut(1, 2);
    lab.boot(1, config(1, RANGE, Init::Consensus { peers: 3 })).unwrap();
    let now = lab.now;
    lab.with(1, |ipam| ipam.handle_own_previous_state(&echo, now)).unwrap().unwrap();
    lab.link_all();
    lab.run(5_000);
    let problems = lab.node(1).status().problems;
    assert!(matches!(problems[..], [Problem::PredecessorUnsettled { .. }]), "{problems:?}");
}

#[test]
fn what_containers_of_a_member_hold_of_space_that_is_taken_over_becomes_its_own() {
    let mut lab = primed(3);
    // Declared dead by mistake: its containers live on while its space is divided.
    lab.kill(1);
    lab.take_over(0, name(1)).unwrap();
    lab.boot(1, config(1, RANGE, Init::Consensus { peers: 3 })).unwrap();
    lab.run(5_000);
    let problems = lab.node(1).status().problems;
    assert_eq!(problems, [Problem::SpaceLost { peer: name(0), in_use: 1 }]);
    let held = lab.node(1).lookup(&container("first1"))[0].to_string();
    lab.kill(0);
    lab.take_over(2, name(0)).unwrap();
    lab.run(5_000);
    assert_eq!(lab.node(1).status().problems, []);
    let refused = lab.claim(2, "other", &held);
    assert!(matches!(refused, Err(Refusal::OwnedByOther { peer, .. }) if peer == name(1)), "{refused:?}");
}

/// Router 0 gives an address to router 2 and dies; the gift is under way for long. Router 1 takes over what 0 owned.
fn with_a_gift_under_way() -> (Lab, weave_ipam::RequestId) {
    let mut lab = primed(4);
    let (request, now) = (lab.request(), lab.now);
    let address = "10.32.0.40/24".parse().unwrap();
    lab.with(2, |ipam| ipam.claim(request, container("late"), address, now + Duration::from_secs(60), now));
    lab.run(3);
    lab.hold();
    lab.kill(0);
    (lab, request)
}

#[test]
fn a_gift_that_arrives_when_the_giver_was_removed_is_not_used() {
    let (mut lab, request) = with_a_gift_under_way();
    lab.take_over(1, name(0)).unwrap();
    assert_eq!(lab.claim(1, "mine", "10.32.0.40/24"), addresses(&["10.32.0.40/24"]));
    lab.release();
    lab.run(10_000);
    let address = "10.32.0.40".parse().unwrap();
    let refused = Err(Refusal::OwnedByOther { address, peer: name(1) });
    assert_eq!(lab.answer(request, 0), refused);
    // Nor does it bring its receiver the address afterwards: the take-over is the later of the two.
    assert_eq!(lab.node(1).status().problems, []);
    assert_eq!(lab.claim(2, "later", "10.32.0.40/24"), refused);
}

#[test]
fn a_take_over_that_nobody_was_told_of_comes_to_nothing() {
    let mut lab = primed(3);
    lab.kill(0);
    let (request, now) = (lab.request(), lab.now);
    lab.with(2, |ipam| ipam.take_over(request, name(0), now));
    while !lab.answers.contains_key(&request) {
        lab.run(1);
    }
    lab.hold();
    lab.kill(2);
    let (first, second, now) = (lab.request(), lab.request(), lab.now);
    lab.with(1, |ipam| ipam.take_over(first, name(0), now));
    lab.with(1, |ipam| ipam.take_over(second, name(2), now));
    assert!(lab.answer(first, 1_000).is_ok() && lab.answer(second, 1_000).is_ok());
    lab.release();
    lab.run(5_000);
    assert_eq!(lab.node(1).status().owners.iter().map(|o| o.peer).collect::<Vec<_>>(), [name(1)]);
}

#[test]
fn a_gift_that_arrives_after_its_receiver_agreed_to_the_removal_is_not_used() {
    let (mut lab, request) = with_a_gift_under_way();
    lab.kill(3);
    let (removal, now) = (lab.request(), lab.now);
    lab.with(1, |ipam| ipam.take_over(removal, name(0), now));
    lab.run(1_000);
    lab.release();
    lab.run(4_000);
    assert!(!lab.answers.contains_key(&request), "{:?}", lab.answers[&request]);
    // The last member agrees, and the address is asked of its new owner.
    lab.boot(3, config(3, RANGE, Init::Consensus { peers: 4 })).unwrap();
    lab.answer(removal, 5_000).unwrap();
    assert_eq!(lab.answer(request, 5_000), addresses(&["10.32.0.40/24"]));
    lab.run(10_000);
    let digests: Vec<_> = (1..4).map(|i| lab.node(i).status().ring_digest).collect();
    assert!(digests.iter().all(|d| *d == digests[0]));
}

#[test]
fn a_removal_that_others_contradict_names_them_and_one_of_a_router_that_came_back_in_between_says_so() {
    let mut lab = primed(4);
    lab.kill(3);
    // Router 2 still reaches what 0 does not.
    lab.cut(0, 1);
    assert_eq!(
        lab.take_over(0, name(1)),
        Err(Refusal::SeenAlive { peer: name(1), by: vec![name(2)] }),
        "the one that is away is not to blame"
    );
    lab.link(0, 1);
    lab.kill(1);
    let (removal, now) = (lab.request(), lab.now);
    lab.with(0, |ipam| ipam.take_over(removal, name(1), now));
    // It comes up, is seen, and dies again before 0 has heard more than that.
    lab.boot(1, config(1, RANGE, Init::Consensus { peers: 4 })).unwrap();
    let fact = lab.facts[1].clone().unwrap();
    lab.hold();
    lab.kill(1);
    let now = lab.now;
    lab.with(0, |ipam| ipam.handle_peer_state(name(1), Some(&fact), now)).unwrap().unwrap();
    let answer = lab.answer(removal, 2_000);
    let is_told =
        |refusal: &Refusal| matches!(refusal, Refusal::PeerReturned { .. } | Refusal::PeerAlive { .. });
    assert!(answer.as_ref().is_err_and(is_told), "{answer:?}");
}

#[test]
fn a_router_that_returns_while_it_is_being_removed_stops_the_removal() {
    let mut lab = primed(4);
    lab.kill(0);
    lab.kill(3);
    let (removal, now) = (lab.request(), lab.now);
    lab.with(1, |ipam| ipam.take_over(removal, name(0), now));
    lab.run(1_000);
    lab.boot(0, config(0, RANGE, Init::Consensus { peers: 4 })).unwrap();
    assert_eq!(lab.answer(removal, 1_000), Err(Refusal::PeerAlive { peer: name(0) }));
    lab.boot(3, config(3, RANGE, Init::Consensus { peers: 4 })).unwrap();
    let again = lab.allocate(0, "again", None);
    assert!(
        again.is_ok(),
        "{again:?} {:?} {:?}",
        lab.node(0).status().problems,
        lab.node(3).status().problems
    );
    lab.run(10_000);
    assert!((0..4).all(|index| lab.node(index).status().problems.is_empty()));
}
