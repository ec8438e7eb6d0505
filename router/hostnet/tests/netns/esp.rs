//! IPsec's policies and keys on the port of tunnels.

use std::{
    collections::BTreeMap,
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use weave_hostnet::{
    Family, names, netns,
    nft::{self, ChainSpec, Expressions, Hook, Program, Verdict},
    xfrm::{Cipher, Direction, EspKey, Rule, SPI_FIRST, Session, StateId, StateSpec, Whom},
};

use weave_model::EspOver;

use crate::{
    lab::{run, shell},
    site::{PORT, Site, address, end, sites, tunnel},
};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const DIRECTIONS: [Direction; 2] = [Direction::In, Direction::Out];

impl Site {
    fn session(&self) -> Session {
        netns::in_netns(&self.namespace.netns().open().unwrap(), || Session::open(PORT)).unwrap().unwrap()
    }

    fn socket(&self, port: u16) -> UdpSocket {
        let bind = || UdpSocket::bind((address(self.number, Family::V4), port));
        let socket = netns::in_netns(&self.namespace.netns().open().unwrap(), bind).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    }
}

fn close(session: &Session) {
    for direction in DIRECTIONS {
        for family in FAMILIES {
            session.set_policy(direction, Whom::All(family), Rule::Block).unwrap();
        }
    }
}

/// Whether a datagram from one to the other's tunnel port arrives.
fn arrives(from: &UdpSocket, to: &UdpSocket) -> bool {
    let sent = from.send_to(b"clear", to.local_addr().unwrap());
    let mut buffer = [0; 16];
    sent.is_ok() && to.recv(&mut buffer).is_ok()
}

#[test]
fn a_closed_port_is_open_for_those_alone_who_are_let_through() {
    run("esp::a_closed_port_is_open_for_those_alone_who_are_let_through", || async {
        let hosts = sites(2).await;
        let (a, b) = (hosts[0].session(), hosts[1].session());
        let (near, far, other) = (hosts[0].socket(0), hosts[1].socket(PORT), hosts[1].socket(PORT + 1));
        assert!(arrives(&near, &far), "nothing is closed yet");
        let peers = [Whom::Peer(address(2, Family::V4)), Whom::Peer(address(1, Family::V4))];
        for _ in 0..2 {
            close(&a);
            assert!(!arrives(&near, &far), "it left the host");
            assert!(arrives(&near, &other), "other ports are nobody's business");
        }
        assert_eq!(a.policies().unwrap().len(), 4);
        for rule in [Rule::Protect(None), Rule::Protect(Some(SPI_FIRST | 1))] {
            a.set_policy(Direction::Out, peers[0], rule).unwrap();
            assert_eq!(a.policies().unwrap()[&(Direction::Out, peers[0])], rule);
            assert!(!arrives(&near, &far), "without a key nothing leaves");
        }
        a.set_policy(Direction::Out, peers[0], Rule::Allow).unwrap();
        assert!(arrives(&near, &far));
        close(&b);
        assert!(!arrives(&near, &far), "it was let in");
        b.set_policy(Direction::In, peers[1], Rule::Protect(None)).unwrap();
        assert!(!arrives(&near, &far), "it was let in without a key");
        b.set_policy(Direction::In, peers[1], Rule::Allow).unwrap();
        assert!(arrives(&near, &far));
        b.remove_policy(Direction::In, peers[1]).unwrap();
        b.remove_policy(Direction::In, peers[1]).unwrap();
        assert!(!arrives(&near, &far), "the port is closed for others");

        // What is not ours is not ours.
        let foreign = "ip xfrm policy add dir out dst 198.51.100.0/24 proto udp dport 6784 action block";
        hosts[0].shell(foreign);
        assert_eq!((a.clear().unwrap(), a.clear().unwrap()), (5, 0));
        assert_eq!(b.clear().unwrap(), 4);
        assert!(hosts[0].shell("ip xfrm policy").contains("198.51.100.0/24"));
        assert_eq!(hosts[1].shell("ip xfrm policy"), "");
        assert!(arrives(&near, &far));
        end(hosts);
    });
}

/// What `host` sends with one key and takes with the other; both ends name the SPIs alike.
fn protect(host: &Site, peer: u8, family: Family, cipher: Cipher, epoch: u32) {
    let (local, remote) = (address(host.number, family), address(peer, family));
    let session = host.session();
    let spi = |from: u8| SPI_FIRST | u32::from(from) << 8 | epoch;
    let key = |from: u8| EspKey::new([from; 36]);
    let incoming =
        StateSpec { id: StateId { to: local, spi: spi(peer) }, from: remote, cipher, over: EspOver::Ip };
    let outgoing = StateSpec {
        id: StateId { to: remote, spi: spi(host.number) },
        from: local,
        cipher,
        over: EspOver::Ip,
    };
    session.add_state(&incoming, &key(peer)).unwrap();
    session.add_state(&outgoing, &key(host.number)).unwrap();
    session.set_policy(Direction::In, Whom::Peer(remote), Rule::Protect(None)).unwrap();
    session.set_policy(Direction::Out, Whom::Peer(remote), Rule::Protect(Some(outgoing.id.spi))).unwrap();
}

/// Drops what arrives at the port or leaves for it without IPsec, whatever the policies say.
fn lock(host: &Site) {
    const UDP: u8 = 17;
    let chain = |name: &str, hook, condition: fn(Expressions) -> Expressions| {
        let expressions = condition(Expressions::default().destination_port(UDP, PORT));
        let rule = nft::Rule { note: "locked".to_owned(), expressions: expressions.verdict(Verdict::Drop) };
        ChainSpec { name: name.to_owned(), hook: Some(hook), rules: vec![rule] }
    };
    let chains = vec![
        chain("input", Hook::Input, Expressions::came_in_the_clear),
        chain("output", Hook::Output, Expressions::leaves_in_the_clear),
    ];
    let program = Program { table: "lock".to_owned(), sets: Vec::new(), chains };
    let install = || nft::Session::open().unwrap().install(&program, &[]).unwrap();
    netns::in_netns(&host.namespace.netns().open().unwrap(), install).unwrap();
}

/// Counts what passes the underlay.
fn watch_underlay() {
    shell(
        "nft add table bridge seen; nft add chain bridge seen passing '{ type filter hook forward priority 0; }'; \
         nft add rule bridge seen passing ether type ip ip protocol esp counter comment sealed; \
         nft add rule bridge seen passing ether type ip6 ip6 nexthdr esp counter comment sealed; \
         nft add rule bridge seen passing udp dport 6784 counter comment plain",
    );
}

/// Packets seen so far: encrypted, in the clear.
fn seen() -> (u64, u64) {
    let rules = shell("nft list table bridge seen");
    let count = |comment: &str| -> u64 {
        let lines = rules.lines().filter(|line| line.contains(&format!("comment \"{comment}\"")));
        lines
            .map(|line| {
                line.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse::<u64>().unwrap()
            })
            .sum()
    };
    (count("sealed"), count("plain"))
}

#[test]
#[ignore = "needs a kernel with ESP: run with cargo xtask test --guest"]
fn tunnels_between_protected_hosts_show_nothing_but_esp() {
    run("esp::tunnels_between_protected_hosts_show_nothing_but_esp", || async {
        for (family, cipher) in [
            (Family::V4, Cipher::Aes256Gcm),
            (Family::V6, Cipher::Aes256Gcm),
            (Family::V4, Cipher::ChaCha20Poly1305),
        ] {
            let hosts = sites(2).await;
            watch_underlay();
            hosts.iter().for_each(|host| close(&host.session()));
            let mut containers = Vec::new();
            for (host, peer, id, other) in [(&hosts[0], 2, "a", "b"), (&hosts[1], 1, "b", "a")] {
                host.session().check(family, cipher).unwrap();
                let device = host.uplink(family).await;
                containers.push(host.container(id, &[&format!("10.32.0.{}/12", host.number)]).await);
                host.learn(device, other, tunnel(peer, family, None)).await;
            }
            let ping = || {
                let command = format!("{}ping -c 1 -W 1 10.32.0.2", containers[0].enter());
                std::process::Command::new("sh").args(["-c", &command]).output().unwrap().status.success()
            };
            assert!(!ping(), "nothing passes a closed port");
            for (host, peer) in [(&hosts[0], 2), (&hosts[1], 1)] {
                protect(host, peer, family, cipher, 0);
            }
            assert!(ping(), "{family:?} {cipher:?}");
            let states = hosts[0].session().states().unwrap();
            assert!(states.len() == 2 && states.values().all(|used| used.packets > 0), "{states:?}");
            let (encrypted, clear) = seen();
            assert!(encrypted >= 2 && clear == 0, "{encrypted} encrypted, {clear} in the clear");

            // The other lock lets the same pass, and nothing when the first is gone.
            hosts.iter().for_each(lock);
            assert!(ping(), "{family:?} {cipher:?}");
            hosts[0].shell("ip xfrm policy flush");
            assert!(!ping());
            assert_eq!(seen().1, 0, "it left");
            // A key made again would begin with numbers that the other end has seen.
            for (host, peer) in [(&hosts[0], 2), (&hosts[1], 1)] {
                close(&host.session());
                protect(host, peer, family, cipher, 1);
            }
            assert!(ping(), "{family:?} {cipher:?}");

            // A key that only one end has: nothing passes, nothing shows.
            let id = StateId { to: address(1, family), spi: SPI_FIRST | 2 << 8 | 1 };
            hosts[1].session().remove_state(id).unwrap();
            assert!(!ping());
            assert_eq!(seen().1, 0);
            for host in &hosts {
                assert!(host.session().clear().unwrap() >= 7);
                assert_eq!(host.shell("ip xfrm state; ip xfrm policy"), "");
            }
            drop(containers);
            for host in &hosts {
                for device in [names::vxlan(family), names::BRIDGE] {
                    let _ = host.host.remove_link(device).await;
                }
            }
            shell("nft delete table bridge seen");
            end(hosts);
        }
    });
}

/// Both ends make new keys while packets flow, as the router does it: first all take the new key, then one sends with it.
#[test]
#[ignore = "needs a kernel with ESP: run with cargo xtask test --guest"]
fn keys_are_changed_without_losing_a_packet() {
    run("esp::keys_are_changed_without_losing_a_packet", || async {
        let hosts = sites(2).await;
        let (from, to) = (hosts[0].socket(0), hosts[1].socket(PORT));
        let local = |number| address(number, Family::V4);
        let sender = hosts[0].session();
        let taker = hosts[1].session();
        let mut sent = 0_u32;
        for epoch in 0..100 {
            let spi = SPI_FIRST | epoch;
            let id = StateId { to: local(2), spi };
            let spec = StateSpec { id, from: local(1), cipher: Cipher::Aes256Gcm, over: EspOver::Ip };
            let key = || EspKey::new([u8::try_from(epoch).unwrap(); 36]);
            taker.add_state(&spec, &key()).unwrap();
            taker.set_policy(Direction::In, Whom::Peer(local(1)), Rule::Protect(None)).unwrap();
            sender.add_state(&spec, &key()).unwrap();
            sender.set_policy(Direction::Out, Whom::Peer(local(2)), Rule::Protect(Some(spi))).unwrap();
            if epoch > 0 {
                sender.remove_state(StateId { to: local(2), spi: spi - 1 }).unwrap();
            }
            for _ in 0..10 {
                assert!(arrives(&from, &to), "after {sent}");
                sent += 1;
            }
        }
        let used: BTreeMap<StateId, _> = taker.states().unwrap();
        assert!(used.len() == 100 && used.values().all(|used| used.packets == 10), "{used:?}");
        for host in &hosts {
            host.session().clear().unwrap();
        }
        drop((from, to));
        end(hosts);
    });
}

#[test]
fn a_table_tells_what_passes_through_ipsec_from_what_does_not() {
    run("esp::a_table_tells_what_passes_through_ipsec_from_what_does_not", || async {
        let hosts = sites(2).await;
        let (near, far, other) = (hosts[0].socket(0), hosts[1].socket(PORT), hosts[1].socket(PORT + 1));
        assert!(arrives(&near, &far));
        for host in &hosts {
            lock(host);
            assert!(!arrives(&near, &far) && arrives(&near, &other));
            let listed = host.shell("nft list table inet lock");
            assert!(listed.contains("rt ipsec missing") && listed.contains("ipsec missing drop"), "{listed}");
            host.shell("nft delete table inet lock");
            assert!(arrives(&near, &far));
        }
        end(hosts);
    });
}

#[test]
fn a_kernel_says_whether_it_can_do_esp() {
    run("esp::a_kernel_says_whether_it_can_do_esp", || async {
        let session = Session::open(PORT).unwrap();
        for family in FAMILIES {
            let answer = session.check(family, Cipher::Aes256Gcm);
            // Either it can, or the operator is told what is missing.
            let is_clear = match &answer {
                Ok(()) => true,
                Err(error) => error.to_string().contains("esp") || error.to_string().contains("AES-GCM"),
            };
            assert!(is_clear, "{answer:?}");
        }
        assert_eq!(shell("ip xfrm state"), "");
    });
}

#[test]
fn addresses_of_both_families_are_told_apart() {
    run("esp::addresses_of_both_families_are_told_apart", || async {
        let session = Session::open(PORT).unwrap();
        let peers: [IpAddr; 2] = [address(1, Family::V4), address(1, Family::V6)];
        for peer in peers {
            session.set_policy(Direction::Out, Whom::Peer(peer), Rule::Protect(None)).unwrap();
        }
        let found = session.policies().unwrap();
        assert!(
            peers.iter().all(|peer| found.contains_key(&(Direction::Out, Whom::Peer(*peer)))),
            "{found:?}"
        );
        assert_eq!(session.clear().unwrap(), 2);
    });
}
