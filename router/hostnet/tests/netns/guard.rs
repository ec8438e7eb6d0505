//! Containers that say they are somebody else, with real frames.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use weave_hostnet::{Forgery, Host, PacketSocket, PortGuard, Station, names};
use weave_model::Mac;

use crate::lab::{Container, bridge, run, shell, spec};

const A4: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 1);
const SECOND4: Ipv4Addr = Ipv4Addr::new(10, 40, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

fn mac(id: &str) -> Mac {
    names::mac_from_seed(id.as_bytes())
}

fn station(id: &str, addresses: &[IpAddr]) -> (String, Station) {
    let station = Station { macs: [mac(id)].into(), addresses: addresses.iter().copied().collect() };
    (names::host_ifname(id), station)
}

/// A frame to everybody.
fn frame(from: Mac, kind: u16, content: &[u8]) -> Vec<u8> {
    [&Mac::BROADCAST.0[..], &from.0, &kind.to_be_bytes(), content].concat()
}

/// An IPv4 header without content (RFC 791), of a protocol that nobody speaks.
fn ipv4(from: Ipv4Addr) -> Vec<u8> {
    let header = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0];
    let mut bytes = [&header[..], &from.octets(), &B4.octets()].concat();
    let checksum = weave_model::checksum::of(&[&bytes]);
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// An IPv6 header with content (RFC 8200).
fn ipv6(from: Ipv6Addr, next: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let start = [0x60, 0, 0, 0, length[0], length[1], next, 255];
    [&start[..], &from.octets(), &B6.octets(), content].concat()
}

/// An advertisement of this address (RFC 4861, 4.4). Nobody looks at its checksum here.
fn advertisement(from: Ipv6Addr, about: Ipv6Addr) -> Vec<u8> {
    ipv6(from, 58, &[&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &about.octets()].concat())
}

/// An ARP request (RFC 826).
fn arp(sender: Mac, source: Ipv4Addr) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1][..], &sender.0, &source.octets(), &[0; 6], &B4.octets()].concat()
}

/// Sends frames of one container, and hears what another gets.
struct Wire {
    from: PacketSocket,
    to: PacketSocket,
}

impl Wire {
    async fn new(from: &Container, to: &Container) -> Self {
        Self { from: Self::end(from).await, to: Self::end(to).await }
    }

    async fn end(container: &Container) -> PacketSocket {
        /// Of Linux, for all that comes (`ETH_P_ALL`).
        const EVERYTHING: u16 = 3;
        let inside = Host::open_in(container.netns().open().unwrap()).await.unwrap();
        let link = inside.link_index(names::CONTAINER).await.unwrap().unwrap();
        PacketSocket::open(&inside, link, EVERYTHING).unwrap()
    }

    /// Whether the frame arrives. What is sent behind it says when it would have.
    async fn carries(&self, frame: &[u8], honest: &[u8]) -> bool {
        self.from.try_send(frame).unwrap();
        self.from.try_send(honest).unwrap();
        let mut buffer = vec![0; 2048];
        let mut has_come = false;
        loop {
            let received = tokio::time::timeout(Duration::from_secs(5), self.to.recv(&mut buffer)).await;
            let got = &buffer[..received.expect("what is honest does not arrive").unwrap()];
            has_come |= got.starts_with(frame);
            if got.starts_with(honest) {
                return has_come;
            }
        }
    }
}

