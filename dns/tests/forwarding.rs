//! Queries for names of others, with upstream servers that say what a test wants.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::SOA},
};
use support::{Upstream, Via, addresses, ask, has_soa, names, query, start, tcp, with_edns};
use weave_dns::{DnsConfig, Outcome, Server, Upstreams};

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
    for _ in 0..10 {
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
async fn the_upstream_servers_of_resolv_conf_change_under_a_running_server() {
    let path = std::env::temp_dir().join(format!("weave-dns-running-{}", std::process::id()));
    let own = "127.0.0.1:0";
    std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
    let config = DnsConfig { upstreams: Upstreams::ResolvConf(path.clone()), ..support::config(own) };
    let names = Arc::new(arc_swap::ArcSwap::new(names().snapshot()));
    let server = Server::start(config, names).await.unwrap();
    assert_eq!(server.upstreams(), ["192.0.2.1:53".parse().unwrap()]);
    std::fs::write(&path, "# none now\nsearch example.com\n").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(server.upstreams().is_empty());
    let since = tokio::time::Instant::now();
    let answer = ask(&server, &query("www.example.com.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(since.elapsed() < Duration::from_secs(1), "nobody to ask, nothing to wait for");
    std::fs::remove_file(&path).unwrap();
    server.stop().await;
}
