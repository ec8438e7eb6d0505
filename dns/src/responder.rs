//! Decides what to say to a query.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use hickory_proto::{
    op::{LowerQuery, OpCode, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{PTR, SOA, SRV},
    },
};
use hickory_server::net::xfer::Protocol;
use rand_core::RngCore;
use weave_names::{Answer, Domain, Entry, QueryName, Snapshot};

use crate::{
    reply::{Local, NotAQuery, Parsed},
    stats::Outcome,
    upstream::{Failure, Forwarder, Query, Relayed},
    wire,
};

/// The smallest record of an address on the wire: a pointer to the name, the fixed fields, four bytes.
const MIN_RECORD: usize = 16;
/// The smallest record of a name that an address has: a pointer, the fixed fields, a pointer again.
const MIN_POINTER: usize = 14;
/// Hosts' addresses stop being added to an answer about services at this many.
const MAX_ADDITIONALS: usize = 64;
/// What secondary servers would be told, if a zone could be transferred from here: an hour, in seconds.
const SOA_INTERVAL: i32 = 3600;

/// Answers queries: ours from the names, others' from upstream.
#[derive(Debug)]
pub(crate) struct Responder {
    names: Arc<ArcSwap<Snapshot>>,
    forwarder: Forwarder,
    domain: Name,
    ttl: u32,
}

/// What to do about a message.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Send this.
    Send(Vec<u8>, Outcome),
    /// Ask upstream, with [`Responder::forward`].
    Forward(Box<Pending>),
    /// Send nothing.
    Ignore,
}

/// A query on its way upstream.
#[derive(Debug)]
pub(crate) struct Pending {
    parsed: Parsed,
    query: Query,
}

impl Responder {
    /// The names as they are now.
    pub(crate) fn names(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.names.load()
    }

    /// The servers that other names are asked of now.
    pub(crate) fn upstreams(&self) -> Vec<SocketAddr> {
        self.forwarder.servers()
    }

