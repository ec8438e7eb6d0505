//! From one frame to sealed datagrams that fit the path.
//!
//! # The path of a frame
//! 1. A burst is cut at multiples of its segment size, as many segments to a datagram as fit; each datagram repeats
//!    the headers of the whole burst and says where its payload belongs.
//! 2. A single TCP packet that is too long is cut like a burst: TCP does not mind where segments end, and every piece
//!    can be delivered when it arrives.
//! 3. Anything else that is too long is fragmented; the receiver waits for all pieces.
//! 4. Every datagram is written once into its place in the sink and sealed there.

use std::time::Instant;

use weave_model::PeerName;

use crate::{
    Discard, HEADER_LEN, Kind, RECORD_LEN, Record, Sealer, TapFrame,
    headers::{Part, has_exact_length, rebuild},
    layers::Layers,
    tap_frame::{MAX_HEAD, Shape},
};

/// Between whom a frame travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The router where it entered the mesh.
    pub source: PeerName,
    /// The router that it is for; `None`: every router.
    pub destination: Option<PeerName>,
    /// How many routers it may still pass.
    pub hop_limit: u8,
}

/// Where datagrams are put together before they are sent.
pub trait Datagrams {
    /// Room for the next datagram, exactly `len` bytes; whatever was there before is still there. `None`: the
    /// socket takes no more, the datagram is lost.
    fn slot(&mut self, len: usize) -> Option<&mut [u8]>;
}

/// Splits frames that go out on one lane of one link.
#[derive(Debug, Default)]
pub struct Splitter {
    bursts: u16,
    fragmented: u16,
}

/// Where the datagrams of one call go, and how.
struct Out<'a, D> {
    sealer: &'a mut Sealer,
    datagrams: &'a mut D,
    /// Bytes of a frame that fit in one datagram behind the record's header.
    capacity: usize,
    now: Instant,
}

