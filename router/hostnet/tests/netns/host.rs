//! Looking at the host, and its own addresses on the bridge.

use std::collections::{BTreeMap, BTreeSet};

use weave_hostnet::{AttachSpec, Capabilities, Host, HostError, LinkIndex, NetnsRef, Warning, netns};

use crate::lab::{Container, bridge, interfaces, ip_addresses, run, shell, spec};

#[test]
fn addresses_on_the_bridge_come_and_go_one_by_one() {
    run("host::addresses_on_the_bridge_come_and_go_one_by_one", || async {
        let host = Host::open().await.unwrap();
        assert!(host.expose("weave", &interfaces(&["10.32.0.1/12"])).await.is_err());
        assert_eq!(host.hide("weave", None).await.unwrap(), [], "no bridge, no addresses");
        bridge(&host).await;
        let both = interfaces(&["10.32.0.1/12", "10.32.0.2/12", "fd00::1/64"]);
        assert_eq!(host.expose("weave", &both).await.unwrap(), both);
        assert_eq!(host.expose("weave", &both).await.unwrap(), []);
        assert_eq!(host.exposed("weave").await.unwrap(), both);
        assert_eq!(ip_addresses("", "weave"), ["10.32.0.1/12", "10.32.0.2/12", "fd00::1/64"]);
        // The first one of a subnet takes the others of the subnet with it, if nobody cares.
        assert_eq!(host.hide("weave", Some(&both[..1])).await.unwrap(), both[..1]);
        assert_eq!(ip_addresses("", "weave"), ["10.32.0.2/12", "fd00::1/64"]);
        assert_eq!(host.hide("weave", Some(&both[..1])).await.unwrap(), []);
        assert_eq!(host.hide("weave", None).await.unwrap(), both[1..]);
        assert_eq!(host.hide("weave", None).await.unwrap(), []);
        assert!(ip_addresses("", "weave").is_empty());
        host.remove_link("weave").await.unwrap();
    });
}

#[test]
fn an_exposure_that_fails_half_way_leaves_the_old_addresses_only() {
    run("host::an_exposure_that_fails_half_way_leaves_the_old_addresses_only", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        host.expose("weave", &interfaces(&["10.1.0.1/16", "fd00::1/80"])).await.unwrap();
        let error = host.expose("weave", &interfaces(&["10.1.0.2/16", "fd00::1/64"])).await.unwrap_err();
        assert!(error.to_string().contains("fd00::1/64"), "{error:#}");
        assert_eq!(ip_addresses("", "weave"), ["10.1.0.1/16", "fd00::1/80"]);
        let error = host.expose("weave", &interfaces(&["10.1.0.3/16", "10.1.0.3/24"])).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(HostError::AddressTwice(_))), "{error:#}");
        host.remove_link("weave").await.unwrap();
    });
}

#[test]
fn routes_and_underlay_addresses_are_those_of_the_host_and_not_our_own() {
    run("host::routes_and_underlay_addresses_are_those_of_the_host_and_not_our_own", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        host.expose("weave", &interfaces(&["10.32.0.1/12"])).await.unwrap();
        shell(
            "ip link add eth1 type veth peer name x1; ip link add eth0 type veth peer name x0; \
             ip link add name docker0 type bridge; \
             for i in eth0 eth1 x0 x1 docker0; do ip link set $i up; done; \
             ip address add 198.51.100.5/24 dev eth1; ip address add 192.0.2.7/24 dev eth0; \
             ip address add 2001:db8::7/64 dev eth0 nodad; ip address add 172.17.0.1/16 dev docker0; \
             ip route add default via 192.0.2.1; ip route add 10.0.0.0/9 via 198.51.100.1; \
             ip route add blackhole 10.128.0.0/9",
        );
        let addresses = host.underlay_addresses().await.unwrap();
        let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.7", "2001:db8::7", "198.51.100.5"]);
        let overlap = |subnet: &str| {
            let host = host.clone();
            let subnet = subnet.parse().unwrap();
            async move { host.overlapping_route(subnet).await.unwrap().map(|r| r.to_string()) }
        };
        assert_eq!(overlap("10.32.0.0/12").await.as_deref(), Some("10.0.0.0/9 via 198.51.100.1 dev eth1"));
        assert_eq!(overlap("10.200.0.0/16").await.as_deref(), Some("10.128.0.0/9"));
        assert_eq!(overlap("172.16.0.0/12").await.as_deref(), Some("172.17.0.0/16 dev docker0"));
        assert_eq!(overlap("192.168.0.0/16").await, None);
        assert_eq!(overlap("fd00::/48").await, None);
        let all = host.addresses().await.unwrap();
        assert!(all.contains(&("weave".to_owned(), "10.32.0.1/12".parse().unwrap())), "{all:?}");
        assert_eq!(host.link_mtu("weave").await.unwrap(), Some(1400));
        assert_eq!(host.link_mtu("nothing").await.unwrap(), None);
        shell(
            "ip link del eth0; ip link del eth1; ip link del docker0; ip link del weave; ip route flush table main",
        );
    });
}

