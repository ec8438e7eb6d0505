//! What tunnel devices send whereto: tables against the kernel, and frames that flow by them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use weave_hostnet::{Family, Host, HostError, LinkIndex, Tunnel, TunnelDiff, names};
use weave_model::Mac;

use crate::{
    lab::{run, shell},
    site::{address, end, mac, sites, tunnel, vxlan},
};

fn remotes(numbers: &[u8]) -> BTreeSet<IpAddr> {
    numbers.iter().map(|n| address(*n, Family::V4)).collect()
}

/// The flood list of `weave-vx` as `bridge` shows it.
fn flood_list() -> BTreeSet<IpAddr> {
    let shown: serde_json::Value = serde_json::from_str(&shell("bridge -j fdb show dev weave-vx")).unwrap();
    let entries = shown.as_array().unwrap().iter();
    let on_list = entries.filter(|e| e["mac"] == "00:00:00:00:00:00");
    on_list.map(|e| e["dst"].as_str().unwrap().parse().unwrap()).collect()
}

async fn device(host: &Host) -> LinkIndex {
    host.ensure_vxlan(&vxlan(names::VXLAN, 1, Family::V4)).await.unwrap()
}

#[test]
fn the_flood_list_grows_and_shrinks_by_single_destinations() {
    run("tunnels::the_flood_list_grows_and_shrinks_by_single_destinations", || async {
        let host = Host::open().await.unwrap();
        let vx = device(&host).await;
        let nobody = BTreeMap::new();
        let diff = host.reconcile_tunnels(vx, &nobody, &remotes(&[1, 2, 3])).await.unwrap();
        assert_eq!(diff, TunnelDiff { flood_added: remotes(&[1, 2, 3]), ..TunnelDiff::default() });
        assert_eq!(flood_list(), remotes(&[1, 2, 3]));
        assert_eq!(host.tunnels(vx).await.unwrap(), (BTreeMap::new(), remotes(&[1, 2, 3])));
        let diff = host.reconcile_tunnels(vx, &nobody, &remotes(&[1, 3])).await.unwrap();
        assert_eq!(diff, TunnelDiff { flood_removed: remotes(&[2]), ..TunnelDiff::default() });
        assert_eq!(flood_list(), remotes(&[1, 3]));
        host.reconcile_tunnels(vx, &nobody, &remotes(&[])).await.unwrap();
        assert_eq!(flood_list(), remotes(&[]));
        host.remove_datapath().await.unwrap();
    });
}

#[test]
fn what_somebody_else_put_there_stays() {
    run("tunnels::what_somebody_else_put_there_stays", || async {
        let host = Host::open().await.unwrap();
        let vx = device(&host).await;
        let theirs = mac("theirs");
        shell(&format!("bridge fdb add {theirs} dev weave-vx dst 192.0.2.99 self permanent"));
        let stations: BTreeMap<Mac, Tunnel> =
            [(mac("ours"), tunnel(1, Family::V4, None)), (theirs, tunnel(1, Family::V4, None))].into();
        host.reconcile_tunnels(vx, &BTreeMap::new(), &remotes(&[1, 2])).await.unwrap();
        // This takes our mark off the whole list.
        shell("bridge fdb append 00:00:00:00:00:00 dev weave-vx dst 192.0.2.98 self permanent");
        let diff = host.reconcile_tunnels(vx, &stations, &remotes(&[2, 3])).await.unwrap();
        let expected = TunnelDiff {
            added: [mac("ours")].into(),
            blocked: [theirs].into(),
            flood_added: remotes(&[3]),
            flood_removed: remotes(&[1]),
            ..TunnelDiff::default()
        };
        assert_eq!(diff, expected);
        host.reconcile_tunnels(vx, &BTreeMap::new(), &remotes(&[])).await.unwrap();
        let left = shell("bridge fdb show dev weave-vx");
        assert!(left.contains(&format!("{theirs} dst 192.0.2.99 self permanent")), "{left}");
        assert_eq!(flood_list(), remotes(&[98]));
        assert!(!left.contains(&mac("ours").to_string()), "{left}");
        host.remove_datapath().await.unwrap();
    });
}

#[test]
fn a_second_run_sends_nothing_and_a_move_is_one_replacement() {
    run("tunnels::a_second_run_sends_nothing_and_a_move_is_one_replacement", || async {
        let host = Host::open().await.unwrap();
        let vx = device(&host).await;
        let station = |n: u8, vni| BTreeMap::from([(mac("web"), tunnel(n, Family::V4, vni))]);
        host.reconcile_tunnels(vx, &station(1, Some(1)), &remotes(&[1])).await.unwrap();
        let monitor = crate::news::Monitor::start();
        let diff = host.reconcile_tunnels(vx, &station(1, None), &remotes(&[1])).await.unwrap();
        assert_eq!(diff, TunnelDiff::default(), "the device's own VNI goes without saying");
        // A new handle, as after a restart.
        let restarted = Host::open().await.unwrap();
        let diff = restarted.reconcile_tunnels(vx, &station(1, Some(1)), &remotes(&[1])).await.unwrap();
        assert_eq!(diff, TunnelDiff::default());
        let diff = restarted.reconcile_tunnels(vx, &station(2, Some(11)), &remotes(&[1])).await.unwrap();
        assert_eq!(diff, TunnelDiff { moved: [mac("web")].into(), ..TunnelDiff::default() });
        let lines = monitor.stop_after(&format!("{} dev weave-vx dst 192.0.2.2 vni 11", mac("web")));
        assert_eq!(lines.len(), 1, "one replacement, and nothing before it: {lines:?}");
        host.remove_datapath().await.unwrap();
    });
}

