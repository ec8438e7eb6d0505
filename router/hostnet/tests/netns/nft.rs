//! Our nftables table.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use weave_hostnet::{
    Host,
    nft::{self, NftSpec},
};

use crate::lab::{Container, bridge, interfaces, run, shell, spec};

fn rules(masquerade: &[&str], protected_ports: &[u16]) -> NftSpec {
    let masquerade = masquerade.iter().map(|text| text.parse().unwrap()).collect();
    NftSpec { bridge: "weave".to_owned(), masquerade, protected_ports: protected_ports.to_vec(), local: None }
}

/// What the kernel has, according to the nft tool, one line a rule.
fn listed() -> Vec<String> {
    let text = shell("nft list ruleset");
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty() && line != "}").collect()
}

#[test]
fn the_nft_tool_reads_our_rules_as_we_meant_them() {
    run("nft::the_nft_tool_reads_our_rules_as_we_meant_them", || async {
        shell("nft add table inet others; nft add table ip weave");
        let others = listed();
        nft::remove().unwrap();
        let wanted = rules(&["10.32.0.0/12", "fd00::/64"], &[6783]);
        for _ in 0..2 {
            nft::apply(&wanted).unwrap();
            let expected = [
                "table inet weave {",
                "chain postrouting {",
                "type nat hook postrouting priority srcnat; policy accept;",
                "ip daddr 224.0.0.0/4 return",
                "ip6 daddr ff00::/8 return",
                "ip saddr 10.32.0.0/12 ip daddr != 10.32.0.0/12 oifname != \"weave\" masquerade fully-random",
                "ip saddr != 10.32.0.0/12 ip daddr 10.32.0.0/12 oifname \"weave\" masquerade fully-random",
                "ip6 saddr fd00::/64 ip6 daddr != fd00::/64 oifname != \"weave\" masquerade fully-random",
                "ip6 saddr != fd00::/64 ip6 daddr fd00::/64 oifname \"weave\" masquerade fully-random",
                "chain input {",
                "type filter hook input priority filter; policy accept;",
                "iifname \"weave\" tcp dport 6783 drop",
                "iifname \"weave\" udp dport 6783 drop",
            ];
            assert_eq!(listed(), [others.clone(), expected.map(str::to_owned).to_vec()].concat());
        }
        nft::apply(&rules(&["10.9.0.0/16"], &[])).unwrap();
        assert_eq!(listed().len(), others.len() + 7, "{:?}", listed());
        for _ in 0..2 {
            nft::apply(&rules(&[], &[])).unwrap();
            assert_eq!(listed(), others);
        }
    });
}

#[test]
fn what_others_take_away_or_put_in_the_way_is_noticed() {
    run("nft::what_others_take_away_or_put_in_the_way_is_noticed", || async {
        let wanted = rules(&["10.32.0.0/12"], &[6783]);
        nft::apply(&wanted).unwrap();
        let mut stood = nft::standing().unwrap();
        for meddling in [
            "nft flush ruleset",
            "nft delete table inet weave",
            "nft flush chain inet weave input",
            "nft add table ip other; nft add chain ip other f '{ type filter hook forward priority 0; policy drop; }'",
        ] {
            shell("nft add table ip unrelated; nft delete table ip unrelated");
            assert!(nft::still_stands(&mut stood).unwrap(), "before {meddling}");
            shell(meddling);
            assert!(!nft::still_stands(&mut stood).unwrap(), "after {meddling}");
            nft::apply(&wanted).unwrap();
        }
        // Our rules are in the new chain now, and are missed there as well.
        let mut stood = nft::standing().unwrap();
        shell("nft flush chain ip other f");
        assert!(!nft::still_stands(&mut stood).unwrap());
    });
}

