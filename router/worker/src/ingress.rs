//! From the wire to the bridge, or on to the next router.
//!
//! # The path of a datagram
//! 1. Received with others in bursts (GRO), a few system calls for hundreds of them.
//! 2. QUIC's go to the callback. Ours: header, link, seal opened in place, replay window.
//! 3. Probes are answered, answers go to the path's state; fragments wait for each other.
//! 4. Records of one burst are joined where they lie; a frame, or a joined burst, gets a verdict from the forwarding
//!    snapshot.
//! 5. Delivered with one gathered write; or put together and split again for the next link, its source kept and its
//!    hop limit lowered.

use std::{io::IoSlice, net::SocketAddr, sync::Arc};

use weave_datapath::{DropReason, Verdict};
use weave_hostnet::udp::ReceiveBatch;
use weave_model::{LinkId, Mac, PeerName};
use weave_sleeve::{
    Discard, Envelope, HEADER_LEN, Header, Joined, Joiner, Kind, Piece, RECORD_LEN, Record, TapFrame,
    VirtioHeader, is_quic,
};

use crate::{
    config::QuicDatagram,
    egress::Drained,
    plane::{FRAME_ROOM, Plane},
};

/// Receive calls before the TAP gets its turn again.
const BATCHES: usize = 4;

/// Bursts that may be collected at once: records of different sending threads arrive interleaved.
pub(crate) const JOINERS: usize = 4;

/// Slices of one gathered write: virtio header, headers, and the pieces of the longest burst.
const MAX_SLICES: usize = 130;

/// A datagram that was opened.
struct Opened {
    place: usize,
    link: LinkId,
    stream: (u32, u8),
    record: Record,
    /// Where the record's body lies.
    body: Piece,
}

impl Plane {
    /// Takes what has arrived, up to a bound.
    pub(crate) fn drain_socket(
        &mut self,
        batch: &mut ReceiveBatch,
        joiners: &mut [Joiner; JOINERS],
    ) -> Drained {
        for count in 0..BATCHES {
            match self.socket.receive(batch) {
                Ok(received) => {
                    for message in 0..received {
                        self.handle_message(batch, message, joiners);
                    }
                    for joiner in joiners.iter_mut() {
                        self.finish(joiner, batch);
                    }
                    if received < weave_hostnet::udp::RECEIVE_MESSAGES {
                        return Drained::Everything;
                    }
                }
                // Nothing waiting; an error that a stranger provoked on the socket is cleared by being reported.
                Err(_) => return if count == 0 { Drained::Nothing } else { Drained::Everything },
            }
        }
        Drained::Part
    }

    /// One burst of datagrams from one sender.
    fn handle_message(&mut self, batch: &mut ReceiveBatch, message: usize, joiners: &mut [Joiner; JOINERS]) {
        let Some(meta) = batch.messages().get(message).copied() else {
            return;
        };
        if batch.bytes(message).first().is_some_and(|first| is_quic(*first)) {
            self.tally().quic_datagrams.add(meta.len.div_ceil(meta.segment) as u64);
            let bytes = batch.bytes(message);
            let (from, to, ecn) = (meta.from, meta.to, meta.ecn);
            return (self.shared.quic)(QuicDatagram { from, to, ecn, segment_size: meta.segment, bytes });
        }
        for start in (0..meta.len).step_by(meta.segment) {
            let len = meta.segment.min(meta.len - start);
            let place = Piece { buffer: message, start, len };
            let result = match self.open(batch, place, meta.from) {
                Ok(opened) => self.handle_record(&opened, batch, joiners),
                Err(reason) => Err(reason),
            };
            if let Err(reason) = result {
                self.tally().discard(reason);
            }
        }
    }

    /// Authenticates one datagram and opens it in place.
    fn open(&mut self, batch: &mut ReceiveBatch, at: Piece, from: SocketAddr) -> Result<Opened, Discard> {
        let datagram = &mut batch.bytes_mut(at.buffer)[at.start..at.start + at.len];
        let header = Header::decode(datagram)?;
        let place = self.links.place_by_index(header.receiver).ok_or(Discard::UnknownReceiver)?;
        let link = self.links.at(place).ok_or(Discard::UnknownReceiver)?;
        let has_moved = from != link.remote();
        if has_moved && !link.is_sealed {
            return Err(Discard::WrongAddress);
        }
        let owned = link.owned.as_mut().ok_or(Discard::UnknownReceiver)?;
        let opened = owned.opener.open(header, datagram, self.now)?;
        let (record, body) = Record::decode(opened.record)?;
        let body = Piece { start: at.start + HEADER_LEN + RECORD_LEN, len: body.len(), ..at };
        let tally = &link.shared.lanes[self.worker];
        tally.received_datagrams.add(1);
        tally.received_bytes.add(at.len as u64);
        let stream = (link.local_index, header.lane);
        let link_id = link.shared.link;
        if has_moved && opened.is_newest {
            self.follow(place, from);
        }
        Ok(Opened { place, link: link_id, stream, record, body })
    }

