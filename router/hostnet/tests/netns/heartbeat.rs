//! Frames of our own through a tunnel device, as large as the path takes and no larger.

use std::{collections::BTreeSet, time::Duration};

use weave_hostnet::{Family, LinkIndex, PacketSocket, VxlanSpec, names};
use weave_model::Mac;

use crate::{
    lab::{run, shell},
    site::{Site, end, mac, sites, tunnel, vxlan},
};

/// Local experimental ethertype (IEEE 802).
const ETHERTYPE: u16 = 0x88b5;

async fn device(site: &Site, family: Family) -> (LinkIndex, Mac) {
    let mac = mac(&format!("heartbeats of {}", site.number));
    let spec =
        VxlanSpec { dont_fragment: true, mtu: 65_000, mac, ..vxlan(names::heartbeat(family), 2, family) };
    (site.host.ensure_vxlan(&spec).await.unwrap(), mac)
}

/// A frame that holds an IP-size payload of `size` bytes.
fn frame(to: Mac, from: Mac, size: usize) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &ETHERTYPE.to_be_bytes()].concat();
    frame.resize(14 + size, 0x5a);
    frame
}

/// Whether a frame of `size` arrives.
async fn crosses(from: &PacketSocket, to: &PacketSocket, frame: &[u8]) -> bool {
    if from.try_send(frame).is_err() {
        return false;
    }
    let mut buffer = vec![0; 1 << 16];
    let received = tokio::time::timeout(Duration::from_millis(300), to.recv(&mut buffer)).await;
    received.is_ok_and(|length| buffer[..length.unwrap()] == *frame)
}

#[test]
fn the_largest_frame_that_crosses_tells_the_mtu() {
    run("heartbeat::the_largest_frame_that_crosses_tells_the_mtu", || async {
        let sites = sites(2).await;
        for (family, overhead) in [(Family::V4, 50), (Family::V6, 70)] {
            let (here, here_mac) = device(&sites[0], family).await;
            let (there, there_mac) = device(&sites[1], family).await;
            for (site, device, other, other_mac) in
                [(&sites[0], here, 2, there_mac), (&sites[1], there, 1, here_mac)]
            {
                let stations = [(other_mac, tunnel(other, family, None))].into();
                site.host.reconcile_tunnels(device, &stations, &BTreeSet::new()).await.unwrap();
            }
            let a = PacketSocket::open(&sites[0].host, here, ETHERTYPE).unwrap();
            let b = PacketSocket::open(&sites[1].host, there, ETHERTYPE).unwrap();
            let frame = |size| frame(there_mac, here_mac, size);
            assert!(crosses(&a, &b, &frame(46)).await, "{family:?} small");
            assert!(crosses(&a, &b, &frame(1500 - overhead)).await, "{family:?} full size");
            assert!(!crosses(&a, &b, &frame(1501 - overhead)).await, "{family:?} one byte too many");
            // Somewhere on the way, where nobody says so.
            shell("ip link set un2 mtu 1400");
            assert!(!crosses(&a, &b, &frame(1500 - overhead)).await, "{family:?} silently lost");
            assert!(crosses(&a, &b, &frame(1400 - overhead)).await, "{family:?} fits");
            assert!(!crosses(&a, &b, &frame(1401 - overhead)).await, "{family:?} does not");
            shell("ip link set un2 mtu 1500");
            assert_eq!(b.dropped().unwrap(), 0);
            for site in &sites {
                site.host.remove_datapath().await.unwrap();
            }
        }
        end(sites);
    });
}

#[test]
fn a_socket_hears_its_own_kind_on_its_own_device_and_counts_what_it_missed() {
    run("heartbeat::a_socket_hears_its_own_kind_on_its_own_device_and_counts_what_it_missed", || async {
        let sites = sites(2).await;
        let host = &sites[0].host;
        let eth0 = host.link_index("eth0").await.unwrap().unwrap();
        let far = sites[1].host.link_index("eth0").await.unwrap().unwrap();
        let ours = PacketSocket::open(host, eth0, ETHERTYPE).unwrap();
        let sender = PacketSocket::open(&sites[1].host, far, ETHERTYPE).unwrap();
        let mut other_kind = frame(Mac::BROADCAST, mac("x"), 100);
        other_kind[13] = 0xb6;
        sender.try_send(&other_kind).unwrap();
        let small = frame(Mac::BROADCAST, mac("x"), 100);
        assert!(crosses(&sender, &ours, &small).await, "the first one heard is of our kind");
        assert!(
            sender.try_send(&frame(Mac::BROADCAST, mac("x"), 1501)).is_err(),
            "larger than the device takes"
        );
        let big = frame(Mac::BROADCAST, mac("x"), 1500);
        for _ in 0..5000 {
            while sender.try_send(&big).is_err() {
                tokio::task::yield_now().await;
            }
        }
        let missed = ours.dropped().unwrap();
        assert!(missed > 0);
        assert_eq!(ours.dropped().unwrap(), missed, "not counted twice, not forgotten");
        let nothing = PacketSocket::open(host, LinkIndex(999), ETHERTYPE).unwrap_err();
        assert!(nothing.to_string().contains("999"), "{nothing}");
        sites[0].shell("ip link set eth0 down");
        let mut buffer = [0; 2048];
        let failure = async {
            loop {
                if let Err(error) = ours.recv(&mut buffer).await {
                    return error;
                }
            }
        };
        let failure = tokio::time::timeout(Duration::from_secs(2), failure).await.unwrap();
        assert_eq!(failure.kind(), std::io::ErrorKind::NetworkDown);
        end(sites);
    });
}
