//! The server over real sockets, with an independent decoder at the other end.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::SOA},
};
use support::{Upstream, Via, ask, names, query, start, start_without_upstream, tcp, udp, with_edns};
use weave_dns::{DnsConfig, Outcome, Server, Upstreams};

fn addresses(answer: &Message) -> Vec<IpAddr> {
    answer.answers.iter().filter_map(|r| r.data.ip_addr()).collect()
}

fn has_soa(answer: &Message) -> bool {
    matches!(answer.authorities.as_slice(), [record] if matches!(record.data, RData::SOA(_)))
}

#[tokio::test]
async fn names_are_answered_in_both_families_and_in_any_case() {
    let server = start_without_upstream().await;
    for (name, kind, wanted) in [
        ("one.weave.local.", RecordType::A, "10.32.0.1"),
        ("ONE.Weave.LOCAL.", RecordType::A, "10.32.0.1"),
        ("two.weave.local.", RecordType::AAAA, "fd00::2"),
        ("deep.sub.weave.local.", RecordType::A, "10.32.0.3"),
        ("one.", RecordType::A, "10.32.0.1"),
    ] {
        let answer = ask(&server, &query(name, kind)).await;
        assert_eq!(addresses(&answer), [wanted.parse::<IpAddr>().unwrap()], "{name}");
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
        assert_eq!((answer.answers[0].ttl, answer.answers[0].name.to_ascii()), (1, name.to_owned()));
    }
    assert_eq!(addresses(&ask(&server, &query("two.weave.local.", RecordType::ANY)).await).len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_is_denied_with_authority() {
    let server = start_without_upstream().await;
    for (name, kind, code) in [
        ("one.weave.local.", RecordType::AAAA, ResponseCode::NoError),
        ("one.weave.local.", RecordType::MX, ResponseCode::NoError),
        ("six.weave.local.", RecordType::A, ResponseCode::NoError),
        ("sub.weave.local.", RecordType::A, ResponseCode::NoError),
        ("weave.local.", RecordType::A, ResponseCode::NoError),
        ("nobody.weave.local.", RecordType::A, ResponseCode::NXDomain),
        ("x.one.weave.local.", RecordType::MX, ResponseCode::NXDomain),
        ("no\\.dots.weave.local.", RecordType::A, ResponseCode::NXDomain),
        ("nobody.", RecordType::A, ResponseCode::NXDomain),
    ] {
        let answer = ask(&server, &query(name, kind)).await;
        assert_eq!(answer.metadata.response_code, code, "{name} {kind}");
        assert!(answer.answers.is_empty() && has_soa(&answer), "{name} {kind}");
    }
    let answer = ask(&server, &query("weave.local.", RecordType::SOA)).await;
    assert_eq!(answer.answers.len(), 1);
    let stats = server.stats();
    assert_eq!((stats.count(Outcome::Empty), stats.count(Outcome::Unknown), stats.total()), (5, 4, 10));
    server.stop().await;
}

#[tokio::test]
async fn addresses_lead_back_to_names_and_services_to_ports() {
    let server = start_without_upstream().await;
    for (name, wanted) in [
        ("1.0.32.10.in-addr.arpa.", "one.weave.local."),
        ("1.0.32.10.IN-ADDR.ARPA.", "one.weave.local."),
        ("6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", "six.weave.local."),
    ] {
        let answer = ask(&server, &query(name, RecordType::PTR)).await;
        let found: Vec<String> = answer.answers.iter().map(|r| r.data.to_string()).collect();
        assert_eq!(found, [wanted], "{name}");
    }
    for name in ["_http._tcp.web.weave.local.", "web.weave.local."] {
        let answer = ask(&server, &query(name, RecordType::SRV)).await;
        assert_eq!(answer.answers[0].data.to_string(), "0 0 8080 web.weave.local.", "{name}");
        assert_eq!(answer.additionals[0].data.ip_addr(), Some("10.32.0.4".parse().unwrap()));
    }
    server.stop().await;
}

#[tokio::test]
async fn fifty_addresses_are_cut_for_datagrams_and_whole_over_tcp() {
    let server = start_without_upstream().await;
    let plain = query("many.weave.local.", RecordType::A);
    let answer = ask(&server, &plain).await;
    assert!(answer.metadata.truncation && (20..50).contains(&answer.answers.len()));

    let bytes = udp(server.local_addrs()[0], &plain.to_vec().unwrap()).await.unwrap();
    assert!(bytes.len() <= 512, "{}", bytes.len());

    let answer = ask(&server, &with_edns(plain.clone(), 700)).await;
    assert!(answer.metadata.truncation && answer.answers.len() < 50);
    let answer = ask(&server, &with_edns(plain.clone(), 4096)).await;
    assert!(!answer.metadata.truncation && answer.answers.len() == 50);

    let answer = Message::from_vec(&tcp(server.local_addrs()[0], &plain.to_vec().unwrap()).await).unwrap();
    assert!(!answer.metadata.truncation);
    assert_eq!(addresses(&answer).into_iter().collect::<BTreeSet<_>>().len(), 50);
    server.stop().await;
}

#[tokio::test]
async fn every_address_comes_first_now_and_then() {
    let server = start_without_upstream().await;
    let mut first = BTreeSet::new();
    for _ in 0..2000 {
        let answer = ask(&server, &query("many.weave.local.", RecordType::A)).await;
        first.insert(addresses(&answer)[0]);
        if first.len() == 50 {
            break;
        }
    }
    assert_eq!(first.len(), 50);
    server.stop().await;
}

#[tokio::test]
async fn a_new_snapshot_is_seen_by_the_next_query() {
    let mut table = names();
    let (server, shared) = start(table.snapshot(), Upstreams::List(Vec::new())).await;
    let gone = query("one.weave.local.", RecordType::A);
    assert_eq!(ask(&server, &gone).await.answers.len(), 1);
    table.handle_peer_gone(support::LOCAL);
    shared.store(table.snapshot());
    assert_eq!(ask(&server, &gone).await.metadata.response_code, ResponseCode::NXDomain);
    server.stop().await;
}

#[tokio::test]
async fn a_server_on_all_addresses_answers_from_the_one_that_was_asked() {
    let names = Arc::new(arc_swap::ArcSwap::new(names().snapshot()));
    let server = Server::start(support::config("0.0.0.0:0"), names).await.unwrap();
    let asked = SocketAddr::from(([127, 0, 0, 2], server.local_addrs()[0].port()));
    let bytes = query("one.weave.local.", RecordType::A).to_vec().unwrap();
    assert!(udp(asked, &bytes).await.is_some(), "the client's socket is connected, and takes no other");
    assert!(!tcp(asked, &bytes).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn strangers_are_not_answered() {
    let names = Arc::new(arc_swap::ArcSwap::new(names().snapshot()));
    let allow = vec!["10.32.0.0/12".parse().unwrap(), "127.0.0.2/32".parse().unwrap()];
    let config = DnsConfig { allow, ..support::config("0.0.0.0:0") };
    let server = Server::start(config, names).await.unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], server.local_addrs()[0].port()));
    let bytes = query("one.weave.local.", RecordType::A).to_vec().unwrap();
    let (stranger, friend) = (bind_client("127.0.0.1").await, bind_client("127.0.0.2").await);
    let mut buffer = [0; 512];
    stranger.send_to(&bytes, address).await.unwrap();
    friend.send_to(&bytes, address).await.unwrap();
    assert!(friend.recv(&mut buffer).await.unwrap() > bytes.len());
    // Both were read in order by one task: silence until now is silence.
    assert!(stranger.try_recv(&mut buffer).is_err());
    assert_eq!(server.stats().count(Outcome::Denied), 1);
    server.stop().await;
}

async fn bind_client(address: &str) -> tokio::net::UdpSocket {
    tokio::net::UdpSocket::bind((address, 0)).await.unwrap()
}

#[tokio::test]
async fn hostile_packets_are_answered_or_ignored_and_never_stop_the_server() {
    let server = start_without_upstream().await;
    let address = server.local_addrs()[0];
    let good = query("one.weave.local.", RecordType::A).to_vec().unwrap();

    let mut many_questions = good.clone();
    many_questions[4..6].fill(0xff);
    let mut looping_name = good.clone();
    looping_name[12..14].copy_from_slice(&[0xc0, 12]);
    for broken in [many_questions, looping_name, good[..20].to_vec()] {
        let reply = Message::from_vec(&udp(address, &broken).await.unwrap()).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
    }
    let mut update = query("one.weave.local.", RecordType::A);
    update.metadata.op_code = OpCode::Status;
    assert_eq!(ask(&server, &update).await.metadata.response_code, ResponseCode::NotImp);
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(ask(&server, &chaos).await.metadata.response_code, ResponseCode::Refused);
    let mut newer = with_edns(query("one.weave.local.", RecordType::A), 1232);
    newer.edns.as_mut().unwrap().set_version(1);
    assert_eq!(u16::from(ask(&server, &newer).await.metadata.response_code), 16, "BADVERS");

    // Every prefix and every single broken byte, without waiting for what may be silence.
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for at in 0..good.len() {
        socket.send_to(&good[..at], address).await.unwrap();
        for byte in [0, 0x3f, 0x80, 0xc0, 0xff] {
            let mut broken = good.clone();
            broken[at] = byte;
            socket.send_to(&broken, address).await.unwrap();
        }
    }
    assert_eq!(ask(&server, &query("one.weave.local.", RecordType::A)).await.answers.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_busy_port_is_named_with_what_to_do() {
    let first = start_without_upstream().await;
    let config = support::config(&first.local_addrs()[0].to_string());
    let names = Arc::new(arc_swap::ArcSwap::new(names().snapshot()));
    let error = format!("{:#}", Server::start(config.clone(), Arc::clone(&names)).await.unwrap_err());
    assert!(error.contains(&first.local_addrs()[0].to_string()), "{error}");
    assert!(error.contains("--dns-listen-address") && error.contains("--no-dns"), "{error}");
    first.stop().await;
    Server::start(config, names).await.expect("the port is free again").stop().await;
}

/// Answers everything with one address and a TTL of a minute.
fn answers(query: Message, _: Via) -> Option<Vec<u8>> {
    let mut answer = reply_to(&query);
    let name = query.queries[0].name().clone();
    answer.add_answer(Record::from_rdata(name, 60, RData::A("192.0.2.1".parse().unwrap())));
    answer.to_vec().ok()
}

fn reply_to(query: &Message) -> Message {
    let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.queries = query.queries.clone();
    answer.edns = query.edns.clone();
    answer
}

fn refuses(query: Message, _: Via) -> Option<Vec<u8>> {
    let mut answer = reply_to(&query);
    answer.metadata.response_code = ResponseCode::Refused;
    answer.to_vec().ok()
}

/// A hundred addresses: cut over UDP, whole over TCP.
fn answers_at_length(query: Message, via: Via) -> Option<Vec<u8>> {
    let mut answer = reply_to(&query);
    if via == Via::Udp {
        answer.metadata.truncation = true;
    } else {
        let record = |n| {
            Record::from_rdata(
                query.queries[0].name().clone(),
                60,
                RData::A(Ipv4Addr::new(192, 0, 2, n).into()),
            )
        };
        answer.add_answers((0..100).map(record));
    }
    answer.to_vec().ok()
}

/// Says no, for a minute.
fn denies(query: Message, _: Via) -> Option<Vec<u8>> {
    let mut answer = reply_to(&query);
    answer.metadata.response_code = ResponseCode::NXDomain;
    let root = Name::root();
    let soa = SOA::new(root.clone(), root.clone(), 1, 1, 1, 1, 60);
    answer.add_authority(Record::from_rdata(root, 60, RData::SOA(soa)));
    answer.to_vec().ok()
}

fn silent(_: Message, _: Via) -> Option<Vec<u8>> {
    None
}

/// Forgeries first: another id, another question, garbage; then the truth.
fn answers_wrongly(query: Message, via: Via) -> Option<Vec<u8>> {
    let mut other = query.clone();
    match query.metadata.id % 3 {
        0 => other.metadata.id ^= 1,
        1 => other.queries = vec![Query::query(Name::root(), RecordType::A)],
        _ => return Some(vec![0xff; 40]),
    }
    answers(other, via)
}

async fn start_with(behaviours: &[support::Behaviour]) -> (Server, Vec<Upstream>) {
    let mut upstreams = Vec::new();
    for behaviour in behaviours {
        upstreams.push(Upstream::start(*behaviour).await);
    }
    let list: Vec<SocketAddr> = upstreams.iter().map(|u| u.address).collect();
    (start(names().snapshot(), Upstreams::List(list)).await.0, upstreams)
}

#[tokio::test]
async fn other_names_are_answered_by_the_upstream_server_and_then_by_the_cache() {
    let (server, upstreams) = start_with(&[answers]).await;
    for (name, kind) in [
        ("www.example.com.", RecordType::A),
        ("WWW.example.com.", RecordType::A),
        ("9.9.9.9.in-addr.arpa.", RecordType::PTR),
        ("notweave.local.", RecordType::A),
        ("com.", RecordType::NS),
        (".", RecordType::NS),
    ] {
        let answer = ask(&server, &query(name, kind)).await;
        assert_eq!(addresses(&answer), ["192.0.2.1".parse::<IpAddr>().unwrap()], "{name}");
        assert!(!answer.metadata.authoritative && answer.metadata.recursion_available);
    }
    assert_eq!(upstreams[0].asked(), 5, "the second spelling came from the cache");
    let answer = ask(&server, &with_edns(query("www.example.com.", RecordType::A), 1232)).await;
    assert_eq!(answer.answers.len(), 1);
    assert_eq!(upstreams[0].asked(), 6, "an EDNS client may get another answer");
    ask(&server, &query("one.weave.local.", RecordType::A)).await;
    ask(&server, &query("nobody.weave.local.", RecordType::A)).await;
    assert_eq!(upstreams[0].asked(), 6, "our own names never leave");
    let stats = server.stats();
    assert_eq!((stats.count(Outcome::Forwarded), stats.count(Outcome::Cached)), (6, 1));
    server.stop().await;
}

#[tokio::test]
async fn a_denial_is_relayed_and_kept() {
    let (server, upstreams) = start_with(&[denies]).await;
    for _ in 0..3 {
        let answer = ask(&server, &query("nobody.example.com.", RecordType::A)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert!(has_soa(&answer));
    }
    assert_eq!(upstreams[0].asked(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_long_answer_is_fetched_by_tcp_and_cut_for_each_client() {
    let (server, _upstreams) = start_with(&[answers_at_length]).await;
    let long = query("long.example.com.", RecordType::A);
    let answer = ask(&server, &long).await;
    assert!(answer.metadata.truncation && answer.answers.is_empty());
    let answer = Message::from_vec(&tcp(server.local_addrs()[0], &long.to_vec().unwrap()).await).unwrap();
    assert!(!answer.metadata.truncation && answer.answers.len() == 100);
    let answer = ask(&server, &with_edns(long, 4096)).await;
    assert!(!answer.metadata.truncation && answer.answers.len() == 100);
    server.stop().await;
}

#[tokio::test]
async fn a_silent_server_delays_and_a_refusing_one_is_passed_over() {
    let (server, upstreams) = start_with(&[silent, refuses, answers]).await;
    let answer = ask(&server, &query("a.example.com.", RecordType::A)).await;
    assert_eq!(answer.answers.len(), 1);
    let asked = upstreams[0].asked();
    assert!(asked >= 1);
    for n in 0..5 {
        ask(&server, &query(&format!("b{n}.example.com."), RecordType::A)).await;
    }
    assert_eq!(upstreams[0].asked(), asked, "the silent one is not asked first any more");
    server.stop().await;
}

#[tokio::test]
async fn without_an_answer_the_client_is_told_so_in_time() {
    for behaviours in [&[][..], &[silent as support::Behaviour], &[answers_wrongly]] {
        let (server, _upstreams) = start_with(behaviours).await;
        let since = tokio::time::Instant::now();
        let answer = ask(&server, &query("www.example.com.", RecordType::A)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
        assert_eq!(server.stats().count(Outcome::Failed), 1);
        server.stop().await;
    }
    let (server, _upstreams) = start_with(&[refuses, refuses]).await;
    let answer = ask(&server, &query("www.example.com.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "their own word, if they gave one");
    server.stop().await;
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let server = start_without_upstream().await;
    let address = server.local_addrs()[0];
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let mut last = held.pop().unwrap();
    let mut buffer = [0; 1];
    let read = tokio::io::AsyncReadExt::read(&mut last, &mut buffer);
    assert!(matches!(tokio::time::timeout(Duration::from_secs(5), read).await, Ok(Ok(0) | Err(_))));
    drop(held);
    server.stop().await;
}