#[test]
fn a_container_reaches_the_outside_with_the_hosts_address() {
    run("nft::a_container_reaches_the_outside_with_the_hosts_address", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        let (container, outside) = (Container::new(), Container::new());
        host.expose("weave", &interfaces(&["10.32.0.1/12"])).await.unwrap();
        host.attach(&spec(container.netns(), "web", &["10.32.0.7/12"])).await.unwrap();
        let weave_hostnet::NetnsRef::Pid(pid) = outside.netns() else { unreachable!() };
        shell(&format!(
            "ip link add uplink type veth peer name eth0 netns {pid}; ip address add 192.0.2.1/24 dev uplink; \
             ip link set uplink up; echo 1 > /proc/sys/net/ipv4/ip_forward; \
             {} sh -c 'ip address add 192.0.2.9/24 dev eth0; ip link set eth0 up'; \
             {} ip route add default via 10.32.0.1",
            outside.enter(),
            container.enter()
        ));
        let source_seen = || source_seen(&container, &outside);
        // A new cable loses what is sent before the kernel has noticed that both ends are up, up to a second later.
        let first = (0..5).find_map(|_| source_seen());
        assert_eq!(first.as_deref(), Some("10.32.0.7"));
        nft::apply(&rules(&["10.32.0.0/12"], &[])).unwrap();
        assert_eq!(source_seen().as_deref(), Some("192.0.2.1"));

        // As Docker leaves it.
        shell(
            "nft add table ip filter; nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
        );
        assert_eq!(source_seen(), None);
        let pass = rules(&["10.32.0.0/12", "fd00::/64"], &[]);
        for _ in 0..2 {
            nft::apply(&pass).unwrap();
            assert_eq!(source_seen().as_deref(), Some("192.0.2.1"));
            let chain = shell("nft list chain ip filter FORWARD");
            assert_eq!(chain.matches("comment \"weave\"").count(), 3, "{chain}");
            assert!(chain.contains("iifname \"weave\" ip saddr 10.32.0.0/12 accept"), "{chain}");
            assert!(chain.contains("oifname \"weave\" ip daddr 10.32.0.0/12 accept"), "{chain}");
            assert!(chain.contains("iifname \"weave\" oifname \"weave\" accept"), "{chain}");
        }
        nft::remove().unwrap();
        let chain = shell("nft list chain ip filter FORWARD");
        assert!(!chain.contains("weave") && chain.contains("policy drop"), "{chain}");
        shell("nft delete table ip filter");
        nft::remove().unwrap();
        host.detach(&container.netns(), "ethwe", None).await.unwrap();
        shell("ip link del uplink; ip link del weave");
    });
}

/// The address from which a datagram of `container` arrives `outside`.
fn source_seen(container: &Container, outside: &Container) -> Option<String> {
    let bind = |at: &Container, address: &str| {
        let netns = at.netns().open().unwrap();
        weave_hostnet::netns::in_netns(&netns, || UdpSocket::bind(address).unwrap()).unwrap()
    };
    let (receiver, sender) = (bind(outside, "192.0.2.9:7000"), bind(container, "10.32.0.7:0"));
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    sender.send_to(b"hello", "192.0.2.9:7000").unwrap();
    receiver.recv_from(&mut [0; 8]).ok().map(|(_, from)| from.ip().to_string())
}

#[test]
fn containers_do_not_reach_protected_ports_and_the_host_does() {
    run("nft::containers_do_not_reach_protected_ports_and_the_host_does", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        let container = Container::new();
        host.expose("weave", &interfaces(&["10.32.0.1/12"])).await.unwrap();
        host.attach(&spec(container.netns(), "web", &["10.32.0.7/12"])).await.unwrap();
        let listener = TcpListener::bind("10.32.0.1:6783").unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
        let netns = container.netns().open().unwrap();
        let from_container = || weave_hostnet::netns::in_netns(&netns, connect).unwrap();
        assert!(from_container().is_ok());
        nft::apply(&rules(&[], &[6783])).unwrap();
        assert!(from_container().is_err());
        let mut stream = connect().unwrap();
        stream.write_all(b"x").unwrap();
        drop(listener.accept().unwrap());
        let mut accepted = listener.accept().unwrap().0;
        accepted.read_exact(&mut [0]).unwrap();
        nft::remove().unwrap();
        assert!(from_container().is_ok());
        host.detach(&container.netns(), "ethwe", None).await.unwrap();
        host.remove_link("weave").await.unwrap();
    });
}

#[test]
fn chains_that_drop_what_is_forwarded_are_found() {
    run("nft::chains_that_drop_what_is_forwarded_are_found", || async {
        assert!(nft::forward_obstacles().unwrap().is_empty());
        shell(
            "nft add table ip filter; nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'; \
             nft 'add chain ip filter INPUT { type filter hook input priority 0; policy drop; }'; \
             nft add table inet fine; nft 'add chain inet fine forward { type filter hook forward priority 0; policy accept; }'",
        );
        assert_eq!(nft::forward_obstacles().unwrap(), ["ip filter FORWARD"]);
        // More rules than fit in one answer of the kernel.
        shell(
            "for n in 1 2 3 4 5 6; do for i in $(seq 500); do echo add rule ip filter FORWARD tcp dport $i drop; done | nft -f -; done",
        );
        for _ in 0..2 {
            nft::apply(&rules(&["10.32.0.0/12"], &[])).unwrap();
            assert_eq!(shell("nft list chain ip filter FORWARD").matches("comment \"weave\"").count(), 3);
        }
        nft::remove().unwrap();
        let chain = shell("nft list chain ip filter FORWARD");
        assert_eq!((chain.matches("tcp dport").count(), chain.contains("weave")), (3000, false));
    });
}
