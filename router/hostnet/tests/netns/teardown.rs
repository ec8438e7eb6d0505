//! Taking everything away again.

use weave_hostnet::{Family, Host, names};

use crate::{
    lab::{Container, bridge, link_names, run, shell, spec},
    site::vxlan,
};

#[test]
fn nothing_of_ours_is_left_and_nothing_of_others_is_touched() {
    run("teardown::nothing_of_ours_is_left_and_nothing_of_others_is_touched", || async {
        let host = Host::open().await.unwrap();
        let bridge = bridge(&host).await;
        shell(
            "ip link add flannel.1 type vxlan id 1 dstport 8472; ip link add name docker0 type bridge; \
             ip link add name weave-ifb type ifb; ip tuntap add dev weave-tap mode tap",
        );
        host.ensure_tap_port("weave-tap", bridge).await.unwrap();
        for family in [Family::V4, Family::V6] {
            let data = host.ensure_vxlan(&vxlan(names::vxlan(family), 1, family)).await.unwrap();
            host.ensure_uplink_port(data, bridge).await.unwrap();
            host.ensure_vxlan(&vxlan(names::heartbeat(family), 2, family)).await.unwrap();
            for hops in 1..=3 {
                let relay = host.ensure_relay_bridge(&names::relay_bridge(hops), 1400).await.unwrap();
                let spec = vxlan(&names::relay_port(hops, family), 10 + u32::from(hops), family);
                let port = host.ensure_vxlan(&spec).await.unwrap();
                host.ensure_relay_port(port, relay).await.unwrap();
            }
        }
        let container = Container::new();
        host.attach(&spec(container.netns(), "web", &["10.32.0.7/12"])).await.unwrap();
        assert_eq!(host.remove_datapath().await.unwrap().len(), 13);
        assert_eq!(host.remove_datapath().await.unwrap(), [""; 0]);
        let left = link_names();
        for name in ["weave", "weave-tap", &names::host_ifname("web")] {
            assert!(left.iter().any(|l| l == name), "{left:?}");
        }
        let removed = host.remove_everything().await.unwrap();
        assert_eq!(
            removed,
            ["vethwepl".to_owned() + &names::host_ifname("web")[8..], "weave".into(), "weave-tap".into()]
        );
        assert_eq!(host.remove_everything().await.unwrap(), [""; 0]);
        assert_eq!(link_names(), ["lo", "flannel.1", "docker0", "weave-ifb"]);
        assert_eq!(container.link_names(), ["lo"]);
        shell("ip link del flannel.1; ip link del docker0; ip link del weave-ifb");
    });
}
