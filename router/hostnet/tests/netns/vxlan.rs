//! Tunnel devices.

use std::{collections::BTreeSet, net::UdpSocket};

use weave_hostnet::{Family, Host, HostError, VxlanSpec, names};

use crate::{
    lab::{ip, run, shell},
    site::{PORT, mac, tunnel, vxlan},
};

#[test]
fn devices_of_both_families_stand_side_by_side_with_one_vni_and_port() {
    run("vxlan::devices_of_both_families_stand_side_by_side_with_one_vni_and_port", || async {
        let host = Host::open().await.unwrap();
        for family in [Family::V4, Family::V6] {
            let name = names::vxlan(family);
            let spec = vxlan(name, 1, family);
            let index = host.ensure_vxlan(&spec).await.unwrap();
            let shown = ip(&format!("link show {name}"));
            assert_eq!(host.ensure_vxlan(&spec).await.unwrap(), index);
            assert_eq!(ip(&format!("link show {name}")), shown, "the second time changes nothing");
            let settings = &shown[0]["linkinfo"]["info_data"];
            assert_eq!((&settings["id"], &settings["port"]), (&1.into(), &PORT.into()));
            assert_eq!((&settings["ttl"], &settings["learning"]), (&64.into(), &false.into()));
            assert_eq!(
                (shown[0]["mtu"].as_u64(), shown[0]["address"].as_str()),
                (Some(1400), Some(&*spec.mac.to_string()))
            );
            assert_eq!(shown[0]["inet6_addr_gen_mode"], "none");
            assert!(shown[0]["flags"].as_array().unwrap().iter().any(|f| f == "UP"));
            assert_eq!(shell(&format!("cat /proc/sys/net/ipv6/conf/{name}/accept_ra")).trim(), "0");
        }
        assert_eq!(host.take_warnings(), []);
        assert_eq!(host.remove_datapath().await.unwrap(), ["weave-vx", "weave-vx6"]);
    });
}

#[test]
fn what_can_be_changed_is_changed_in_place_and_the_entries_stay() {
    run("vxlan::what_can_be_changed_is_changed_in_place_and_the_entries_stay", || async {
        let host = Host::open().await.unwrap();
        shell(
            "ip link add weave-hb type vxlan id 2 dstport 6784 learning ttl 3 df unset; ip link set weave-hb mtu 1300",
        );
        let before = host.link_index("weave-hb").await.unwrap();
        let stations = [(mac("web"), tunnel(9, Family::V4, None))].into();
        host.reconcile_tunnels(before.unwrap(), &stations, &BTreeSet::new()).await.unwrap();
        let spec = VxlanSpec { dont_fragment: true, ..vxlan(names::HEARTBEAT, 2, Family::V4) };
        assert_eq!(Some(host.ensure_vxlan(&spec).await.unwrap()), before, "adopted");
        let shown = ip("link show weave-hb");
        let settings = &shown[0]["linkinfo"]["info_data"];
        assert_eq!((&settings["ttl"], &settings["learning"]), (&64.into(), &false.into()));
        assert_eq!(settings["df"], "set");
        assert_eq!(
            (shown[0]["mtu"].as_u64(), shown[0]["address"].as_str()),
            (Some(1400), Some(&*spec.mac.to_string()))
        );
        let again = host.reconcile_tunnels(before.unwrap(), &stations, &BTreeSet::new()).await.unwrap();
        assert!(again.is_empty(), "the entry is still there: {again:?}");
        host.remove_datapath().await.unwrap();
    });
}

#[test]
fn what_cannot_be_changed_makes_the_device_anew() {
    run("vxlan::what_cannot_be_changed_makes_the_device_anew", || async {
        let host = Host::open().await.unwrap();
        let wrong = [
            (Family::V4, "id 7 dstport 6784"),
            (Family::V4, "id 1 dstport 4789"),
            (Family::V4, "id 1 dstport 6784 local ::"),
            (Family::V4, "id 1 dstport 6784 remote 192.0.2.77"),
            (Family::V4, "dstport 6784 external"),
            (Family::V6, "id 1 dstport 6784"),
        ];
        for (family, settings) in wrong {
            let spec = vxlan(names::vxlan(family), 1, family);
            let name = &spec.name;
            shell(&format!("ip link add {name} type vxlan {settings}"));
            let before = host.link_index(name).await.unwrap().unwrap();
            let index = host.ensure_vxlan(&spec).await.unwrap();
            assert_ne!(index, before, "{settings}");
            assert_eq!(ip(&format!("link show {name}"))[0]["linkinfo"]["info_data"]["id"], 1, "{settings}");
            assert_eq!(host.ensure_vxlan(&spec).await.unwrap(), index, "{settings}");
            let stations = [(mac("web"), tunnel(9, family, None))].into();
            host.reconcile_tunnels(index, &stations, &BTreeSet::new()).await.unwrap();
            assert_eq!(host.remove_datapath().await.unwrap(), std::slice::from_ref(name));
        }
    });
}

#[test]
fn what_others_hold_is_named_and_nothing_of_ours_is_left() {
    run("vxlan::what_others_hold_is_named_and_nothing_of_ours_is_left", || async {
        let host = Host::open().await.unwrap();
        let spec = vxlan(names::VXLAN, 1, Family::V4);
        shell("ip link add name weave-vx type veth peer name other");
        let error = host.ensure_vxlan(&spec).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(HostError::ForeignInterface { .. })), "{error:#}");
        shell("ip link del other; ip link add theirs type vxlan id 1 dstport 6784");
        let error = host.ensure_vxlan(&spec).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(HostError::TunnelTaken { .. })), "{error:#}");
        assert!(error.to_string().contains("another VXLAN device"), "{error:#}");
        shell("ip link del theirs");
        let program = UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
        let error = host.ensure_vxlan(&spec).await.unwrap_err();
        assert!(error.to_string().contains("another program has the UDP port"), "{error:#}");
        assert_eq!(host.link_index("weave-vx").await.unwrap(), None, "undone");
        drop(program);
        host.ensure_vxlan(&spec).await.unwrap();
        let error = host.ensure_vxlan(&VxlanSpec { mtu: 70_000, ..spec }).await.unwrap_err();
        assert!(error.to_string().contains("weave-vx"), "{error:#}");
        host.remove_datapath().await.unwrap();
        let error = host.ensure_vxlan(&VxlanSpec { vni: 1 << 24, ..vxlan("weave-vx", 1, Family::V4) }).await;
        assert!(error.is_err());
    });
}

#[test]
fn without_ipv6_a_device_over_ipv6_is_refused_in_words_or_works() {
    run("vxlan::without_ipv6_a_device_over_ipv6_is_refused_in_words_or_works", || async {
        let host = Host::open().await.unwrap();
        host.check_vxlan().await.unwrap();
        shell(
            "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6",
        );
        host.ensure_vxlan(&vxlan(names::VXLAN, 1, Family::V4)).await.unwrap();
        if let Err(error) = host.ensure_vxlan(&vxlan(names::VXLAN6, 1, Family::V6)).await {
            assert!(error.to_string().contains("IPv6 is switched off"), "{error:#}");
        }
        host.remove_datapath().await.unwrap();
    });
}
