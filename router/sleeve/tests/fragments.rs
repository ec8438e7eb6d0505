//! Frames in pieces: any order, doubled, lost, forged; bounded in memory and time.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{LEFT, now};
use proptest::prelude::*;
use weave_sleeve::{Discard, FragmentKey, Kind, Reassembler, Record};

proptest! {
    /// The oracle is a map of bytes for each frame: a frame is complete when every byte up to the last is there.
    #[test]
    fn reassembly_agrees_with_a_map_of_bytes(
        pieces in proptest::collection::vec((0u16..3, 0u16..12, 1usize..5, any::<bool>()), 1..80),
    ) {
        let mut reassembler = Reassembler::new();
        let mut oracle: BTreeMap<u16, (BTreeMap<usize, u8>, Option<usize>)> = BTreeMap::new();
        for (number, offset, length, is_last) in pieces {
            let body: Vec<u8> = (0..length).map(|n| number as u8 * 50 + (offset as usize + n) as u8).collect();
            let result = reassembler.insert(key(number), &fragment(number, offset, is_last), &body, now());
            let (bytes, total) = oracle.entry(number).or_default();
            let range = usize::from(offset)..usize::from(offset) + length;
            let overlaps = range.clone().any(|at| bytes.contains_key(&at));
            let highest = bytes.keys().next_back().map_or(0, |at| at + 1);
            let is_beyond = total.is_some_and(|t| is_last || range.end > t) || (is_last && highest > range.end);
            if overlaps {
                prop_assert_eq!(result, Err(Discard::FragmentOverlap));
                continue;
            }
            if is_beyond {
                prop_assert_eq!(result, Err(Discard::BadRecord));
                continue;
            }
            bytes.extend(range.clone().zip(body));
            if is_last {
                *total = Some(range.end);
            }
            let is_complete = *total == Some(bytes.len());
            let whole = result.unwrap();
            prop_assert_eq!(whole.is_some(), is_complete);
            if let Some(whole) = whole {
                let (bytes, _) = oracle.remove(&number).unwrap();
                prop_assert_eq!(whole.frame, bytes.into_values().collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn what_never_completes_is_forgotten_in_time_and_in_number() {
    let start = now();
    let mut reassembler = Reassembler::new();
    for number in 0..200 {
        assert_eq!(reassembler.insert(key(number), &fragment(number, 0, false), &[1; 100], start), Ok(None));
    }
    let (expired, overflown) = reassembler.expire(start);
    assert_eq!((expired, overflown), (0, 200 - 64));
    let (at, _) = reassembler.poll_timeout().unwrap();
    assert!(at <= start + Duration::from_secs(2));
    assert_eq!(reassembler.expire(at), (64, 0));
    assert_eq!(reassembler.poll_timeout(), None);
}

#[test]
fn large_pieces_are_bounded_in_bytes() {
    let start = now();
    let mut reassembler = Reassembler::new();
    for number in 0..40 {
        let result = reassembler.insert(key(number), &fragment(number, 60_000, false), &[1; 1000], start);
        assert_eq!(result, Ok(None));
    }
    let (_, overflown) = reassembler.expire(start);
    assert!(overflown >= 40 - (1 << 20) / 61_000, "{overflown}");
    assert_eq!(
        reassembler.insert(key(99), &fragment(99, u16::MAX, true), &[1; 1000], start),
        Err(Discard::BadRecord)
    );
}

fn key(number: u16) -> FragmentKey {
    ((1, 0), number)
}

fn fragment(number: u16, offset: u16, is_last: bool) -> Record {
    Record {
        source: LEFT,
        destination: None,
        hop_limit: 1,
        kind: Kind::Fragment,
        is_last,
        has_open_checksum: false,
        number,
        offset,
        segment: 0,
    }
}