#[test]
fn a_refusal_is_reported_with_its_number_and_the_rest_takes_effect() {
    run("tunnels::a_refusal_is_reported_with_its_number_and_the_rest_takes_effect", || async {
        let host = Host::open().await.unwrap();
        let vx = device(&host).await;
        let stations = [
            (mac("a"), tunnel(1, Family::V4, None)),
            (mac("b"), tunnel(1, Family::V6, None)),
            (mac("c"), tunnel(2, Family::V6, None)),
        ];
        let error = host.reconcile_tunnels(vx, &stations.into(), &remotes(&[1])).await.unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(HostError::Several { failed: 2, of: 4, .. })),
            "{error:#}"
        );
        assert!(error.to_string().contains("2001:db8::"), "{error:#}");
        assert_eq!(host.tunnels(vx).await.unwrap().0, [stations[0]].into());
        assert_eq!(flood_list(), remotes(&[1]));
        let error =
            host.reconcile_tunnels(LinkIndex(999), &BTreeMap::new(), &remotes(&[])).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(HostError::NoInterface(_))), "{error:#}");
        host.remove_datapath().await.unwrap();
    });
}

#[test]
fn a_thousand_entries_of_each_table_are_reconciled_well_within_a_second() {
    run("tunnels::a_thousand_entries_of_each_table_are_reconciled_well_within_a_second", || async {
        let host = Host::open().await.unwrap();
        let bridge = crate::lab::bridge(&host).await;
        let vx = device(&host).await;
        host.ensure_uplink_port(vx, bridge).await.unwrap();
        let number = |n: u16| n.to_be_bytes();
        let mac = |n: u16| Mac([2, 0, 0, 3, number(n)[0], number(n)[1]]);
        let stations = (0..1000).map(|n| (mac(n), tunnel(number(n)[1], Family::V4, None))).collect();
        let ports = (0..1000).map(|n| (mac(n), vx)).collect();
        let neighbours =
            (0..1000).map(|n| (IpAddr::from([10, 40, number(n)[0], number(n)[1]]), mac(n))).collect();
        let uplinks = BTreeSet::from([vx]);
        for is_first in [true, false] {
            let start = tokio::time::Instant::now();
            let tunnels = host.reconcile_tunnels(vx, &stations, &remotes(&[1])).await.unwrap();
            let ports = host.reconcile_ports(bridge, &uplinks, &ports).await.unwrap();
            let neighbours = host.reconcile_neighbours(bridge, &neighbours).await.unwrap();
            let elapsed = start.elapsed();
            println!("3 tables of 1000, first {is_first}: {elapsed:?}");
            assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
            let expected = if is_first { 1000 } else { 0 };
            let added = [tunnels.added.len(), ports.added.len(), neighbours.added.len()];
            assert_eq!(added, [expected; 3]);
            assert_eq!(tunnels.is_empty() && ports.is_empty() && neighbours.is_empty(), !is_first);
        }
        host.remove_everything().await.unwrap();
    });
}

#[test]
fn frames_flow_between_containers_over_ipv4_and_over_ipv6() {
    run("tunnels::frames_flow_between_containers_over_ipv4_and_over_ipv6", || async {
        let sites = sites(2).await;
        let web = sites[0].container("web", &["10.32.0.1/12", "fd00::1/64"]).await;
        let db = sites[1].container("db", &["10.32.0.2/12", "fd00::2/64"]).await;
        for family in [Family::V4, Family::V6] {
            let here = sites[0].uplink(family).await;
            let there = sites[1].uplink(family).await;
            sites[0].learn(here, "db", tunnel(2, family, None)).await;
            sites[1].learn(there, "web", tunnel(1, family, None)).await;
            // With the flood list alone: the questions go through the tunnel, too.
            for (from, to, to_address) in
                [(&web, &db, "10.32.0.2"), (&db, &web, "10.32.0.1"), (&web, &db, "fd00::2")]
            {
                assert!(from.reaches(to, to_address), "{family:?} {to_address}");
            }
            let (received, sent) = sites[0].host.link_traffic(here).await.unwrap();
            assert!(received > 0 && sent > 0, "{received} {sent}");
            for site in &sites {
                site.host.remove_datapath().await.unwrap();
            }
        }
        drop((web, db));
        end(sites);
    });
}

#[test]
fn a_container_is_told_when_its_packets_are_too_big_for_the_path() {
    run("tunnels::a_container_is_told_when_its_packets_are_too_big_for_the_path", || async {
        let sites = sites(2).await;
        let web = sites[0].container("web", &["10.32.0.1/12"]).await;
        let db = sites[1].container("db", &["10.32.0.2/12"]).await;
        for (site, id, other) in [(&sites[0], "db", 2), (&sites[1], "web", 1)] {
            let device = site.uplink(Family::V4).await;
            site.learn(device, id, tunnel(other, Family::V4, None)).await;
            site.shell("ip link set eth0 mtu 1400");
        }
        assert!(web.reaches(&db, "10.32.0.2"));
        let route = || web.ip("route get 10.32.0.2")[0]["metrics"][0]["mtu"].as_u64();
        assert_eq!(route(), None);
        web.calls_with("10.32.0.2", &[0; 1372]);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        while route() != Some(1350) {
            assert!(tokio::time::Instant::now() < deadline, "{}", web.ip("route get 10.32.0.2"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop((web, db));
        end(sites);
    });
}