#[test]
fn work_in_another_namespace_does_not_move_the_caller() {
    run("host::work_in_another_namespace_does_not_move_the_caller", || async {
        let container = Container::new();
        let own = netns::Netns::current().unwrap();
        let other = container.netns().open().unwrap();
        let there = netns::in_netns(&other, || netns::Netns::current().unwrap()).unwrap();
        assert!(there.is_same(&other) && !there.is_same(&own));
        assert!(netns::Netns::current().unwrap().is_same(&own));
        let inner = Host::open_in(other).await.unwrap();
        shell(&format!("{} ip link add name only-there type veth peer name b", container.enter()));
        assert!(inner.link_index("only-there").await.unwrap().is_some());
        assert_eq!(Host::open().await.unwrap().link_index("only-there").await.unwrap(), None);
        let file = NetnsRef::Path("/proc/self/status".into()).open().unwrap();
        let error = Host::open_in(file).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(HostError::NotANamespace(_))), "{error:#}");
    });
}

/// Compiles only if the daemon may run operations on tasks of their own.
#[expect(dead_code, reason = "compiling it is the test")]
fn operations_may_be_spawned(host: &Host, spec: &AttachSpec, netns: &NetnsRef) {
    fn spawnable<T: Send>(_: T) {}
    spawnable(host.attach(spec));
    spawnable(host.detach(netns, "ethwe", None));
    spawnable(host.container_interfaces(netns));
    spawnable(host.reconcile_bridge_fdb(LinkIndex(1), const { &BTreeSet::new() }));
    spawnable(host.expose("weave", &[]));
    let (ports, tunnels, neighbours) = const { (&BTreeMap::new(), &BTreeMap::new(), &BTreeMap::new()) };
    spawnable(host.reconcile_ports(LinkIndex(1), const { &BTreeSet::new() }, ports));
    spawnable(host.reconcile_tunnels(LinkIndex(1), tunnels, const { &BTreeSet::new() }));
    spawnable(host.reconcile_neighbours(LinkIndex(1), neighbours));
    spawnable(host.remove_datapath());
    spawnable(async {
        host.watch_fdb(LinkIndex(1)).await?.next().await.ok_or_else(|| anyhow::anyhow!("over"))
    });
}

#[test]
fn every_capability_is_found_here_and_asking_leaves_no_trace() {
    run("host::every_capability_is_found_here_and_asking_leaves_no_trace", || async {
        let host = Host::open().await.unwrap();
        let all =
            Capabilities { tun: true, namespaces: true, bridge: true, veth: true, vxlan: true, nat: true };
        for _ in 0..2 {
            assert_eq!(host.capabilities().await.unwrap(), all);
            assert_eq!(shell("nft list ruleset"), "");
        }
    });
}

#[test]
fn without_rights_over_the_network_the_error_says_what_to_do() {
    let test = "host::without_rights_over_the_network_the_error_says_what_to_do";
    if std::env::var_os("WEAVE_NETNS_TEST_POWERLESS").is_some() {
        return powerless();
    }
    run(test, || async {
        // A user namespace inside ours, in the same network: root there has no rights over the network.
        let program = std::env::current_exe().unwrap();
        let mut again = std::process::Command::new("unshare");
        again
            .arg("-Ur")
            .arg(program)
            .args(["--exact", test, "--nocapture"])
            .env("WEAVE_NETNS_TEST_POWERLESS", "1");
        assert!(again.status().unwrap().success());
    });
}

fn powerless() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(Host::open()).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(HostError::NoPermission { .. })), "{error:#}");
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    assert!(error.to_string().contains("run as root"), "{error}");
}

#[test]
fn a_read_only_proc_sys_costs_a_warning_and_nothing_else() {
    run("host::a_read_only_proc_sys_costs_a_warning_and_nothing_else", || async {
        let host = Host::open().await.unwrap();
        shell("mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys");
        bridge(&host).await;
        let warnings = host.take_warnings();
        let Some(Warning::Sysctl { key, value, .. }) = warnings.first() else { panic!("{warnings:?}") };
        assert_eq!((warnings.len(), key.as_str(), value.as_str()), (1, "net/ipv6/conf/weave/accept_ra", "0"));
        let container = Container::new();
        let spec = spec(container.netns(), "web", &["10.32.0.7/12", "10.32.0.8/12", "fd00::7/64"]);
        assert_eq!(host.attach(&spec).await.unwrap().addresses.len(), 3);
        assert_eq!(host.take_warnings().len(), 3, "accept_ra on both ends, promote_secondaries");
        // Without promote_secondaries, too, the second address survives the first.
        host.detach(&container.netns(), "ethwe", Some(&interfaces(&["10.32.0.7/12"]))).await.unwrap();
        assert_eq!(container.addresses("ethwe"), ["10.32.0.8/12", "fd00::7/64"]);
        host.detach(&container.netns(), "ethwe", None).await.unwrap();
        host.remove_link("weave").await.unwrap();
    });
}
