//! What joining and staying costs, in messages of the mesh.

use std::time::Duration;

use crate::sim::Net;

struct Cost {
    joined: Duration,
    bytes: u64,
    steady: u64,
}

/// All start at once and are given the same one target.
fn join(count: usize, seed: u64) -> Cost {
    let mut net = Net::new(seed, count, |_| vec![0]);
    net.start_all();
    let joined = net.run_until(Duration::from_secs(60), Net::is_full).expect("the mesh joins");
    let bytes = net.bytes();
    net.run_for(Duration::from_secs(60));
    let before = net.hosts.iter().map(|host| host.bytes).collect::<Vec<_>>();
    net.run_for(Duration::from_secs(60));
    let steady = net.hosts.iter().zip(before).map(|(host, before)| (host.bytes - before) / 60).max().unwrap();
    assert!(net.is_full());
    let duplicates: usize = net.hosts.iter().map(|host| host.closed.len()).sum();
    println!(
        "{count} routers, seed {seed}: joined in {joined:?}, {} kB in all, then {steady} B/s at most; {} dials, {duplicates} closed",
        bytes / 1000,
        net.hosts.iter().map(|host| host.dials).sum::<u64>(),
    );
    Cost { joined, bytes, steady }
}

#[test]
fn twenty_routers_join_within_bounds() {
    for seed in 0..5 {
        let cost = join(20, seed);
        assert!(cost.joined < Duration::from_secs(3));
        assert!(cost.bytes < 1_500_000);
        assert!(cost.steady < 100);
    }
}

#[test]
fn forty_routers_join_within_bounds() {
    for seed in 0..5 {
        let cost = join(40, seed);
        assert!(cost.joined < Duration::from_secs(3));
        assert!(cost.bytes < 6_000_000);
        assert!(cost.steady < 150);
    }
}

/// By hand: `cargo test -p weave-mesh --release --test network -- --ignored --nocapture hundreds`.
#[test]
#[ignore = "takes minutes"]
fn hundreds_of_routers_with_few_links_each_join() {
    for count in [100, 300] {
        let mut net = Net::new(1, count, |i| if i == 0 { vec![] } else { vec![i / 4] });
        net.hosts.iter_mut().for_each(|host| host.config.conn_limit = 16);
        net.start_all();
        let agreed = net.run_until(Duration::from_secs(120), Net::is_agreed);
        println!("{count} routers, 16 links each: agreed after {agreed:?}, {} kB in all", net.bytes() / 1000);
        net.run_for(Duration::from_secs(60));
        let before = net.bytes();
        net.run_for(Duration::from_secs(60));
        println!(
            "then {} B/s a router; agreed: {}",
            (net.bytes() - before) / 60 / count as u64,
            net.is_agreed()
        );
    }
}
