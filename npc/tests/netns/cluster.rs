//! The daemon in a cluster: as a container has it, by service account, with real traffic.

use std::{
    fs,
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    authority,
    lab::{Npc, Pod, run, shell, wait_until, works},
    objects::{allow, namespace, pod, policy},
    server::{End, Mood, Server},
    upkeep::open_connections,
};

/// Where a container finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const PATIENCE: Duration = Duration::from_secs(30);
/// Enough for each order of three lists, and for one that is complete while the table is being made.
const STARTS: usize = 30;

/// A cluster with a namespace `x` whose pods `web` only those of `friend` may reach.
fn cluster() -> Server {
    let (certificate, server) = authority::start();
    fs::create_dir_all(ACCOUNT).unwrap();
    for (name, text) in [("ca.crt", certificate.as_str()), ("token", "secret"), ("namespace", "kube-system")]
    {
        fs::write(format!("{ACCOUNT}/{name}"), text).unwrap();
    }
    server.put("namespaces", namespace("x", &json!({"team": "red"})));
    server.put("networkpolicies", allow("x", "web", "web", "friend", "red"));
    server
}

/// The same with its pods, and a stranger.
fn populated() -> (Server, [Pod; 3]) {
    let server = cluster();
    let pods = [("web", 1), ("friend", 2), ("stranger", 3)].map(|(name, number)| {
        server.put("pods", local(name, name, number));
        Pod::unknown(number)
    });
    (server, pods)
}

fn launch(server: &Server) -> Npc {
    launch_with(server, &[])
}

fn launch_with(server: &Server, arguments: &[&str]) -> Npc {
    let environment = [
        ("KUBERNETES_SERVICE_HOST", server.address().ip().to_string()),
        ("KUBERNETES_SERVICE_PORT", server.address().port().to_string()),
        ("NODE_NAME", "here".to_owned()),
    ];
    Npc::launch(arguments, &environment)
}

fn local(name: &str, app: &str, number: u8) -> Value {
    pod("x", name, app, "here", Some(&format!("10.0.0.{number}")), number)
}

/// E22, NP-83, NP-84: through outages, and restarts during them, nothing opens or closes that nobody wanted.
#[test]
fn policies_of_a_cluster_are_in_force_and_stay_so_while_its_server_is_away() {
    run("cluster::policies_of_a_cluster_are_in_force_and_stay_so_while_its_server_is_away", || {
        let (server, [web, friend, stranger]) = populated();
        web.serve(&[80]);
        let npc = launch(&server);
        wait_until("policies in force", PATIENCE, || npc.is_in_force());
        let reaches = |pod: &Pod| pod.connect(web.v4(), 80).is_some_and(|mut stream| works(&mut stream));
        assert!(reaches(&friend) && !reaches(&stranger));
        let away = || {
            server.set_mood(Mood::Down);
            server.end_watches(End::Torn);
            wait_until("closed watches", PATIENCE, || server.open_watches() == 0);
        };
        // Things go on elsewhere while nobody tells us: friend and stranger change their parts.
        away();
        server.put("pods", local("friend", "stranger", 2));
        server.put("pods", local("stranger", "friend", 3));
        wait_until("a word about it", PATIENCE, || {
            npc.ask("status").contains("no news of: namespaces, networkpolicies, pods")
        });
        assert!(reaches(&friend) && !reaches(&stranger), "what is known stays");
        // A daemon that knows nothing changes nothing.
        npc.kill();
        let npc = launch(&server);
        wait_until("a daemon that waits", PATIENCE, || server.requests(&["limit="]) >= 6);
        wait_until("an answer", PATIENCE, || npc.is_answering());
        assert!(npc.ask("status").starts_with("state: waiting for namespaces, networkpolicies, pods"));
        assert!(!npc.is_in_force());
        assert!(reaches(&friend) && !reaches(&stranger), "what was in force stays");
        server.set_mood(Mood::Good);
        wait_until("policies in force", PATIENCE, || npc.is_in_force());
        assert!(!reaches(&friend) && reaches(&stranger), "what has happened counts");
        // A policy that goes opens; one that comes closes.
        server.delete("networkpolicies", "x", "web");
        wait_until("an open pod", PATIENCE, || reaches(&friend));
        server.put("networkpolicies", policy("x", "deny", json!({"podSelector": {}})));
        wait_until("a closed pod", PATIENCE, || !reaches(&friend) && !reaches(&stranger));
    });
}

