//! Containers' interfaces.

use weave_hostnet::{AttachSpec, Detached, Host, HostError, NetnsRef, names};

use crate::lab::{Container, bridge, interfaces, ip, link_names, run, shell, spec};

#[test]
fn an_attached_container_has_its_addresses_and_a_second_attach_changes_nothing() {
    run("attach::an_attached_container_has_its_addresses_and_a_second_attach_changes_nothing", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        let container = Container::new();
        let spec = spec(container.netns(), "web", &["10.32.0.7/12", "fd00::7/64"]);
        let first = host.attach(&spec).await.unwrap();
        assert_eq!(first.addresses, spec.addresses);
        assert_eq!(first.added, spec.addresses);
        assert!(first.created);
        assert_eq!(Some(first.mac), spec.mac);
        let second = host.attach(&spec).await.unwrap();
        assert_eq!((second.created, second.added.len()), (false, 0));
        assert_eq!((second.mac, &second.addresses), (first.mac, &first.addresses));

        let inside = container.ip("link show ethwe");
        assert_eq!(inside[0]["address"], first.mac.to_string());
        assert_eq!(inside[0]["mtu"], 1400);
        assert_eq!(container.addresses("ethwe"), ["10.32.0.7/12", "fd00::7/64"]);
        let route = container.ip("route show 224.0.0.0/4");
        assert_eq!(route[0]["dev"], "ethwe");
        let table = shell(&format!("{} ip -s ntable show dev ethwe", container.enter()));
        assert_eq!(table.matches("base_reachable 5000").count(), 2, "{table}");
        assert_eq!(table.matches("delay_probe 2000").count(), 2, "{table}");
        assert_eq!(table.matches("ucast_probes 1").count(), 2, "{table}");
        let outside = ip(&format!("link show {}", spec.host_ifname));
        assert_eq!(outside[0]["master"], "weave");
        assert_eq!(outside[0]["mtu"], 1400);
        assert_eq!(host.host_veths("weave").await.unwrap(), std::slice::from_ref(&spec.host_ifname));

        let seen = host.container_interfaces(&container.netns()).await.unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].name.as_str(), seen[0].mac), ("ethwe", first.mac));
        assert_eq!(seen[0].addresses, spec.addresses);
        assert_eq!(host.take_warnings(), []);

        let gone = host.detach(&container.netns(), "ethwe", None).await.unwrap();
        assert_eq!(gone, Detached { removed: spec.addresses.clone(), link_deleted: true });
        assert_eq!(host.detach(&container.netns(), "ethwe", None).await.unwrap(), Detached::default());
        assert_eq!(container.link_names(), ["lo"]);
        assert_eq!(link_names(), ["lo", "weave"]);
        host.remove_link("weave").await.unwrap();
    });
}

#[test]
fn addresses_are_added_and_taken_away_and_the_interface_goes_with_the_last() {
    run("attach::addresses_are_added_and_taken_away_and_the_interface_goes_with_the_last", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        let container = Container::new();
        host.attach(&spec(container.netns(), "web", &["10.32.0.7/12"])).await.unwrap();
        let more = spec(container.netns(), "web", &["10.32.0.7/12", "10.32.0.8/12", "10.9.1.7/24"]);
        let attached = host.attach(&more).await.unwrap();
        assert_eq!(attached.added, interfaces(&["10.9.1.7/24", "10.32.0.8/12"]));
        assert_eq!(container.addresses("ethwe"), ["10.32.0.7/12", "10.32.0.8/12", "10.9.1.7/24"]);

        // .7 is the primary address of its subnet: .8 must survive it.
        let detached =
            host.detach(&container.netns(), "ethwe", Some(&interfaces(&["10.32.0.7/12"]))).await.unwrap();
        assert_eq!(detached, Detached { removed: interfaces(&["10.32.0.7/12"]), link_deleted: false });
        assert_eq!(container.addresses("ethwe"), ["10.32.0.8/12", "10.9.1.7/24"]);
        let nothing =
            host.detach(&container.netns(), "ethwe", Some(&interfaces(&["10.32.0.7/12"]))).await.unwrap();
        assert_eq!(nothing, Detached::default());
        let rest = interfaces(&["10.9.1.7/24", "10.32.0.8/12"]);
        let detached = host.detach(&container.netns(), "ethwe", Some(&rest)).await.unwrap();
        assert_eq!(detached, Detached { removed: rest, link_deleted: true });
        assert_eq!(link_names(), ["lo", "weave"]);
        host.remove_link("weave").await.unwrap();
    });
}

