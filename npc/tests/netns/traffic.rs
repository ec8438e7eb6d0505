//! What passes and what does not.

use crate::lab::{Npc, Pod, connect, datagram_returns, run, shell, works, write};

const BOTH: (bool, bool) = (true, true);
const NEITHER: (bool, bool) = (false, false);

/// A policy of namespace `x` for the pod with this label, from the part of `spec` behind its subject.
pub(crate) fn policy(name: &str, app: &str, rest: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: x}}\n\
         spec:\n  podSelector: {{matchLabels: {{app: {app}}}}}\n{rest}\n"
    )
}

/// NP-02 to NP-06, NP-15, NP-50, NP-70, NP-91, NP-93: both families, TCP and UDP, through one bridge.
#[test]
fn what_a_policy_allows_passes_and_nothing_else() {
    run("traffic::what_a_policy_allows_passes_and_nothing_else", || {
        let (server, friend, stranger) =
            (Pod::new("server", 1), Pod::new("friend", 2), Pod::new("stranger", 3));
        server.serve(&[80, 81]);
        let npc = Npc::start(&[]);
        for address in [server.v4(), server.v6()] {
            assert_eq!(stranger.reaches(address, 81), BOTH, "nobody is isolated");
        }
        let rule = "  ingress:\n  - from: [{podSelector: {matchLabels: {app: friend}}}]\n    ports: [{port: 80}, {protocol: UDP, port: 80}]";
        write("policy.yaml", &policy("p", "server", rule));
        npc.sync();
        for address in [server.v4(), server.v6()] {
            assert_eq!(friend.reaches(address, 80), BOTH);
            assert_eq!(friend.reaches(address, 81), NEITHER);
            assert_eq!(stranger.reaches(address, 80), NEITHER);
            assert!(connect(address, 81).is_some_and(|mut s| works(&mut s)), "the pod's own node");
            assert!(!friend.pings(address), "a rule with ports does not allow ICMP");
        }
        friend.serve(&[7]);
        assert_eq!(server.reaches(friend.v4(), 7), BOTH, "answers to what an isolated pod opened");
        assert_eq!(server.reaches(friend.v6(), 7), BOTH);
        write("policy.yaml", &policy("p", "server", "  ingress: [{}]"));
        npc.sync();
        for address in [server.v4(), server.v6()] {
            assert_eq!(stranger.reaches(address, 81), BOTH);
            assert!(stranger.pings(address), "everything includes ICMP");
        }
        write("policy.yaml", &policy("p", "server", ""));
        npc.sync();
        assert_eq!(friend.reaches(server.v4(), 80), NEITHER);
        assert_eq!(friend.reaches(server.v6(), 80), NEITHER);
    });
}

/// NP-05, NP-06, NP-27, NP-28, NP-30, NP-54, NP-55, NP-72, E14.
#[test]
fn what_a_pod_may_send_is_limited_by_ports_names_and_blocks() {
    run("traffic::what_a_pod_may_send_is_limited_by_ports_names_and_blocks", || {
        let (client, server, other) = (Pod::new("client", 1), Pod::new("server", 2), Pod::new("other", 3));
        server.serve(&[80, 1000, 1500, 2001]);
        other.serve(&[80, 1000]);
        let npc = Npc::start(&[]);
        let rule = "  policyTypes: [Egress]\n  egress:\n  - to: [{podSelector: {matchLabels: {app: server}}}]\n    \
                    ports: [{port: web}, {port: 1000, endPort: 2000}]\n  \
                    - to: [{ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.2/32]}}]\n    ports: [{port: 1000}, {protocol: UDP}]";
        write("policy.yaml", &policy("p", "client", rule));
        npc.sync();
        let tcp = |to, port| client.connect(to, port).is_some_and(|mut stream| works(&mut stream));
        for (port, expected) in [(80, true), (1000, true), (1500, true), (2001, false)] {
            assert_eq!((tcp(server.v4(), port), tcp(server.v6(), port)), (expected, expected), "{port}");
        }
        assert!(tcp(other.v4(), 1000) && !tcp(other.v4(), 80));
        assert!(!tcp(other.v6(), 1000), "a block of one family says nothing about the other");
        assert!(client.inside(|| datagram_returns(other.v4(), 80, 8)));
        assert!(!client.inside(|| datagram_returns(server.v4(), 80, 8)), "the server is excepted");
        assert!(server.connect(client.v4(), 9).is_none(), "nobody listens");
        client.serve(&[9]);
        assert!(server.connect(client.v4(), 9).is_some_and(|mut s| works(&mut s)), "its answers pass");
        let listener = std::net::TcpListener::bind("10.0.0.254:80").unwrap();
        assert!(!tcp("10.0.0.254".parse().unwrap(), 80), "its own node is like everybody else");
        assert!(client.connect("10.0.0.254".parse().unwrap(), 80).is_none());
        drop(listener);
        // E25: fragments are put together before they are judged.
        assert!(client.inside(|| datagram_returns(other.v4(), 1000, 4000)));
        assert!(!client.inside(|| datagram_returns(server.v4(), 1000, 4000)));
    });
}