    pub(crate) fn new(
        names: Arc<ArcSwap<Snapshot>>,
        forwarder: Forwarder,
        domain: &Domain,
        ttl: Duration,
    ) -> anyhow::Result<Self> {
        let ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).min(i32::MAX.unsigned_abs());
        Ok(Self { names, forwarder, domain: host_name(domain.name())?, ttl })
    }

    /// Decides at once, without waiting for anything.
    pub(crate) fn decide(
        &self,
        message: &[u8],
        from: SocketAddr,
        protocol: Protocol,
        rng: &mut impl RngCore,
    ) -> Decision {
        let parsed = match Parsed::read(message, from, protocol) {
            Ok(parsed) => parsed,
            Err(NotAQuery::Silence) => return Decision::Ignore,
            Err(NotAQuery::FormatError(reply)) => return Decision::Send(reply, Outcome::Malformed),
        };
        let [query] = parsed.request.queries.queries() else { return Decision::Ignore };
        let refusal = if parsed.request.metadata.op_code != OpCode::Query {
            Some(ResponseCode::NotImp)
        } else if parsed.request.version() > 0 {
            Some(ResponseCode::BADVERS)
        } else if query.query_class() != DNSClass::IN {
            Some(ResponseCode::Refused)
        } else {
            None
        };
        if let Some(code) = refusal {
            return Decision::Send(parsed.answer(Local::code(code), false), Outcome::Malformed);
        }
        let snapshot = self.names.load();
        if let Some((local, outcome)) = self.local(&snapshot, query, parsed.room(), rng) {
            return Decision::Send(parsed.answer(local, true), outcome);
        }
        self.outside(parsed)
    }

    /// Waits for an upstream server.
    pub(crate) async fn forward(&self, pending: &Pending) -> (Vec<u8>, Outcome) {
        match self.forwarder.forward(&pending.query).await {
            Ok(relayed) => (pending.relay(relayed), Outcome::Forwarded),
            Err(Failure) => (pending.failure(), Outcome::Failed),
        }
    }

    fn outside(&self, parsed: Parsed) -> Decision {
        let [query] = parsed.request.queries.queries() else { return Decision::Ignore };
        let kind = u16::from(query.query_type());
        let pending = Pending {
            query: Query {
                question: wire::question(query.original().name().iter(), kind),
                checking_disabled: parsed.request.metadata.checking_disabled,
                edns: parsed.edns,
            },
            parsed,
        };
        match self.forwarder.cached(&pending.query) {
            Some(relayed) => Decision::Send(pending.relay(relayed), Outcome::Cached),
            None => Decision::Forward(Box::new(pending)),
        }
    }

    /// What we say about a name or an address of ours; None when it is not ours to say.
    fn local(
        &self,
        snapshot: &Snapshot,
        query: &LowerQuery,
        room: usize,
        rng: &mut impl RngCore,
    ) -> Option<(Local, Outcome)> {
        let asked = query.original().name();
        let kind = query.query_type();
        let name = QueryName::from_labels(asked.iter());
        if kind == RecordType::PTR
            && let Some(local) = self.pointers(snapshot, asked, room, rng)
        {
            return Some((local, Outcome::Answered));
        }
        let Some(name) = name else {
            // No name of ours, but it may be a strange one below our domain.
            return self
                .domain
                .zone_of(asked)
                .then(|| (self.negative(snapshot, ResponseCode::NXDomain), Outcome::Unknown));
        };
        let answer = match snapshot.lookup(&name) {
            // A single label is short for a name in the domain. Addresses of such names are never asked outside.
            Answer::Outside if name.labels() == 1 => {
                match (snapshot.lookup(&name.within(snapshot.domain())?), kind) {
                    (Answer::Unknown, RecordType::A | RecordType::AAAA) => Answer::Unknown,
                    (Answer::Unknown | Answer::Outside, _) => return None,
                    (known @ Answer::Known(_), _) => known,
                }
            }
            Answer::Outside => return None,
            answer @ (Answer::Known(_) | Answer::Unknown) => answer,
        };
        let Answer::Known(entry) = answer else {
            return Some((self.negative(snapshot, ResponseCode::NXDomain), Outcome::Unknown));
        };
        if kind == RecordType::SOA && asked.eq_ignore_root(&self.domain) {
            let answers = vec![self.soa(snapshot)];
            return Some((Local { answers, ..Local::default() }, Outcome::Answered));
        }
        let local = self.records(snapshot, entry, asked, kind, room, rng);
        if local.answers.is_empty() {
            return Some((self.negative(snapshot, ResponseCode::NoError), Outcome::Empty));
        }
        Some((local, Outcome::Answered))
    }

    fn records(
        &self,
        snapshot: &Snapshot,
        entry: &Entry,
        asked: &Name,
        kind: RecordType,
        room: usize,
        rng: &mut impl RngCore,
    ) -> Local {
        let is_any = kind == RecordType::ANY;
        // One more than fits, so that the encoder sees that something is left out.
        let at_most = room / MIN_RECORD + 1;
        let mut local = Local::default();
        let record = |data: RData| Record::from_rdata(asked.clone(), self.ttl, data);
        if is_any || kind == RecordType::A {
            let addresses = sample(&entry.v4, at_most, rng);
            local.answers.extend(addresses.into_iter().map(|v4| record(RData::A(v4.into()))));
        }
        if is_any || kind == RecordType::AAAA {
            let addresses = sample(&entry.v6, at_most, rng);
            local.answers.extend(addresses.into_iter().map(|v6| record(RData::AAAA(v6.into()))));
        }
        if is_any || kind == RecordType::SRV {
            for target in sample(&entry.targets, at_most, rng) {
                let Ok(host) = host_name(&target.host) else { continue };
                self.add_addresses(snapshot, &host, &mut local.additionals);
                local.answers.push(record(RData::SRV(SRV::new(0, 0, target.port, host))));
            }
        }
        local
    }

    /// The addresses of a service's host, to save the client a query (RFC 2782).
    fn add_addresses(&self, snapshot: &Snapshot, host: &Name, additionals: &mut Vec<Record>) {
        /// Enough of one host to begin with; the client asks for more if it wants.
        const ENOUGH: usize = 8;
        if additionals.len() >= MAX_ADDITIONALS {
            return;
        }
        let is_there = additionals.iter().any(|record| record.name == *host);
        let name = QueryName::from_labels(host.iter());
        if let (false, Some(Answer::Known(entry))) =
            (is_there, name.as_ref().map(|name| snapshot.lookup(name)))
        {
            let v4 = entry.v4.iter().map(|v4| RData::A((*v4).into()));
            let v6 = entry.v6.iter().map(|v6| RData::AAAA((*v6).into()));
            let records = v4.chain(v6).map(|data| Record::from_rdata(host.clone(), self.ttl, data));
            additionals.extend(records.take(ENOUGH));
        }
    }

    /// The names of an address of ours, the many names that one may have cut as its many addresses are.
    fn pointers(
        &self,
        snapshot: &Snapshot,
        asked: &Name,
        room: usize,
        rng: &mut impl RngCore,
    ) -> Option<Local> {
        let net = asked.parse_arpa_name().ok().filter(|net| net.prefix_len() == net.max_prefix_len())?;
        let names = snapshot.reverse(net.addr());
        let answers: Vec<Record> = sample(names, room / MIN_POINTER + 1, rng)
            .iter()
            .filter_map(|name| host_name(name).ok())
            .map(|name| Record::from_rdata(asked.clone(), self.ttl, RData::PTR(PTR(name))))
            .collect();
        (!answers.is_empty()).then(|| Local { answers, ..Local::default() })
    }

    fn negative(&self, snapshot: &Snapshot, code: ResponseCode) -> Local {
        Local { code, authority: Some(self.soa(snapshot)), ..Local::default() }
    }

    fn soa(&self, snapshot: &Snapshot) -> Record {
        let below = |label: &str| self.domain.prepend_label(label).unwrap_or_else(|_| self.domain.clone());
        // The serial only has to differ when the names do (RFC 1982 arithmetic: it may wrap).
        let serial = u32::try_from(snapshot.version() & u64::from(u32::MAX)).unwrap_or_default();
        let (mname, rname) = (below("ns"), below("hostmaster"));
        let soa = SOA::new(mname, rname, serial, SOA_INTERVAL, SOA_INTERVAL, SOA_INTERVAL, self.ttl);
        Record::from_rdata(self.domain.clone(), self.ttl, RData::SOA(soa))
    }
}