#[test]
fn two_containers_reach_each_other_in_both_families() {
    run("attach::two_containers_reach_each_other_in_both_families", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        let (a, b) = (Container::new(), Container::new());
        let (id_a, id_b) = ("4f1c09aa21be", "77c2d0e81b55");
        host.attach(&spec(a.netns(), id_a, &["10.32.0.7/12", "fd00::7/64"])).await.unwrap();
        let by_path = AttachSpec { mac: None, ..spec(path_of(&b), id_b, &["10.32.0.8/12", "fd00::8/64"]) };
        let attached = host.attach(&by_path).await.unwrap();
        assert!(!attached.mac.is_multicast());
        for address in ["10.32.0.8", "fd00::8"] {
            assert!(a.reaches(&b, address), "{address}");
        }
        assert_eq!(host.host_veths("weave").await.unwrap().len(), 2);
        // A container that ends takes its interface with it; the kernel needs a moment for that.
        a.ends();
        shell(
            "for i in $(seq 100); do ip link | grep -c vethwepl | grep -q '^1$' && exit 0; sleep 0.05; done; exit 1",
        );
        host.detach(&b.netns(), "ethwe", None).await.unwrap();
        host.remove_link("weave").await.unwrap();
    });
}

fn path_of(container: &Container) -> NetnsRef {
    let NetnsRef::Pid(pid) = container.netns() else { unreachable!("containers are named by process") };
    NetnsRef::Path(format!("/proc/{pid}/ns/net").into())
}

#[test]
fn neighbours_are_told_where_a_reused_address_is_now() {
    run("attach::neighbours_are_told_where_a_reused_address_is_now", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        let (peer, old, new) = (Container::new(), Container::new(), Container::new());
        host.attach(&spec(peer.netns(), "peer", &["10.32.0.1/12", "fd00::1/64"])).await.unwrap();
        host.attach(&spec(old.netns(), "old", &["10.32.0.7/12", "fd00::7/64"])).await.unwrap();
        for address in ["10.32.0.7", "fd00::7"] {
            assert!(peer.reaches(&old, address), "{address}");
        }
        host.detach(&old.netns(), "ethwe", None).await.unwrap();
        // Linux ignores an update within a second of the last one (locktime); age the entries instead of waiting.
        shell(&format!(
            "{0} ip neigh change 10.32.0.7 dev ethwe lladdr {1} nud stale; {0} ip neigh change fd00::7 dev ethwe lladdr {1} nud stale; \
             {0} ip ntable change name arp_cache dev ethwe locktime 0",
            peer.enter(),
            names::mac_from_seed(b"old")
        ));
        let attached = host.attach(&spec(new.netns(), "new", &["10.32.0.7/12", "fd00::7/64"])).await.unwrap();
        let mac = attached.mac.to_string();
        let told = format!(
            "for i in $(seq 100); do [ $({} ip neigh show | grep -c {mac}) = 2 ] && exit 0; sleep 0.02; done; {0} ip neigh >&2; exit 1",
            peer.enter()
        );
        shell(&told);
        for container in [&peer, &new] {
            host.detach(&container.netns(), "ethwe", None).await.unwrap();
        }
        host.remove_link("weave").await.unwrap();
    });
}

