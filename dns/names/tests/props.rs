//! The table against a naive one: a list of records that every question scans.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use proptest::{collection::vec, prelude::*};
use weave_model::{ContainerId, PeerName};
use weave_names::{
    Answer, Domain, FactChange, Name, Names, QueryName, Record, RemoveFilter, Service, Snapshot, Transport,
};

const LOCAL: PeerName = PeerName([2, 0, 0, 0, 0, 0]);
/// Few of each, so that they meet.
const HOSTS: [&str; 7] = ["a", "b", "a.b", "c.a.b", "b.a.b", "x.y.z", "_http._tcp.a"];

#[derive(Clone, Debug)]
enum Step {
    Publish { peer: u8, record: Record },
    Withdraw { peer: u8, record: Record },
    PeerGone { peer: u8 },
    Garbage { peer: u8, key: Vec<u8>, value: Option<Vec<u8>> },
    Snapshot,
}

fn peer_name(n: u8) -> PeerName {
    PeerName([2, 0, 0, 0, 0, n])
}

fn record() -> impl Strategy<Value = Record> {
    let service = (0..2_usize, 1..3_u16);
    (0..HOSTS.len(), 0..3_u8, 0..4_u8, prop::option::of(service)).prop_map(|(host, container, n, service)| {
        Record {
            hostname: format!("{}.weave.local", HOSTS[host]).parse().unwrap(),
            container: format!("c{container}").parse().unwrap(),
            address: match n {
                0 | 1 => IpAddr::V4(Ipv4Addr::new(10, 32, 0, n)),
                _ => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into())),
            },
            service: service.map(|(t, port)| {
                Service::new(["http", "dns"][t], [Transport::Tcp, Transport::Udp][t], port).unwrap()
            }),
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let peer = || 0..3_u8;
    prop_oneof![
        8 => (peer(), record()).prop_map(|(peer, record)| Step::Publish { peer, record }),
        5 => (peer(), record()).prop_map(|(peer, record)| Step::Withdraw { peer, record }),
        1 => peer().prop_map(|peer| Step::PeerGone { peer }),
        1 => (peer(), vec(any::<u8>(), 0..40), prop::option::of(vec(any::<u8>(), 0..10)))
            .prop_map(|(peer, key, value)| Step::Garbage { peer, key, value }),
        3 => Just(Step::Snapshot),
    ]
}

/// What is published: by peer and key, as the mesh would hold it.
type Facts = BTreeMap<(PeerName, Vec<u8>), Record>;

fn apply(names: &mut Names, facts: &mut Facts, step: Step) {
    match step {
        Step::Publish { peer, record } => {
            let (peer, key) = (peer_name(peer), record.key());
            let is_news = facts.insert((peer, key.clone()), record.clone()).as_ref() != Some(&record);
            assert_eq!(names.handle_fact(peer, &key, Some(&record.value())), Ok(is_news));
        }
        Step::Withdraw { peer, record } => {
            let (peer, key) = (peer_name(peer), record.key());
            let is_news = facts.remove(&(peer, key.clone())).is_some();
            assert_eq!(names.handle_fact(peer, &key, None), Ok(is_news));
        }
        Step::PeerGone { peer } => {
            let peer = peer_name(peer);
            let before = facts.len();
            facts.retain(|(owner, _), _| *owner != peer);
            assert_eq!(names.handle_peer_gone(peer), facts.len() != before);
        }
        Step::Garbage { peer, key, value } => {
            let _ = names.handle_fact(peer_name(peer), &key, value.as_deref());
        }
        Step::Snapshot => check(&names.snapshot(), facts),
    }
}

/// Asks everything that could be known, and compares with a scan of the list.
fn check(snapshot: &Snapshot, facts: &Facts) {
    let records: Vec<&Record> = facts.values().collect();
    let mut asked: Vec<String> = HOSTS.iter().map(|h| format!("{h}.weave.local")).collect();
    for host in HOSTS {
        asked
            .extend(["_http._tcp", "_tcp", "_dns._udp", "nobody"].map(|s| format!("{s}.{host}.weave.local")));
    }
    asked.extend(["z.weave.local", "y.z.weave.local"].map(str::to_owned));
    for name in &asked {
        check_name(snapshot, &records, name);
    }
    for n in 0..4_u16 {
        for address in [
            IpAddr::V4(Ipv4Addr::new(10, 32, 0, u8::try_from(n).unwrap())),
            IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)),
        ] {
            let mut wanted: Vec<Name> =
                records.iter().filter(|r| r.address == address).map(|r| r.hostname.clone()).collect();
            wanted.sort();
            wanted.dedup();
            assert_eq!(snapshot.reverse(address), wanted, "{address}");
        }
    }
}

