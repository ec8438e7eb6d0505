//! Who comes to the ring is remembered before it is given anything.

use weave_ipam::{Init, Problem, Refusal, RequestId, WaitReason};

use crate::lab::{Lab, addresses, config, name};

const RANGE: &[&str] = &["10.32.0.0/24"];

fn init() -> Init {
    Init::Consensus { peers: 2 }
}

/// Two routers with a ring, and a third that is not linked yet.
fn with_a_newcomer() -> Lab {
    let mut lab = Lab::consensus(2, RANGE);
    lab.allocate(0, "a", None).unwrap();
    lab.run(5_000);
    lab.add(config(2, RANGE, init()));
    lab
}

#[test]
fn a_newcomer_that_reaches_everybody_has_an_address_within_a_few_round_trips() {
    let mut lab = with_a_newcomer();
    let begin = lab.now;
    lab.link_all();
    assert!(lab.allocate(2, "b", None).is_ok());
    // The ring, two witnesses, and space: a round trip of 4 ms each.
    assert!((lab.now - begin).as_millis() <= 20, "{:?}", lab.now - begin);
}

#[test]
fn a_newcomer_to_a_lone_router_has_an_address_at_once() {
    let mut lab = Lab::consensus(1, RANGE);
    lab.allocate(0, "a", None).unwrap();
    lab.add(config(1, RANGE, Init::Consensus { peers: 1 }));
    lab.link_all();
    let begin = lab.now;
    assert!(lab.allocate(1, "b", None).is_ok());
    assert!((lab.now - begin).as_millis() <= 20, "{:?}", lab.now - begin);
}

#[test]
fn newcomers_that_come_to_a_lone_router_at_the_same_time_do_not_wait_for_each_other() {
    for count in 2..6 {
        let mut lab = Lab::empty();
        lab.add(config(0, RANGE, Init::Consensus { peers: 1 }));
        lab.allocate(0, "a", None).unwrap();
        for index in 1..=count {
            lab.add(config(index, RANGE, Init::Observer));
        }
        lab.link_all();
        for index in 1..=count {
            assert!(lab.allocate(index, "late", None).is_ok(), "{index} of {count}");
        }
    }
}

fn waits_for(lab: &Lab, index: usize, peer: usize) -> bool {
    let waiting_for = WaitReason::Witnesses { peers: vec![name(peer)], unsure: Vec::new() };
    lab.node(index).status().pending.iter().any(|p| p.waiting_for == waiting_for)
}

/// A newcomer that only one of two routers can know of, and that wants an address.
fn waiting() -> (Lab, RequestId) {
    let mut lab = with_a_newcomer();
    lab.kill(1);
    lab.link(0, 2);
    let request = lab.ask_allocate(2, "b", None, 60_000);
    lab.run(2_000);
    assert!(!lab.answers.contains_key(&request) && waits_for(&lab, 2, 1), "{:?}", lab.node(2).status());
    (lab, request)
}

#[test]
fn a_newcomer_that_one_router_knows_waits_for_a_second_and_says_so() {
    let (mut lab, request) = waiting();
    lab.link(1, 2);
    lab.boot(1, config(1, RANGE, init())).unwrap();
    assert!(lab.answer(request, 2_000).is_ok());
}

#[test]
fn where_a_member_is_away_a_newcomer_gets_addresses_from_the_two_that_are_there_or_says_whom_it_lacks_and_the_remedy()
 {
    let mut lab = Lab::consensus(3, RANGE);
    lab.allocate(0, "a", None).unwrap();
    lab.run(5_000);
    lab.kill(2);
    lab.add(config(3, RANGE, init()));
    lab.link(3, 0);
    lab.link(3, 1);
    assert!(lab.allocate(3, "b", None).is_ok());
    // The same after a reboot of both: they are not sure of their own stores before the third has spoken.
    let mut lab = Lab::consensus(3, RANGE);
    lab.allocate(0, "a", None).unwrap();
    lab.run(5_000);
    for index in 0..3 {
        lab.kill(index);
    }
    for index in 0..2 {
        lab.boot(index, config(index, RANGE, Init::Consensus { peers: 3 })).unwrap();
    }
    lab.add(config(3, RANGE, init()));
    lab.link(3, 0);
    lab.link(3, 1);
    let request = lab.ask_allocate(3, "b", None, 600_000);
    lab.run(5_000);
    assert!(!lab.answers.contains_key(&request));
    let said: Vec<String> = lab.node(3).status().problems.iter().map(ToString::to_string).collect();
    let expected = "this router is given no addresses yet: waiting for 02:00:00:00:00:03 to note that this router has \
                    joined - bring them back, or use 'rmpeer' on 02:00:00:00:00:01, 02:00:00:00:00:02 if they are dead";
    assert_eq!(said, [expected]);
    let said = lab.node(0).status().problems[0].to_string();
    assert!(said.contains("02:00:00:00:00:03") && said.contains("'rmpeer'"), "{said}");
    // The remedy works.
    lab.take_over(0, name(2)).unwrap();
    assert!(lab.answer(request, 10_000).is_ok());
    lab.run(3_000);
    assert_eq!(lab.node(3).status().problems, []);
}