#[test]
fn an_attach_that_fails_leaves_nothing_in_either_namespace() {
    run("attach::an_attach_that_fails_leaves_nothing_in_either_namespace", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        let container = Container::new();
        let good = spec(container.netns(), "web", &["10.32.0.7/12"]);
        let bad = [
            // IPv6 refuses so small an MTU, after the IPv4 address was added.
            AttachSpec { mtu: 1000, addresses: interfaces(&["10.32.0.7/12", "fd00::7/64"]), ..good.clone() },
            AttachSpec { mtu: 3, ..good.clone() },
            AttachSpec { addresses: interfaces(&["10.32.0.7/12", "224.0.0.7/4"]), ..good.clone() },
            AttachSpec { addresses: interfaces(&["10.32.0.7/12", "10.32.0.7/24"]), ..good.clone() },
            AttachSpec { host_ifname: "vethwepl-far-too-long".to_owned(), ..good.clone() },
            AttachSpec { container_ifname: "ethwe/0".to_owned(), ..good.clone() },
            AttachSpec { bridge: "no-bridge".to_owned(), ..good.clone() },
            AttachSpec { bridge: "lo".to_owned(), ..good.clone() },
            AttachSpec { mac: Some("01:00:5e:00:00:01".parse().unwrap()), ..good.clone() },
            AttachSpec { netns: NetnsRef::Pid(u32::MAX - 1), ..good.clone() },
            AttachSpec { netns: NetnsRef::Path("/proc/self/status".into()), ..good.clone() },
            AttachSpec { netns: NetnsRef::Pid(std::process::id()), ..good.clone() },
        ];
        // The small MTU alone is no reason to fail.
        let small = AttachSpec { mtu: 1000, ..good.clone() };
        assert_eq!(host.attach(&small).await.unwrap().addresses, good.addresses);
        host.detach(&container.netns(), "ethwe", None).await.unwrap();
        for spec in &bad {
            for _ in 0..2 {
                let outcome = host.attach(spec).await;
                assert!(outcome.is_err(), "{spec:?}");
                assert_eq!(link_names(), ["lo", "weave"], "{spec:?}");
                assert_eq!(container.link_names(), ["lo"], "{spec:?}");
            }
        }
        host.remove_link("weave").await.unwrap();
    });
}

#[test]
fn a_second_attach_that_fails_leaves_the_first_one_as_it_was() {
    run("attach::a_second_attach_that_fails_leaves_the_first_one_as_it_was", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        let container = Container::new();
        host.attach(&spec(container.netns(), "web", &["10.32.0.7/12", "fd00::7/80"])).await.unwrap();
        let bad = spec(container.netns(), "web", &["10.32.0.8/12", "10.33.0.8/16", "fd00::7/64"]);
        let error = host.attach(&bad).await.unwrap_err();
        assert!(error.to_string().contains("adding address fd00::7/64 to ethwe"), "{error:#}");
        assert_eq!(container.addresses("ethwe"), ["10.32.0.7/12", "fd00::7/80"]);
        let jumbo = AttachSpec { mtu: 8950, ..bad };
        host.attach(&jumbo).await.unwrap_err();
        assert_eq!(container.ip("link show ethwe")[0]["mtu"], 1400);
        assert_eq!(ip(&format!("link show {}", jumbo.host_ifname))[0]["mtu"], 1400);
        let jumbo = AttachSpec { addresses: interfaces(&["10.32.0.7/12"]), ..jumbo };
        for _ in 0..2 {
            assert_eq!(host.attach(&jumbo).await.unwrap().addresses.len(), 2);
            assert_eq!(container.ip("link show ethwe")[0]["mtu"], 8950);
            assert_eq!(ip(&format!("link show {}", jumbo.host_ifname))[0]["mtu"], 8950);
        }
        host.detach(&container.netns(), "ethwe", None).await.unwrap();
        host.remove_link("weave").await.unwrap();
    });
}

