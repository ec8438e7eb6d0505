//! Puts answers on the wire.

use std::net::SocketAddr;

use hickory_proto::{
    op::{Metadata, ResponseCode},
    rr::Record,
    serialize::binary::BinEncoder,
};
use hickory_server::{net::xfer::Protocol, server::Request, zone_handler::MessageResponseBuilder};

use crate::{
    upstream::Relayed,
    wire::{self, ClientEdns, OPT_LEN},
};

/// The most that a datagram of ours holds, whatever the client offers.
const MAX_UDP: usize = 4096;
/// The most that a datagram holds without EDNS (RFC 1035 section 4.2.1).
const PLAIN_UDP: usize = 512;
const MAX_TCP: usize = 65_535;

/// A query that is fit to be looked at: one question, no response.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) request: Request,
    /// The client's EDNS, if it speaks that.
    pub(crate) edns: Option<ClientEdns>,
    /// The longest message that the client takes.
    limit: usize,
}

/// What came instead of a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotAQuery {
    /// Nothing that could be answered without harm: too short, or a response (which may be somebody's reflection).
    Silence,
    /// A broken query, and the message that says so.
    FormatError(Vec<u8>),
}

/// What we say about a name of ours.
#[derive(Debug, Default)]
pub(crate) struct Local {
    pub(crate) code: ResponseCode,
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Option<Record>,
    pub(crate) additionals: Vec<Record>,
}

impl Parsed {
    pub(crate) fn read(message: &[u8], from: SocketAddr, protocol: Protocol) -> Result<Self, NotAQuery> {
        let flags = *message.get(2).ok_or(NotAQuery::Silence)?;
        if message.len() < wire::HEADER || flags & wire::QR != 0 {
            return Err(NotAQuery::Silence);
        }
        let format_error = || NotAQuery::FormatError(header_only(message, 1));
        // Before the decoder reserves room for sixty thousand questions.
        if wire::u16_at(message, 4) != Ok(1) {
            return Err(format_error());
        }
        let request = Request::from_bytes(message.to_vec(), from, protocol).map_err(|_| format_error())?;
        let edns = request.edns.as_ref().map(|edns| ClientEdns { dnssec_ok: edns.flags().dnssec_ok });
        let limit = match protocol {
            Protocol::Udp if edns.is_some() => usize::from(request.max_payload()).min(MAX_UDP),
            Protocol::Udp => PLAIN_UDP,
            Protocol::Tcp | _ => MAX_TCP,
        };
        Ok(Self { request, edns, limit })
    }

    /// Room for records in the answer: what the limit leaves behind header, question and OPT.
    pub(crate) fn room(&self) -> usize {
        let question = self.request.queries.as_bytes().len();
        self.limit.saturating_sub(wire::HEADER + question + OPT_LEN)
    }

    /// An answer of our own, cut and marked as truncated when it is too long.
    pub(crate) fn answer(&self, local: Local, is_ours: bool) -> Vec<u8> {
        let mut metadata = Metadata::response_from_request(&self.request.metadata);
        metadata.response_code = local.code;
        metadata.authoritative = is_ours;
        metadata.recursion_available = true;
        let response = MessageResponseBuilder::new(&self.request.queries, None).build(
            metadata,
            &local.answers,
            &local.authority,
            [],
            &local.additionals,
        );
        let mut message = Vec::with_capacity(PLAIN_UDP);
        let mut encoder = BinEncoder::new(&mut message);
        // OPT must be there even when the answers are cut (RFC 6891 section 7), so its room is kept free.
        let room = if self.edns.is_some() { self.limit - OPT_LEN } else { self.limit };
        encoder.set_max_size(u16::try_from(room).unwrap_or(u16::MAX));
        if response.destructive_emit(&mut encoder).is_err() {
            return header_only(self.request.as_slice(), 2);
        }
        // The encoder steps back from a record that did not fit, and leaves its first bytes behind.
        let end = encoder.offset();
        message.truncate(end);
        if let Some(edns) = self.edns {
            wire::push_opt(&mut message, edns, local.code.high());
        }
        message
    }

    /// An upstream server's response, made to fit this client's query.
    pub(crate) fn relay(&self, question: &[u8], relayed: Relayed) -> Vec<u8> {
        let Relayed { mut message, layout } = relayed;
        if let Some(opt) = layout.opt.clone() {
            wire::strip_opt(&mut message, opt);
        }
        let [id_high, id_low] = self.request.metadata.id.to_be_bytes();
        if let Some([a, b, flags, more, ..]) = message.get_mut(..wire::HEADER) {
            (*a, *b) = (id_high, id_low);
            *flags &= !(wire::AA | wire::RD);
            *flags |= if self.request.metadata.recursion_desired { wire::RD } else { 0 };
            *more |= wire::RA;
            // Vouched for by nobody between us and the server.
            *more &= !(wire::AD | wire::CD);
            *more |= if self.request.metadata.checking_disabled { wire::CD } else { 0 };
        }
        if let Some(room) =
            message.get_mut(layout.question.clone()).filter(|room| room.len() == question.len())
        {
            room.copy_from_slice(question);
        }
        let opt_len = if self.edns.is_some() { OPT_LEN } else { 0 };
        if message.len() + opt_len > self.limit {
            wire::truncate(&mut message, layout.question.end);
        }
        if let Some(edns) = self.edns {
            wire::push_opt(&mut message, edns, 0);
        }
        message
    }
}

/// A response without sections to a message of at least a header.
fn header_only(message: &[u8], code: u8) -> Vec<u8> {
    let mut header = message.get(..wire::HEADER).unwrap_or(&[0; wire::HEADER]).to_vec();
    header[2] = (header[2] | wire::QR) & !(wire::AA | wire::TC);
    header[3] = wire::RA | code;
    header[4..].fill(0);
    header
}
