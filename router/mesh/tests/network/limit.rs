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
        let links = |host: usize| {
            let status = net.mesh(host).status(net.now);
            status.connections.iter().filter(|c| c.address.is_some() && c.encrypted.is_some()).count()
        };
        let most = (0..24).map(links).max().unwrap();
        assert!(most <= 5, "seed {seed}: {most} links, joined in {joined:?}");
        net.with(7, |mesh, now| mesh.broadcast(CHANNEL, b"to all".to_vec(), now));
        net.run_for(SECOND);
        assert!((0..24).filter(|host| *host != 7).all(|host| net.hosts[host].received.len() == 1));
    }
}
