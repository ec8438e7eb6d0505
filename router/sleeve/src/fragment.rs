//! Frames that came in pieces, put together again. Bounded in number, bytes and time.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{Discard, Kind, Record, StreamKey, tap_frame::MAX_FRAME};

/// Which frame a fragment belongs to: its stream and its number there.
pub type FragmentKey = (StreamKey, u16);

/// How long the pieces of a frame may be apart: longer than any reordering, far shorter than the numbers take to
/// come round at any rate of fragmented frames that the rest of us could keep up with.
const LIFETIME: Duration = Duration::from_secs(1);

/// Frames that may be incomplete at once.
const MAX_PARTIAL: usize = 64;

/// Bytes that incomplete frames may hold in all.
const MAX_BYTES: usize = 1 << 20;

/// Puts fragmented frames together, the oldest giving way to the newest.
#[derive(Debug, Default)]
pub struct Reassembler {
    /// In order of their first fragment.
    partial: VecDeque<Partial>,
    bytes: usize,
}

/// A frame that is complete again.
#[derive(Debug, PartialEq, Eq)]
pub struct Reassembled {
    /// The header of its first fragment to arrive.
    pub record: Record,
    /// The frame.
    pub frame: Vec<u8>,
}

#[derive(Debug)]
struct Partial {
    key: FragmentKey,
    record: Record,
    frame: Vec<u8>,
    /// What is there: disjoint ranges in order.
    ranges: Vec<(usize, usize)>,
    total: Option<usize>,
    since: Instant,
}

impl Reassembler {
    /// Nothing waiting.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a fragment; gives the frame if it was the last one missing.
    ///
    /// # Errors
    /// `BadRecord` and `FragmentOverlap` for the fragment itself; its frame stays as it was.
    pub fn insert(
        &mut self,
        key: FragmentKey,
        record: &Record,
        body: &[u8],
        now: Instant,
    ) -> Result<Option<Reassembled>, Discard> {
        let start = usize::from(record.offset);
        let end = start + body.len();
        if record.kind != Kind::Fragment || body.is_empty() || end > MAX_FRAME {
            return Err(Discard::BadRecord);
        }
        let place = match self.partial.iter().position(|p| p.key == key) {
            Some(place) => place,
            None => {
                self.partial.push_back(Partial::new(key, *record, now));
                self.partial.len() - 1
            }
        };
        let partial = &mut self.partial[place];
        let before = partial.frame.len();
        partial.add(start, end, body, record.is_last)?;
        self.bytes += partial.frame.len() - before;
        if !partial.is_complete() {
            return Ok(None);
        }
        let complete = self.remove(place);
        Ok(complete.map(|p| Reassembled { record: p.record, frame: p.frame }))
    }

    /// Gives up frames that wait too long, and the oldest when there are too many; returns how many for each reason
    /// (expired, overflown). Call it after a batch and at [`Reassembler::poll_timeout`].
    pub fn expire(&mut self, now: Instant) -> (u64, u64) {
        let (mut expired, mut overflown) = (0, 0);
        while let Some(oldest) = self.partial.front() {
            if now.saturating_duration_since(oldest.since) >= LIFETIME {
                expired += 1;
            } else if self.partial.len() > MAX_PARTIAL || self.bytes > MAX_BYTES {
                overflown += 1;
            } else {
                break;
            }
            self.remove(0);
        }
        (expired, overflown)
    }

    /// When [`Reassembler::expire`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.partial.front().map(|p| (p.since + LIFETIME, "incomplete frame"))
    }

    fn remove(&mut self, place: usize) -> Option<Partial> {
        let partial = self.partial.remove(place)?;
        self.bytes -= partial.frame.len();
        Some(partial)
    }
}

impl Partial {
    fn new(key: FragmentKey, record: Record, now: Instant) -> Self {
        Self { key, record, frame: Vec::new(), ranges: Vec::new(), total: None, since: now }
    }

    fn add(&mut self, start: usize, end: usize, body: &[u8], is_last: bool) -> Result<(), Discard> {
        let place = self.ranges.partition_point(|range| range.0 < start);
        let overlaps_before = place > 0 && self.ranges[place - 1].1 > start;
        let overlaps_after = self.ranges.get(place).is_some_and(|next| next.0 < end);
        if overlaps_before || overlaps_after {
            return Err(Discard::FragmentOverlap);
        }
        let is_beyond_end =
            self.total.is_some_and(|total| is_last || end > total) || (is_last && self.frame.len() > end);
        if is_beyond_end {
            return Err(Discard::BadRecord);
        }
        if is_last {
            self.total = Some(end);
        }
        if self.frame.len() < end {
            self.frame.resize(end, 0);
        }
        self.frame[start..end].copy_from_slice(body);
        self.ranges.insert(place, (start, end));
        self.merge(place);
        Ok(())
    }

    /// Joins the range with neighbours that it touches, so that the list stays as short as there are gaps.
    fn merge(&mut self, place: usize) {
        if self.ranges.get(place + 1).is_some_and(|next| next.0 == self.ranges[place].1) {
            let (_, end) = self.ranges.remove(place + 1);
            self.ranges[place].1 = end;
        }
        if place > 0 && self.ranges[place - 1].1 == self.ranges[place].0 {
            let (_, end) = self.ranges.remove(place);
            self.ranges[place - 1].1 = end;
        }
    }

    fn is_complete(&self) -> bool {
        match (self.total, self.ranges.as_slice()) {
            (Some(total), [(0, end)]) => *end == total,
            _ => false,
        }
    }
}
