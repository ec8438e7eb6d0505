//! What happens to the table over time.

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use weave_hostnet::nft;
use weave_npc::{
    clock,
    kernel::Kernel,
    program::{self, Bank, Multicast, SWITCH},
};
use weave_policy::{ClassId, Delta, Direction, Element};

use crate::{
    lab::{Npc, Pod, remove, run, shell, wait_until, works, write},
    traffic::policy,
};

/// How often a program takes the place of another, so that some packet is between the two.
const SUCCESSIONS: usize = 60;

/// All items of our table, if it is as we made it.
fn read() -> Option<BTreeSet<(String, nft::Item)>> {
    let program = program::program(Multicast::Judge);
    let sets = nft::Session::open().unwrap().read(&program).unwrap()?;
    let named = program.sets.iter().zip(sets);
    Some(named.flat_map(|(set, items)| items.into_iter().map(|item| (set.name.clone(), item))).collect())
}

/// All items of our table that are in force, with the names of their sets without the bank.
fn items() -> BTreeSet<(String, nft::Item)> {
    in_force(read().expect("our table is there, and as we made it"))
}

fn in_force(all: BTreeSet<(String, nft::Item)>) -> BTreeSet<(String, nft::Item)> {
    let bank = if all.iter().any(|(set, _)| set == SWITCH) { Bank::B } else { Bank::A };
    let seen = |(set, item): (String, nft::Item)| match Bank::split(&set) {
        Some((of, name)) => (of == bank).then(|| (name.to_owned(), item)),
        None => (set != SWITCH).then_some((set, item)),
    };
    all.into_iter().filter_map(seen).collect()
}

fn is_rejudge(item: &(String, nft::Item)) -> bool {
    item.0.starts_with("rejudge")
}

#[test]
fn a_change_touches_only_what_it_is_about() {
    run("upkeep::a_change_touches_only_what_it_is_about", || {
        let pods: Vec<Pod> = (1..=5).map(|n| Pod::new(&format!("pod{n}"), n)).collect();
        let rule = "  ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}]}]";
        write("policy.yaml", &policy("p", "pod1", rule));
        let npc = Npc::start(&[]);
        wait_until("the end of looking through connections", Duration::from_secs(5), || {
            items().iter().all(|item| !is_rejudge(item))
        });
        let before = items();
        let sixth = Pod::new("pod6", 6);
        npc.sync();
        let after = items();
        assert!(before.is_subset(&after));
        let news: Vec<_> = after.difference(&before).collect();
        assert_eq!(news.len(), 2, "two addresses of one known kind: {news:?}");
        remove("pod-pod6.yaml");
        npc.sync();
        assert_eq!(items().into_iter().filter(|item| !is_rejudge(item)).collect::<BTreeSet<_>>(), before);
        drop((pods, sixth));
    });
}

/// NP-83, NP-84, E22: a daemon that dies leaves everything in force, and a new one changes nothing.
#[test]
fn a_restart_opens_and_closes_nothing() {
    run("upkeep::a_restart_opens_and_closes_nothing", || {
        let (server, friend, stranger) =
            (Pod::new("server", 1), Pod::new("friend", 2), Pod::new("stranger", 3));
        server.serve(&[80]);
        write(
            "policy.yaml",
            &policy("p", "server", "  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]"),
        );
        let npc = Npc::start(&[]);
        let mut stream = friend.connect(server.v4(), 80).unwrap();
        npc.kill();
        let check = |stream: &mut _| {
            assert!(works(stream) && friend.connect(server.v4(), 80).is_some());
            assert!(stranger.connect(server.v4(), 80).is_none());
        };
        check(&mut stream);
        let before: BTreeSet<_> = items().into_iter().filter(|item| !is_rejudge(item)).collect();
        // While nobody looks, a permission goes.
        write("policy.yaml", &policy("p", "server", "  ingress: []"));
        let npc = Npc::start(&[]);
        assert!(!works(&mut stream), "what was taken away in between is judged");
        write(
            "policy.yaml",
            &policy("p", "server", "  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]"),
        );
        npc.sync();
        npc.kill();
        let _npc = Npc::start(&[]);
        let after: BTreeSet<_> = items().into_iter().filter(|item| !is_rejudge(item)).collect();
        assert_eq!(before.len(), after.len());
        assert!(friend.connect(server.v4(), 80).is_some() && stranger.connect(server.v4(), 80).is_none());
    });
}