    fn handle_record(
        &mut self,
        opened: &Opened,
        batch: &ReceiveBatch,
        joiners: &mut [Joiner; JOINERS],
    ) -> Result<(), Discard> {
        let Opened { stream, record, body: at, .. } = opened;
        let body = &batch.bytes(at.buffer)[at.start..at.start + at.len];
        match record.kind {
            Kind::Burst => {
                let joiner = &mut joiners[usize::from(stream.1) % JOINERS];
                if joiner.append(*stream, record, body, *at) {
                    return Ok(());
                }
                self.finish(joiner, batch);
                joiner.start(*stream, record, body, *at)
            }
            Kind::Frame => {
                // What the same thread sent before goes first.
                self.finish(&mut joiners[usize::from(stream.1) % JOINERS], batch);
                self.whole_frame(opened.link, record, body)
            }
            Kind::Fragment => {
                let key = (*stream, record.number);
                match self.reassembler.insert(key, record, body, self.now)? {
                    Some(whole) => self.whole_frame(opened.link, &whole.record, &whole.frame),
                    None => Ok(()),
                }
            }
            Kind::Probe => self.answer_probe(opened.place, body),
            Kind::ProbeAck => self.handle_probe_ack(opened.place, body),
        }
    }

    /// Sends a collected burst on its way.
    fn finish(&mut self, joiner: &mut Joiner, batch: &ReceiveBatch) {
        let Some(Joined { stream, record, header, head, pieces }) = joiner.take() else {
            return;
        };
        let header = header.encode();
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        slices[0] = IoSlice::new(&header);
        slices[1] = IoSlice::new(head);
        for (slice, at) in slices[2..].iter_mut().zip(pieces) {
            *slice = IoSlice::new(&batch.bytes(at.buffer)[at.start..at.start + at.len]);
        }
        let count = (2 + pieces.len()).min(MAX_SLICES);
        let arrival = self.links.place_by_index(stream.0).and_then(|place| self.links.at(place));
        if let Some(arrival) = arrival.map(|link| link.shared.link) {
            self.dispatch(&record, arrival, &slices[..count]);
        }
    }

    fn whole_frame(&mut self, arrival: LinkId, record: &Record, frame: &[u8]) -> Result<(), Discard> {
        let header = VirtioHeader::of_frame(record.has_open_checksum, frame)?.encode();
        self.dispatch(record, arrival, &[IoSlice::new(&header), IoSlice::new(frame)]);
        Ok(())
    }

    /// Decides about a frame; `slices` are its virtio header, its first bytes up to the payload at least, the rest.
    fn dispatch(&mut self, record: &Record, arrival: LinkId, slices: &[IoSlice<'_>]) {
        let dst = slices.get(1).and_then(|head| head.first_chunk()).copied().unwrap_or_default();
        let forwarding = Arc::clone(&self.forwarding);
        match forwarding.remote_frame(record.source, record.destination, Mac(dst), record.hop_limit) {
            Verdict::Deliver => self.deliver(slices),
            Verdict::DeliverAndFlood(links) => {
                self.deliver(slices);
                self.pass_on(links, record.destination, arrival, record, slices);
            }
            Verdict::Flood(links) | Verdict::FloodUnknown(links) => {
                self.pass_on(links, record.destination, arrival, record, slices);
            }
            Verdict::Forward(link, _) if link == arrival => self.tally().drop(DropReason::Backward),
            Verdict::Forward(link, peer) => self.pass_on(&[link], Some(peer), arrival, record, slices),
            Verdict::Drop(reason) => self.tally().drop(reason),
        }
    }

    /// Puts a frame together and sends it over other links.
    fn pass_on(
        &mut self,
        links: &[LinkId],
        destination: Option<PeerName>,
        arrival: LinkId,
        record: &Record,
        slices: &[IoSlice<'_>],
    ) {
        let mut buffer = std::mem::take(&mut self.relay);
        buffer.clear();
        // Most routers never relay; those that do allocate once.
        buffer.reserve(FRAME_ROOM);
        for slice in slices {
            buffer.extend_from_slice(slice);
        }
        match TapFrame::parse(&mut buffer) {
            Ok(frame) => {
                let hop_limit = record.hop_limit.saturating_sub(1);
                let envelope = Envelope { source: record.source, destination, hop_limit };
                self.flood(links, Some(arrival), &frame, envelope);
            }
            Err(_) => self.tally().discard(Discard::BadFrame),
        }
        self.relay = buffer;
    }
}
