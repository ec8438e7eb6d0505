//! What the tests share: packets, a naive segmenter, a judge of what may be written to a TAP, and a tunnel.
#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::{Duration, Instant};

use weave_model::{LinkId, PeerName};
use weave_sleeve::{
    Datagrams, Discard, Envelope, HEADER_LEN, Header, Joiner, Kind, LinkKeys, LinkParams, Opener, Piece,
    RECORD_LEN, Reassembler, Record, Sealer, Splitter, Suite, TapFrame, VNET_LEN, VirtioHeader,
};

pub(crate) const LEFT: PeerName = PeerName([2, 0, 0, 0, 0, 1]);
pub(crate) const RIGHT: PeerName = PeerName([2, 0, 0, 0, 0, 2]);

/// The kind of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flavour {
    pub(crate) is_ipv6: bool,
    pub(crate) is_tcp: bool,
    pub(crate) vlan_tags: usize,
    pub(crate) option_words: usize,
    pub(crate) flags: u8,
}

/// One link, one way, with everything that a frame passes.
pub(crate) struct Tunnel {
    pub(crate) sealer: Sealer,
    pub(crate) splitter: Splitter,
    pub(crate) opener: Opener,
    pub(crate) joiner: Joiner,
    pub(crate) reassembler: Reassembler,
    pub(crate) now: Instant,
}

/// Datagrams as they left.
#[derive(Default)]
pub(crate) struct Wire(pub(crate) Vec<Vec<u8>>);

impl Datagrams for Wire {
    fn slot(&mut self, len: usize) -> Option<&mut [u8]> {
        self.0.push(vec![0xee; len]);
        self.0.last_mut().map(Vec::as_mut_slice)
    }
}

impl Tunnel {
    pub(crate) fn new(suite: Option<Suite>) -> Self {
        Self {
            sealer: Sealer::new(&params(suite, 1, 2), 0).unwrap(),
            splitter: Splitter::new(),
            opener: Opener::new(&params(suite, 2, 1)),
            joiner: Joiner::new(),
            reassembler: Reassembler::new(),
            now: now(),
        }
    }