fn check_name(snapshot: &Snapshot, records: &[&Record], name: &str) {
    let service_name = |r: &Record| {
        let service = r.service.as_ref()?;
        Some(service.name_for(&r.hostname)?.as_str().to_owned())
    };
    let exists = |r: &&&Record| {
        [Some(r.hostname.as_str().to_owned()), service_name(r)]
            .iter()
            .flatten()
            .any(|n| n == name || n.ends_with(&format!(".{name}")))
    };
    let Some(query) = QueryName::from_text(&name.to_ascii_uppercase()) else { panic!("{name}") };
    let entry = match snapshot.lookup(&query) {
        Answer::Known(entry) => entry,
        Answer::Unknown => return assert!(records.iter().find(exists).is_none(), "{name} was not found"),
        Answer::Outside => panic!("{name} is within"),
    };
    assert!(records.iter().any(|r| exists(&r)), "{name} does not exist");
    let mut addresses: Vec<IpAddr> =
        records.iter().filter(|r| r.hostname.as_str() == name).map(|r| r.address).collect();
    addresses.sort();
    addresses.dedup();
    let found: Vec<IpAddr> =
        entry.v4.iter().copied().map(IpAddr::V4).chain(entry.v6.iter().copied().map(IpAddr::V6)).collect();
    assert_eq!(found, addresses, "{name}");
    let mut targets: Vec<(&str, u16)> = records
        .iter()
        .filter(|r| r.hostname.as_str() == name || service_name(r).as_deref() == Some(name))
        .filter_map(|r| Some((r.hostname.as_str(), r.service.as_ref()?.port())))
        .collect();
    targets.sort_unstable();
    targets.dedup();
    let found: Vec<(&str, u16)> = entry.targets.iter().map(|t| (t.host.as_str(), t.port)).collect();
    assert_eq!(found, targets, "{name}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_answer_is_what_a_scan_of_all_records_gives(steps in vec(step(), 1..60)) {
        let mut names = Names::new(Domain::default(), LOCAL);
        let mut facts = Facts::new();
        for step in steps {
            apply(&mut names, &mut facts, step);
        }
        check(&names.snapshot(), &facts);
        let listed: Vec<Record> = names.records().map(|(_, r)| r.clone()).collect();
        prop_assert_eq!(listed, facts.values().cloned().collect::<Vec<_>>());
    }

    #[test]
    fn the_order_in_which_facts_arrive_leaves_no_trace(
        records in vec((0..3_u8, record()), 1..20).prop_shuffle(),
    ) {
        let build = |records: &[(u8, Record)]| {
            let mut names = Names::new(Domain::default(), LOCAL);
            for (peer, record) in records {
                // One value for a key: in the mesh the version decides, here there is only one version.
                let record = Record { service: None, ..record.clone() };
                names.handle_fact(peer_name(*peer), &record.key(), Some(&record.value())).unwrap();
            }
            format!("{:?}", names.records().collect::<Vec<_>>())
        };
        let reversed: Vec<_> = records.iter().rev().cloned().collect();
        prop_assert_eq!(build(&records), build(&reversed));
    }

    #[test]
    fn no_bytes_from_a_peer_can_panic_or_be_half_accepted(key in vec(any::<u8>(), 0..80), value in vec(any::<u8>(), 0..10)) {
        let mut names = Names::new(Domain::default(), LOCAL);
        for key in [key.clone(), [&[1], key.as_slice()].concat()] {
            let accepted = names.handle_fact(peer_name(1), &key, Some(&value)).is_ok();
            prop_assert_eq!(names.records().count(), usize::from(accepted));
            prop_assert_eq!(names.handle_fact(peer_name(1), &key, None), Ok(accepted));
        }
        prop_assert!(names.snapshot().is_empty());
    }

    #[test]
    fn removal_takes_back_exactly_our_own_records_that_match(
        records in vec((0..2_u8, record()), 0..20),
        container in prop::option::of(0..3_u8),
        address in prop::option::of(record().prop_map(|r| r.address)),
        host in prop::option::of(0..HOSTS.len()),
    ) {
        let mut names = Names::new(Domain::default(), LOCAL);
        for (peer, record) in &records {
            names.handle_fact(peer_name(*peer), &record.key(), Some(&record.value())).unwrap();
        }
        let container: Option<ContainerId> = container.map(|n| format!("c{n}").parse().unwrap());
        let name = host.map(|h| format!("{}.Weave.Local.", HOSTS[h]));
        let is_empty = container.is_none() && address.is_none() && host.is_none();
        let wanted: Vec<Vec<u8>> = names
            .own()
            .filter(|_| !is_empty)
            .filter(|r| container.as_ref().is_none_or(|c| *c == r.container))
            .filter(|r| address.is_none_or(|a| a == r.address))
            .filter(|r| host.is_none_or(|h| r.hostname.as_str() == format!("{}.weave.local", HOSTS[h])))
            .map(Record::key)
            .collect();
        let changes = names.remove(&RemoveFilter { container, address, name });
        prop_assert!(changes.iter().all(|c| c.value.is_none()));
        prop_assert_eq!(changes.into_iter().map(|c| c.key).collect::<Vec<_>>(), wanted);
    }
}