#[test]
fn a_newcomer_waits_no_more_when_the_second_router_is_removed() {
    let (mut lab, request) = waiting();
    lab.take_over(0, name(1)).unwrap();
    assert!(lab.answer(request, 2_000).is_ok());
}

#[test]
fn a_router_that_was_removed_and_returns_to_one_that_is_then_restored_has_been_given_nothing() {
    let mut lab = Lab::consensus(3, RANGE);
    for index in 0..3 {
        lab.allocate(index, &format!("first{index}"), None).unwrap();
    }
    lab.kill(0);
    lab.take_over(1, name(0)).unwrap();
    lab.run(5_000);
    let (disk, before) = (lab.disks[1].clone(), Init::Consensus { peers: 3 });
    lab.cut(0, 2);
    lab.cut(1, 2);
    lab.boot(0, config(0, RANGE, before.clone())).unwrap();
    lab.free(0, "first0").unwrap();
    let request = lab.ask_allocate(0, "again", None, 60_000);
    lab.run(3_000);
    assert!(waits_for(&lab, 0, 2), "{:?}", lab.node(0).status());
    // The only one that knows of the return forgets it, and is confirmed by the one that never heard of it.
    lab.cut(0, 1);
    lab.kill(1);
    lab.disks[1] = disk;
    lab.boot(1, config(1, RANGE, before)).unwrap();
    lab.link(1, 2);
    assert!(lab.claim(1, "mine", "10.32.0.1/24").is_ok());
    lab.link_all();
    assert!(lab.answer(request, 5_000).is_ok());
}

/// Router 2 was removed and came back. Router 0 has a store from between, router 1 is dead.
fn with_a_forgotten_return() -> Lab {
    let mut lab = Lab::consensus(3, RANGE);
    let init = Init::Consensus { peers: 3 };
    for index in 0..3 {
        lab.allocate(index, &format!("first{index}"), None).unwrap();
    }
    lab.kill(2);
    lab.take_over(1, name(2)).unwrap();
    lab.run(5_000);
    let disk = lab.disks[0].clone();
    lab.boot(2, config(2, RANGE, init.clone())).unwrap();
    lab.free(2, "first2").unwrap();
    lab.allocate(2, "again", None).unwrap();
    lab.run(5_000);
    lab.kill(1);
    lab.cut(0, 2);
    lab.kill(0);
    lab.disks[0] = disk;
    lab.boot(0, config(0, RANGE, init)).unwrap();
    lab
}

#[test]
fn a_store_that_may_be_from_the_past_asks_those_that_were_removed_too() {
    let mut lab = with_a_forgotten_return();
    assert_eq!(lab.take_over(0, name(1)), Err(Refusal::AwaitingConsent { peers: vec![name(2)] }));
    lab.link(0, 2);
    // By now the mesh has dropped what the dead router said of itself.
    let now = lab.now;
    lab.with(2, |ipam| ipam.handle_peer_state(name(1), None, now)).unwrap().unwrap();
    assert!(lab.take_over(0, name(1)).is_ok());
    lab.run(5_000);
    assert!(!lab.node(2).status().problems.iter().any(|p| matches!(p, Problem::SpaceLost { .. })));
}

#[test]
fn a_store_that_may_be_from_the_past_may_be_so_after_another_restart_too() {
    let mut lab = with_a_forgotten_return();
    let mark = lab.marks[0];
    lab.kill(0);
    lab.boot(0, config(0, RANGE, Init::Consensus { peers: 3 })).unwrap();
    let now = lab.now;
    assert!(lab.with(0, |ipam| ipam.trust_store(mark, now)).unwrap());
    assert_eq!(lab.take_over(0, name(1)), Err(Refusal::AwaitingConsent { peers: vec![name(2)] }));
}

#[test]
fn those_that_were_removed_are_not_asked_when_more_than_half_of_the_members_agree() {
    let mut lab = Lab::consensus(4, RANGE);
    let init = Init::Consensus { peers: 4 };
    lab.allocate(0, "a", None).unwrap();
    lab.run(5_000);
    lab.kill(3);
    lab.take_over(0, name(3)).unwrap();
    lab.run(5_000);
    // A power cut; one does not come back.
    for index in 0..3 {
        lab.kill(index);
    }
    lab.boot(0, config(0, RANGE, init.clone())).unwrap();
    lab.boot(1, config(1, RANGE, init)).unwrap();
    assert!(lab.take_over(0, name(2)).is_ok());
    assert_eq!(lab.allocate(0, "b", None), addresses(&["10.32.0.2/24"]));
}
