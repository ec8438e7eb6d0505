//! Frames that a third host's kernel passes on.

use std::collections::{BTreeMap, BTreeSet};

use weave_hostnet::{Family, LinkIndex, names};

use crate::{
    lab::{ip, run, shell},
    site::{Site, end, mac, sites, tunnel, vxlan},
};

/// VNI of relay devices with one hop left to go after theirs: see the design.
const RELAY_VNI: u32 = 11;

/// The relay's bridge on a host, with one device per family.
async fn relay(site: &Site) -> (LinkIndex, BTreeMap<Family, LinkIndex>) {
    let bridge = site.host.ensure_relay_bridge(&names::relay_bridge(1), 1400).await.unwrap();
    let mut ports = BTreeMap::new();
    for family in [Family::V4, Family::V6] {
        let spec = vxlan(&names::relay_port(1, family), RELAY_VNI, family);
        let port = site.host.ensure_vxlan(&spec).await.unwrap();
        site.host.ensure_relay_port(port, bridge).await.unwrap();
        ports.insert(family, port);
    }
    (bridge, ports)
}

/// What the middle host passes on: `db` at host 3, reached by `to_db`, and `web` at host 1, reached by `to_web`.
async fn pass_on(site: &Site, to_db: Family, to_web: Family) -> BTreeMap<Family, LinkIndex> {
    let (bridge, ports) = relay(site).await;
    let wanted = BTreeMap::from([(mac("db"), ports[&to_db]), (mac("web"), ports[&to_web])]);
    site.host.reconcile_ports(bridge, &ports.values().copied().collect(), &wanted).await.unwrap();
    for (family, port) in &ports {
        let stations = [("db", 3, to_db), ("web", 1, to_web)].into_iter().filter(|(_, _, f)| f == family);
        let stations = stations.map(|(id, host, f)| (mac(id), tunnel(host, f, Some(1)))).collect();
        site.host.reconcile_tunnels(*port, &stations, &BTreeSet::new()).await.unwrap();
    }
    ports
}

#[test]
fn a_frame_goes_through_a_relay_and_back_by_the_same_door() {
    run("relay::a_frame_goes_through_a_relay_and_back_by_the_same_door", || async {
        let sites = sites(3).await;
        let web = sites[0].container("web", &["10.32.0.1/12"]).await;
        let db = sites[2].container("db", &["10.32.0.3/12"]).await;
        let known = |address: &str, id| [(address.parse().unwrap(), mac(id))].into();
        sites[0].host.reconcile_neighbours(sites[0].bridge, &known("10.32.0.3", "db")).await.unwrap();
        sites[2].host.reconcile_neighbours(sites[2].bridge, &known("10.32.0.1", "web")).await.unwrap();
        // By one family all the way, and with a change of family on the relay, which has no container of its own.
        for (to_relay, onwards) in
            [(Family::V4, Family::V4), (Family::V6, Family::V4), (Family::V6, Family::V6)]
        {
            let here = sites[0].uplink(to_relay).await;
            let there = sites[2].uplink(onwards).await;
            sites[0].learn(here, "db", tunnel(2, to_relay, Some(RELAY_VNI))).await;
            sites[2].learn(there, "web", tunnel(2, onwards, Some(RELAY_VNI))).await;
            let ports = pass_on(&sites[1], onwards, to_relay).await;
            assert!(web.reaches(&db, "10.32.0.3"), "{to_relay:?} {onwards:?}");
            assert!(db.reaches(&web, "10.32.0.1"), "{to_relay:?} {onwards:?}");
            let (received, _) = sites[1].host.link_traffic(ports[&to_relay]).await.unwrap();
            let (_, sent) = sites[1].host.link_traffic(ports[&onwards]).await.unwrap();
            assert!(received > 0 && sent > 0, "through the relay: {received} {sent}");
            for site in &sites {
                site.host.remove_datapath().await.unwrap();
            }
        }
        drop((web, db));
        end(sites);
    });
}

#[test]
fn a_relays_bridge_passes_on_only_what_it_has_an_entry_for() {
    run("relay::a_relays_bridge_passes_on_only_what_it_has_an_entry_for", || async {
        let sites = sites(1).await;
        let site = &sites[0];
        let (bridge, ports) = relay(site).await;
        assert_eq!(relay(site).await, (bridge, ports.clone()), "the second time changes nothing");
        for name in ["weave-rv1", "weave-rv1-6"] {
            let shown = site.namespace.ip(&format!("link show {name}"));
            assert_eq!(shown[0]["master"], "weave-rb1");
            let port = &shown[0]["linkinfo"]["info_slave_data"];
            for (setting, value) in [
                ("hairpin", true),
                ("learning", false),
                ("flood", false),
                ("mcast_flood", false),
                ("bcast_flood", false),
                ("isolated", false),
            ] {
                assert_eq!(port[setting], value, "{name} {setting}");
            }
        }
        let shown = site.namespace.ip("address show dev weave-rb1");
        assert_eq!(shown[0]["addr_info"], serde_json::json!([]), "no address of any kind");
        assert_eq!(site.shell("cat /proc/sys/net/ipv6/conf/weave-rb1/disable_ipv6").trim(), "1");
        assert_eq!(site.host.take_warnings(), []);
        site.host.remove_datapath().await.unwrap();
        end(sites);
    });
}

#[test]
fn an_uplink_port_is_isolated_and_answers_for_known_neighbours() {
    run("relay::an_uplink_port_is_isolated_and_answers_for_known_neighbours", || async {
        let sites = sites(1).await;
        let site = &sites[0];
        site.shell("ip tuntap add dev weave-tap mode tap");
        site.host.ensure_tap_port("weave-tap", site.bridge).await.unwrap();
        let uplink = site.uplink(Family::V4).await;
        site.host.ensure_uplink_port(uplink, site.bridge).await.unwrap();
        for name in ["weave-tap", "weave-vx"] {
            let shown = site.namespace.ip(&format!("link show {name}"));
            assert_eq!((&shown[0]["master"], &shown[0]["mtu"]), (&"weave".into(), &1400.into()));
            let port = &shown[0]["linkinfo"]["info_slave_data"];
            for (setting, value) in [
                ("isolated", true),
                ("neigh_suppress", true),
                ("learning", false),
                ("flood", name == "weave-tap"),
                ("mcast_flood", true),
                ("bcast_flood", true),
                ("hairpin", false),
            ] {
                assert_eq!(port[setting], value, "{name} {setting}");
            }
            assert_eq!(port["multicast_router"], 2);
        }
        let tap = site.host.link_index("weave-tap").await.unwrap().unwrap();
        assert!(site.host.ensure_uplink_port(tap, site.bridge).await.is_err(), "a TAP is no tunnel device");
        site.shell("ip tuntap del dev weave-tap mode tap");
        end(sites);
        let _ = (ip("link"), shell(":"));
    });
}
