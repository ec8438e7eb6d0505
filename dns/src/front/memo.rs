//! Questions that were answered before, in the same words.
//!
//! Clients ask the same few names over and over. Where the answer is always the same (one record, nothing to shuffle) it
//! is kept as it went out, and only its id is new. Everything kept is of one snapshot of the names; the next forgets it all.

use std::{collections::HashMap, sync::Arc};

use weave_names::Snapshot;

use crate::{stats::Outcome, wire};

/// Answers that are kept. Then all are forgotten: a client that asks for ever new names costs others one full answer each.
const LIMIT: usize = 4096;
/// What stands before the words of a message: its id.
const ID: usize = 2;
/// OPT without options (RFC 6891, 6.1.2): root, type, size, flags, length.
const PLAIN_OPT: usize = 11;

/// See the module's documentation. One for each socket, so nobody waits for it.
#[derive(Debug, Default)]
pub(super) struct Memo {
    names: Option<Arc<Snapshot>>,
    /// By what was asked; both without their ids.
    answers: HashMap<Box<[u8]>, Box<[u8]>>,
    message: Vec<u8>,
}

impl Memo {
    /// The answer to `query`, if it was given before and these are still the names.
    pub(super) fn answer(&mut self, names: &Arc<Snapshot>, query: &[u8]) -> Option<&[u8]> {
        if !self.names.as_ref().is_some_and(|known| Arc::ptr_eq(known, names)) {
            self.answers.clear();
            self.names = Some(Arc::clone(names));
            return None;
        }
        let (id, words) = query.split_at_checked(ID)?;
        let answer = self.answers.get(words)?;
        self.message.clear();
        self.message.extend_from_slice(id);
        self.message.extend_from_slice(answer);
        Some(&self.message)
    }

    /// What `query` was answered, by the names of the last [`Memo::answer`].
    pub(super) fn keep(&mut self, query: &[u8], answer: &[u8], outcome: Outcome) {
        if outcome != Outcome::Answered || !is_constant(answer) || !is_plain(query) {
            return;
        }
        if self.answers.len() >= LIMIT {
            self.answers.clear();
        }
        if let (Some(query), Some(answer)) = (query.get(ID..), answer.get(ID..)) {
            self.answers.insert(query.into(), answer.into());
        }
    }
}

/// Whether an answer has one record, so that there is no order to choose.
fn is_constant(answer: &[u8]) -> bool {
    let count = |at| wire::u16_at(answer, at).unwrap_or(u16::MAX);
    let is_whole = answer.get(2).is_some_and(|flags| flags & wire::TC == 0);
    is_whole && count(6) == 1 && count(8) == 0 && count(10) <= 1
}

/// Whether a query holds nothing but a question, and perhaps EDNS without options. (Cookies are other words each time.)
fn is_plain(query: &[u8]) -> bool {
    let Some(end) = end_of_question(query) else { return false };
    let count = |at| wire::u16_at(query, at).unwrap_or(u16::MAX);
    let rest = query.len() - end;
    count(4) == 1 && count(6) == 0 && count(8) == 0 && rest == usize::from(count(10)) * PLAIN_OPT
}

/// Where the first question ends, if its name has no pointers and is all there.
fn end_of_question(query: &[u8]) -> Option<usize> {
    /// Type and class.
    const FIXED: usize = 4;
    const LONGEST_LABEL: u8 = 63;
    let mut at = wire::HEADER;
    loop {
        let length = *query.get(at)?;
        at += 1 + usize::from(length);
        match length {
            0 => break,
            1..=LONGEST_LABEL => {}
            _ => return None,
        }
    }
    (at + FIXED <= query.len()).then_some(at + FIXED)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: [u8; 12] = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    const QUESTION: [u8; 8] = [2, b'n', b'1', 0, 0, 1, 0, 1];

    fn query() -> Vec<u8> {
        [&HEADER[..], &QUESTION].concat()
    }

    /// With so many answers.
    fn answer(count: u8) -> Vec<u8> {
        let mut answer = query();
        answer[2] |= 0x80;
        answer[7] = count;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 32, 0, 1]);
        answer
    }

    fn names() -> Arc<Snapshot> {
        Arc::new(Snapshot::empty("weave.local".parse().unwrap()))
    }

    #[test]
    fn what_was_answered_is_answered_again_with_another_id_until_the_names_change() {
        let (mut memo, now) = (Memo::default(), names());
        assert_eq!(memo.answer(&now, &query()), None);
        memo.keep(&query(), &answer(1), Outcome::Answered);
        let mut again = query();
        again[0] = 9;
        let mut expected = answer(1);
        expected[0] = 9;
        assert_eq!(memo.answer(&now, &again), Some(&expected[..]));
        assert_eq!(memo.answer(&names(), &again), None, "of other names");
        assert_eq!(memo.answer(&now, &again), None, "of names that came back");
    }

    #[test]
    fn what_varies_is_not_kept() {
        let now = names();
        let kept = |query: &[u8], answer: &[u8], outcome| {
            let mut memo = Memo::default();
            assert_eq!(memo.answer(&now, query), None);
            memo.keep(query, answer, outcome);
            memo.answer(&now, query).is_some()
        };
        assert!(kept(&query(), &answer(1), Outcome::Answered));
        assert!(!kept(&query(), &answer(2), Outcome::Answered), "several records are shuffled");
        assert!(!kept(&query(), &answer(1), Outcome::Unknown));
        let mut truncated = answer(1);
        truncated[2] |= wire::TC;
        assert!(!kept(&query(), &truncated, Outcome::Answered));
        let mut edns = query();
        edns[11] = 1;
        edns.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        assert!(kept(&edns, &answer(1), Outcome::Answered));
        edns[30] = 12;
        edns.extend_from_slice(&[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(!kept(&edns, &answer(1), Outcome::Answered), "a cookie");
    }

    #[test]
    fn it_is_bounded() {
        let (mut memo, now) = (Memo::default(), names());
        for number in 0..3 * u32::try_from(LIMIT).unwrap() {
            let [a, b, c, d] = number.to_be_bytes();
            let query = [&HEADER[..], &[4, a, b, c, d, 0, 0, 1, 0, 1]].concat();
            assert_eq!(memo.answer(&now, &query), None);
            memo.keep(&query, &answer(1), Outcome::Answered);
            assert!(memo.answer(&now, &query).is_some() && memo.answers.len() <= LIMIT);
        }
    }

    proptest! {
        #[test]
        fn no_message_panics(query in proptest::collection::vec(any::<u8>(), 0..64), answer in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (mut memo, now) = (Memo::default(), names());
            let _nothing = memo.answer(&now, &query);
            memo.keep(&query, &answer, Outcome::Answered);
            let _whatever = memo.answer(&now, &query);
        }
    }
}
