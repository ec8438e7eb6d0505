//! Questions for known addresses stay on the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use weave_hostnet::{Family, Host, NeighbourDiff, PacketSocket, names};
use weave_model::Mac;

use crate::{
    lab::{bridge, ip, run, shell},
    site::{end, mac, sites, tunnel},
};

/// Every frame, whatever its kind (linux/if_ether.h: `ETH_P_ALL`).
const EVERYTHING: u16 = 3;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn neighbours(pairs: &[(&str, &str)]) -> BTreeMap<IpAddr, Mac> {
    pairs.iter().map(|(address, id)| (address.parse().unwrap(), mac(id))).collect()
}

/// The ethertype and next header of what is inside a VXLAN packet over IPv4, if it is one.
fn inside(frame: &[u8]) -> Option<(u16, u8)> {
    const INNER: usize = 14 + 20 + 8 + 8;
    let is_vxlan =
        frame.get(12..14)? == [8, 0] && frame.get(23)? == &17 && frame.get(36..38)? == 6784u16.to_be_bytes();
    let ethertype = u16::from_be_bytes(frame.get(INNER + 12..INNER + 14)?.try_into().ok()?);
    is_vxlan.then_some((ethertype, *frame.get(INNER + 14 + 6)?))
}

/// What a host sends into the underlay until it was quiet for a moment.
async fn captured(capture: &PacketSocket) -> Vec<(u16, u8)> {
    let mut seen = Vec::new();
    let mut buffer = vec![0; 2048];
    while let Ok(length) = tokio::time::timeout(Duration::from_millis(200), capture.recv(&mut buffer)).await {
        seen.extend(inside(&buffer[..length.unwrap()]));
    }
    seen
}

#[test]
fn nobody_asks_the_underlay_for_an_address_that_is_known() {
    run("suppress::nobody_asks_the_underlay_for_an_address_that_is_known", || async {
        const ICMPV6: u8 = 58;
        let sites = sites(2).await;
        let underlay = Host::open().await.unwrap();
        let un1 = underlay.link_index("un1").await.unwrap().unwrap();
        let capture = PacketSocket::open(&underlay, un1, EVERYTHING).unwrap();
        let here = sites[0].uplink(Family::V4).await;
        let there = sites[1].uplink(Family::V4).await;
        let web = sites[0].container("web", &["10.32.0.1/12", "fd00::1/64"]).await;
        let db = sites[1].container("db", &["10.32.0.2/12", "fd00::2/64"]).await;
        sites[0].learn(here, "db", tunnel(2, Family::V4, None)).await;
        sites[1].learn(there, "web", tunnel(1, Family::V4, None)).await;
        let cache = sites[0].container("cache", &["10.32.0.3/12"]).await;
        // Of the host's own containers too: then questions for them do not leave, either.
        let known = neighbours(&[("10.32.0.2", "db"), ("fd00::2", "db"), ("10.32.0.3", "cache")]);
        let diff = sites[0].host.reconcile_neighbours(sites[0].bridge, &known).await.unwrap();
        assert_eq!(diff.added, addresses(&["10.32.0.2", "fd00::2", "10.32.0.3"]));
        let known = neighbours(&[("10.32.0.1", "web"), ("fd00::1", "web")]);
        sites[1].host.reconcile_neighbours(sites[1].bridge, &known).await.unwrap();
        for (from, to, address) in [
            (&web, &db, "10.32.0.2"),
            (&db, &web, "10.32.0.1"),
            (&web, &db, "fd00::2"),
            (&db, &web, "fd00::1"),
        ] {
            assert!(from.reaches(to, address), "{address}");
        }
        assert!(web.reaches(&cache, "10.32.0.3"));
        let seen = captured(&capture).await;
        assert!(seen.iter().any(|(kind, _)| *kind == 0x0800), "the datagrams themselves: {seen:x?}");
        assert!(
            !seen.iter().any(|(kind, next)| *kind == ARP || (*kind == IPV6 && *next == ICMPV6)),
            "{seen:x?}"
        );
        // An address that nobody knows is asked for everywhere.
        web.calls("10.32.9.9");
        assert!(captured(&capture).await.iter().any(|(kind, _)| *kind == ARP), "the capture works");
        assert_eq!(capture.dropped().unwrap(), 0);
        drop((web, db, cache, capture));
        end(sites);
    });
}

