//! Forwarding entries.

use std::collections::{BTreeMap, BTreeSet};

use weave_hostnet::{Family, FdbDiff, Host, HostError, LinkIndex, names};
use weave_model::Mac;

use crate::{
    lab::{bridge, ip, run, shell},
    site::vxlan,
};

fn macs(numbers: impl IntoIterator<Item = u16>) -> BTreeSet<Mac> {
    let mac = |n: u16| Mac([2, 0, 0, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    numbers.into_iter().map(mac).collect()
}

/// The externally learned entries of a port, as `bridge` shows them.
fn shown(port: &str) -> BTreeSet<Mac> {
    let text = shell(&format!("bridge -j fdb show br weave brport {port}"));
    let entries: serde_json::Value = serde_json::from_str(&text).unwrap();
    let has_mark =
        |e: &&serde_json::Value| e["flags"].as_array().unwrap().iter().any(|f| f == "extern_learn");
    entries
        .as_array()
        .unwrap()
        .iter()
        .filter(has_mark)
        .map(|e| e["mac"].as_str().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn entries_follow_the_wanted_set_and_others_entries_stay() {
    run("fdb::entries_follow_the_wanted_set_and_others_entries_stay", || async {
        let host = Host::open().await.unwrap();
        let bridge = bridge(&host).await;
        shell(
            "ip tuntap add dev weave-tap mode tap; ip link add p0 type veth peer name p1; ip link set p0 master weave",
        );
        let tap = host.ensure_tap_port("weave-tap", bridge).await.unwrap();
        shell(
            "bridge fdb add 02:00:00:aa:00:01 dev weave-tap master static; bridge fdb add 02:00:00:01:00:09 dev p0 master static",
        );

        let diff = host.reconcile_bridge_fdb(tap, &macs([1, 2, 3, 9])).await.unwrap();
        let expected = FdbDiff { added: macs([1, 2, 3]), blocked: macs([9]), ..FdbDiff::default() };
        assert_eq!(diff, expected);
        assert_eq!(shown("weave-tap"), macs([1, 2, 3]));
        let lines = shell("bridge fdb show br weave | grep -c extern_learn");
        assert_eq!(lines.trim(), "3", "one entry each, not one more for a VLAN");

        let again = host.reconcile_bridge_fdb(tap, &macs([1, 2, 3])).await.unwrap();
        assert_eq!(again, FdbDiff::default(), "nothing is touched the second time");

        let diff = host.reconcile_bridge_fdb(tap, &macs([2, 4])).await.unwrap();
        assert_eq!((diff.added, diff.removed), (macs([4]), macs([1, 3])));
        assert_eq!(shown("weave-tap"), macs([2, 4]));

        host.reconcile_bridge_fdb(tap, &macs([])).await.unwrap();
        assert_eq!(shown("weave-tap"), macs([]));
        let left = shell("bridge fdb show br weave");
        assert!(
            left.contains("02:00:00:aa:00:01 dev weave-tap"),
            "an operator's entry on our port stays:\n{left}"
        );
        assert!(left.contains("02:00:00:01:00:09 dev p0"), "and elsewhere:\n{left}");
        assert!(host.reconcile_bridge_fdb(bridge, &macs([1])).await.is_err(), "the bridge is no port");
        shell("ip link del p0; ip tuntap del dev weave-tap mode tap; ip link del weave");
    });
}

#[test]
fn a_station_that_shows_up_on_another_port_is_believed() {
    run("fdb::a_station_that_shows_up_on_another_port_is_believed", || async {
        let host = Host::open().await.unwrap();
        let bridge = bridge(&host).await;
        let mac = "02:00:00:01:00:05";
        shell(&format!(
            "ip tuntap add dev weave-tap mode tap; ip link add p0 type veth peer name p1 address {mac}; \
             ip link set p0 master weave; ip link set p0 up"
        ));
        let tap = host.ensure_tap_port("weave-tap", bridge).await.unwrap();
        host.reconcile_bridge_fdb(tap, &macs([5])).await.unwrap();
        // The station speaks at its new port, as soon as that forwards.
        shell("ip link set p1 up; ip address add 10.9.9.1/24 dev p1");
        let socket = std::net::UdpSocket::bind("10.9.9.1:0").unwrap();
        let moved = || {
            socket.send_to(b"hello", "10.9.9.255:9").unwrap();
            shell("bridge fdb show br weave").contains(&format!("{mac} dev p0"))
        };
        socket.set_broadcast(true).unwrap();
        assert!((0..200).any(|_| moved()), "{}", shell("bridge fdb show br weave"));
        assert_eq!(shown("weave-tap"), macs([]));
        shell("ip link del p0; ip tuntap del dev weave-tap mode tap; ip link del weave");
    });
}

#[test]
fn a_station_that_changes_its_uplink_is_replaced_and_not_removed() {
    run("fdb::a_station_that_changes_its_uplink_is_replaced_and_not_removed", || async {
        let host = Host::open().await.unwrap();
        let bridge = bridge(&host).await;
        shell(
            "ip tuntap add dev weave-tap mode tap; ip link add p0 type veth peer name p1; ip link set p0 master weave",
        );
        let tap = host.ensure_tap_port("weave-tap", bridge).await.unwrap();
        let vx = host.ensure_vxlan(&vxlan(names::VXLAN, 1, Family::V4)).await.unwrap();
        host.ensure_uplink_port(vx, bridge).await.unwrap();
        let uplinks = BTreeSet::from([tap, vx]);
        let ports = |port: LinkIndex| -> BTreeMap<Mac, LinkIndex> {
            macs([1, 2]).into_iter().map(|m| (m, port)).collect()
        };
        // Somebody else's entry with the same mark, on a port that is none of the uplinks.
        shell("bridge fdb add 02:00:00:aa:00:01 dev p0 master extern_learn");
        assert_eq!(host.reconcile_ports(bridge, &uplinks, &ports(tap)).await.unwrap().added, macs([1, 2]));
        let monitor = crate::news::Monitor::start();
        let diff = host.reconcile_ports(bridge, &uplinks, &ports(vx)).await.unwrap();
        assert_eq!(diff, FdbDiff { moved: macs([1, 2]), ..FdbDiff::default() });
        assert!(host.reconcile_ports(bridge, &uplinks, &ports(vx)).await.unwrap().is_empty());
        let lines = monitor.stop_after("02:00:00:01:00:02 dev weave-vx");
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("Deleted")), "{lines:?}");
        assert_eq!(shown("weave-vx"), macs([1, 2]));
        let none = BTreeMap::new();
        assert_eq!(host.reconcile_ports(bridge, &uplinks, &none).await.unwrap().removed, macs([1, 2]));
        assert!(shell("bridge fdb show br weave").contains("02:00:00:aa:00:01 dev p0"), "it stays");
        let elsewhere = BTreeMap::from([(Mac([2, 0, 0, 1, 0, 1]), LinkIndex(1))]);
        let error = host.reconcile_ports(bridge, &uplinks, &elsewhere).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(HostError::NoInterface(_))), "{error:#}");
        shell("ip link del p0; ip tuntap del dev weave-tap mode tap");
        host.remove_everything().await.unwrap();
    });
}

#[test]
fn two_thousand_entries_are_reconciled_in_one_pass() {
    run("fdb::two_thousand_entries_are_reconciled_in_one_pass", || async {
        let host = Host::open().await.unwrap();
        let bridge = bridge(&host).await;
        shell("ip tuntap add dev weave-tap mode tap");
        let tap = host.ensure_tap_port("weave-tap", bridge).await.unwrap();
        let many = macs(0..2000);
        let pass = host.reconcile_bridge_fdb(tap, &many);
        let diff =
            tokio::time::timeout(std::time::Duration::from_secs(2), pass).await.expect("a pass takes < 2 s");
        assert_eq!(diff.unwrap().added.len(), 2000);
        let diff = host.reconcile_bridge_fdb(tap, &macs(1..2001)).await.unwrap();
        assert_eq!((diff.added.len(), diff.removed.len()), (1, 1));
        assert_eq!(shown("weave-tap").len(), 2000);
        let _ = ip("link");
        shell("ip tuntap del dev weave-tap mode tap; ip link del weave");
    });
}
