//! Fewer links than peers.

use std::time::Duration;

use crate::sim::{CHANNEL, Net};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn routers_with_few_links_form_one_mesh_and_relay_for_each_other() {
    for seed in 0..10 {
        let mut net = Net::new(seed, 24, |i| if i == 0 { vec![] } else { vec![0] });
        for host in &mut net.hosts {
            host.config.conn_limit = 5;
        }
        net.start_all();
        let joined = net.run_until(SECOND * 120, Net::is_agreed).expect("one mesh");
        net.run_for(SECOND * 300);
        assert!(net.is_agreed());
        let most = (0..24).map(|host| links(&net, host)).max().unwrap();
        assert!(most <= 5, "seed {seed}: {most} links, joined in {joined:?}");
        net.with(7, |mesh, now| mesh.broadcast(CHANNEL, b"to all".to_vec(), now));
        net.run_for(SECOND);
        assert!((0..24).filter(|host| *host != 7).all(|host| net.hosts[host].received.len() == 1));
    }
}

#[test]
fn a_crowd_that_starts_at_once_settles_within_seconds_and_uses_its_links() {
    for seed in 0..3 {
        let mut net = Net::new(seed, 80, |i| if i == 0 { vec![] } else { vec![i / 4] });
        net.hosts.iter_mut().for_each(|host| host.config.conn_limit = 8);
        net.start_all();
        let settled = |net: &Net| net.is_agreed() && (0..80).all(|host| links(net, host) <= 8);
        let took = net.run_until(SECOND * 12, settled);
        assert!(
            took.is_some(),
            "seed {seed}: {:?}",
            (0..80).map(|host| links(&net, host)).collect::<Vec<_>>()
        );
        let all: usize = (0..80).map(|host| links(&net, host)).sum();
        println!("seed {seed}: settled after {took:?}, {} links for each ten routers", all / 8);
        assert!(all >= 80 * 6);
        net.run_for(SECOND * 60);
        assert!(settled(&net), "seed {seed}: it stays so");
    }
}

fn links(net: &Net, host: usize) -> usize {
    let status = net.mesh(host).status(net.now);
    status.connections.iter().filter(|c| c.address.is_some() && c.encrypted.is_some()).count()
}