#[test]
fn a_bridge_that_was_made_anew_gets_its_containers_back() {
    run("attach::a_bridge_that_was_made_anew_gets_its_containers_back", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        let container = Container::new();
        let spec = spec(container.netns(), "web", &["10.32.0.7/12"]);
        let first = host.attach(&spec).await.unwrap();
        host.remove_link("weave").await.unwrap();
        assert!(host.host_veths("weave").await.unwrap().is_empty());
        bridge(&host).await;
        let again = host.attach(&spec).await.unwrap();
        assert_eq!((again.mac, again.created, again.added.len()), (first.mac, false, 0));
        assert_eq!(host.host_veths("weave").await.unwrap().len(), 1);
        host.detach(&container.netns(), "ethwe", None).await.unwrap();
        host.remove_link("weave").await.unwrap();
    });
}

#[test]
fn an_interface_of_somebody_else_is_never_touched() {
    run("attach::an_interface_of_somebody_else_is_never_touched", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        let container = Container::new();
        shell(&format!("{} ip link add name ethwe type veth peer name other", container.enter()));
        let error = host.attach(&spec(container.netns(), "web", &["10.32.0.7/12"])).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(HostError::ForeignInterface { .. })), "{error:#}");
        let error = host.detach(&container.netns(), "ethwe", None).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(HostError::ForeignInterface { .. })), "{error:#}");
        assert_eq!(host.container_interfaces(&container.netns()).await.unwrap(), []);
        assert_eq!(container.link_names(), ["lo", "other", "ethwe"]);
        assert_eq!(link_names(), ["lo", "weave"]);
        host.remove_link("weave").await.unwrap();
    });
}

#[test]
fn a_restarted_container_takes_over_the_name_of_its_earlier_life() {
    run("attach::a_restarted_container_takes_over_the_name_of_its_earlier_life", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        let (before, after) = (Container::new(), Container::new());
        host.attach(&spec(before.netns(), "web", &["10.32.0.7/12"])).await.unwrap();
        let attached = host.attach(&spec(after.netns(), "web", &["10.32.0.7/12"])).await.unwrap();
        assert!(attached.created);
        assert_eq!(before.link_names(), ["lo"]);
        assert_eq!(after.addresses("ethwe"), ["10.32.0.7/12"]);
        assert_eq!(host.host_veths("weave").await.unwrap(), [names::host_ifname("web")]);
        host.detach(&after.netns(), "ethwe", None).await.unwrap();
        host.remove_link("weave").await.unwrap();
    });
}

#[test]
fn an_attach_without_rights_says_so_and_changes_nothing() {
    run("attach::an_attach_without_rights_says_so_and_changes_nothing", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        // The namespace of the world outside: not ours to enter from a user namespace of our own.
        let outside = NetnsRef::Pid(1);
        if std::env::var_os("WEAVE_NETNS_TEST_AS_ROOT").is_none() {
            let error = host.attach(&spec(outside.clone(), "web", &["10.32.0.7/12"])).await.unwrap_err();
            assert!(matches!(error.downcast_ref(), Some(HostError::NoPermission { .. })), "{error:#}");
            assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        }
        assert_eq!(link_names(), ["lo", "weave"]);
        host.remove_link("weave").await.unwrap();
    });
}

#[test]
fn a_namespace_that_is_gone_has_nothing_to_detach() {
    run("attach::a_namespace_that_is_gone_has_nothing_to_detach", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        shell("ip netns add blue");
        let blue = NetnsRef::Path("/run/netns/blue".into());
        host.attach(&spec(blue.clone(), "blue", &["10.32.0.7/12"])).await.unwrap();
        shell("ip netns del blue");
        shell("for i in $(seq 100); do ip link | grep -q vethwepl || exit 0; sleep 0.05; done; exit 1");
        assert_eq!(host.detach(&blue, "ethwe", None).await.unwrap(), Detached::default());
        shell("touch /run/netns/blue");
        assert_eq!(host.detach(&blue, "ethwe", None).await.unwrap(), Detached::default());
        assert_eq!(host.container_interfaces(&blue).await.unwrap(), []);
        assert_eq!(
            host.detach(&NetnsRef::Pid(u32::MAX - 1), "ethwe", None).await.unwrap(),
            Detached::default()
        );
        host.remove_link("weave").await.unwrap();
    });
}
