//! The report that the tests of the views render.

use weave_model::PeerName;

use crate::{
    ConnectionReport, ConnectionState, ContainerReport, DataPlaneReport, DnsEntry, DnsReport, IpamReport,
    Overlay, OwnerReport, PeerConnection, PeerReport, Report, Retry, RouterReport,
};

fn name(last: u8) -> PeerName {
    PeerName([0xaa, 0, 0, 0, 0, last])
}

fn link(address: &str, outbound: bool, state: ConnectionState) -> ConnectionReport {
    ConnectionReport {
        address: address.to_owned(),
        outbound,
        state,
        encrypted: true,
        overlay: None,
        overlay_for_s: None,
        peer: None,
        nickname: None,
        mtu: None,
        rtt_us: None,
        kernel_key: None,
        clock_skew_ms: None,
        since_s: 0,
        info: None,
        retry: None,
    }
}

fn links() -> Vec<ConnectionReport> {
    use ConnectionState::{Connecting, Established, Failed, Pending};
    vec![
        ConnectionReport {
            info: Some("cannot connect to ourself".to_owned()),
            retry: Some(Retry::Never),
            ..link("192.0.2.11:6783", true, Failed)
        },
        ConnectionReport {
            overlay: Some(Overlay::Sleeve),
            peer: Some(name(3)),
            nickname: Some("node-c".to_owned()),
            ..link("192.0.2.13:51234", false, Pending)
        },
        ConnectionReport {
            info: Some("no answer within 10s".to_owned()),
            retry: Some(Retry::InS(12)),
            ..link("192.0.2.99:6783", true, Failed)
        },
        link("192.0.2.50:6783", true, Connecting),
        ConnectionReport {
            overlay: Some(Overlay::Fastdp),
            peer: Some(name(2)),
            nickname: Some("node-b".to_owned()),
            mtu: Some(1376),
            ..link("192.0.2.12:6783", true, Established)
        },
    ]
}

fn peer(last: u8, nickname: &str, reachable: bool, connections: Vec<PeerConnection>) -> PeerReport {
    PeerReport {
        name: name(last),
        nickname: nickname.to_owned(),
        uid: format!("{last:016x}"),
        version: 1,
        reachable,
        connections,
    }
}

fn peer_link(last: u8, nickname: &str, address: &str, outbound: bool) -> PeerConnection {
    PeerConnection {
        name: name(last),
        nickname: nickname.to_owned(),
        address: address.to_owned(),
        outbound,
        state: ConnectionState::Established,
    }
}

fn router() -> RouterReport {
    RouterReport {
        name: name(1),
        nickname: "node-a".to_owned(),
        uid: "0000000000000001".to_owned(),
        port: 6783,
        protocol_min: 1,
        protocol_max: 1,
        encryption: true,
        discovery: true,
        targets: vec!["192.0.2.12".to_owned()],
        trusted_subnets: vec![],
        peers: vec![
            peer(3, "node-c", false, vec![]),
            peer(2, "node-b", true, vec![peer_link(1, "node-a", "192.0.2.11:40112", false)]),
            peer(1, "node-a", true, vec![peer_link(2, "node-b", "192.0.2.12:6783", true)]),
        ],
        connections: links(),
        unicast_routes: vec![],
        broadcast_routes: vec![],
        terminations: 0,
    }
}

fn ipam() -> IpamReport {
    let owner = |last: u8, nickname: &str, own: bool| OwnerReport {
        peer: name(last),
        nickname: nickname.to_owned(),
        addresses: 524_288,
        percent: 50.0,
        reachable: own,
        own,
    };
    IpamReport {
        election: None,
        status: "ready".to_owned(),
        ready: true,
        ranges: vec!["10.32.0.0/12".parse().unwrap()],
        default_subnets: vec!["10.32.0.0/12".parse().unwrap()],
        owners: vec![owner(2, "node-b", false), owner(1, "node-a", true)],
        active: 3,
        pending: vec![],
        entries: 2,
        seeds: vec![name(2), name(1)],
        conflicts: vec![],
    }
}

fn dns() -> DnsReport {
    let entry = |host: &str, address: &str, container: &str, last: u8| DnsEntry {
        hostname: format!("{host}.weave.local."),
        address: address.parse().unwrap(),
        container: container.parse().unwrap(),
        peer: name(last),
    };
    DnsReport {
        domain: "weave.local.".to_owned(),
        listen: vec!["172.17.0.1:53".to_owned()],
        upstream: vec!["192.0.2.53".to_owned()],
        ttl: 1,
        entries: vec![
            entry("web", "10.40.0.3", "4f1c09aa21be0000", 1),
            entry("db", "10.44.0.1", "77c2d0e81b550000", 2),
        ],
    }
}

/// Three routers as the first sees them, sorted.
pub(crate) fn report() -> Report {
    let container = |id: &str, mac: Option<&str>, addresses: &[&str]| ContainerReport {
        id: id.parse().unwrap(),
        mac: mac.map(|m| m.parse().unwrap()),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    };
    let mut report = Report {
        version: "9.9.9".to_owned(),
        ready: true,
        uptime_s: 60,
        problems: vec![],
        router: router(),
        ipam: Some(ipam()),
        dns: Some(dns()),
        data_plane: DataPlaneReport::default(),
        containers: vec![
            container("weave:expose", None, &["10.40.0.1/12"]),
            container("4f1c09aa21be0000", Some("6e:02:11:5d:9a:01"), &["10.40.0.3/12", "10.9.1.7/24"]),
        ],
    };
    report.sort();
    report
}

#[test]
fn a_report_survives_json_byte_for_byte() {
    let json = serde_json::to_string(&report()).unwrap();
    let back: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(back, report());
    assert_eq!(serde_json::to_string(&back).unwrap(), json);
    assert!(json.contains(r#""name":"aa:00:00:00:00:01""#), "{json}");
}