#[test]
fn a_name_lives_from_the_return_of_its_fact_to_the_departure_of_its_peer() {
    let mut names = Names::new("example.org.".parse().unwrap(), LOCAL);
    let container = "c0ffee".parse().unwrap();
    let FactChange { key, value } = names.add(&container, "Web", "10.32.0.1".parse().unwrap()).unwrap();
    let query = QueryName::from_text("WEB.example.org.").unwrap();
    assert_eq!(names.snapshot().lookup(&query), Answer::Unknown);

    assert_eq!(names.handle_fact(LOCAL, &key, value.as_deref()), Ok(true));
    assert_eq!(names.handle_fact(LOCAL, &key, value.as_deref()), Ok(false));
    let snapshot = names.snapshot();
    assert!(matches!(snapshot.lookup(&query), Answer::Known(entry) if entry.v4.len() == 1));
    assert_eq!(snapshot.lookup(&QueryName::from_text("web.weave.local").unwrap()), Answer::Outside);

    assert!(names.handle_peer_gone(LOCAL));
    assert_eq!(names.snapshot().lookup(&query), Answer::Unknown);
    assert!(matches!(snapshot.lookup(&query), Answer::Known(_)), "an older view does not change");
}

#[test]
fn a_peer_with_another_domain_is_told_apart_and_changes_nothing() {
    let mut names = Names::new(Domain::default(), LOCAL);
    let record = Record {
        hostname: "web.other.net".parse().unwrap(),
        container: "c".parse().unwrap(),
        address: "10.32.0.1".parse().unwrap(),
        service: None,
    };
    let error = names.handle_fact(peer_name(1), &record.key(), Some(&record.value())).unwrap_err();
    assert!(error.to_string().contains("same --dns-domain"), "{error}");
    assert_eq!((names.records().count(), names.snapshot().version()), (0, 0));
}

#[test]
fn one_peer_cannot_fill_the_table_for_the_others() {
    let mut names = Names::new(Domain::default(), LOCAL);
    let record = |n: u32| Record {
        hostname: format!("n{n}.weave.local").parse().unwrap(),
        container: "c".parse().unwrap(),
        address: IpAddr::V4(n.into()),
        service: None,
    };
    let limit = u32::try_from(weave_names::MAX_RECORDS_PER_PEER).unwrap();
    for n in 0..limit {
        let record = record(n);
        assert_eq!(names.handle_fact(LOCAL, &record.key(), Some(&record.value())), Ok(true));
    }
    let next = record(limit);
    assert!(names.handle_fact(LOCAL, &next.key(), Some(&next.value())).is_err());
    assert!(names.add(&"c".parse().unwrap(), "more", next.address).is_err());
    assert!(
        names.add(&"c".parse().unwrap(), "n0", IpAddr::V4(0.into())).is_ok(),
        "known ones may come again"
    );
    assert_eq!(names.handle_fact(peer_name(1), &next.key(), Some(&next.value())), Ok(true));
    assert_eq!(names.snapshot().len(), weave_names::MAX_RECORDS_PER_PEER + 1);
}