/// NP-81: whoever waits until policies are in force may rely on it, however the lists arrive.
#[test]
fn at_the_first_start_nothing_is_said_to_be_in_force_that_is_not() {
    run("cluster::at_the_first_start_nothing_is_said_to_be_in_force_that_is_not", || {
        let (server, [web, friend, stranger]) = populated();
        let at_web = web.inside(|| UdpSocket::bind(("10.0.0.1", 80)).unwrap());
        at_web.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let from = |pod: &Pod| pod.inside(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap());
        let (at_friend, at_stranger) = (from(&friend), from(&stranger));
        let rule = json!({"podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}]});
        server.put("networkpolicies", policy("x", "web", rule));
        for _ in 0..STARTS {
            let npc = launch(&server);
            wait_until("policies in force", PATIENCE, || npc.is_in_force());
            at_stranger.send_to(b"stranger", ("10.0.0.1", 80)).unwrap();
            at_friend.send_to(b"friend", ("10.0.0.1", 80)).unwrap();
            let mut said = [0; 8];
            let length = at_web.recv(&mut said).unwrap();
            assert_eq!(std::str::from_utf8(&said[..length]), Ok("friend"));
            npc.kill();
            shell(&format!("{} reset", env!("CARGO_BIN_EXE_weave-npc")));
        }
    });
}

/// NP-84: what another version left, with other rules, is in force until its successor knows everything.
#[test]
fn a_successor_with_other_rules_opens_and_closes_nothing() {
    run("cluster::a_successor_with_other_rules_opens_and_closes_nothing", || {
        let (server, [web, friend, stranger]) = populated();
        web.serve(&[80]);
        let npc = launch_with(&server, &["--allow-mcast"]);
        wait_until("policies in force", PATIENCE, || npc.is_in_force());
        let reaches = |pod: &Pod| pod.connect(web.v4(), 80).is_some_and(|mut stream| works(&mut stream));
        assert!(reaches(&friend) && !reaches(&stranger));
        npc.kill();
        server.set_mood(Mood::WithholdsPods);
        let npc = launch(&server);
        wait_until("a daemon that waits", PATIENCE, || {
            npc.is_answering() && npc.ask("status").starts_with("state: waiting for pods")
        });
        assert!(reaches(&friend) && !reaches(&stranger), "what was in force stays");
        server.set_mood(Mood::Good);
        wait_until("policies in force", PATIENCE, || npc.is_in_force());
        assert!(reaches(&friend) && !reaches(&stranger));
    });
}

/// NP-81: where nobody was isolated before, pods are as soon as it is known who is to be, before all others are known.
#[test]
fn at_the_first_start_pods_are_closed_before_all_their_peers_are_known() {
    run("cluster::at_the_first_start_pods_are_closed_before_all_their_peers_are_known", || {
        let (web, friend) = (Pod::unknown(1), Pod::unknown(2));
        web.serve(&[80]);
        let server = cluster();
        server.put("pods", local("a-web", "web", 1));
        // The friend comes on the last of three pages.
        for n in 10..17 {
            server.put("pods", local(&format!("other{n}"), "other", n));
        }
        server.put("pods", local("z-friend", "friend", 2));
        server.set_mood(Mood::WithholdsLaterPages);
        let npc = launch(&server);
        let reaches = || friend.connect(web.v4(), 80).is_some_and(|mut stream| works(&mut stream));
        assert!(reaches(), "nobody has said anything");
        wait_until("a closed pod", PATIENCE, || !reaches());
        assert!(npc.ask("status").starts_with("state: waiting for pods"));
        server.set_mood(Mood::Good);
        wait_until("policies in force", PATIENCE, || npc.is_in_force());
        assert!(reaches());
    });
}

/// NP-81, E28: a pod that was announced is isolated from its first packet on, whether its object is known or not.
#[test]
fn a_pod_that_was_announced_is_never_open() {
    run("cluster::a_pod_that_was_announced_is_never_open", || {
        let (web, friend, stranger) = (Pod::unknown(1), Pod::unknown(2), Pod::unknown(3));
        web.serve(&[80]);
        let server = cluster();
        server.put("pods", local("friend", "friend", 2));
        server.put("pods", local("stranger", "stranger", 3));
        let npc = launch(&server);
        wait_until("policies in force", PATIENCE, || npc.is_in_force());
        let reaches = |pod: &Pod, to| pod.connect(to, 80).is_some_and(|mut stream| works(&mut stream));
        let both = || (reaches(&friend, web.v4()), reaches(&stranger, web.v4()));
        assert_eq!(both(), (true, true), "nobody has said that this is a pod");
        assert_eq!(npc.ask("expect x/web 10.0.0.1 fd00::1"), "isolated\n");
        assert_eq!(both(), (false, false), "nobody knows who it is");
        assert!(!reaches(&friend, web.v6()));
        assert!(npc.ask("explain 10.0.0.2 10.0.0.1 80/tcp").contains("not-known-yet"));
        // Its labels are known, its address is not: policies apply.
        server.put("pods", pod("x", "web", "web", "here", None, 1));
        wait_until("an open pod", PATIENCE, || reaches(&friend, web.v4()));
        assert!(!reaches(&stranger, web.v4()));
        npc.kill();
        let npc = launch(&server);
        wait_until("policies in force", PATIENCE, || npc.is_in_force());
        assert_eq!(both(), (true, false), "what was announced survives a restart");
        // Its object has the address; then it goes, and takes the address with it.
        let known = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]);
        let mut started = local("web", "web", 1);
        started["status"]["podIPs"] = known;
        server.put("pods", started);
        wait_until("a pod that came", PATIENCE, || {
            fs::read("/run/npc.expected").is_ok_and(|text| text.is_empty())
        });
        assert_eq!(both(), (true, false));
        server.delete("pods", "x", "web");
        wait_until("an address that is nobody's", PATIENCE, || both() == (true, true));
    });
}

