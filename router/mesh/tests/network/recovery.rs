//! Restarts, departures and partitions.

use std::time::Duration;

use weave_mesh::{ConnectionState, Event, Mesh, Side};
use weave_model::LinkId;

use crate::sim::{FACTS, Net, name};

const SECOND: Duration = Duration::from_secs(1);

fn joined(seed: u64, count: usize) -> Net {
    let mut net = Net::new(seed, count, |i| if i == 0 { vec![] } else { vec![0] });
    net.start_all();
    net.run_until(SECOND * 30, Net::is_full).expect("the mesh joins");
    net.run_for(SECOND * 30);
    net
}

fn set(net: &mut Net, host: usize, key: &str, value: &str) {
    net.with(host, |mesh, now| mesh.set_fact(FACTS, key.as_bytes(), value.into(), now)).unwrap();
}

fn fact<'a>(mesh: &'a Mesh, owner: usize, key: &str) -> Option<&'a [u8]> {
    mesh.fact(name(owner), FACTS, key.as_bytes())
}

/// How many facts a router holds, of all routers.
fn held(net: &Net, host: usize) -> usize {
    net.mesh(host).status(net.now).facts
}

#[test]
fn a_fact_is_everywhere_within_milliseconds() {
    let mut net = joined(1, 20);
    set(&mut net, 3, "web", "10.0.0.1");
    let took = net.run_until(SECOND, |net| (0..20).all(|host| fact(net.mesh(host), 3, "web").is_some()));
    assert!(took.expect("it spreads") <= Duration::from_millis(20));
    assert!((0..20).all(|host| held(&net, host) == held(&net, 3)));
    let before = held(&net, 5);
    net.with(3, |mesh, now| mesh.remove_fact(FACTS, b"web", now));
    let gone = net.run_until(SECOND, |net| (0..20).all(|host| fact(net.mesh(host), 3, "web").is_none()));
    assert!(gone.expect("the removal spreads") <= Duration::from_millis(120));
    assert_eq!(held(&net, 5) + 1, before, "what is removed is not held");
    assert!(net.hosts.iter().all(|host| host.seen.is_empty()));
}

#[test]
fn a_restarted_router_is_back_within_a_second_and_its_old_facts_are_gone() {
    for seed in 0..20 {
        let mut net = joined(seed, 12);
        let host = 1 + seed as usize % 11;
        set(&mut net, host, "old", "x");
        net.run_for(SECOND);
        net.stop(host, SECOND * 4);
        net.start(host);
        set(&mut net, host, "new", "y");
        let took = net.run_until(SECOND * 10, Net::is_full).expect("it comes back");
        assert!(took < SECOND + SECOND / 2, "seed {seed}: {took:?}");
        for other in 0..12 {
            assert_eq!(fact(net.mesh(other), host, "old"), None);
            assert_eq!(fact(net.mesh(other), host, "new"), Some(&b"y"[..]));
        }
    }
}

#[test]
fn a_restart_that_is_noticed_at_once_is_mended_within_a_second() {
    let mut net = joined(4, 12);
    net.stop(0, Duration::from_millis(5));
    net.run_for(SECOND / 10);
    net.start(0);
    let took = net.run_until(SECOND * 10, Net::is_full).expect("it comes back");
    assert!(took < SECOND * 2, "{took:?}");
}

#[test]
fn a_router_that_forgot_its_incarnation_outbids_its_former_run() {
    for seed in 0..20 {
        let mut net = joined(seed, 8);
        net.keep_incarnation = false;
        let host = seed as usize % 8;
        set(&mut net, host, "old", "x");
        net.run_for(SECOND);
        net.stop(host, SECOND / 2);
        net.start(host);
        set(&mut net, host, "new", "y");
        net.run_until(SECOND * 30, Net::is_full).expect("it comes back");
        for other in 0..8 {
            assert_eq!(fact(net.mesh(other), host, "old"), None, "seed {seed}");
            assert_eq!(fact(net.mesh(other), host, "new"), Some(&b"y"[..]), "seed {seed}");
        }
    }
}

#[test]
fn a_departed_peer_is_dropped_and_never_revived() {
    let mut net = joined(2, 10);
    set(&mut net, 7, "web", "x");
    net.run_for(SECOND);
    net.stop(7, SECOND);
    net.run_for(SECOND * 3);
    assert!(net.mesh(0).status(net.now).peers.iter().any(|peer| peer.name == name(7) && !peer.reachable));
    net.run_until(SECOND * 10, Net::is_agreed).expect("the others drop it");
    for _ in 0..600 {
        net.run_for(SECOND);
        assert!(net.is_agreed());
        assert!(net.alive().iter().all(|host| fact(net.mesh(*host), 7, "web").is_none()));
    }
    let status = net.mesh(3).status(net.now);
    assert!(status.connections.iter().all(|c| c.peer != Some(name(7))), "nobody dials it for ever");
}

#[test]
fn both_sides_of_a_partition_go_on_and_agree_again_when_it_heals() {
    for seed in 0..10 {
        let mut net = joined(seed, 10);
        let pairs: Vec<_> = (0..5).flat_map(|a| (5..10).map(move |b| (a, b))).collect();
        pairs.iter().for_each(|(a, b)| net.set_cut(*a, *b, true));
        net.run_for(SECOND * 20);
        set(&mut net, 1, "left", "x");
        set(&mut net, 8, "right", "y");
        net.run_for(SECOND * 2);
        assert!(
            (0..5).all(|host| net.hosts[host].joined.len() == 4 && fact(net.mesh(host), 1, "left").is_some())
        );
        assert!(
            (5..10)
                .all(|host| net.hosts[host].joined.len() == 4 && fact(net.mesh(host), 8, "right").is_some())
        );
        pairs.iter().for_each(|(a, b)| net.set_cut(*a, *b, false));
        net.run_until(SECOND * 60, Net::is_full).expect("the halves meet again");
        assert!(
            (0..10).all(|host| fact(net.mesh(host), 1, "left").is_some()
                && fact(net.mesh(host), 8, "right").is_some())
        );
    }
}

