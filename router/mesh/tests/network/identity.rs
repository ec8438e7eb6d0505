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
fn a_second_key_for_a_live_name_is_refused_and_both_sides_are_told() {
    for (seed, target) in [(0, 1), (1, 2)] {
        // Host 3 has the name of host 1. It dials host 1's neighbour, or host 1 itself.
        let mut net = Net::new(seed, 4, |i| if i == 3 { vec![target] } else { vec![0] });
        net.hosts[3].config.name = name(1);
        (0..3).for_each(|host| net.start(host));
        net.run_until(SECOND * 10, Net::is_full).expect("three join");
        net.start(3);
        net.run_for(SECOND * 60);
        assert!(net.hosts[3].joined.is_empty());
        assert_eq!(net.hosts[3].dials, 1, "not retried soon");
        let status = net.mesh(3).status(net.now);
        assert_eq!(status.connections[0].text, "peer name is taken by another router");
        assert!(status.connections[0].retry_in.is_some());
        assert_eq!(status.collisions[0].public_key, net.hosts[1].config.public_key);
        assert_eq!(net.mesh(1).status(net.now).collisions[0].public_key, net.hosts[3].config.public_key);
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
    let shown = |host: usize| -> Vec<_> {
        let collisions = net.mesh(host).status(net.now).collisions;
        collisions.into_iter().map(|c| (c.name, c.public_key)).collect()
    };
    for (host, other) in [(1, 4), (2, 4), (4, 1), (5, 1)] {
        assert_eq!(
            shown(host),
            [(name(1), net.hosts[other].config.public_key)],
            "host {host} sees both claims"
        );
    }
    assert_eq!(net.hosts[0].joined.len(), 4, "the others meet");
    let before = net.bytes();
    net.run_for(SECOND * 100);
    let cost = (net.bytes() - before) / 100 / 6;
    println!("a lasting disagreement costs {cost} B/s a router");
    assert!(cost < 100, "the disagreement stays cheap");
}

#[test]
fn a_dispute_that_is_over_is_not_shown_for_ever() {
    let mut net = Net::new(0, 4, |i| if i == 3 { vec![2] } else { vec![0] });
    net.hosts[3].config.name = name(1);
    (0..3).for_each(|host| net.start(host));
    net.run_until(SECOND * 10, Net::is_full).expect("three join");
    net.start(3);
    let disputes = |net: &Net, host: usize| net.mesh(host).status(net.now).collisions.len();
    for _ in 0..6 {
        net.run_for(SECOND * 1000);
        assert_eq!([1, 2, 3].map(|host| disputes(&net, host)), [1; 3], "both and whom one dials");
    }
    let dials = net.hosts[3].dials;
    assert!((12..40).contains(&dials), "{dials} dials in 100 minutes");
    net.stop(3, SECOND);
    net.run_for(SECOND * 1500);
    assert_eq!([0, 1, 2].map(|host| disputes(&net, host)), [0; 3]);
}

#[test]
fn a_name_that_is_used_anew_is_free_when_the_ghost_of_its_former_router_is_gone() {
    for seed in 0..20 {
        // Host 2 and, later, host 3 have one name. 0 and 1 do not see each other while 2 dies, which 1 notices late.
        let mut net = Net::new(seed, 5, |i| if i == 3 { vec![0] } else { vec![0, 1] });
        net.hosts[3].config.name = name(2);
        [0, 1, 2, 4].into_iter().for_each(|host| net.start(host));
        net.run_until(SECOND * 30, Net::is_full).expect("four join");
        [0, 4].into_iter().for_each(|near| net.set_cut(near, 1, true));
        net.run_for(SECOND * 20);
        net.stop_for(2, |neighbour| if neighbour == 1 { SECOND * 100 } else { SECOND });
        net.run_for(SECOND * 20);
        net.start(3);
        net.run_for(SECOND * 10);
        assert!(net.hosts[0].joined.contains_key(&name(2)), "the new one is in");
        [0, 4].into_iter().for_each(|near| net.set_cut(near, 1, false));
        let took = net.run_until(SECOND * 400, Net::is_agreed);
        assert!(took.is_some(), "seed {seed}: the mesh stays split");
        for host in [0, 1, 4] {
            let status = net.mesh(host).status(net.now);
            let peer = status.peers.iter().find(|peer| peer.name == name(2)).unwrap();
            assert_eq!(peer.public_key, net.hosts[3].config.public_key, "seed {seed}, host {host}");
            assert!(status.collisions.is_empty(), "seed {seed}, host {host}: nothing is in dispute");
        }
    }
}

#[test]
fn a_router_that_was_refused_because_of_a_ghost_is_let_in_later() {
    for seed in 0..10 {
        let mut net = Net::new(seed, 3, |i| if i == 2 { vec![0] } else { vec![] });
        net.hosts[0].config.targets = vec![address(1).into()];
        net.hosts[2].config.name = name(1);
        (0..2).for_each(|host| net.start(host));
        net.run_until(SECOND * 10, Net::is_full).expect("two join");
        // Its store is lost, so it comes back with another key, before anybody has missed it.
        net.stop(1, SECOND * 25);
        net.start(2);
        net.run_for(SECOND * 5);
        assert_eq!(net.hosts[2].closed, [CloseReason::NameCollision]);
        net.run_until(SECOND * 240, Net::is_agreed).expect("it is let in");
    }
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
