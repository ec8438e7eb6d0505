//! From opened records back to bursts, without touching the payload.
//!
//! Records of one burst arrive in order and mostly together. The joiner collects *where* their payload lies; the
//! headers are rebuilt once, and the whole goes to the kernel in one gathered write. A gap, a change of size or the
//! end of a batch ends a burst: what came so far is delivered, nothing ever waits for a missing piece.

use crate::{
    Discard, Kind, Record,
    headers::{CWR, Part, rebuild},
    layers::Layers,
    tap_frame::MAX_HEAD,
    vnet::VirtioHeader,
};

/// Which stream of datagrams a record came from: bursts are numbered within it.
pub type StreamKey = (u32, u8);

/// Pieces that one gathered write takes, with the two slices in front of them well below the kernel's limit of 1,024.
const MAX_PIECES: usize = 128;

/// Where some payload lies, in the caller's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Number of the buffer.
    pub buffer: usize,
    /// First byte in it.
    pub start: usize,
    /// Bytes.
    pub len: usize,
}

/// Collects the records of one burst at a time. Allocates once.
#[derive(Debug)]
pub struct Joiner {
    burst: Option<Burst>,
    head: [u8; MAX_HEAD],
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, Copy)]
struct Burst {
    stream: StreamKey,
    /// The first record; `is_last` becomes the last one's.
    record: Record,
    layers: Layers,
    payload: usize,
}

/// A burst that is ready to be written: virtio header, headers, and the pieces in order.
#[derive(Debug)]
pub struct Joined<'a> {
    /// Where it came from.
    pub stream: StreamKey,
    /// From whom and for whom, and how far it may still go.
    pub record: Record,
    /// What tells the kernel how to go on.
    pub header: VirtioHeader,
    /// Ethernet, IP and transport headers.
    pub head: &'a [u8],
    /// Where the payload lies.
    pub pieces: &'a [Piece],
}

impl Joiner {
    /// Nothing collected.
    #[must_use]
    pub fn new() -> Self {
        Self { burst: None, head: [0; MAX_HEAD], pieces: Vec::with_capacity(MAX_PIECES) }
    }

    /// Whether nothing is waiting to be taken.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.burst.is_none()
    }

    /// Adds the record if it continues the burst that is being collected; `body` is what follows its header and lies
    /// at `place`. If it returns `false`, take the burst and [`Joiner::start`] with the record.
    pub fn append(&mut self, stream: StreamKey, record: &Record, body: &[u8], place: Piece) -> bool {
        let Some(burst) = &mut self.burst else {
            return false;
        };
        let head_len = burst.layers.payload;
        let head = &self.head[..head_len];
        let Some(payload) = body.len().checked_sub(head_len) else {
            return false;
        };
        let first = &burst.record;
        let continues = burst.stream == stream
            && first.number == record.number
            && first.segment == record.segment
            && !first.is_last
            && usize::from(first.offset) + burst.payload == usize::from(record.offset)
            && burst.payload.is_multiple_of(usize::from(first.segment))
            && payload > 0
            && burst.payload + payload + head_len - burst.layers.network <= 65_535
            && self.pieces.len() < MAX_PIECES
            && (first.source, first.destination, first.hop_limit)
                == (record.source, record.destination, record.hop_limit)
            && &body[..head_len] == head;
        if continues {
            burst.payload += payload;
            burst.record.is_last = record.is_last;
            self.pieces.push(Piece { buffer: place.buffer, start: place.start + head_len, len: payload });
        }
        continues
    }

    /// Begins a burst with this record. The one before must have been taken.
    ///
    /// # Errors
    /// `BadRecord` when the record is none of a burst, `BadFrame` when its headers are none that we send.
    pub fn start(
        &mut self,
        stream: StreamKey,
        record: &Record,
        body: &[u8],
        place: Piece,
    ) -> Result<(), Discard> {
        self.burst = None;
        self.pieces.clear();
        let is_aligned = record.segment > 0 && record.offset.is_multiple_of(record.segment);
        if record.kind != Kind::Burst || !is_aligned {
            return Err(Discard::BadRecord);
        }
        let layers = Layers::parse(body).ok_or(Discard::BadFrame)?;
        let head_len = layers.payload;
        let payload = body.len() - head_len;
        let is_sound = head_len <= MAX_HEAD
            && body.len() - layers.network <= 65_535
            && usize::from(record.offset) + payload <= 65_535;
        if !is_sound {
            return Err(Discard::BadFrame);
        }
        self.head[..head_len].copy_from_slice(&body[..head_len]);
        self.pieces.push(Piece { buffer: place.buffer, start: place.start + head_len, len: payload });
        self.burst = Some(Burst { stream, record: *record, layers, payload });
        Ok(())
    }

    /// The burst collected so far, its headers rebuilt.
    pub fn take(&mut self) -> Option<Joined<'_>> {
        let Burst { stream, record, layers, payload } = self.burst.take()?;
        let head = &mut self.head[..layers.payload];
        let segment = usize::from(record.segment);
        let part = Part { offset: usize::from(record.offset), payload, segment, is_last: record.is_last };
        rebuild(head, &layers, part);
        let has_ecn = layers.is_tcp && head[layers.transport + 13] & CWR != 0;
        let header = if payload > segment {
            VirtioHeader::burst(&layers, record.segment, has_ecn)
        } else {
            VirtioHeader::open_checksum(&layers)
        };
        Some(Joined { stream, record, header, head, pieces: &self.pieces })
    }
}

impl Default for Joiner {
    fn default() -> Self {
        Self::new()
    }
}

impl VirtioHeader {
    /// The header for a whole frame from a peer.
    ///
    /// # Errors
    /// `BadFrame` when the frame is no frame, or its open checksum is not where TCP and UDP have theirs.
    pub fn of_frame(has_open_checksum: bool, frame: &[u8]) -> Result<Self, Discard> {
        if !(14..=crate::tap_frame::MAX_FRAME).contains(&frame.len()) {
            return Err(Discard::BadFrame);
        }
        if !has_open_checksum {
            return Ok(Self::complete());
        }
        let layers = Layers::parse(frame).ok_or(Discard::BadFrame)?;
        if frame.len() - layers.network > 65_535 {
            return Err(Discard::BadFrame);
        }
        Ok(Self::open_checksum(&layers))
    }
}
