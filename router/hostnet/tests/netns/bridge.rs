//! The bridge and its TAP port.

use weave_hostnet::{BridgeSpec, Host, HostError, LinkIndex};

use crate::lab::{ip, run, shell};

#[test]
fn a_bridge_is_made_once_and_keeps_its_address_and_mtu_whatever_joins_it() {
    run("bridge::a_bridge_is_made_once_and_keeps_its_address_and_mtu_whatever_joins_it", || async {
        let host = Host::open().await.unwrap();
        for mtu in [1400, 1500, 8950] {
            let spec = BridgeSpec { mtu, ..BridgeSpec::default() };
            let index = host.ensure_bridge(&spec).await.unwrap();
            let before = ip("link show weave");
            shell(
                "ip link add low address 02:00:00:00:00:01 mtu 1000 type veth peer name far; ip link set low master weave",
            );
            assert_eq!(host.ensure_bridge(&spec).await.unwrap(), index);
            let after = ip("link show weave");
            assert_eq!(after[0]["mtu"], mtu);
            assert_eq!(after[0]["address"], before[0]["address"], "the address follows no port");
            assert_eq!(after[0]["linkinfo"]["info_kind"], "bridge");
            assert_eq!(after[0]["linkinfo"]["info_data"]["stp_state"], 0);
            assert_eq!(after[0]["linkinfo"]["info_data"]["forward_delay"], 0);
            assert!(after[0]["flags"].as_array().unwrap().iter().any(|f| f == "UP"));
            assert_eq!(shell("cat /proc/sys/net/ipv6/conf/weave/accept_ra").trim(), "0");
            shell("ip link del low");
            assert!(host.remove_link("weave").await.unwrap());
            assert!(!host.remove_link("weave").await.unwrap());
        }
        assert_eq!(host.take_warnings(), []);
    });
}

#[test]
fn an_adopted_bridge_gets_our_settings_and_keeps_its_ports() {
    run("bridge::an_adopted_bridge_gets_our_settings_and_keeps_its_ports", || async {
        let host = Host::open().await.unwrap();
        shell(
            "ip link add name weave type bridge mcast_snooping 0 mcast_querier 1; ip link add p0 type veth peer name p1; ip link set p0 master weave",
        );
        let mac = "02:11:22:33:44:55".parse().unwrap();
        let spec = BridgeSpec { mac: Some(mac), mtu: 1300, ..BridgeSpec::default() };
        for _ in 0..2 {
            host.ensure_bridge(&spec).await.unwrap();
            let shown = ip("link show weave");
            assert_eq!(shown[0]["address"], "02:11:22:33:44:55");
            assert_eq!(shown[0]["mtu"], 1300);
            assert_eq!(shown[0]["linkinfo"]["info_data"]["mcast_snooping"], 1);
            assert_eq!(shown[0]["linkinfo"]["info_data"]["mcast_querier"], 0);
            assert_eq!(ip("link show p0")[0]["master"], "weave");
        }
        shell("ip link del p0; ip link del weave");
    });
}

#[test]
fn an_interface_of_another_kind_is_an_error_and_is_left_alone() {
    run("bridge::an_interface_of_another_kind_is_an_error_and_is_left_alone", || async {
        let host = Host::open().await.unwrap();
        shell("ip link add name weave type veth peer name other");
        let before = ip("link show weave");
        for _ in 0..2 {
            let error = host.ensure_bridge(&BridgeSpec::default()).await.unwrap_err();
            assert!(matches!(error.downcast_ref(), Some(HostError::ForeignInterface { .. })), "{error:#}");
            assert!(error.to_string().contains("`weave` is a veth, not a bridge"), "{error}");
        }
        assert_eq!(ip("link show weave"), before);
        assert!(host.remove_link("other").await.is_err(), "not ours by name");
        shell("ip link del weave");
    });
}

#[test]
fn a_bridge_that_cannot_be_configured_is_removed_again() {
    run("bridge::a_bridge_that_cannot_be_configured_is_removed_again", || async {
        let host = Host::open().await.unwrap();
        for mtu in [3, 70_000] {
            let spec = BridgeSpec { mtu, ..BridgeSpec::default() };
            assert!(host.ensure_bridge(&spec).await.is_err());
            assert_eq!(host.link_index("weave").await.unwrap(), None);
        }
        let name = "a-name-of-more-than-fifteen-bytes".to_owned();
        let error = host.ensure_bridge(&BridgeSpec { name, ..BridgeSpec::default() }).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(HostError::InterfaceName(_))));
    });
}

#[test]
fn a_tap_becomes_an_isolated_port_that_learns_nothing() {
    run("bridge::a_tap_becomes_an_isolated_port_that_learns_nothing", || async {
        let host = Host::open().await.unwrap();
        let bridge = crate::lab::bridge(&host).await;
        let error = host.ensure_tap_port("weave-tap", bridge).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(HostError::NoInterface(_))), "{error:#}");
        shell("ip tuntap add dev weave-tap mode tap vnet_hdr multi_queue");
        let index = host.ensure_tap_port("weave-tap", bridge).await.unwrap();
        assert_eq!(host.ensure_tap_port("weave-tap", bridge).await.unwrap(), index);
        let shown = ip("link show weave-tap");
        assert_eq!(shown[0]["master"], "weave");
        assert_eq!(shown[0]["txqlen"], 1000);
        assert_eq!(shown[0]["mtu"], ip("link show weave")[0]["mtu"]);
        let port = &shown[0]["linkinfo"]["info_slave_data"];
        for (setting, value) in [
            ("isolated", true),
            ("learning", false),
            ("flood", true),
            ("mcast_flood", true),
            ("bcast_flood", true),
        ] {
            assert_eq!(port[setting], value, "{setting}");
        }
        assert_eq!(port["multicast_router"], 2);
        assert_eq!(shown[0]["inet6_addr_gen_mode"], "none");
        shell("ip link add name weave-x type veth peer name y");
        let error = host.ensure_tap_port("weave-x", bridge).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(HostError::ForeignInterface { .. })), "{error:#}");
        let error = host.ensure_tap_port("weave-tap", LinkIndex(index.0)).await.unwrap_err();
        assert!(error.to_string().contains("weave-tap"), "{error:#}");
        assert_eq!(ip("link show weave-tap")[0]["master"], "weave");
        shell("ip link del weave-x; ip link del weave-tap; ip link del weave");
    });
}