#[test]
fn a_table_that_somebody_damages_is_mended_within_two_seconds() {
    run("upkeep::a_table_that_somebody_damages_is_mended_within_two_seconds", || {
        let (server, stranger) = (Pod::new("server", 1), Pod::new("stranger", 2));
        server.serve(&[80]);
        write("policy.yaml", &policy("p", "server", "  ingress: []"));
        shell("nft add table inet others");
        let _npc = Npc::start(&[]);
        let whole: BTreeSet<_> = items().into_iter().filter(|item| !is_rejudge(item)).collect();
        let damages = [
            "nft delete table inet weave-npc",
            "nft flush table inet weave-npc",
            "nft flush map inet weave-npc ingress4_a; nft flush map inet weave-npc ingress4_b",
            "nft add element inet weave-npc bank_b_in_force '{ 1 }'",
            "nft insert rule inet weave-npc forward accept",
            "nft add element inet weave-npc ingress4_a '{ 10.0.0.2 : 77 }'; nft add element inet weave-npc ingress4_b '{ 10.0.0.2 : 77 }'",
            "nft flush ruleset",
        ];
        for damage in damages {
            shell(damage);
            let is_whole = || {
                let all = read().map(in_force).unwrap_or_default();
                all.into_iter().filter(|item| !is_rejudge(item)).collect::<BTreeSet<_>>() == whole
            };
            let took = wait_until(damage, Duration::from_secs(2), is_whole);
            assert!(stranger.connect(server.v4(), 80).is_none(), "{damage}, mended after {took:?}");
        }
    });
}

/// As when another version starts: what was closed is so at every moment.
#[test]
fn a_program_in_place_of_another_lets_nothing_through() {
    run("upkeep::a_program_in_place_of_another_lets_nothing_through", || {
        let (web, stranger) = (Pod::unknown(1), Pod::unknown(2));
        let trap = web.inside(|| UdpSocket::bind(("10.0.0.1", 9)).unwrap());
        trap.set_nonblocking(true).unwrap();
        let isolated = Element::Class { direction: Direction::Ingress, address: web.v4(), class: ClassId(1) };
        let wanted = Delta { add: vec![isolated].into(), ..Delta::default() };
        let replace = |multicast| Kernel::new(multicast).unwrap().apply(&wanted).unwrap();
        replace(Multicast::Judge);
        let (is_over, sent) = (AtomicBool::new(false), AtomicU32::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                let socket = stranger.inside(|| UdpSocket::bind(("10.0.0.2", 0)).unwrap());
                while !is_over.load(Ordering::Relaxed) {
                    let is_sent = socket.send_to(b"in?", ("10.0.0.1", 9)).is_ok();
                    sent.fetch_add(u32::from(is_sent), Ordering::Relaxed);
                }
            });
            for multicast in [Multicast::Pass, Multicast::Judge].into_iter().cycle().take(SUCCESSIONS) {
                replace(multicast);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert!(sent.load(Ordering::Relaxed) > 1000, "{sent:?}");
        let mut came = 0;
        while trap.recv_from(&mut [0; 8]).is_ok() {
            came += 1;
        }
        assert_eq!(came, 0, "of {sent:?}");
    });
}

/// A table that stood in for another when its maker was killed is older than what is wanted.
#[test]
fn a_stand_in_that_was_left_is_removed() {
    run("upkeep::a_stand_in_that_was_left_is_removed", || {
        let (server, client) = (Pod::new("server", 1), Pod::new("client", 2));
        server.serve(&[80]);
        Npc::start(&[]).kill();
        let leave = || {
            shell(
                "nft 'add table inet weave-npc-stand-in; \
                 add chain inet weave-npc-stand-in f { type filter hook forward priority 0; policy drop; }'",
            )
        };
        leave();
        assert!(client.connect(server.v4(), 80).is_none());
        let _npc = Npc::start(&[]);
        assert!(client.connect(server.v4(), 80).is_some());
        assert_eq!(shell("nft list tables"), "table inet weave-npc\n");
        // Another is gone with our table at the end.
        leave();
    });
}

/// P4: other tools have to live with our table.
#[test]
fn the_nft_tool_can_list_the_table() {
    run("upkeep::the_nft_tool_can_list_the_table", || {
        let _pods = [Pod::new("server", 1), Pod::new("client", 2)];
        let rule = "  ingress:\n  - ports: [{port: 80, endPort: 90}, {port: 100}, {protocol: UDP}]\n  \
                    - from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]\n  egress: [{}]";
        write("policy.yaml", &policy("p", "server", rule));
        let _npc = Npc::start(&["--allow-mcast"]);
        let listing = shell("nft list ruleset; nft -j list ruleset > /dev/null");
        for expected in [
            "type filter hook forward priority filter; policy accept;",
            "10.0.0.0/16 : ",
            "tcp . 80-90 : ",
            "chain judge_egress6_header_b {",
        ] {
            assert!(listing.contains(expected), "{expected} is not in {listing}");
        }
    });
}

/// A file that makes no sense any more changes nothing; one that is gone does.
#[test]
fn a_broken_manifest_opens_nothing() {
    run("upkeep::a_broken_manifest_opens_nothing", || {
        let (server, stranger) = (Pod::new("server", 1), Pod::new("stranger", 2));
        server.serve(&[80]);
        write("policy.yaml", &policy("p", "server", "  ingress: []"));
        let npc = Npc::start(&[]);
        write("policy.yaml", "kind: NetworkPolicy\nspec: [");
        npc.sync();
        assert!(stranger.connect(server.v4(), 80).is_none());
        assert_eq!(npc.ask("explain 10.0.0.2 10.0.0.1 80/tcp").lines().count(), 2);
        assert!(npc.ask("explain 10.0.0.2 10.0.0.1 80/tcp").contains("ingress dropped: selected by x/p"));
        remove("policy.yaml");
        npc.sync();
        assert!(stranger.connect(server.v4(), 80).is_some_and(|mut stream| works(&mut stream)));
    });
}