#[test]
fn containers_hear_at_once_when_an_address_has_another_station() {
    run("suppress::containers_hear_at_once_when_an_address_has_another_station", || async {
        let host = Host::open().await.unwrap();
        let bridge = bridge(&host).await;
        let web = crate::lab::Container::new();
        host.attach(&crate::lab::spec(web.netns(), "web", &["10.32.0.1/12", "fd00::1/64"])).await.unwrap();
        let enter = web.enter();
        let station = |id: &str| neighbours(&[("10.32.0.2", id), ("fd00::2", id)]);
        host.reconcile_neighbours(bridge, &station("old")).await.unwrap();
        for address in ["10.32.0.2", "fd00::2"] {
            shell(&format!(
                "{enter}ip neighbour replace {address} lladdr {} dev ethwe nud stale",
                mac("old")
            ));
        }
        let diff = host.reconcile_neighbours(bridge, &station("new")).await.unwrap();
        assert_eq!(diff.moved, addresses(&["10.32.0.2", "fd00::2"]));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        let knows = || {
            shell(&format!("{enter}ip neighbour show dev ethwe")).matches(&mac("new").to_string()).count()
                == 2
        };
        while !knows() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{}",
                shell(&format!("{enter}ip neighbour show dev ethwe"))
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(host.take_warnings(), []);
        host.remove_everything().await.unwrap();
    });
}

#[test]
fn entries_are_exact_survive_a_lost_carrier_and_leave_others_alone() {
    run("suppress::entries_are_exact_survive_a_lost_carrier_and_leave_others_alone", || async {
        let host = Host::open().await.unwrap();
        let bridge = bridge(&host).await;
        shell(
            "ip link add p0 type veth peer name p1; ip link set p0 master weave; ip link set p0 up; ip link set p1 up; \
             ip neighbour add 10.32.0.77 lladdr 02:00:00:00:00:77 dev weave nud permanent; \
             ip neighbour add 10.32.0.5 lladdr 02:00:00:00:00:55 dev weave nud stale",
        );
        let wanted =
            neighbours(&[("10.32.0.5", "a"), ("10.32.0.6", "b"), ("10.32.0.77", "c"), ("fd00::6", "b")]);
        let diff = host.reconcile_neighbours(bridge, &wanted).await.unwrap();
        let expected = NeighbourDiff {
            added: addresses(&["10.32.0.5", "10.32.0.6", "fd00::6"]),
            blocked: addresses(&["10.32.0.77"]),
            ..NeighbourDiff::default()
        };
        assert_eq!(diff, expected);
        shell("ip link set p1 down");
        let has_carrier =
            || ip("link show weave")[0]["flags"].as_array().unwrap().iter().any(|f| f == "LOWER_UP");
        assert!((0..1000).any(|_| !has_carrier()));
        assert!(host.reconcile_neighbours(bridge, &wanted).await.unwrap().is_empty(), "all are still there");
        let shown = ip("neighbour show dev weave");
        let ours = shown.as_array().unwrap().iter().filter(|n| n["state"][0] == "PERMANENT");
        assert_eq!(ours.count(), 4, "{shown}");
        let fewer = neighbours(&[("10.32.0.6", "b")]);
        let diff = host.reconcile_neighbours(bridge, &fewer).await.unwrap();
        assert_eq!(diff.removed, addresses(&["10.32.0.5", "fd00::6"]));
        assert!(
            shell("ip neighbour show dev weave").contains("10.32.0.77 lladdr 02:00:00:00:00:77 PERMANENT")
        );
        shell("ip link del p0");
        host.remove_everything().await.unwrap();
    });
}

#[test]
fn without_ipv6_on_the_bridge_its_addresses_are_left_out() {
    run("suppress::without_ipv6_on_the_bridge_its_addresses_are_left_out", || async {
        let host = Host::open().await.unwrap();
        let bridge = bridge(&host).await;
        let wanted = neighbours(&[("10.32.0.5", "a"), ("fd00::5", "a")]);
        for mtu in [1200, 1400] {
            host.set_mtu(bridge, mtu).await.unwrap();
            let diff = host.reconcile_neighbours(bridge, &wanted).await.unwrap();
            let (added, without) =
                if mtu < 1280 { ("10.32.0.5", Some("fd00::5")) } else { ("fd00::5", None) };
            assert_eq!(diff.added, addresses(&[added]), "{mtu}");
            assert_eq!(diff.without_ipv6, addresses(without.as_slice()), "{mtu}");
        }
        host.remove_link(names::BRIDGE).await.unwrap();
    });
}
