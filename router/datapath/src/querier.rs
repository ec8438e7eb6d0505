//! Asking the containers of this host which groups they listen to (RFC 3376 section 4.1, RFC 3810 section 5.1).
//!
//! The bridge delivers a group only to those who joined it, as long as somebody asks. The kernel's own querier would ask
//! through every port, the tunnels too, and so every host would ask every other's containers: a cost that grows with
//! the square of the mesh, for nothing, because every host gets every group anyway. So the router asks, through the one
//! port from which nothing goes on to a tunnel. When it is away for long, the bridge delivers every group to everybody.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use weave_model::{Mac, checksum};

/// Between two questions (RFC 3376 section 8.2). Bridges forget a querier after twice that.
const INTERVAL: Duration = Duration::from_secs(125);
/// Between the first two questions (RFC 3376 section 8.6).
const STARTUP_INTERVAL: Duration = Duration::from_secs(31);
/// Within what time listeners answer. Bridges trust what they know of listeners when the first answers had that long.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// When to ask, and what.
#[derive(Debug)]
pub struct Querier {
    frames: [Vec<u8>; 2],
    asked: u32,
    due: Instant,
}

impl Querier {
    /// Asks as the station `mac`, which nobody else may be, from `now` on.
    #[must_use]
    pub fn new(mac: Mac, now: Instant) -> Self {
        Self { frames: [igmp_query(mac), mld_query(mac)], asked: 0, due: now }
    }

    /// When to come back.
    #[must_use]
    pub const fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// The frames to be delivered to the containers of this host now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<&[Vec<u8>; 2]> {
        if now < self.due {
            return None;
        }
        self.asked = self.asked.saturating_add(1);
        self.due = now + if self.asked == 1 { STARTUP_INTERVAL } else { INTERVAL };
        Some(&self.frames)
    }
}

/// An IGMPv3 general query, from nobody's address, so that a real multicast router wins every election (RFC 4541
/// section 2.1.1).
fn igmp_query(mac: Mac) -> Vec<u8> {
    const ETHERTYPE: [u8; 2] = [0x08, 0x00];
    const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
    let tenths = u8::try_from(ANSWER_WITHIN.as_millis() / 100).unwrap_or(u8::MAX);
    let mut query = [0x11, tenths, 0, 0, 0, 0, 0, 0, robustness(), interval_code(), 0, 0];
    put_checksum(&mut query, 2, &[]);
    // Precedence "internetwork control", not to be fragmented, one hop.
    let mut header = [[0x46, 0xc0, 0, 36, 0, 0, 0x40, 0, 1, 2, 0, 0].as_slice(), &[0; 4]].concat();
    header.extend(ALL_SYSTEMS.octets());
    header.extend(ROUTER_ALERT);
    put_checksum(&mut header, 10, &[]);
    let to = [0x01, 0x00, 0x5e, 0, 0, 1];
    [to.as_slice(), &mac.0, &ETHERTYPE, &header, &query].concat()
}

/// An MLDv2 general query.
fn mld_query(mac: Mac) -> Vec<u8> {
    const ETHERTYPE: [u8; 2] = [0x86, 0xdd];
    const ICMPV6: u8 = 58;
    const HOP_BY_HOP: [u8; 8] = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    let from = link_local(mac).octets();
    let to = ALL_NODES.octets();
    let milliseconds = u16::try_from(ANSWER_WITHIN.as_millis()).unwrap_or(u16::MAX).to_be_bytes();
    let mut query = [0u8; 28];
    query[0] = 130;
    query[4..6].copy_from_slice(&milliseconds);
    query[24] = robustness();
    query[25] = interval_code();
    let pseudo = [from.as_slice(), &to, &[0, 0, 0, 28, 0, 0, 0, ICMPV6]].concat();
    put_checksum(&mut query, 2, &pseudo);
    let header = [[0x60, 0, 0, 0, 0, 36, 0, 1].as_slice(), &from, &to].concat();
    let mac_to = [0x33, 0x33, 0, 0, 0, 1];
    [mac_to.as_slice(), &mac.0, &ETHERTYPE, &header, &HOP_BY_HOP, &query].concat()
}

/// The querier's robustness variable: how many answers may be lost.
const fn robustness() -> u8 {
    2
}

/// The interval in seconds, which stands for itself below 128.
fn interval_code() -> u8 {
    u8::try_from(INTERVAL.as_secs()).unwrap_or(127)
}

/// The address that follows from an Ethernet address (RFC 4291 appendix A).
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0.map(u16::from);
    Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
}

/// Puts the checksum of `before` and `bytes` at `place` of the latter.
fn put_checksum(bytes: &mut [u8], place: usize, before: &[u8]) {
    let sum = checksum::of(&[before, bytes]);
    bytes[place..place + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    #[expect(clippy::disallowed_methods, reason = "where time begins is of no importance here")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn questions_are_asked_twice_at_the_start_and_then_in_their_interval() {
        let start = origin();
        let mut querier = Querier::new(MAC, start);
        let mut asked = Vec::new();
        for second in 0..400 {
            let now = start + Duration::from_secs(second);
            if querier.poll_transmit(now).is_some() {
                asked.push(second);
            }
            assert!(querier.poll_timeout() > now);
        }
        assert_eq!(asked, [0, 31, 156, 281]);
    }

    #[test]
    fn a_question_by_igmp_is_whole_and_its_checksums_verify() {
        let frame = igmp_query(MAC);
        assert_eq!(frame.len(), 14 + 24 + 12);
        assert_eq!(frame[..6], [1, 0, 0x5e, 0, 0, 1]);
        assert_eq!(frame[6..12], MAC.0);
        let (header, query) = frame[14..].split_at(24);
        assert_eq!(checksum::of(&[header]), 0);
        assert_eq!(checksum::of(&[query]), 0);
        assert_eq!(u16::from_be_bytes([header[2], header[3]]), 36, "the length that the header tells");
    }

    #[test]
    fn a_question_by_mld_comes_from_a_link_local_address_and_its_checksum_verifies() {
        let frame = mld_query(MAC);
        assert_eq!(frame.len(), 14 + 40 + 8 + 28);
        let (header, rest) = frame[14..].split_at(40);
        assert_eq!(u16::from_be_bytes([header[4], header[5]]), 36, "the length that the header tells");
        assert_eq!(header[8..24], "fe80::ff:fe00:7".parse::<Ipv6Addr>().unwrap().octets());
        let pseudo = [&header[8..40], &[0, 0, 0, 28, 0, 0, 0, 58]].concat();
        assert_eq!(checksum::of(&[&pseudo, &rest[8..]]), 0);
    }
}
