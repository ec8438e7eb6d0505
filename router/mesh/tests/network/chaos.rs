//! Bad days, from a seed: when it is quiet again, everybody agrees with everybody and with what really happened.

use std::{collections::BTreeMap, time::Duration};

use crate::sim::{FACTS, Net, name};

const SECOND: Duration = Duration::from_secs(1);

/// What each router said of itself and did not take back.
type Truth = BTreeMap<usize, BTreeMap<Vec<u8>, Vec<u8>>>;

fn bad_day(seed: u64, loses_stores: bool) -> (Net, Truth) {
    let count = 3 + seed as usize % 8;
    let mut net = Net::new(seed, count, move |i| match seed % 3 {
        0 => vec![0],
        1 => vec![(i + 1) % 11 % count],
        _ => vec![i / 2, 0],
    });
    net.keep_incarnation = !seed.is_multiple_of(4);
    let limit = if seed % 5 == 1 { 3 } else { 0 };
    net.hosts.iter_mut().for_each(|host| host.config.conn_limit = limit);
    net.start_all();
    let mut truth = Truth::new();
    for _ in 0..60 {
        let (host, other) = (net.chance.index(count), net.chance.index(count));
        let is_up = net.hosts[host].mesh.is_some();
        match net.chance.below(10) {
            0..=3 if is_up => {
                let (key, value) = (vec![net.chance.below(6) as u8], vec![net.chance.below(200) as u8]);
                net.with(host, |mesh, now| mesh.set_fact(FACTS, &key, value.clone(), now)).unwrap();
                truth.entry(host).or_default().insert(key, value);
            }
            4 | 5 if is_up => {
                let key = vec![net.chance.below(6) as u8];
                net.with(host, |mesh, now| mesh.remove_fact(FACTS, &key, now));
                truth.entry(host).or_default().remove(&key);
            }
            6 if is_up => {
                let notice = Duration::from_millis(net.chance.below(4000));
                net.stop(host, notice);
                truth.remove(&host);
            }
            7 if !is_up => {
                if loses_stores && net.chance.below(2) == 0 {
                    net.lose_store(host);
                }
                net.start(host);
            }
            8 if host != other => net.set_cut(host, other, true),
            9 if host != other => net.set_cut(host, other, false),
            _ => {}
        }
        let pause = match net.chance.below(4) {
            0 => net.chance.below(5),
            1 | 2 => net.chance.below(300),
            _ => net.chance.below(8000),
        };
        net.run_for(Duration::from_millis(pause));
    }
    (net, truth)
}

fn check(seed: u64, loses_stores: bool) -> Duration {
    let (mut net, truth) = bad_day(seed, loses_stores);
    let count = net.hosts.len();
    for (a, b) in (0..count).flat_map(|a| (0..a).map(move |b| (a, b))) {
        net.set_cut(a, b, false);
    }
    (0..count)
        .filter(|host| net.hosts[*host].mesh.is_none())
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|h| net.start(h));
    let healed = net.run_until(SECOND * 900, Net::is_agreed);
    let healed = healed.unwrap_or_else(|| panic!("seed {seed}: no agreement"));
    net.run_for(SECOND * 30);
    assert!(net.is_agreed(), "seed {seed}: agreement does not last");
    for host in 0..count {
        let mut seen = BTreeMap::new();
        let others = truth.iter().filter(|(owner, _)| **owner != host);
        for (owner, facts) in others {
            seen.extend(facts.iter().map(|(key, value)| ((name(*owner), key.clone()), value.clone())));
        }
        let told: BTreeMap<_, _> = net.hosts[host]
            .seen
            .iter()
            .map(|((peer, key), value)| ((*peer, key.to_vec()), value.to_vec()))
            .collect();
        assert_eq!(told, seen, "seed {seed}, host {host}");
        let listed = net.mesh(host).facts(FACTS).filter(|(owner, _, _)| *owner != name(host)).count();
        assert_eq!(listed, seen.len(), "seed {seed}, host {host}");
        let first = net.mesh(0).status(net.now).peers;
        assert_eq!(net.mesh(host).status(net.now).peers, first, "seed {seed}, host {host}: one topology");
    }
    healed
}

#[test]
fn after_a_bad_day_all_agree_with_each_other_and_with_the_truth() {
    check_all(200, false);
}

#[test]
fn routers_that_come_back_under_their_names_with_other_keys_are_taken_in() {
    check_all(200, true);
}

fn check_all(seeds: u64, loses_stores: bool) {
    let mut times: Vec<(Duration, u64)> = (0..seeds).map(|seed| (check(seed, loses_stores), seed)).collect();
    times.sort();
    let (median, worst) = (times[times.len() / 2].0, times[times.len() - 1]);
    println!("agreement after {median:?} (median), {worst:?} (worst, with its seed)");
}