/// The packets of `friend` to the server before and behind our table, which do not differ if that drops none.
fn watch_friend() {
    shell(
        "nft add table inet watch; \
         nft 'add chain inet watch before { type filter hook forward priority -1; }'; \
         nft 'add chain inet watch behind { type filter hook forward priority 1; }'; \
         for at in before behind; do \
             nft add rule inet watch $at ip saddr 10.0.0.2 tcp dport 80 counter; \
             nft add rule inet watch $at ip daddr 10.0.0.2 tcp sport 80 counter; \
         done",
    );
}

/// What [`watch_friend`] has counted: in each direction before, and behind.
fn watched() -> [Vec<u64>; 2] {
    ["before", "behind"].map(|chain| {
        let text = shell(&format!("nft list chain inet watch {chain}"));
        let mut words = text.split_whitespace();
        let mut counts = Vec::new();
        while words.any(|word| word == "packets") {
            counts.push(words.next().unwrap().parse().unwrap());
        }
        counts
    })
}

/// Opens connections one after the other, thousands a second on an idle machine, until it is over. They end with a reset, so
/// that no port has to rest.
pub(crate) fn open_connections(friend: &Pod, server: &Pod, is_over: &AtomicBool, opened: &AtomicU32) {
    let to = SocketAddr::new(server.v4(), 80);
    friend.inside(|| {
        while !is_over.load(Ordering::Relaxed) {
            let mut stream = TcpStream::connect(to).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            assert!(works(&mut stream), "an open connection does not work");
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            opened.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// NP-83, E20, E21: while policies and labels are replaced, what both allow never fails, and what neither allows never
/// passes, not one packet.
#[test]
fn nothing_opens_or_closes_while_one_policy_replaces_another() {
    const REPLACEMENTS: usize = 300;
    /// Connections opened and used from each replacement to the next.
    const EACH: u32 = 10;
    const CONNECTIONS: u32 = REPLACEMENTS as u32 * EACH;
    run("upkeep::nothing_opens_or_closes_while_one_policy_replaces_another", || {
        let (server, friend, stranger) =
            (Pod::new("server", 1), Pod::new("friend", 2), Pod::new("stranger", 3));
        server.serve(&[80]);
        let trap = server.inside(|| UdpSocket::bind(("10.0.0.1", 9)).unwrap());
        trap.set_nonblocking(true).unwrap();
        let policies = [
            "  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]",
            "  ingress: [{from: [{ipBlock: {cidr: 10.0.0.2/32}}], ports: [{port: 80}]}]",
            "  ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [friend, other]}]}}], ports: [{port: 1, endPort: 100}]}]",
        ];
        write("policy.yaml", &policy("p", "server", policies[0]));
        let npc = Npc::start(&[]);
        watch_friend();
        let is_over = AtomicBool::new(false);
        let (opened, sent) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            scope.spawn(|| open_connections(&friend, &server, &is_over, &opened));
            scope.spawn(|| {
                let socket = stranger.inside(|| UdpSocket::bind(("10.0.0.3", 0)).unwrap());
                while !is_over.load(Ordering::Relaxed) {
                    let is_sent = socket.send_to(b"in?", ("10.0.0.1", 9)).is_ok();
                    sent.fetch_add(u32::from(is_sent), Ordering::Relaxed);
                    thread::yield_now();
                }
            });
            let manifest = fs::read_to_string("/run/manifests/pod-stranger.yaml").unwrap();
            let start = clock::now();
            let more = |counter: &AtomicU32, wanted| {
                let at = counter.load(Ordering::Relaxed) + wanted;
                // Whoever fails says so itself, and never counts again.
                while counter.load(Ordering::Relaxed) < at && start.elapsed() < Duration::from_secs(120) {
                    thread::yield_now();
                }
            };
            for round in 0..REPLACEMENTS {
                write("policy.yaml", &policy("p", "server", policies[round % policies.len()]));
                let label = format!("app: stranger{round}");
                write("pod-stranger.yaml", &manifest.replace("app: stranger", &label));
                npc.sync();
                more(&opened, EACH);
                more(&sent, EACH);
            }
            is_over.store(true, Ordering::Relaxed);
            let rate = f64::from(opened.load(Ordering::Relaxed)) / start.elapsed().as_secs_f64();
            println!(
                "{opened:?} connections, {rate:.0} a second, and {sent:?} datagrams during {REPLACEMENTS} replacements"
            );
        });
        assert!(opened.load(Ordering::Relaxed) >= CONNECTIONS, "{opened:?} connections within two minutes");
        assert!(sent.load(Ordering::Relaxed) >= CONNECTIONS, "{sent:?}");
        let [before, behind] = watched();
        assert_eq!(before, behind, "something of the friend was dropped, and sent again");
        assert!(before.iter().all(|count| *count > u64::from(CONNECTIONS)), "{before:?}");
        assert!(trap.recv_from(&mut [0; 8]).is_err(), "something came through");
        shell("nft delete table inet watch");
    });
}
