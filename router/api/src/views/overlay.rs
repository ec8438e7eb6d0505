//! `weave status overlay`: what went over which link, and what was dropped.

use std::fmt::Write as _;

use crate::DataPlaneReport;

/// MTU, traffic of each link, and drops by reason.
#[must_use]
pub fn overlay(data_plane: &DataPlaneReport) -> String {
    let mut text = format!("mtu {}\n", data_plane.mtu);
    for link in &data_plane.links {
        let c = &link.counters;
        let _ = writeln!(
            text,
            "{} {:<6} sent {} in {} packets, received {} in {} packets, dropped {}",
            link.peer,
            link.overlay,
            bytes(c.tx_bytes),
            c.tx_packets,
            bytes(c.rx_bytes),
            c.rx_packets,
            c.rx_dropped
        );
    }
    for (reason, count) in data_plane.drops.iter().filter(|(_, count)| **count > 0) {
        let _ = writeln!(text, "dropped {count}: {reason}");
    }
    text
}

/// In the largest unit that leaves a number of one or more: `712B`, `1.4KiB`, `3.0GiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count}B");
    }
    let mut tenths = count.saturating_mul(10) / 1024;
    for unit in UNITS {
        if tenths < 10_240 || unit == UNITS[4] {
            return format!("{}.{}{unit}", tenths / 10, tenths % 10);
        }
        tenths /= 1024;
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Counters, LinkReport, Overlay};

    #[test]
    fn bytes_are_shown_in_a_unit_that_fits() {
        for (count, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (1536, "1.5KiB"),
            (3 << 30, "3.0GiB"),
            (5 << 50, "5.0PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn links_and_drops_take_a_line_each() {
        let counters = Counters { tx_packets: 2, tx_bytes: 2048, rx_packets: 1, rx_bytes: 99, rx_dropped: 0 };
        let peer = weave_model::PeerName([2, 0, 0, 0, 0, 2]);
        let report = DataPlaneReport {
            links: vec![LinkReport { peer, overlay: Overlay::Sleeve, counters }],
            mtu: 1400,
            drops: [("replayed".to_owned(), 3), ("spoofed".to_owned(), 0)].into(),
            total: counters,
        };
        let expected = "mtu 1400\n02:00:00:00:00:02 sleeve sent 2.0KiB in 2 packets, received 99B in 1 packets, \
                        dropped 0\ndropped 3: replayed\n";
        assert_eq!(overlay(&report), expected);
    }
}
