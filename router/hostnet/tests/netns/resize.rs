//! MTUs of interfaces in use.

use weave_hostnet::{Family, Host, HostError, LinkIndex, names};

use crate::{
    lab::{Container, bridge, ip, run, shell, spec},
    site::vxlan,
};

#[test]
fn a_bridge_takes_our_ports_with_it_and_leaves_others() {
    run("resize::a_bridge_takes_our_ports_with_it_and_leaves_others", || async {
        let host = Host::open().await.unwrap();
        let bridge = bridge(&host).await;
        let vx = host.ensure_vxlan(&vxlan(names::VXLAN, 1, Family::V4)).await.unwrap();
        host.ensure_uplink_port(vx, bridge).await.unwrap();
        let container = Container::new();
        host.attach(&spec(container.netns(), "web", &["10.32.0.7/12"])).await.unwrap();
        shell("ip link add p0 mtu 1450 type veth peer name p1; ip link set p0 master weave");
        for mtu in [8950, 1300, 1300] {
            host.set_mtu(bridge, mtu).await.unwrap();
            host.set_container_mtu(&container.netns(), names::CONTAINER, mtu).await.unwrap();
            for name in ["weave", "weave-vx", &names::host_ifname("web")] {
                assert_eq!(ip(&format!("link show {name}"))[0]["mtu"], mtu, "{name}");
            }
            assert_eq!(container.ip("link show ethwe")[0]["mtu"], mtu);
            assert_eq!(ip("link show p0")[0]["mtu"], 1450, "not ours");
        }
        assert_eq!(host.link_mtu("weave").await.unwrap(), Some(1300));
        let error = host.set_mtu(LinkIndex(999), 1300).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(HostError::NoInterface(_))), "{error:#}");
        let error = host.set_mtu(bridge, 70_000).await.unwrap_err();
        assert!(error.to_string().contains("setting the MTU of"), "{error:#}");
        let netns = container.netns();
        container.ends();
        host.set_container_mtu(&netns, names::CONTAINER, 1400).await.unwrap();
        shell("ip link del p0");
        host.remove_everything().await.unwrap();
    });
}

#[test]
fn the_way_to_a_host_has_the_mtu_of_its_route_or_interface() {
    run("resize::the_way_to_a_host_has_the_mtu_of_its_route_or_interface", || async {
        let host = Host::open().await.unwrap();
        shell(
            "ip link add eth0 mtu 9000 type veth peer name x0; ip link set eth0 up; ip link set x0 up; \
             ip address add 192.0.2.7/24 dev eth0; ip address add 2001:db8::7/64 dev eth0 nodad; \
             ip route add 198.51.100.0/24 via 192.0.2.1 mtu 1400",
        );
        for (remote, mtu) in [("192.0.2.9", 9000), ("198.51.100.4", 1400), ("2001:db8::9", 9000)] {
            assert_eq!(host.route_mtu(remote.parse().unwrap()).await.unwrap(), mtu, "{remote}");
        }
        assert!(host.route_mtu("203.0.113.1".parse().unwrap()).await.is_err());
        shell("ip link del eth0");
    });
}
