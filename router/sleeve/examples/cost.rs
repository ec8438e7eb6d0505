//! What splitting, sealing, opening and joining cost, without the kernel: nanoseconds per datagram of a burst, median of
//! many bursts, so that other work on the machine matters little.
//!
//! `cargo run --release -p weave-sleeve --example cost`
#![allow(clippy::unwrap_used, reason = "a measurement ends at the first surprise")]
#![allow(clippy::print_stdout, reason = "its output is its purpose")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::time::{Duration, Instant};

use weave_model::{LinkId, PeerName};
use weave_sleeve::{
    Datagrams, Envelope, HEADER_LEN, Header, Joiner, LinkKeys, LinkParams, Opener, Piece, RECORD_LEN, Record,
    Sealer, Splitter, Suite, TapFrame, VNET_LEN,
};

const ROUNDS: usize = 5000;
const SEGMENT: usize = 1348;

struct Slab {
    bytes: Vec<u8>,
    used: usize,
    lengths: Vec<usize>,
}

impl Datagrams for Slab {
    fn slot(&mut self, len: usize) -> Option<&mut [u8]> {
        let start = self.used;
        self.used += len;
        self.lengths.push(len);
        self.bytes.get_mut(start..start + len)
    }
}

fn main() {
    for suite in [None, Some(Suite::Aes256Gcm), Some(Suite::ChaCha20Poly1305)] {
        measure(suite);
    }
}

fn measure(suite: Option<Suite>) {
    let params = |local: u8, remote: u8| LinkParams {
        link: LinkId(1),
        peer: PeerName([2; 6]),
        remote: "192.0.2.1:6783".parse().unwrap(),
        local_index: local.into(),
        remote_index: remote.into(),
        keys: suite.map(|suite| LinkKeys { suite, send_secret: [local; 32], receive_secret: [remote; 32] }),
    };
    let mut sealer = Sealer::new(&params(1, 2), 0).unwrap();
    let mut opener = Opener::new(&params(2, 1));
    let (mut splitter, mut joiner) = (Splitter::new(), Joiner::new());
    let mut slab = Slab { bytes: vec![0; 1 << 20], used: 0, lengths: Vec::new() };
    let mut tap = burst();
    let envelope = Envelope { source: PeerName([2; 6]), destination: None, hop_limit: 9 };
    let (mut out, mut into) = (Vec::new(), Vec::new());
    let mut count = 0;
    let now = Instant::now();
    for _ in 0..ROUNDS {
        (slab.used, count) = (0, 0);
        slab.lengths.clear();
        let start = Instant::now();
        let frame = TapFrame::parse(&mut tap).unwrap();
        splitter.split(&frame, envelope, &mut sealer, 1472, now, &mut slab).unwrap();
        out.push(start.elapsed());
        let start = Instant::now();
        let mut at = 0;
        for len in &slab.lengths {
            let datagram = &mut slab.bytes[at..at + len];
            let header = Header::decode(datagram).unwrap();
            let opened = opener.open(header, datagram, now).unwrap();
            let (record, body) = Record::decode(opened.record).unwrap();
            let place = Piece { buffer: 0, start: at + HEADER_LEN + RECORD_LEN, len: body.len() };
            if !joiner.append((1, 0), &record, body, place) {
                joiner.start((1, 0), &record, body, place).unwrap();
            }
            at += len;
            count += 1;
        }
        assert_eq!(joiner.take().map(|joined| joined.pieces.len()), Some(count));
        into.push(start.elapsed());
    }
    let per = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e9 / count as f64
    };
    let name = suite.map_or_else(|| "clear".to_owned(), |suite| suite.to_string());
    println!("{name:20} {count} datagrams: out {:.0} ns, in {:.0} ns each", per(&mut out), per(&mut into));
}

/// A TCP burst over IPv4 of the longest kind.
fn burst() -> Vec<u8> {
    let payload = 47 * SEGMENT;
    let mut tap = vec![1, 1, 66, 0, (SEGMENT & 0xff) as u8, (SEGMENT >> 8) as u8, 34, 0, 16, 0];
    tap.resize(VNET_LEN + 66 + payload, 0x55);
    let frame = &mut tap[VNET_LEN..];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[20..22].copy_from_slice(&[0x40, 0]);
    frame[23] = 6;
    frame[46] = 0x80;
    tap
}
