use std::time::Duration;
use crate::sim::{Net};
#[test]
#[ignore]
fn diag() {
    let count = 300;
    let mut net = Net::new(1, count, |i| if i == 0 { vec![] } else { vec![i / 4] });
    net.hosts.iter_mut().for_each(|host| host.config.conn_limit = 16);
    net.start_all();
    for step in 0..60 {
        net.run_for(Duration::from_millis(if step < 10 { 500 } else { 1000 }));
        let mut closed = std::collections::BTreeMap::new();
        for h in &mut net.hosts { for r in h.closed.drain(..) { *closed.entry(r).or_insert(0) += 1; } }
        let joined: usize = net.hosts.iter().map(|h| h.joined.len() + 1).min().unwrap();
        let mut fp = std::collections::BTreeMap::new();
        for h in 0..count { *fp.entry(net.mesh(h).fingerprint()).or_insert(0) += 1; }
        let links: usize = (0..count).map(|h| net.mesh(h).counters().mismatches as usize).sum();
        let dials: u64 = net.hosts.iter().map(|h| h.dials).sum();
        println!("step {step}: {} kB dials {dials} min joined {joined} views {} biggest {} mismatches {links} {closed:?}", net.bytes()/1000, fp.len(), fp.values().max().unwrap());
        if fp.len() == 1 && joined == count { break }
    }
}
