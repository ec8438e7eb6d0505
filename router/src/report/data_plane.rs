//! Packets, as the workers counted them.

use weave_api::{Counters, DataPlaneReport, LinkReport, Overlay};
use weave_worker::LinkCounters;

use crate::engine::Engine;

pub(super) fn build(engine: &Engine, mtu: u16) -> DataPlaneReport {
    let counters = engine.workers.counters();
    let links = counters
        .links
        .iter()
        .filter_map(|(link, of_link)| {
            let peer = engine.peer_of(*link)?;
            Some(LinkReport { peer, overlay: Overlay::Sleeve, counters: convert(of_link) })
        })
        .collect();
    let mut total = Counters::default();
    for link in counters.links.values() {
        total.tx_packets += link.sent_datagrams;
        total.tx_bytes += link.sent_bytes;
        total.rx_packets += link.received_datagrams;
        total.rx_bytes += link.received_bytes;
    }
    let drops = counters
        .drops
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(reason, n)| ((*reason).to_owned(), *n))
        .collect();
    DataPlaneReport { links, total, mtu, drops }
}

fn convert(link: &LinkCounters) -> Counters {
    Counters {
        tx_packets: link.sent_datagrams,
        tx_bytes: link.sent_bytes,
        rx_packets: link.received_datagrams,
        rx_bytes: link.received_bytes,
        rx_dropped: 0,
    }
}
