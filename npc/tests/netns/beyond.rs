//! What the tables of other suites leave out (section 5 of the plan, E12 to E27): nodes, a pod and itself, neighbours,
//! errors of the network, multicast.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::Duration,
};

use crate::{
    lab::{Node, Npc, Pod, connect, datagram_returns, run, shell, wait_until, works, write},
    traffic::policy,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// NP-70 to NP-73, E12 to E14: the pod's own node comes in always, other nodes by blocks only; a pod of the host's network is
/// its node.
#[test]
fn nodes_are_no_pods_and_only_the_pods_own_is_privileged() {
    run("beyond::nodes_are_no_pods_and_only_the_pods_own_is_privileged", || {
        let [own, other]: [IpAddr; 2] = [[10, 0, 0, 254], [10, 0, 0, 253]].map(IpAddr::from);
        let server = Pod::new("server", 1);
        server.serve(&[80]);
        let there = Node::new();
        let here = std::net::TcpListener::bind((own, 81)).unwrap();
        let there_too = there.inside(|| std::net::TcpListener::bind((other, 81)).unwrap());
        // A pod on the other node's network: selected by its labels it would be let in, and isolated.
        write(
            "pod-agent.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: agent, namespace: x, labels: {app: server}}\n\
             spec: {nodeName: here, hostNetwork: true}\nstatus: {podIPs: [{ip: 10.0.0.253}]}\n",
        );
        let npc = Npc::start(&[]);
        let from_node = |to: &Pod| there.inside(|| connect(to.v4(), 80).is_some_and(|mut s| works(&mut s)));
        let rule = "  ingress: [{from: [{podSelector: {}}]}]\n  policyTypes: [Ingress, Egress]";
        write("policy.yaml", &policy("p", "server", rule));
        npc.sync();
        assert!(connect(server.v4(), 80).is_some_and(|mut stream| works(&mut stream)), "a probe");
        assert!(!from_node(&server), "a node is no pod");
        assert!(server.connect(own, 81).is_none() && server.connect(other, 81).is_none());
        assert!(there.inside(|| connect(own, 81)).is_some(), "a node is not isolated");
        let rule = "  ingress: [{from: [{ipBlock: {cidr: 10.0.0.253/32}}]}]\n  \
                    egress: [{to: [{ipBlock: {cidr: 10.0.0.252/30, except: [10.0.0.254/32]}}]}]";
        write("policy.yaml", &policy("p", "server", rule));
        npc.sync();
        assert!(from_node(&server), "blocks mean nodes too");
        assert!(server.connect(own, 81).is_none() && server.connect(other, 81).is_some());
        drop((here, there_too));
    });
}

/// NP-74, E15.
#[test]
fn a_pod_reaches_itself_whatever_policies_say() {
    run("beyond::a_pod_reaches_itself_whatever_policies_say", || {
        let server = Pod::new("server", 1);
        server.serve(&[80]);
        shell(&format!("{} ip link set lo up", server.enter()));
        write("policy.yaml", &policy("p", "server", "  policyTypes: [Ingress, Egress]"));
        let _npc = Npc::start(&[]);
        for address in [server.v4(), server.v6(), "127.0.0.1".parse().unwrap(), "::1".parse().unwrap()] {
            assert_eq!(server.reaches(address, 80), (true, true), "{address}");
        }
        assert!(connect("10.0.0.254".parse().unwrap(), 80).is_none());
    });
}

/// NP-82, E17: a flow of datagrams has no end that would let a policy in.
#[test]
fn datagrams_of_an_old_flow_stop_and_go_on_as_policies_say() {
    run("beyond::datagrams_of_an_old_flow_stop_and_go_on_as_policies_say", || {
        let (server, client) = (Pod::new("server", 1), Pod::new("client", 2));
        server.serve(&[80]);
        let npc = Npc::start(&[]);
        let socket = client.inside(|| UdpSocket::bind("10.0.0.2:5000").unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        let mut number = 0_u32;
        let mut returns = || {
            number += 1;
            socket.send_to(&number.to_be_bytes(), (server.v4(), 80)).unwrap();
            let mut back = [0; 4];
            // What was late the last time does not count.
            while socket.recv(&mut back).is_ok() {
                if back == number.to_be_bytes() {
                    return true;
                }
            }
            false
        };
        assert!(returns() && returns());
        for _ in 0..3 {
            write("policy.yaml", &policy("p", "server", "  ingress: []"));
            npc.sync();
            assert!(!returns() && !returns());
            write("policy.yaml", &policy("p", "server", "  ingress: [{ports: [{protocol: UDP, port: 80}]}]"));
            npc.sync();
            assert!(returns() && returns());
        }
    });
}

/// NP-91, E24: neighbours are found, and doubles of an address, between pods that may not exchange anything.
#[test]
fn neighbours_and_duplicates_are_found_under_isolation() {
    run("beyond::neighbours_and_duplicates_are_found_under_isolation", || {
        let (server, client) = (Pod::new("server", 1), Pod::new("client", 2));
        for app in ["server", "client"] {
            write(&format!("{app}.yaml"), &policy(app, app, "  policyTypes: [Ingress, Egress]"));
        }
        let _npc = Npc::start(&[]);
        assert_eq!(client.reaches(server.v6(), 80), (false, false));
        shell(&format!("{} ip -6 neigh flush dev eth0", client.enter()));
        assert!(!client.pings(server.v6()));
        let neighbour = || shell(&format!("{} ip -6 neigh show {}", client.enter(), server.v6()));
        assert!(neighbour().contains("lladdr"), "{}", neighbour());
        // The same address again: the owner's answer comes through, so the second must not use it.
        shell(&format!("{} ip address add fd00::1/16 dev eth0", client.enter()));
        let double = || shell(&format!("{} ip -6 address show dev eth0 to fd00::1", client.enter()));
        wait_until("the detection of a double", PATIENCE, || double().contains("dadfailed"));
    });
}

/// NP-06, E25: the path of an allowed flow tells that it is narrow, and an isolated pod hears it.
#[test]
fn errors_about_allowed_flows_reach_an_isolated_pod() {
    run("beyond::errors_about_allowed_flows_reach_an_isolated_pod", || {
        let client = Pod::new("client", 1);
        let router = Node::new();
        // Behind the other node the world is 1300 bytes wide.
        shell(&format!(
            "{node} ip link add narrow type veth peer name far; {node} ip link set narrow mtu 1300 up; \
             {node} ip link set far up; {node} ip address add 192.0.2.1/24 dev narrow; \
             {node} ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev narrow; \
             {pod} ip route add 192.0.2.0/24 via 10.0.0.253",
            node = router.enter(),
            pod = client.enter()
        ));
        let rule = "  policyTypes: [Ingress, Egress]\n  egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{protocol: UDP, port: 9}]}]";
        write("policy.yaml", &policy("p", "client", rule));
        let _npc = Npc::start(&[]);
        assert!(router.inside(|| connect(client.v4(), 80)).is_none(), "it is isolated");
        let width = || shell(&format!("{} ip route get 192.0.2.9", client.enter()));
        assert!(!width().contains("mtu"), "{}", width());
        let socket = client.inside(|| UdpSocket::bind("10.0.0.1:0").unwrap());
        wait_until("a path that is known to be narrow", PATIENCE, || {
            // Refused as soon as the socket knows.
            let _too_long = socket.send_to(&[0; 1400], "192.0.2.9:9");
            width().contains("mtu 1300")
        });
    });
}

/// E27: multicast is judged as everything else is, unless the flag says that it passes.
#[test]
fn multicast_passes_an_isolated_pod_by_flag_only() {
    run("beyond::multicast_passes_an_isolated_pod_by_flag_only", || {
        let (server, client) = (Pod::new("server", 1), Pod::new("client", 2));
        let (group, port) = (Ipv4Addr::new(224, 0, 0, 251), 5353);
        let listener = server.inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            socket.join_multicast_v4(&group, &Ipv4Addr::new(10, 0, 0, 1)).unwrap();
            socket
        });
        listener.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        let sender = client.inside(|| UdpSocket::bind("10.0.0.2:0").unwrap());
        let mut number = 0_u32;
        let mut arrives = || {
            number += 1;
            sender.send_to(&number.to_be_bytes(), (group, port)).unwrap();
            let mut heard = [0; 4];
            listener.recv(&mut heard).is_ok() && heard == number.to_be_bytes()
        };
        write("policy.yaml", &policy("p", "client", "  policyTypes: [Egress]"));
        let npc = Npc::start(&[]);
        assert!(!arrives());
        npc.kill();
        let npc = Npc::start(&["--allow-mcast"]);
        assert!(arrives());
        assert!(!client.inside(|| datagram_returns(server.v4(), 80, 8)), "nothing else");
        npc.kill();
        let _npc = Npc::start(&[]);
        assert!(!arrives(), "and not after that any more");
    });
}