impl Splitter {
    /// Nothing sent yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { bursts: 0, fragmented: 0 }
    }

    /// Seals `frame` into datagrams of at most `limit` bytes of UDP payload.
    ///
    /// # Errors
    /// `PathTooSmall`, `SendQueueFull`, `SealFailed`; datagrams that went before may have been sent.
    pub fn split(
        &mut self,
        frame: &TapFrame<'_>,
        envelope: Envelope,
        sealer: &mut Sealer,
        limit: usize,
        now: Instant,
        datagrams: &mut impl Datagrams,
    ) -> Result<(), Discard> {
        let overhead = HEADER_LEN + RECORD_LEN + sealer.tag_len();
        let capacity = limit.checked_sub(overhead).ok_or(Discard::PathTooSmall)?;
        let mut out = Out { sealer, datagrams, capacity, now };
        let bytes = frame.bytes();
        match frame.shape() {
            Shape::Burst { layers, segment } => {
                self.split_burst(bytes, &layers, usize::from(segment), envelope, &mut out)
            }
            Shape::OpenChecksum(layers)
                if bytes.len() > capacity && can_resegment(bytes, &layers, capacity) =>
            {
                self.split_burst(bytes, &layers, capacity - layers.payload, envelope, &mut out)
            }
            shape @ (Shape::OpenChecksum(_) | Shape::Opaque) => {
                let has_open_checksum = matches!(shape, Shape::OpenChecksum(_));
                self.split_frame(&[], bytes, has_open_checksum, envelope, &mut out)
            }
        }
    }

    fn split_burst<D: Datagrams>(
        &mut self,
        bytes: &[u8],
        layers: &Layers,
        segment: usize,
        envelope: Envelope,
        out: &mut Out<'_, D>,
    ) -> Result<(), Discard> {
        let (head, payload) = bytes.split_at_checked(layers.payload).ok_or(Discard::BadTapFrame)?;
        let room =
            out.capacity.checked_sub(head.len()).filter(|room| *room > 0).ok_or(Discard::PathTooSmall)?;
        let segment = match (layers.is_tcp, segment > room) {
            (_, false) => segment,
            (true, true) => room,
            (false, true) => return self.split_datagrams(head, payload, layers, segment, envelope, out),
        };
        let step = room / segment * segment;
        self.bursts = self.bursts.wrapping_add(1);
        let mut record = envelope.record(Kind::Burst, self.bursts, true);
        record.segment = segment as u16;
        let mut offset = 0;
        while let Some(rest) = payload.get(offset..).filter(|rest| !rest.is_empty() || offset == 0) {
            let part = &rest[..rest.len().min(step)];
            record.is_last = part.len() == rest.len();
            record.offset = offset as u16;
            out.send(&record, head, part)?;
            offset += step;
        }
        Ok(())
    }

    /// A burst of UDP datagrams each of which is too long for the path: every one becomes a frame of its own, and
    /// is fragmented.
    fn split_datagrams<D: Datagrams>(
        &mut self,
        head: &[u8],
        payload: &[u8],
        layers: &Layers,
        segment: usize,
        envelope: Envelope,
        out: &mut Out<'_, D>,
    ) -> Result<(), Discard> {
        let mut scratch = [0; MAX_HEAD];
        let own = scratch.get_mut(..head.len()).ok_or(Discard::BadTapFrame)?;
        for (index, body) in payload.chunks(segment).enumerate() {
            own.copy_from_slice(head);
            let offset = index * segment;
            let is_last = offset + body.len() == payload.len();
            rebuild(own, layers, Part { offset, payload: body.len(), segment, is_last });
            self.split_frame(own, body, true, envelope, out)?;
        }
        Ok(())
    }

    /// A frame that is carried as it is, in two parts for the caller's convenience: whole if it fits, in fragments
    /// if it does not.
    fn split_frame<D: Datagrams>(
        &mut self,
        head: &[u8],
        body: &[u8],
        has_open_checksum: bool,
        envelope: Envelope,
        out: &mut Out<'_, D>,
    ) -> Result<(), Discard> {
        let total = head.len() + body.len();
        if total <= out.capacity {
            return out.send(&envelope.record(Kind::Frame, 0, has_open_checksum), head, body);
        }
        if out.capacity == 0 {
            return Err(Discard::PathTooSmall);
        }
        self.fragmented = self.fragmented.wrapping_add(1);
        let mut record = envelope.record(Kind::Fragment, self.fragmented, has_open_checksum);
        for start in (0..total).step_by(out.capacity) {
            let end = (start + out.capacity).min(total);
            record.is_last = end == total;
            record.offset = u16::try_from(start).map_err(|_| Discard::PathTooSmall)?;
            let first = &head[start.min(head.len())..end.min(head.len())];
            let second = &body[start.saturating_sub(head.len())..end.saturating_sub(head.len())];
            out.send(&record, first, second)?;
        }
        Ok(())
    }
}

impl<D: Datagrams> Out<'_, D> {
    /// Puts one datagram together in its place and seals it.
    fn send(&mut self, record: &Record, head: &[u8], body: &[u8]) -> Result<(), Discard> {
        let start = HEADER_LEN + RECORD_LEN;
        let middle = start + head.len();
        let end = middle + body.len();
        let datagram = self.datagrams.slot(end + self.sealer.tag_len()).ok_or(Discard::SendQueueFull)?;
        datagram[HEADER_LEN..start].copy_from_slice(&record.encode());
        datagram[start..middle].copy_from_slice(head);
        datagram[middle..end].copy_from_slice(body);
        self.sealer.seal(datagram, self.now)
    }
}

impl Envelope {
    const fn record(&self, kind: Kind, number: u16, has_open_checksum: bool) -> Record {
        Record {
            source: self.source,
            destination: self.destination,
            hop_limit: self.hop_limit,
            kind,
            is_last: true,
            has_open_checksum,
            number,
            offset: 0,
            segment: 0,
        }
    }
}

/// Whether a single packet may be cut at any place: TCP, nothing urgent (the pointer counts from the packet's
/// start), and no bytes of padding behind it.
fn can_resegment(bytes: &[u8], layers: &Layers, capacity: usize) -> bool {
    const URG: u8 = 0x20;
    const SYN_RST: u8 = 0x06;
    layers.is_tcp
        && layers.payload < capacity
        && layers.payload <= MAX_HEAD
        && bytes[layers.transport + 13] & (URG | SYN_RST) == 0
        && has_exact_length(bytes, layers)
}