/// NP-53, E16: policies see pods behind translated addresses, in both directions of a bridged detour.
#[test]
fn services_are_judged_by_the_pods_behind_them() {
    run("traffic::services_are_judged_by_the_pods_behind_them", || {
        let (server, friend, stranger) =
            (Pod::new("server", 1), Pod::new("friend", 2), Pod::new("stranger", 3));
        server.serve(&[80]);
        shell(
            "nft add table ip services; nft 'add chain ip services pre { type nat hook prerouting priority -100; }'; \
             nft add rule ip services pre ip daddr 10.96.0.1 tcp dport 8000 dnat to 10.0.0.1:80",
        );
        let npc = Npc::start(&[]);
        let rule =
            "  ingress:\n  - from: [{podSelector: {matchLabels: {app: friend}}}]\n    ports: [{port: 80}]";
        write("policy.yaml", &policy("p", "server", rule));
        npc.sync();
        let service = "10.96.0.1".parse().unwrap();
        assert!(friend.connect(service, 8000).is_some_and(|mut stream| works(&mut stream)));
        assert!(stranger.connect(service, 8000).is_none());
        // The same from the side of the client: the port of the pod counts, not that of the service.
        write(
            "policy.yaml",
            &policy("p", "stranger", "  policyTypes: [Egress]\n  egress: [{ports: [{port: 80}]}]"),
        );
        npc.sync();
        assert!(stranger.connect(service, 8000).is_some_and(|mut stream| works(&mut stream)));
        write(
            "policy.yaml",
            &policy("p", "stranger", "  policyTypes: [Egress]\n  egress: [{ports: [{port: 8000}]}]"),
        );
        npc.sync();
        assert!(stranger.connect(service, 8000).is_none());
        shell("nft delete table ip services");
    });
}

/// NP-82, E17: strictly, and for those only whom it concerns.
#[test]
fn an_established_connection_stops_when_it_is_no_longer_allowed() {
    run("traffic::an_established_connection_stops_when_it_is_no_longer_allowed", || {
        let (server, friend, stranger) =
            (Pod::new("server", 1), Pod::new("friend", 2), Pod::new("stranger", 3));
        server.serve(&[80]);
        let npc = Npc::start(&[]);
        let addresses = [server.v4(), server.v6()];
        let mut streams: Vec<_> = addresses
            .iter()
            .flat_map(|to| {
                [(true, friend.connect(*to, 80).unwrap()), (false, stranger.connect(*to, 80).unwrap())]
            })
            .collect();
        assert!(streams.iter_mut().all(|(_, stream)| works(stream)));
        let rule = "  ingress:\n  - from: [{podSelector: {matchLabels: {app: friend}}}]";
        write("policy.yaml", &policy("p", "server", rule));
        npc.sync();
        for (is_friend, stream) in &mut streams {
            assert_eq!(works(stream), *is_friend);
        }
        assert!(npc.ask("status").contains("old connections judged: yes"));
        // By its labels the friend stops being one.
        let manifest = std::fs::read_to_string("/run/manifests/pod-friend.yaml").unwrap();
        write("pod-friend.yaml", &manifest.replace("app: friend", "app: enemy"));
        npc.sync();
        assert!(streams.iter_mut().all(|(_, stream)| !works(stream)));
        // What was held up goes on: nothing was torn down.
        write("policy.yaml", &policy("p", "server", "  ingress: [{}]"));
        npc.sync();
        let mut fresh = friend.connect(server.v4(), 80).unwrap();
        assert!(works(&mut fresh));
    });
}
