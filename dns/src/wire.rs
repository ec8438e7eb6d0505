//! Just enough of DNS messages to relay them byte for byte, whatever record types they hold (RFC 1035 section 4).
//!
//! Upstream answers are not decoded: they are walked once, which proves their framing and finds the fields that a
//! relay must change. Everything is bounded by the message's own length.

use std::ops::Range;

/// Length of the fixed header.
pub(crate) const HEADER: usize = 12;
/// Length of an OPT record without options.
pub(crate) const OPT_LEN: usize = 11;
/// The largest datagram that we ask for and send without fragments on any path (DNS flag day 2020).
const EDNS_PAYLOAD: u16 = 1232;
/// More records than this in one message are refused: a message of 64 KiB has room for about 4,000 of the smallest.
const MAX_RECORDS: usize = 8192;

const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;

/// Bits of the third and fourth header byte.
pub(crate) const QR: u8 = 0x80;
pub(crate) const AA: u8 = 0x04;
pub(crate) const TC: u8 = 0x02;
pub(crate) const RD: u8 = 0x01;
pub(crate) const RA: u8 = 0x80;
pub(crate) const AD: u8 = 0x20;
pub(crate) const CD: u8 = 0x10;

/// What a response holds, as far as a relay cares.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Where the question stands.
    pub(crate) question: Range<usize>,
    /// Offsets of the TTL of every record but OPT.
    pub(crate) ttls: Vec<usize>,
    /// Seconds that the response may be kept: the smallest TTL, or the SOA's for an answer that says no. None when
    /// it says neither.
    pub(crate) keep_s: Option<u32>,
    /// The OPT record.
    pub(crate) opt: Option<Range<usize>>,
    /// The response code, extended by OPT's bits where present.
    pub(crate) code: u16,
}

/// The EDNS part of a client's query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientEdns {
    /// Whether it wants DNSSEC records.
    pub(crate) dnssec_ok: bool,
}

/// A message that cannot be walked. Its sender is broken or hostile; the message is dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Layout {
    /// Walks a response.
    pub(crate) fn read(message: &[u8]) -> Result<Self, Malformed> {
        let counts: Vec<usize> = (4..HEADER)
            .step_by(2)
            .map(|at| u16_at(message, at).map(usize::from))
            .collect::<Result<_, _>>()?;
        let [questions, answers, authorities, additionals] = counts[..] else { return Err(Malformed) };
        let records = answers + authorities + additionals;
        if questions != 1 || records > MAX_RECORDS {
            return Err(Malformed);
        }
        let end = skip_name(message, HEADER)? + 4;
        let mut layout = Self {
            question: HEADER..end,
            ttls: Vec::with_capacity(records.min(64)),
            keep_s: None,
            opt: None,
            code: u16::from(*message.get(3).ok_or(Malformed)? & 0xf),
        };
        let mut at = end;
        for index in 0..records {
            at = layout.read_record(message, at, index < answers, answers == 0)?;
        }
        if at > message.len() { Err(Malformed) } else { Ok(layout) }
    }

    fn read_record(
        &mut self,
        message: &[u8],
        start: usize,
        is_answer: bool,
        is_negative: bool,
    ) -> Result<usize, Malformed> {
        let fields = skip_name(message, start)?;
        let kind = u16_at(message, fields)?;
        let ttl = u32_at(message, fields + 4)?;
        let data = fields + 10;
        let end = data + usize::from(u16_at(message, fields + 8)?);
        if end > message.len() {
            return Err(Malformed);
        }
        if kind == TYPE_OPT {
            self.opt = Some(start..end);
            // RFC 6891 section 6.1.3: the TTL's first byte is the upper part of the response code.
            self.code |= u16::try_from(ttl >> 24).unwrap_or_default() << 4;
            return Ok(end);
        }
        self.ttls.push(fields + 4);
        let keep = match kind {
            // RFC 2308 section 5: a negative answer lives for the lesser of the SOA's TTL and its last field.
            TYPE_SOA if is_negative && end >= data + 20 => Some(ttl.min(u32_at(message, end - 4)?)),
            _ if is_answer => Some(ttl),
            _ => None,
        };
        self.keep_s = [self.keep_s, keep].into_iter().flatten().min();
        Ok(end)
    }
}