#[test]
fn who_was_away_longer_than_removals_are_remembered_still_learns_of_them() {
    let mut net = Net::new(5, 3, |i| if i == 2 { vec![1] } else { vec![0] });
    for host in &mut net.hosts {
        host.config.discovery = false;
        // Nobody is dropped, so that the record stays and has to be corrected.
        host.config.grace = SECOND * 100_000;
    }
    net.start_all();
    for key in ["a", "b", "c"] {
        set(&mut net, 0, key, "x");
    }
    net.run_until(SECOND * 30, |net| fact(net.mesh(2), 0, "c").is_some()).expect("it learns");
    net.set_cut(1, 2, true);
    net.run_for(SECOND * 10);
    net.with(0, |mesh, now| mesh.remove_fact(FACTS, b"b", now));
    net.run_for(SECOND * 400);
    assert!(fact(net.mesh(2), 0, "b").is_some());
    net.set_cut(1, 2, false);
    net.run_until(SECOND * 600, |net| fact(net.mesh(2), 0, "b").is_none()).expect("it learns of the removal");
    assert!(fact(net.mesh(2), 0, "a").is_some() && fact(net.mesh(2), 0, "c").is_some());
    assert_eq!(net.hosts[2].seen.len(), 2, "the shell was told as well");
}

#[test]
fn a_target_that_does_not_answer_is_shown_with_its_failure_and_the_next_try() {
    let mut net = Net::new(1, 2, |_| vec![1]);
    net.start(0);
    net.run_for(SECOND * 5);
    let status = net.mesh(0).status(net.now);
    let [connection] = &status.connections[..] else { panic!("one target: {status:?}") };
    assert_eq!((connection.state, connection.text.as_str()), (ConnectionState::Failed, "no answer"));
    assert!(connection.retry_in.is_some_and(|wait| wait < SECOND * 10));
    net.run_for(SECOND * 3600);
    let dials = net.hosts[0].dials;
    assert!((18..35).contains(&dials), "{dials} dials in an hour");
}

#[test]
fn a_forgotten_target_is_not_dialled_again() {
    let mut net = Net::new(1, 2, |i| if i == 0 { vec![1] } else { vec![] });
    net.hosts.iter_mut().for_each(|host| host.config.discovery = false);
    net.start_all();
    net.run_until(SECOND * 5, Net::is_full).expect("linked");
    let target = crate::sim::address(1).into();
    net.with(0, |mesh, now| mesh.forget(std::slice::from_ref(&target), now));
    net.run_for(SECOND * 60);
    assert!(net.hosts[0].joined.is_empty() && net.hosts[1].joined.is_empty());
    assert_eq!(net.hosts[0].dials, 1);
    net.with(0, |mesh, now| mesh.connect(&[target], true, now));
    net.run_until(SECOND * 5, Net::is_full).expect("linked again");
}

/// The peer restarts, say: it has come by itself before the dial to one of its addresses gets an answer. The link that is
/// there is not to be replaced by what the dial would lead to.
#[test]
fn a_dial_that_lasts_is_abandoned_when_its_peer_comes_by_itself() {
    for (lasts, is_abandoned) in [(100, false), (400, true)] {
        let net = Net::new(1, 2, |_| vec![1]);
        let mut mesh = Mesh::new(net.hosts[0].config.clone(), [0; 32], net.now);
        let Some(Event::Dial { dial, .. }) = mesh.poll_event() else {
            panic!("the target is dialled at once")
        };
        let mut now = net.now;
        mesh.handle_link_opened(LinkId(1), net.info(1, Side::Dialed(dial), 5), now);
        mesh.handle_link_closed(LinkId(1), "it is gone", now);
        let dial = loop {
            match mesh.poll_event() {
                Some(Event::Dial { dial, .. }) => break dial,
                Some(_) => {}
                None => {
                    now = mesh.poll_timeout().expect("it is dialled again").0;
                    mesh.handle_timeout(now);
                }
            }
        };
        now += Duration::from_millis(lasts);
        mesh.handle_link_opened(LinkId(2), net.info(1, Side::Accepted, 5), now);
        let events: Vec<Event> = std::iter::from_fn(|| mesh.poll_event()).collect();
        assert_eq!(events.contains(&Event::AbandonDial { dial }), is_abandoned, "{lasts} ms: {events:?}");
    }
}

#[test]
fn a_dial_under_way_is_abandoned_when_its_target_is_replaced() {
    let mut net = Net::new(1, 3, |_| vec![1]);
    let config = net.hosts[0].config.clone();
    let mut mesh = Mesh::new(config, [0; 32], net.now);
    let Some(Event::Dial { dial, .. }) = mesh.poll_event() else { panic!("the target is dialled at once") };
    mesh.connect(&[crate::sim::address(2).into()], true, net.now);
    assert_eq!(mesh.poll_event(), Some(Event::AbandonDial { dial }));
    assert!(
        matches!(mesh.poll_event(), Some(Event::Dial { target, .. }) if target.address() == Some(crate::sim::address(2)))
    );
    net.run_for(SECOND);
}
