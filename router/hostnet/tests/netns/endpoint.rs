//! Interfaces that somebody else moves into a container.

use weave_hostnet::{EndpointSpec, Host, names};
use weave_model::Mac;

use crate::lab::{Container, bridge, ip, link_names, run, shell};

fn spec(id: &str) -> EndpointSpec {
    EndpointSpec {
        bridge: "weave".to_owned(),
        host_ifname: names::host_ifname(id),
        waiting_ifname: names::waiting_ifname(id),
        mac: Mac([2, 0, 0, 0, 0, 9]),
        mtu: 1400,
    }
}

#[test]
fn an_endpoint_waits_on_the_host_and_a_second_request_changes_nothing() {
    run("endpoint::an_endpoint_waits_on_the_host_and_a_second_request_changes_nothing", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        let spec = spec("docker:e1");
        host.ensure_endpoint(&spec).await.unwrap();
        let before = (
            ip(&format!("link show {}", spec.host_ifname)),
            ip(&format!("link show {}", spec.waiting_ifname)),
        );
        assert_eq!(before.0[0]["master"], "weave");
        assert_eq!(before.1[0]["address"], spec.mac.to_string());
        assert_eq!(before.1[0]["operstate"], "DOWN");
        host.ensure_endpoint(&spec).await.unwrap();
        let after = ip(&format!("link show {}", spec.waiting_ifname));
        assert_eq!(after[0]["ifindex"], before.1[0]["ifindex"]);
        assert_eq!(host.host_veths("weave").await.unwrap(), std::slice::from_ref(&spec.host_ifname));
        assert!(host.remove_link(&spec.host_ifname).await.unwrap());
        assert_eq!(link_names(), ["lo", "weave"]);
        host.remove_link("weave").await.unwrap();
    });
}

#[test]
fn both_ends_change_their_mtu_wherever_the_second_is_and_an_earlier_life_is_replaced() {
    run(
        "endpoint::both_ends_change_their_mtu_wherever_the_second_is_and_an_earlier_life_is_replaced",
        || async {
            let host = Host::open().await.unwrap();
            bridge(&host).await;
            let container = Container::new();
            let spec = spec("docker:e2");
            let mtu = |name: &str| ip(&format!("link show {name}"))[0]["mtu"].clone();
            host.ensure_endpoint(&spec).await.unwrap();
            host.set_endpoint_mtu(&spec.host_ifname, None, 1300).await.unwrap();
            assert_eq!((mtu(&spec.host_ifname), mtu(&spec.waiting_ifname)), (1300.into(), 1300.into()));

            shell(&format!("ip link set {} netns {} name eth9", spec.waiting_ifname, container.pid()));
            host.set_endpoint_mtu(&spec.host_ifname, Some(&container.netns()), 1350).await.unwrap();
            assert_eq!(mtu(&spec.host_ifname), 1350);
            assert_eq!(container.ip("link show eth9")[0]["mtu"], 1350);
            // Without knowing where it is, nothing is changed: the ends must not differ.
            host.set_endpoint_mtu(&spec.host_ifname, None, 1200).await.unwrap();
            assert_eq!(mtu(&spec.host_ifname), 1350);

            host.ensure_endpoint(&spec).await.unwrap();
            assert_eq!(container.link_names(), ["lo"]);
            assert_eq!(mtu(&spec.waiting_ifname), 1400);
            host.remove_link(&spec.host_ifname).await.unwrap();
            host.remove_link("weave").await.unwrap();
            assert_eq!(link_names(), ["lo"]);
        },
    );
}