/// Where the name that starts at `at` ends. A compression pointer ends it, and is not followed.
fn skip_name(message: &[u8], mut at: usize) -> Result<usize, Malformed> {
    loop {
        match *message.get(at).ok_or(Malformed)? {
            0 => return Ok(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            0xc0.. => return Ok(at + 2),
            64..0xc0 => return Err(Malformed),
        }
    }
}

pub(crate) fn u16_at(message: &[u8], at: usize) -> Result<u16, Malformed> {
    let bytes = message.get(at..at + 2).and_then(|b| b.try_into().ok()).ok_or(Malformed)?;
    Ok(u16::from_be_bytes(bytes))
}

fn u32_at(message: &[u8], at: usize) -> Result<u32, Malformed> {
    let bytes = message.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(Malformed)?;
    Ok(u32::from_be_bytes(bytes))
}

/// Lowers every TTL by the time that the message was kept.
pub(crate) fn age(message: &mut [u8], ttls: &[usize], seconds: u32) {
    for at in ttls {
        if let Ok(ttl) = u32_at(message, *at)
            && let Some(field) = message.get_mut(*at..at + 4)
        {
            field.copy_from_slice(&ttl.saturating_sub(seconds).to_be_bytes());
        }
    }
}

/// Appends an OPT record and counts it.
pub(crate) fn push_opt(message: &mut Vec<u8>, edns: ClientEdns, code_high: u8) {
    let payload = EDNS_PAYLOAD.to_be_bytes();
    let flags = if edns.dnssec_ok { 0x80 } else { 0 };
    message.extend([0, 0, 41, payload[0], payload[1], code_high, 0, flags, 0, 0, 0]);
    add_to_additionals(message, 1);
}

/// Cuts the OPT record off a message, if it is the last record. Elsewhere it stays: others may refer past it.
pub(crate) fn strip_opt(message: &mut Vec<u8>, opt: Range<usize>) {
    if opt.end == message.len() {
        message.truncate(opt.start);
        add_to_additionals(message, -1);
    }
}

fn add_to_additionals(message: &mut [u8], change: i16) {
    if let Ok(count) = u16_at(message, 10)
        && let Some(field) = message.get_mut(10..HEADER)
    {
        field.copy_from_slice(&count.saturating_add_signed(change).to_be_bytes());
    }
}

/// What a datagram too small for its answer gets: header and question, marked as truncated.
pub(crate) fn truncate(message: &mut Vec<u8>, question_end: usize) {
    message.truncate(question_end);
    if let Some(flags) = message.get_mut(2) {
        *flags |= TC;
    }
    if let Some(counts) = message.get_mut(6..HEADER) {
        counts.fill(0);
    }
}

/// A query of ours, with recursion desired.
pub(crate) fn query(id: u16, question: &[u8], checking_disabled: bool, edns: Option<ClientEdns>) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let flags = if checking_disabled { CD } else { 0 };
    let mut message = Vec::with_capacity(HEADER + question.len() + OPT_LEN);
    message.extend([high, low, RD, flags, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(question);
    if let Some(edns) = edns {
        push_opt(&mut message, edns, 0);
    }
    message
}

/// Whether `message` answers `query`: its id and question, in any case.
pub(crate) fn answers(message: &[u8], query: &[u8], question_len: usize) -> bool {
    let question = HEADER..HEADER + question_len;
    let is_same_question = match (message.get(question.clone()), query.get(question)) {
        (Some(theirs), Some(ours)) => theirs.eq_ignore_ascii_case(ours),
        _ => false,
    };
    is_same_question
        && message.get(..2) == query.get(..2)
        && message.get(2).is_some_and(|flags| flags & QR != 0)
        && message.get(4..6) == Some(&[0, 1])
}

/// A question on the wire, in class IN.
pub(crate) fn question<'a>(labels: impl Iterator<Item = &'a [u8]>, kind: u16) -> Vec<u8> {
    let mut question = Vec::with_capacity(64);
    for label in labels {
        question.push(u8::try_from(label.len()).unwrap_or_default());
        question.extend(label);
    }
    question.push(0);
    question.extend(kind.to_be_bytes());
    question.extend([0, 1]);
    question
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
        rr::{
            Name, RData, Record, RecordType,
            rdata::{CNAME, SOA, TXT},
        },
    };
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// What a real server might send: an alias, an address, an extended answer.
    fn response() -> Message {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(name("www.example.com."), RecordType::A));
        let alias = RData::CNAME(CNAME(name("host.example.com.")));
        message.add_answer(Record::from_rdata(name("www.example.com."), 300, alias));
        let address = RData::A("192.0.2.1".parse().unwrap());
        message.add_answer(Record::from_rdata(name("host.example.com."), 60, address));
        let text = RData::TXT(TXT::new(vec!["x".to_owned()]));
        message.add_additional(Record::from_rdata(name("t.example.com."), 5, text));
        message.set_edns(Edns::new());
        message
    }

    fn negative(soa_ttl: u32, minimum: u32) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(name("nobody.example.com."), RecordType::A));
        message.metadata.response_code = ResponseCode::NXDomain;
        let soa = SOA::new(name("ns."), name("mail."), 1, 1, 1, 1, minimum);
        message.add_authority(Record::from_rdata(name("example.com."), soa_ttl, RData::SOA(soa)));
        message.to_vec().unwrap()
    }

    #[test]
    fn a_response_is_kept_as_long_as_its_shortest_answer() {
        let layout = Layout::read(&response().to_vec().unwrap()).unwrap();
        assert_eq!((layout.keep_s, layout.ttls.len(), layout.code), (Some(60), 3, 0));
    }

    #[test]
    fn a_negative_response_is_kept_as_its_authority_says() {
        for (ttl, minimum) in [(30, 600), (600, 30)] {
            let layout = Layout::read(&negative(ttl, minimum)).unwrap();
            assert_eq!((layout.keep_s, layout.code), (Some(30), 3));
        }
    }

    #[test]
    fn only_ttls_change_when_a_response_ages() {
        let mut bytes = response().to_vec().unwrap();
        let layout = Layout::read(&bytes).unwrap();
        age(&mut bytes, &layout.ttls, 10);
        let aged = Message::from_vec(&bytes).unwrap();
        assert_eq!(aged.answers.iter().map(|r| r.ttl).collect::<Vec<_>>(), [290, 50]);
        assert_eq!(aged.additionals[0].ttl, 0, "never below zero");
        assert_eq!(aged.answers[1].data, response().answers[1].data);
    }

    #[test]
    fn opt_can_be_taken_off_and_put_on_again() {
        let original = response().to_vec().unwrap();
        let mut bytes = original.clone();
        strip_opt(&mut bytes, Layout::read(&original).unwrap().opt.unwrap());
        assert!(Message::from_vec(&bytes).unwrap().edns.is_none());
        push_opt(&mut bytes, ClientEdns { dnssec_ok: true }, 0);
        let edns = Message::from_vec(&bytes).unwrap().edns.unwrap();
        assert!(edns.flags().dnssec_ok && edns.max_payload() == EDNS_PAYLOAD);
    }

    #[test]
    fn a_truncated_response_still_carries_its_question() {
        let mut bytes = response().to_vec().unwrap();
        let end = Layout::read(&bytes).unwrap().question.end;
        truncate(&mut bytes, end);
        let message = Message::from_vec(&bytes).unwrap();
        assert!(message.metadata.truncation && message.answers.is_empty() && message.queries.len() == 1);
    }

    #[test]
    fn our_queries_are_what_a_decoder_reads() {
        let labels = [b"www".as_slice(), b"Example", b"com"];
        let bytes = query(9, &question(labels.into_iter(), 1), true, Some(ClientEdns { dnssec_ok: true }));
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.queries[0].name(), &name("www.example.com."));
        assert!(message.metadata.recursion_desired && message.metadata.checking_disabled);
        assert!(message.edns.unwrap().flags().dnssec_ok);
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let ours = query(7, &question([b"www".as_slice(), b"example", b"com"].into_iter(), 1), false, None);
        let len = ours.len() - HEADER;
        let theirs = response().to_vec().unwrap();
        assert!(answers(&theirs, &ours, len));
        let other_id = [&[9, 9], &theirs[2..]].concat();
        let other_name =
            query(7, &question([b"wwv".as_slice(), b"example", b"com"].into_iter(), 1), false, None);
        assert!(!answers(&other_id, &ours, len) && !answers(&theirs, &other_name, len));
        assert!(!answers(&ours, &ours, len), "a query is no answer");
    }

    proptest! {
        #[test]
        fn no_message_can_panic_the_walk(
            cut in 0..200_usize,
            changes in vec((0..200_usize, any::<u8>()), 0..8),
            junk in vec(any::<u8>(), 0..100),
        ) {
            let _ = Layout::read(&junk);
            let mut bytes = response().to_vec().unwrap();
            for (at, byte) in changes {
                let len = bytes.len();
                bytes[at % len] = byte;
            }
            bytes.truncate(cut);
            if let Ok(layout) = Layout::read(&bytes) {
                age(&mut bytes, &layout.ttls, 1);
                if let Some(opt) = layout.opt {
                    strip_opt(&mut bytes, opt);
                }
                truncate(&mut bytes, layout.question.end);
                push_opt(&mut bytes, ClientEdns { dnssec_ok: false }, 0);
            }
        }
    }
}