#[test]
fn a_container_speaks_for_itself_only() {
    run("guard::a_container_speaks_for_itself_only", || async {
        let host = Host::open().await.unwrap();
        bridge(&host).await;
        let (a, b) = (Container::new(), Container::new());
        let guard = PortGuard::default();
        let stations = BTreeMap::from([
            station("a", &[A4.into(), SECOND4.into(), A6.into()]),
            station("b", &[B4.into(), B6.into()]),
        ]);
        // Before the ports are there: their first frame is looked at.
        guard.reconcile(&stations).unwrap();
        for (container, id, addresses) in [
            (&a, "a", &["10.32.0.1/12", "10.40.0.1/16", "fd00::1/64"][..]),
            (&b, "b", &["10.32.0.2/12", "fd00::2/64"]),
        ] {
            host.attach(&spec(container.netns(), id, addresses)).await.unwrap();
        }
        // The kernels of the two say nothing that is dropped.
        assert!(a.reaches(&b, "10.32.0.2") && b.reaches(&a, "10.40.0.1") && a.reaches(&b, "fd00::2"));
        assert_eq!(guard.forgeries().unwrap().values().sum::<u64>(), 0, "{:?}", guard.forgeries());

        let wire = Wire::new(&a, &b).await;
        let own = mac("a");
        // Of a type that nobody knows, from its own Ethernet address.
        let honest = frame(own, 0x88b5, b"honest");
        let carries = async |frame: &[u8]| wire.carries(frame, &honest).await;
        let allowed = [
            frame(own, 0x0800, &ipv4(A4)),
            frame(own, 0x0800, &ipv4(SECOND4)),
            frame(own, 0x0800, &ipv4(Ipv4Addr::UNSPECIFIED)),
            frame(own, 0x0806, &arp(own, A4)),
            frame(own, 0x0806, &arp(own, SECOND4)),
            frame(own, 0x0806, &arp(own, Ipv4Addr::UNSPECIFIED)),
            frame(own, 0x86dd, &ipv6(A6, 253, b"data")),
            frame(own, 0x86dd, &ipv6(Ipv6Addr::UNSPECIFIED, 253, b"data")),
            frame(own, 0x86dd, &advertisement(A6, A6)),
        ];
        for frame in &allowed {
            assert!(carries(frame).await, "{frame:02x?} is dropped");
        }
        let forged = [
            (Forgery::Ethernet, frame(mac("b"), 0x0800, &ipv4(A4))),
            (Forgery::Ethernet, frame(mac("b"), 0x88b5, b"other")),
            (Forgery::Ethernet, frame(mac("b"), 0x0806, &arp(mac("b"), B4))),
            (Forgery::Ipv4, frame(own, 0x0800, &ipv4(B4))),
            (Forgery::Ipv6, frame(own, 0x86dd, &ipv6(B6, 253, b"data"))),
            (Forgery::Ipv6, frame(own, 0x86dd, &ipv6("fe80::1".parse().unwrap(), 253, b"data"))),
            (Forgery::Ipv6, frame(own, 0x86dd, &advertisement(B6, A6))),
            (Forgery::Arp, frame(own, 0x0806, &arp(own, B4))),
            (Forgery::Arp, frame(own, 0x0806, &arp(mac("b"), A4))),
            (Forgery::Neighbour, frame(own, 0x86dd, &advertisement(A6, B6))),
        ];
        let mut expected: BTreeMap<Forgery, u64> = Forgery::ALL.map(|kind| (kind, 0)).into();
        for (kind, frame) in &forged {
            assert!(!carries(frame).await, "{frame:02x?} passes");
            *expected.entry(*kind).or_default() += 1;
            assert_eq!(guard.forgeries().unwrap(), expected, "{frame:02x?}");
        }
        let listing = shell("nft list ruleset; nft -j list ruleset > /dev/null");
        assert!(listing.contains("table bridge weave-ports {"), "{listing}");

        // Who moves an address to another container moves the right to it; nothing else changes.
        guard
            .reconcile(&BTreeMap::from([
                station("a", &[A4.into(), A6.into()]),
                station("b", &[B4.into(), B6.into()]),
            ]))
            .unwrap();
        let moved = frame(own, 0x0800, &ipv4(SECOND4));
        assert!(!carries(&moved).await && carries(&allowed[0]).await);
        // Who is not guarded may say what he likes.
        guard.reconcile(&BTreeMap::from([station("b", &[B4.into(), B6.into()])])).unwrap();
        for (_, frame) in &forged {
            assert!(carries(frame).await, "{frame:02x?} is dropped");
        }
        // Somebody takes the table away.
        shell("nft flush ruleset");
        guard.reconcile(&stations).unwrap();
        assert!(!carries(&forged[3].1).await);
        PortGuard::remove().unwrap();
        PortGuard::remove().unwrap();
        assert_eq!(shell("nft list tables"), "");
        for container in [&a, &b] {
            host.detach(&container.netns(), names::CONTAINER, None).await.unwrap();
        }
        shell("ip link del weave");
    });
}
