//! What routers are called is remembered when they are gone.

use weave_ipam::Init;
use weave_model::PeerName;

use crate::lab::{Lab, config, name};

const RANGE: &[&str] = &["10.32.0.0/24"];
const THREE: Init = Init::Consensus { peers: 3 };

fn say(lab: &mut Lab, at: usize, of: usize, nickname: &str) {
    let now = lab.now;
    lab.with(at, |ipam| ipam.handle_nickname(name(of), nickname, now));
}

fn called(lab: &Lab, at: usize, nickname: &str) -> Vec<PeerName> {
    lab.node(at).called(nickname).collect()
}

/// Three routers with a ring; the first was told what the others are called before there was one.
fn primed() -> Lab {
    let mut lab = Lab::of(3, RANGE, &THREE);
    say(&mut lab, 0, 1, "h1");
    say(&mut lab, 0, 2, "h2");
    lab.allocate(0, "a", None).unwrap();
    lab.run(5_000);
    lab
}

#[test]
fn a_dead_router_is_found_by_its_nickname_until_it_is_removed_also_after_a_restart() {
    let mut lab = primed();
    lab.kill(2);
    assert_eq!(called(&lab, 0, "h2"), [name(2)]);
    lab.kill(0);
    lab.boot(0, config(0, RANGE, THREE)).unwrap();
    lab.run(5_000);
    assert_eq!(called(&lab, 0, "h2"), [name(2)]);
    let owners: Vec<_> = lab.node(0).status().owners.into_iter().map(|o| (o.peer, o.nickname)).collect();
    let expected =
        [(0, ""), (1, "h1"), (2, "h2")].map(|(index, nickname)| (name(index), nickname.to_owned()));
    assert_eq!(owners, expected);
    // The mesh of the other has dropped what the dead one said.
    let now = lab.now;
    lab.with(1, |ipam| ipam.handle_peer_state(name(2), None, now)).unwrap().unwrap();
    assert!(lab.take_over(0, name(2)).is_ok());
    assert_eq!(called(&lab, 0, "h2"), []);
}

#[test]
fn a_store_without_nicknames_is_read_and_learns_them() {
    let mut lab = primed();
    lab.kill(0);
    assert!(lab.disks[0].keys().any(|key| key.first() == Some(&b'n')));
    lab.disks[0].retain(|key, _| key.first() != Some(&b'n'));
    lab.boot(0, config(0, RANGE, THREE)).unwrap();
    assert_eq!(called(&lab, 0, "h1"), []);
    say(&mut lab, 0, 1, "h1");
    assert_eq!(called(&lab, 0, "h1"), [name(1)]);
}

#[test]
fn only_what_members_are_called_is_kept_and_only_when_it_is_news_and_no_longer_than_its_bound() {
    let mut lab = primed();
    let written = lab.disks[0].len();
    say(&mut lab, 0, 7, "stranger");
    assert_eq!((called(&lab, 0, "stranger"), lab.disks[0].len()), (Vec::new(), written));
    let mark = lab.marks[0];
    say(&mut lab, 0, 1, "h1");
    assert_eq!(lab.marks[0], mark);
    say(&mut lab, 0, 1, &"é".repeat(200));
    assert_eq!(called(&lab, 0, &"é".repeat(127)), [name(1)]);
    say(&mut lab, 0, 1, "");
    assert_eq!(lab.node(0).nickname(name(1)), Some("é".repeat(127).as_str()));
}

#[test]
fn two_routers_of_one_nickname_are_both_named() {
    let mut lab = primed();
    say(&mut lab, 0, 1, "h2");
    assert_eq!(called(&lab, 0, "h2"), [name(1), name(2)]);
}