impl Pending {
    fn relay(&self, relayed: Relayed) -> Vec<u8> {
        self.parsed.relay(&self.query.question, relayed)
    }

    /// What the client is told when nobody answers.
    pub(crate) fn failure(&self) -> Vec<u8> {
        self.parsed.answer(Local::code(ResponseCode::ServFail), false)
    }
}

impl Local {
    fn code(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

/// At most `n` of a list, picked and ordered at random: clients that take the first spread over all.
fn sample<T: Clone>(list: &[T], n: usize, rng: &mut impl RngCore) -> Vec<T> {
    let mut list = list.to_vec();
    let n = n.min(list.len());
    for at in 0..n {
        let left = list.len() - at;
        let pick = at + rng.next_u32() as usize % left;
        list.swap(at, pick);
    }
    list.truncate(n);
    list
}

fn host_name(name: &weave_names::Name) -> anyhow::Result<Name> {
    let mut host = Name::from_labels(name.labels().map(str::as_bytes))?;
    host.set_fqdn(true);
    Ok(host)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use proptest::{collection::vec, prelude::*};
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;
    use weave_model::PeerName;
    use weave_names::Names;

    use super::*;
    use crate::{config::Upstreams, upstream::Servers};

    /// A responder that knows `many.weave.local` (forty addresses, a service) and nobody to ask.
    fn responder() -> Responder {
        let local = PeerName([2, 0, 0, 0, 0, 1]);
        let mut names = Names::new(Domain::default(), local);
        for n in 0..40_u8 {
            let service = Some("http/tcp:80".parse().unwrap());
            let container = "c".parse().unwrap();
            let change = names.add_service(&container, "many", [10, 32, 0, n].into(), service).unwrap();
            names.handle_fact(local, &change.key, change.value.as_deref()).unwrap();
        }
        let servers = Servers::new(Upstreams::List(Vec::new()), Vec::new());
        let forwarder = Forwarder::new(servers, Duration::from_secs(1));
        let snapshot = Arc::new(ArcSwap::new(names.snapshot()));
        Responder::new(snapshot, forwarder, &Domain::default(), Duration::from_secs(1)).unwrap()
    }

    fn query(labels: &[&[u8]], kind: u16, edns: bool) -> Vec<u8> {
        let question = wire::question(labels.iter().copied(), kind);
        wire::query(7, &question, false, edns.then_some(wire::ClientEdns { dnssec_ok: false }))
    }

    fn check(decision: Decision, limit: usize) -> Result<(), TestCaseError> {
        if let Decision::Send(reply, _) = decision {
            prop_assert!(reply.len() <= limit, "{} bytes", reply.len());
            prop_assert!(Message::from_vec(&reply).is_ok(), "{}", reply.escape_ascii());
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered_with_what_a_decoder_reads(
            junk in vec(any::<u8>(), 0..80),
            labels in vec(prop_oneof![
                Just(b"many".to_vec()), Just(b"weave".to_vec()), Just(b"local".to_vec()), Just(b"_tcp".to_vec()),
                vec(any::<u8>(), 1..=63),
            ], 0..5),
            kind in prop_oneof![Just(1_u16), Just(28), Just(12), Just(33), Just(255), any::<u16>()],
            edns in any::<bool>(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let responder = responder();
            let mut rng = ChaCha8Rng::from_seed([7; 32]);
            let from = SocketAddr::from(([127, 0, 0, 1], 5353));
            check(responder.decide(&junk, from, Protocol::Udp, &mut rng), 512)?;

            let labels: Vec<&[u8]> = labels.iter().map(Vec::as_slice).collect();
            let mut message = query(&labels, kind, edns);
            let limit = if edns { 1232 } else { 512 };
            check(responder.decide(&message, from, Protocol::Udp, &mut rng), limit)?;
            check(responder.decide(&message, from, Protocol::Tcp, &mut rng), 65_535)?;
            for (at, byte) in changes {
                let at = at.index(message.len());
                message[at] = byte;
            }
            let _ = responder.decide(&message, from, Protocol::Udp, &mut rng);
        }

        #[test]
        fn a_sample_is_what_was_asked_for_without_repetition(len in 0..50_usize, n in 0..60_usize, seed: [u8; 32]) {
            let list: Vec<usize> = (0..len).collect();
            let mut picked = sample(&list, n, &mut ChaCha8Rng::from_seed(seed));
            prop_assert_eq!(picked.len(), n.min(len));
            picked.sort_unstable();
            picked.dedup();
            prop_assert_eq!(picked.len(), n.min(len));
        }
    }

    #[test]
    fn what_is_below_our_domain_never_leaves() {
        let responder = responder();
        let mut rng = ChaCha8Rng::from_seed([7; 32]);
        let from = SocketAddr::from(([127, 0, 0, 1], 5353));
        for first in [b"many".as_slice(), b"nobody", b"a.b", b"\xff\x00", b""] {
            let labels = [first, b"Weave", b"LOCAL"];
            let labels = if first.is_empty() { &labels[1..] } else { &labels };
            for kind in [1, 2, 5, 6, 12, 15, 16, 28, 33, 43, 64, 65, 255, 999] {
                let decision = responder.decide(&query(labels, kind, true), from, Protocol::Udp, &mut rng);
                assert!(matches!(decision, Decision::Send(..)), "{labels:?} {kind}");
            }
        }
    }
}
