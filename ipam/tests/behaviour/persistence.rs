//! What is stored, and what a store is good for.

use weave_ipam::{Init, Ipam, RestoreError};

use crate::lab::{Lab, addresses, config, container, name};

const RANGE: &[&str] = &["10.32.0.0/24"];

fn init() -> Init {
    Init::Consensus { peers: 2 }
}

fn used() -> Lab {
    let mut lab = Lab::consensus(2, RANGE);
    for n in 0..20 {
        lab.allocate(0, &format!("c{n}"), None).unwrap();
    }
    lab.claim(0, "out", "192.168.7.7/24").unwrap();
    lab.run(3_000);
    lab
}

#[test]
fn a_killed_router_has_every_address_back_and_with_its_mark_allocates_at_once() {
    let mut lab = used();
    let before: Vec<_> = lab.node(0).allocations().map(|(o, i)| (o.clone(), i)).collect();
    let mark = lab.marks[0];
    lab.kill(0);
    lab.kill(1);
    lab.boot(0, config(0, RANGE, init())).unwrap();
    let now = lab.now;
    assert!(lab.with(0, |ipam| ipam.trust_store(mark, now)).unwrap());
    let after: Vec<_> = lab.node(0).allocations().map(|(o, i)| (o.clone(), i)).collect();
    assert_eq!(before, after);
    assert_eq!(lab.allocate(0, "next", None), addresses(&["10.32.0.21/24"]));
}

#[test]
fn without_the_mark_it_asks_the_others_first_and_keeps_its_addresses_meanwhile() {
    let mut lab = used();
    lab.kill(0);
    lab.kill(1);
    lab.boot(0, config(0, RANGE, init())).unwrap();
    assert_eq!(lab.allocate(0, "c3", None), addresses(&["10.32.0.4/24"]));
    assert!(lab.allocate(0, "next", None).is_err());
    lab.boot(1, config(1, RANGE, init())).unwrap();
    assert_eq!(lab.allocate(0, "next", None), addresses(&["10.32.0.21/24"]));
    lab.run(3_000);
    assert!(lab.node(0).status().problems.is_empty() && lab.node(1).status().problems.is_empty());
}

#[test]
fn a_lone_router_needs_nobody_after_a_restart() {
    let mut lab = Lab::consensus(1, RANGE);
    lab.allocate(0, "a", None).unwrap();
    lab.kill(0);
    lab.boot(0, config(0, RANGE, Init::Consensus { peers: 1 })).unwrap();
    assert_eq!(lab.allocate(0, "b", None), addresses(&["10.32.0.2/24"]));
    assert_eq!(lab.node(0).lookup(&container("a")).len(), 1);
}

#[test]
fn an_old_mark_is_believed_only_as_far_as_the_store_is_newer() {
    let mut lab = used();
    let (old_disk, old_mark) = (lab.disks[0].clone(), lab.marks[0]);
    lab.allocate(0, "later", None).unwrap();
    let new_mark = lab.marks[0];
    assert_ne!(old_mark, new_mark);
    lab.kill(0);
    lab.disks[0] = old_disk;
    lab.boot(0, config(0, RANGE, init())).unwrap();
    let now = lab.now;
    assert!(!lab.with(0, |ipam| ipam.trust_store(new_mark, now)).unwrap());
}

#[test]
fn an_allocation_writes_the_same_few_bytes_however_much_is_stored() {
    let mut lab = Lab::consensus(2, &["10.32.0.0/16"]);
    lab.allocate(0, "first", None).unwrap();
    let mut cost = Vec::new();
    for n in 0..1_000 {
        let before = (lab.writes, lab.written_bytes);
        lab.allocate(0, &format!("c{n:04}"), None).unwrap();
        cost.push((lab.writes - before.0, lab.written_bytes - before.1));
    }
    assert!(cost.iter().all(|(writes, bytes)| *writes <= 2 && *bytes < 80), "{:?}", cost.iter().max());
}

#[test]
fn a_store_of_another_router_or_of_other_ranges_is_refused_with_words_and_nothing_is_lost() {
    let lab = used();
    let open = |config| Ipam::new(config, lab.disks[0].clone().into_iter(), [0; 32], lab.now).map(|_| ());
    let error = open(config(1, RANGE, init())).unwrap_err();
    assert_eq!(error, RestoreError::OtherPeer { found: name(0), expected: name(1) });
    let error = open(config(0, &["10.40.0.0/24"], init())).unwrap_err();
    assert_eq!(error, RestoreError::OtherRanges { found: "10.32.0.0/24".to_owned() });
    assert_eq!(open(config(0, RANGE, init())), Ok(()));
}

#[test]
fn a_store_of_a_newer_version_is_said_to_be_that_and_what_can_be_done_without_is_passed_over() {
    let lab = used();
    let open = |key: &[u8]| {
        let mut disk = lab.disks[0].clone();
        disk.insert(key.to_vec(), vec![1, 2, 3]);
        Ipam::new(config(0, RANGE, init()), disk.into_iter(), [0; 32], lab.now)
    };
    assert_eq!(open(b"z").unwrap_err(), RestoreError::Newer('z'));
    assert_eq!(open(b"zsomething").unwrap_err(), RestoreError::Newer('z'));
    let text = RestoreError::Newer('z').to_string();
    assert!(text.starts_with("the IPAM store was written by a newer weave"), "{text}");
    let mut ipam = open(b"Zsomething").unwrap();
    while let Some(event) = ipam.poll_event() {
        let weave_ipam::Event::Persist(writes) = event else { continue };
        assert!(writes.iter().all(|write| write.key.first() != Some(&b'Z')), "it is left as it is");
    }
    for key in [&b""[..], b"hh", b"m", b"\xff", b"1"] {
        assert!(matches!(open(key), Err(RestoreError::Damaged { .. })), "{key:?}");
    }
}

#[test]
fn a_store_with_any_record_missing_cut_or_flipped_is_refused_or_read_without_harm() {
    let lab = used();
    let disk = &lab.disks[0];
    for key in disk.keys() {
        for what in 0..3 {
            let mut damaged = disk.clone();
            let Some(value) = damaged.get_mut(key) else { continue };
            match what {
                0 => value.truncate(value.len() / 2),
                1 => value.push(9),
                _ => {
                    damaged.remove(key);
                }
            }
            let result = Ipam::new(config(0, RANGE, init()), damaged.into_iter(), [0; 32], lab.now);
            let kind = key[0];
            match (kind, what) {
                (_, 0 | 1) => assert!(matches!(result, Err(RestoreError::Damaged { .. })), "{key:?}"),
                // A hole in the ring, or a store without its header.
                (b'r' | b'h', _) => assert!(matches!(result, Err(RestoreError::Damaged { .. })), "{key:?}"),
                _ => {}
            }
        }
    }
}
