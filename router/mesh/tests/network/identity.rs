//! Who is who.

use std::time::Duration;

use weave_mesh::CloseReason;

use crate::sim::{Net, address, name};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_router_that_reaches_itself_says_so_and_does_not_try_again() {
    let mut net = Net::new(1, 1, |_| vec![0]);
    net.start(0);
    net.run_for(SECOND * 1000);
    assert_eq!(net.hosts[0].dials, 1);
    assert_eq!(net.hosts[0].closed, [CloseReason::Self_; 2], "at both ends");
    let status = net.mesh(0).status(net.now);
    assert_eq!(status.connections[0].text, "cannot connect to ourself");
    assert_eq!(status.connections[0].retry_in, None);
}

#[test]
fn a_second_key_for_a_live_name_is_refused_shown_and_not_retried() {
    for (seed, target) in [(0, 1), (1, 2)] {
        // Host 3 has the name of host 1. It dials host 1's neighbour, or host 1 itself.
        let mut net = Net::new(seed, 4, |i| if i == 3 { vec![target] } else { vec![0] });
        net.hosts[3].config.name = name(1);
        (0..3).for_each(|host| net.start(host));
        net.run_until(SECOND * 10, Net::is_full).expect("three join");
        net.start(3);
        net.run_for(SECOND * 60);
        assert!(net.hosts[3].joined.is_empty());
        assert_eq!(net.hosts[3].dials, 1, "not retried");
        let status = net.mesh(3).status(net.now);
        assert_eq!(status.connections[0].text, "peer name is taken by another router");
        let status = net.mesh(target).status(net.now);
        assert_eq!(status.collisions.len(), 1);
        assert_eq!((status.collisions[0].name, status.collisions[0].heard_from), (name(1), address(3)));
        assert!(net.hosts[..3].iter().all(|host| host.joined.len() == 2), "nobody else is disturbed");
    }
}

#[test]
fn two_meshes_that_each_have_the_name_are_joined_without_it_changing_hands() {
    // Hosts 0, 1, 2 and hosts 3, 4, 5 are two meshes; 1 and 4 have one name. Then 2 meets 5.
    let mut net = Net::new(3, 6, |i| if i < 3 { vec![0] } else { vec![3] });
    net.hosts[4].config.name = name(1);
    for a in 0..3 {
        (3..6).for_each(|b| net.set_cut(a, b, true));
    }
    net.start_all();
    net.run_for(SECOND * 20);
    net.set_cut(2, 5, false);
    net.with(2, |mesh, now| mesh.connect(&[address(5).into()], false, now));
    net.run_for(SECOND * 100);
    let key = |host: usize| {
        net.mesh(host).status(net.now).peers.iter().find(|p| p.name == name(1)).unwrap().public_key
    };
    assert!([0, 1, 2].iter().all(|host| key(*host) == net.hosts[1].config.public_key));
    assert!([3, 4, 5].iter().all(|host| key(*host) == net.hosts[4].config.public_key));
    let is_shown = |host: usize| !net.mesh(host).status(net.now).collisions.is_empty();
    assert!(is_shown(2) || is_shown(5), "where the later claim was refused");
    assert_eq!(net.hosts[0].joined.len(), 4, "the others meet");
    let before = net.bytes();
    net.run_for(SECOND * 100);
    let cost = (net.bytes() - before) / 100 / 6;
    println!("a lasting disagreement costs {cost} B/s a router");
    assert!(cost < 100, "the disagreement stays cheap");
}

#[test]
fn of_two_links_both_ends_keep_the_same_one() {
    for seed in 0..30 {
        // Each dials the other at the same moment.
        let mut net = Net::new(seed, 2, |i| vec![1 - i]);
        net.start_all();
        net.run_until(SECOND * 5, Net::is_full).expect("one link stays");
        net.run_for(SECOND * 30);
        assert!(net.is_full());
        let closed = &net.hosts[0].closed;
        assert!(closed.iter().all(|reason| *reason == CloseReason::Duplicate) && closed.len() <= 2);
    }
}

#[test]
fn two_routers_with_one_identity_do_not_outbid_each_other_without_end() {
    let mut net = Net::new(9, 4, |_| vec![0]);
    net.hosts[3].config.name = name(1);
    net.hosts[3].config.public_key = net.hosts[1].config.public_key;
    net.start_all();
    net.run_for(SECOND * 120);
    let before = net.bytes();
    let incarnation = net.mesh(1).incarnation();
    net.run_for(SECOND * 600);
    assert!(net.mesh(1).incarnation() - incarnation < 20);
    assert!((net.bytes() - before) / 600 / 4 < 1000, "{}", (net.bytes() - before) / 600 / 4);
}