/// E18, E21, E22, E28: through a thousand pods that share an address, in either order of events, each with another policy in
/// place of the one before, through outages, lists begun anew and killed daemons: what none of them allows never passes, and
/// what all of them allow never fails.
#[test]
fn a_thousand_pods_with_one_address_open_nothing() {
    const CONNECTIONS: u32 = 1000;
    run("cluster::a_thousand_pods_with_one_address_open_nothing", || {
        let (web, friend, stranger) = (Pod::unknown(1), Pod::unknown(2), Pod::unknown(3));
        web.serve(&[80]);
        let trap = web.inside(|| UdpSocket::bind(("10.0.0.1", 9)).unwrap());
        trap.set_nonblocking(true).unwrap();
        let server = cluster();
        server.put("pods", local("web", "web", 1));
        server.put("pods", local("friend", "friend", 2));
        server.put("pods", local("stranger-0", "stranger-0", 3));
        let mut npc = launch(&server);
        wait_until("policies in force", PATIENCE, || npc.is_in_force());
        let policies = [
            allow("x", "web", "web", "friend", "red"),
            policy(
                "x",
                "web",
                json!({"podSelector": {"matchLabels": {"app": "web"}},
                    "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.2/32"}}], "ports": [{"port": 80}]}]}),
            ),
        ];
        let (is_over, sent, opened) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            scope.spawn(|| open_connections(&friend, &web, &is_over, &opened));
            scope.spawn(|| {
                let socket = stranger.inside(|| UdpSocket::bind(("10.0.0.3", 0)).unwrap());
                while !is_over.load(Ordering::Relaxed) {
                    let is_sent = socket.send_to(b"in?", ("10.0.0.1", 9)).is_ok();
                    sent.fetch_add(u32::from(is_sent), Ordering::Relaxed);
                    thread::yield_now();
                }
            });
            for n in 1..=1000u32 {
                let (name, before) = (format!("stranger-{n}"), format!("stranger-{}", n - 1));
                let new = || server.put("pods", local(&name, &name, 3));
                if n % 2 == 0 {
                    new();
                    server.delete("pods", "x", &before);
                } else {
                    server.delete("pods", "x", &before);
                    new();
                }
                server.put("networkpolicies", policies[n as usize % policies.len()].clone());
                match n % 100 {
                    20 => server.end_watches(End::Torn),
                    40 => server.set_mood(Mood::Status(503)),
                    50 => server.set_mood(Mood::Good),
                    60 => server.forget(),
                    80 => {
                        npc.kill_now();
                        npc = launch(&server);
                    }
                    90 => _ = wait_until("policies in force", PATIENCE, || npc.is_in_force()),
                    _ => {}
                }
            }
            wait_until("all to be told", PATIENCE, || npc.ask("status").contains("pods: 3\n"));
            wait_until("enough to be sent", PATIENCE, || sent.load(Ordering::Relaxed) > 2000);
            let has_opened_more = || opened.load(Ordering::Relaxed) >= CONNECTIONS;
            wait_until("connections", PATIENCE, has_opened_more);
            is_over.store(true, Ordering::Relaxed);
        });
        println!(
            "{opened:?} connections of one, none of which failed; {sent:?} datagrams of another, none of which passed"
        );
        assert!(trap.recv_from(&mut [0; 8]).is_err(), "something came through");
        assert!(friend.connect(web.v4(), 80).is_some_and(|mut stream| works(&mut stream)));
        // The trap would have caught it.
        server.delete("networkpolicies", "x", "web");
        let socket = stranger.inside(|| UdpSocket::bind(("10.0.0.3", 0)).unwrap());
        wait_until("an open pod", PATIENCE, || {
            socket.send_to(b"in!", ("10.0.0.1", 9)).unwrap();
            trap.recv_from(&mut [0; 8]).is_ok()
        });
    });
}