    /// Splits and seals what a TAP gave.
    pub(crate) fn send(&mut self, tap: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Discard> {
        let mut wire = Wire::default();
        let mut tap = tap.to_vec();
        let frame = TapFrame::parse(&mut tap)?;
        let envelope = Envelope { source: LEFT, destination: Some(RIGHT), hop_limit: 9 };
        self.splitter.split(&frame, envelope, &mut self.sealer, limit, self.now, &mut wire)?;
        Ok(wire.0)
    }

    /// Opens and joins one batch; gives what would be written to the TAP, and why the rest is not.
    pub(crate) fn receive(&mut self, mut batch: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, Vec<Discard>) {
        let (mut written, mut discards) = (Vec::new(), Vec::new());
        for buffer in 0..batch.len() {
            if let Err(reason) = self.receive_one(&mut batch, buffer, &mut written) {
                discards.push(reason);
            }
        }
        self.finish(&batch, &mut written);
        (written, discards)
    }

    fn receive_one(
        &mut self,
        batch: &mut [Vec<u8>],
        buffer: usize,
        written: &mut Vec<Vec<u8>>,
    ) -> Result<(), Discard> {
        let header = Header::decode(&batch[buffer])?;
        let opened = self.opener.open(header, &mut batch[buffer], self.now)?;
        let (record, body) = Record::decode(opened.record)?;
        let body = body.to_vec();
        let place = Piece { buffer, start: HEADER_LEN + RECORD_LEN, len: body.len() };
        let stream = (2, header.lane);
        match record.kind {
            Kind::Burst => {
                if self.joiner.append(stream, &record, &body, place) {
                    return Ok(());
                }
                self.finish(batch, written);
                self.joiner.start(stream, &record, &body, place)
            }
            Kind::Frame => {
                self.finish(batch, written);
                written.push(with_header(VirtioHeader::of_frame(record.has_open_checksum, &body)?, &body));
                Ok(())
            }
            Kind::Fragment => {
                let key = (stream, record.number);
                if let Some(whole) = self.reassembler.insert(key, &record, &body, self.now)? {
                    let header = VirtioHeader::of_frame(whole.record.has_open_checksum, &whole.frame)?;
                    written.push(with_header(header, &whole.frame));
                }
                Ok(())
            }
            Kind::Probe | Kind::ProbeAck => Ok(()),
        }
    }

    fn finish(&mut self, batch: &[Vec<u8>], written: &mut Vec<Vec<u8>>) {
        if let Some(joined) = self.joiner.take() {
            let mut frame = with_header(joined.header, joined.head);
            for piece in joined.pieces {
                frame.extend_from_slice(&batch[piece.buffer][piece.start..piece.start + piece.len]);
            }
            written.push(frame);
        }
    }
}

pub(crate) fn params(suite: Option<Suite>, local: u8, remote: u8) -> LinkParams {
    LinkParams {
        link: LinkId(1),
        peer: RIGHT,
        remote: "192.0.2.1:6783".parse().unwrap(),
        local_index: local.into(),
        remote_index: remote.into(),
        keys: suite.map(|suite| LinkKeys { suite, send_secret: [local; 32], receive_secret: [remote; 32] }),
    }
}

fn with_header(header: VirtioHeader, frame: &[u8]) -> Vec<u8> {
    [&header.encode()[..], frame].concat()
}

/// A burst as a TAP gives it: one set of headers over all of the payload, checksums open.
pub(crate) fn burst(flavour: Flavour, payload: &[u8], segment: u16) -> Vec<u8> {
    let head = headers(flavour, payload.len());
    let kind = match (flavour.is_tcp, flavour.is_ipv6) {
        (true, false) => 1,
        (true, true) => 4,
        (false, _) => 5,
    };
    let kind = if flavour.is_tcp && flavour.flags & 0x80 != 0 { kind | 0x80 } else { kind };
    let transport = transport_of(flavour);
    let mut tap = vec![1, kind];
    tap.extend_from_slice(&(head.len() as u16).to_le_bytes());
    tap.extend_from_slice(&segment.to_le_bytes());
    tap.extend_from_slice(&(transport as u16).to_le_bytes());
    tap.extend_from_slice(&(if flavour.is_tcp { 16u16 } else { 6 }).to_le_bytes());
    [&tap[..], &head, payload].concat()
}

/// A single packet as a TAP gives it, its checksum open or complete.
pub(crate) fn packet(flavour: Flavour, payload: &[u8], has_open_checksum: bool) -> Vec<u8> {
    let mut tap = burst(flavour, payload, 0);
    tap[1..6].fill(0);
    if has_open_checksum {
        return tap;
    }
    let complete = segments(&tap).remove(0);
    [&[0; VNET_LEN][..], &complete].concat()
}

/// Ethernet to transport header, the transport checksum holding the sum of the pseudo-header.
fn headers(flavour: Flavour, payload: usize) -> Vec<u8> {
    let mut head = vec![2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa];
    for _ in 0..flavour.vlan_tags {
        head.extend([0x81, 0, 0, 7]);
    }
    let options = flavour.option_words * 4;
    let transport = if flavour.is_tcp { 20 + options } else { 8 } + payload;
    let protocol = if flavour.is_tcp { 6 } else { 17 };
    if flavour.is_ipv6 {
        head.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        head.extend((transport as u16).to_be_bytes());
        head.extend([protocol, 64]);
        head.extend([0xfd; 32]);
    } else {
        head.extend([8, 0, 0x45, 0]);
        head.extend((20 + transport as u16).to_be_bytes());
        head.extend([0xff, 0xf0, 0x40, 0, 64, protocol, 0, 0, 10, 32, 0, 1, 10, 32, 0, 2]);
        let at = head.len() - 20;
        let sum = !naive_sum(&head[at..]);
        head[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
    }
    let start = head.len();
    head.extend([0x1f, 0x90, 0x30, 0x39]);
    if flavour.is_tcp {
        head.extend([0xff, 0xff, 0xff, 0, 0, 0, 0, 9]);
        head.extend([((5 + flavour.option_words) as u8) << 4, flavour.flags, 1, 0, 0, 0, 0, 0]);
        head.extend(std::iter::repeat_n(1, options));
    } else {
        head.extend((transport as u16).to_be_bytes());
        head.extend([0, 0]);
    }
    let field = start + if flavour.is_tcp { 16 } else { 6 };
    let sum = pseudo(&head, start, flavour.is_ipv6, protocol, transport);
    head[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    head
}

fn transport_of(flavour: Flavour) -> usize {
    14 + flavour.vlan_tags * 4 + if flavour.is_ipv6 { 40 } else { 20 }
}

fn pseudo(head: &[u8], transport: usize, is_ipv6: bool, protocol: u8, length: usize) -> u16 {
    let addresses = if is_ipv6 { &head[transport - 32..transport] } else { &head[transport - 8..transport] };
    naive_sum(&[addresses, &(length as u32).to_be_bytes(), &[0, protocol]].concat())
}

/// What the receiving station gets in the end: each written frame cut into packets, every checksum complete.
pub(crate) fn segments(tap: &[u8]) -> Vec<Vec<u8>> {
    let (header, frame) = tap.split_at(VNET_LEN);
    if header[0] & 1 == 0 {
        return vec![frame.to_vec()];
    }
    let start = usize::from(u16::from_le_bytes([header[6], header[7]]));
    let field = start + usize::from(u16::from_le_bytes([header[8], header[9]]));
    let segment = usize::from(u16::from_le_bytes([header[4], header[5]]));
    if header[1] == 0 {
        let mut frame = frame.to_vec();
        complete(&mut frame, start, field);
        return vec![frame];
    }
    let is_tcp = header[1] & 0x7f != 5;
    let head_len = start + if is_tcp { usize::from(frame[start + 12] >> 4) * 4 } else { 8 };
    let (head, payload) = frame.split_at(head_len);
    let mut network = 14;
    while head[network - 2..network] == [0x81, 0] {
        network += 4;
    }
    let is_ipv6 = head[network] >> 4 == 6;
    let pieces: Vec<&[u8]> = payload.chunks(segment).collect();
    let count = pieces.len();
    let cut = |(index, piece): (usize, &&[u8])| {
        let mut packet = [head, piece].concat();
        let length = packet.len() - start;
        if is_ipv6 {
            let value = (packet.len() - network - 40) as u16;
            packet[network + 4..network + 6].copy_from_slice(&value.to_be_bytes());
        } else {
            let value = (packet.len() - network) as u16;
            packet[network + 2..network + 4].copy_from_slice(&value.to_be_bytes());
            let id =
                u16::from_be_bytes([packet[network + 4], packet[network + 5]]).wrapping_add(index as u16);
            packet[network + 4..network + 6].copy_from_slice(&id.to_be_bytes());
            packet[network + 10..network + 12].fill(0);
            let sum = !naive_sum(&packet[network..start]);
            packet[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
        }
        if is_tcp {
            let sequence = u32::from_be_bytes(packet[start + 4..start + 8].try_into().unwrap());
            let sequence = sequence.wrapping_add((index * segment) as u32);
            packet[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
            if index > 0 {
                packet[start + 13] &= !0x80;
            }
            if index + 1 < count {
                packet[start + 13] &= !0x09;
            }
        } else {
            packet[start + 4..start + 6].copy_from_slice(&(length as u16).to_be_bytes());
        }
        let sum = pseudo(&packet, start, is_ipv6, if is_tcp { 6 } else { 17 }, length);
        packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        complete(&mut packet, start, field);
        packet
    };
    pieces.iter().enumerate().map(cut).collect()
}

fn complete(frame: &mut [u8], start: usize, field: usize) {
    let sum = !naive_sum(&frame[start..]);
    let sum = if sum == 0 && field - start == 6 { 0xffff } else { sum };
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whether a station would take this packet: lengths and checksums are right.
pub(crate) fn assert_sound(packet: &[u8]) {
    let mut network = 14;
    while packet[network - 2..network] == [0x81, 0] {
        network += 4;
    }
    let (is_ipv6, start) =
        if packet[network] >> 4 == 6 { (true, network + 40) } else { (false, network + 20) };
    let length = packet.len() - start;
    if is_ipv6 {
        assert_eq!(u16::from_be_bytes([packet[network + 4], packet[network + 5]]) as usize, length);
    } else {
        assert_eq!(u16::from_be_bytes([packet[network + 2], packet[network + 3]]) as usize, length + 20);
        assert_eq!(naive_sum(&packet[network..start]), 0xffff, "IPv4 checksum");
    }
    let protocol = if is_ipv6 { packet[network + 6] } else { packet[network + 9] };
    let pseudo = pseudo(packet, start, is_ipv6, protocol, length);
    let sum = naive_sum(&[&pseudo.to_be_bytes()[..], &packet[start..]].concat());
    assert_eq!(sum, 0xffff, "transport checksum");
}

/// What may be written to a TAP: the rules of `virtio_net_hdr_to_skb`, and those that it should have.
pub(crate) fn assert_writable(tap: &[u8]) {
    let (header, frame) = tap.split_at(VNET_LEN);
    let word = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    assert!((14..=65_535 + 22).contains(&frame.len()), "{} bytes", frame.len());
    assert!(matches!(header[0], 0 | 1));
    if header[1] == 0 {
        assert_eq!(word(4), 0);
    }
    if header[0] == 0 {
        assert_eq!(header[1..10], [0; 9]);
        return;
    }
    let (start, offset) = (word(6), word(8));
    assert!(start + offset + 2 <= frame.len());
    let mut network = 14;
    while matches!(frame[network - 2..network], [0x81, 0] | [0x88, 0xa8]) && network < 22 {
        network += 4;
    }
    let is_ipv6 = frame[network - 2..network] == [0x86, 0xdd];
    assert!(is_ipv6 || frame[network - 2..network] == [8, 0]);
    assert!(frame.len() - network <= 65_535);
    assert!(matches!(offset, 6 | 16));
    if header[1] != 0 {
        assert!(word(4) > 0 && word(2) <= frame.len() && word(2) > start);
        let expected = match (offset, is_ipv6) {
            (16, false) => 1,
            (16, true) => 4,
            _ => 5,
        };
        assert_eq!(header[1] & 0x7f, expected);
        let length = usize::from(u16::from_be_bytes(if is_ipv6 {
            [frame[network + 4], frame[network + 5]]
        } else {
            [frame[network + 2], frame[network + 3]]
        }));
        assert_eq!(length + if is_ipv6 { 40 } else { 0 }, frame.len() - network);
    }
}

#[expect(clippy::disallowed_methods, reason = "a starting point; what follows is virtual")]
pub(crate) fn now() -> Instant {
    Instant::now() + Duration::from_secs(1)
}
