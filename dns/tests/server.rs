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
    op::{Message, OpCode, ResponseCode},
    rr::{DNSClass, RData, RecordType},
};
use support::{addresses, ask, has_soa, names, query, start, start_without_upstream, tcp, udp, with_edns};
use weave_dns::{DnsConfig, Outcome, Server, Upstreams};
use weave_names::Names;

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

/// A table with what `given` says: name, address, service.
fn table_of(domain: &str, given: impl IntoIterator<Item = (String, IpAddr, Option<String>)>) -> Names {
    let mut table = Names::new(domain.parse().unwrap(), support::LOCAL);
    for (name, address, service) in given {
        let service = service.map(|text| text.parse().unwrap());
        let change = table.add_service(&"c1".parse().unwrap(), &name, address, service).unwrap();
        table.handle_fact(support::LOCAL, &change.key, change.value.as_deref()).unwrap();
    }
    table
}

#[tokio::test]
async fn the_many_names_of_one_address_are_shuffled_and_cut_as_addresses_are() {
    let address: IpAddr = "10.32.0.9".parse().unwrap();
    let mut table = table_of("weave.local", (0..60).map(|n| (format!("n{n}"), address, None)));
    let (server, _) = start(table.snapshot(), Upstreams::List(Vec::new())).await;
    let asked = query("9.0.32.10.in-addr.arpa.", RecordType::PTR);
    let cut = ask(&server, &asked).await;
    assert!(cut.metadata.truncation && (10..60).contains(&cut.answers.len()), "{}", cut.answers.len());
    let mut first = BTreeSet::new();
    for _ in 0..10 {
        let bytes = tcp(server.local_addrs()[0], &asked.to_vec().unwrap()).await;
        let whole = Message::from_vec(&bytes).unwrap();
        let names: BTreeSet<String> = whole.answers.iter().map(|r| r.data.to_string()).collect();
        assert!(!whole.metadata.truncation && names.len() == 60);
        first.insert(whole.answers[0].data.to_string());
    }
    assert!(first.len() > 1, "{first:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_service_on_many_hosts_is_answered_whole_over_tcp_with_some_of_their_addresses() {
    let host = |n: u16| {
        let address = IpAddr::V4((0x0a20_0000 + u32::from(n)).into());
        let records = [Some(format!("http/tcp:{}", 8000 + n)), Some("dns/udp:53".to_owned()), None];
        records.map(|service| (format!("h{n}"), address, service))
    };
    // One name with a thousand ports, and hosts with two services each.
    let one = (1..=1000_u16)
        .map(|n| ("busy".to_owned(), Ipv4Addr::new(10, 33, 0, 1).into(), Some(format!("p{n}/tcp:{n}"))));
    let mut table = table_of("weave.local", (1..=20).flat_map(host).chain(one));
    let (server, _) = start(table.snapshot(), Upstreams::List(Vec::new())).await;
    for (name, wanted) in [
        ("_HTTP._tcp.h7.weave.local.", vec!["0 0 8007 h7.weave.local."]),
        ("_dns._udp.h7.weave.local.", vec!["0 0 53 h7.weave.local."]),
        ("h7.weave.local.", vec!["0 0 53 h7.weave.local.", "0 0 8007 h7.weave.local."]),
    ] {
        let answer = ask(&server, &query(name, RecordType::SRV)).await;
        let mut found: Vec<String> = answer.answers.iter().map(|r| r.data.to_string()).collect();
        found.sort();
        assert_eq!(found, wanted, "{name}");
        assert_eq!(answer.additionals.len(), 1, "the host's address once: {name}");
    }
    let asked = query("busy.weave.local.", RecordType::SRV).to_vec().unwrap();
    let whole = Message::from_vec(&tcp(server.local_addrs()[0], &asked).await).unwrap();
    assert!(!whole.metadata.truncation && whole.answers.len() == 1000);
    // A service's name has no address of its own, and one that nobody registered does not exist.
    let none = ask(&server, &query("_http._tcp.h7.weave.local.", RecordType::A)).await;
    assert!(none.metadata.response_code == ResponseCode::NoError && has_soa(&none));
    let none = ask(&server, &query("_smtp._tcp.h7.weave.local.", RecordType::SRV)).await;
    assert!(none.metadata.response_code == ResponseCode::NXDomain && has_soa(&none));
    server.stop().await;
}

#[tokio::test]
async fn another_domain_is_served_alike_with_and_without_its_dot_and_with_its_own_ttl() {
    for domain in ["Example.test.", "example.test"] {
        let address = "10.32.0.1".parse().unwrap();
        let mut table = table_of(
            domain,
            [("Web".to_owned(), address, None), ("a.b.example.test".to_owned(), address, None)],
        );
        let ttl = Duration::from_secs(30);
        let config = DnsConfig { domain: domain.parse().unwrap(), ttl, ..support::config("127.0.0.1:0") };
        let names = Arc::new(arc_swap::ArcSwap::new(table.snapshot()));
        let server = Server::start(config, names).await.unwrap();
        for name in ["web.example.test.", "WEB.", "a.B.Example.TEST."] {
            let answer = ask(&server, &query(name, RecordType::A)).await;
            assert_eq!(
                (addresses(&answer), answer.answers[0].ttl),
                (vec![address], 30),
                "{name} in {domain}"
            );
        }
        let none = ask(&server, &query("nobody.example.test.", RecordType::A)).await;
        let RData::SOA(soa) = &none.authorities[0].data else { panic!("no SOA") };
        assert_eq!(
            (none.authorities[0].ttl, soa.minimum),
            (30, 30),
            "a denial is kept no longer than an answer"
        );
        assert_eq!(none.authorities[0].name.to_ascii(), "example.test.");
        // The default domain is nobody's here: it is asked upstream, where nobody is.
        let outside = ask(&server, &query("web.weave.local.", RecordType::A)).await;
        assert_eq!(outside.metadata.response_code, ResponseCode::ServFail);
        server.stop().await;
    }
}

#[tokio::test]
async fn any_size_that_a_client_offers_is_kept_to() {
    let server = start_without_upstream().await;
    let plain = query("many.weave.local.", RecordType::A);
    for offered in [0, 100, 512, 513, 600, 1232, 4096, 65_535] {
        let asked = with_edns(plain.clone(), offered).to_vec().unwrap();
        let bytes = udp(server.local_addrs()[0], &asked).await.unwrap();
        let answer = Message::from_vec(&bytes).unwrap();
        // Less than 512 means 512 (RFC 6891 section 6.2.3).
        assert!(bytes.len() <= usize::from(offered.clamp(512, 4096)), "{} for {offered}", bytes.len());
        assert_eq!(answer.metadata.truncation, answer.answers.len() < 50, "{offered}");
        assert!(answer.edns.is_some() && answer.answers.len() >= 25, "{offered}: {}", answer.answers.len());
    }
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
    let first = ask(&server, &gone).await;
    assert_eq!(first.answers.len(), 1);
    // Asked in the same words, and in others.
    assert_eq!(ask(&server, &gone).await.answers, first.answers);
    assert_eq!(ask(&server, &query("ONE.weave.local.", RecordType::A)).await.answers.len(), 1);
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
