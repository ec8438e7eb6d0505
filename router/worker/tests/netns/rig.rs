//! Hosts, containers and routers in network namespaces of this machine.
//!
//! ```text
//!   c1 ── weave ── weave-tap   h1 ═══ u1 ════ u2 ═══ h2   weave-tap ── weave ── c2
//! ```

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use weave_datapath::Forwarding;
use weave_hostnet::{NetnsRef, netns::in_netns, tap::Tap, udp::Socket};
use weave_model::{LinkId, Mac, PeerName};
use weave_sleeve::{LinkKeys, LinkParams, Suite};
use weave_worker::{QuicDatagram, WorkerEvent, Workers, WorkersConfig};

/// Port of the sleeve in every host.
pub(crate) const PORT: u16 = 6783;

/// How long anything may take before it counts as never.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

/// One host: a namespace with a bridge, a container behind it, and perhaps a router.
pub(crate) struct Host {
    pub(crate) number: u8,
    pub(crate) name: String,
}

/// A router on a host.
pub(crate) struct Router {
    pub(crate) workers: Workers,
    pub(crate) name: PeerName,
    events: Mutex<mpsc::Receiver<WorkerEvent>>,
    quic: Mutex<mpsc::Receiver<Vec<u8>>>,
}

impl Host {
    /// A host with one container, whose interface has this MTU.
    pub(crate) fn new(number: u8, mtu: u32) -> Self {
        let name = format!("h{number}");
        let container = format!("c{number}");
        for netns in [&name, &container] {
            ip(&format!("netns add {netns}"));
            ip(&format!("-n {netns} link set lo up"));
        }
        ip(&format!("-n {name} link add weave type bridge"));
        ip(&format!("-n {name} link set weave up"));
        ip(&format!(
            "-n {name} link add v{number} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {container}"
        ));
        ip(&format!("-n {name} link set v{number} master weave up"));
        ip(&format!("-n {container} link set eth0 address {} up", Self::mac(number)));
        ip(&format!("-n {container} addr add {}/24 dev eth0", Self::overlay(number)));
        ip(&format!("-n {container} addr add {}/64 dev eth0 nodad", Self::overlay6(number)));
        Self { number, name }
    }

    /// Joins two hosts by a cable.
    pub(crate) fn cable(&self, other: &Self, mtu: u32) {
        let (a, b) = (self, other);
        let (here, there) = (format!("u{}", b.number), format!("u{}", a.number));
        ip(&format!(
            "-n {} link add {here} mtu {mtu} type veth peer name {there} mtu {mtu} netns {}",
            a.name, b.name
        ));
        for (host, far, link) in [(a, b, &here), (b, a, &there)] {
            ip(&format!("-n {} addr add {}/30 dev {link}", host.name, underlay(host.number, far.number)));
            ip(&format!(
                "-n {} addr add {}/64 dev {link} nodad",
                host.name,
                underlay6(host.number, far.number)
            ));
            ip(&format!("-n {} link set {link} up", host.name));
        }
    }

    /// The address of a host's container.
    pub(crate) fn overlay(number: u8) -> IpAddr {
        IpAddr::from([10, 32, 0, number])
    }

    pub(crate) fn overlay6(number: u8) -> IpAddr {
        IpAddr::from([0xfd32, 0, 0, 0, 0, 0, 0, u16::from(number)])
    }

    /// The MAC of a host's container.
    pub(crate) fn mac(number: u8) -> Mac {
        Mac([2, 0xc0, 0, 0, 0, number])
    }

    /// Runs a router here with so many workers.
    pub(crate) fn router(&self, workers: usize) -> Router {
        let netns = NetnsRef::Path(format!("/run/netns/{}", self.name).into()).open().unwrap();
        let (taps, sockets) = in_netns(&netns, || {
            (Tap::open_queues("weave-tap", workers).unwrap(), Socket::bind_group(PORT, workers).unwrap())
        })
        .unwrap();
        ip(&format!("-n {} link set weave-tap mtu 65521 master weave up", self.name));
        let name = peer(self.number);
        let (event_in, events) = mpsc::channel();
        let (quic_in, quic) = mpsc::channel();
        let workers = Workers::start(WorkersConfig {
            local: name,
            sockets,
            taps,
            quic: Box::new(move |d: QuicDatagram<'_>| {
                // Once the test is over, nobody listens.
                let _ = quic_in.send(d.bytes.to_vec());
            }),
            events: Box::new(move |event| {
                let _ = event_in.send(event);
            }),
        })
        .unwrap();
        Router { workers, name, events: Mutex::new(events), quic: Mutex::new(quic) }
    }
}

impl Router {
    /// The next event that fits, within the deadline.
    pub(crate) fn wait_for(&self, what: &str, fits: impl Fn(&WorkerEvent) -> bool) -> WorkerEvent {
        let end = now() + DEADLINE;
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let event = events.recv_timeout(end.saturating_duration_since(now()));
            let event = event.unwrap_or_else(|_| {
                panic!("{}: {what} never happened; {:?}", self.name, self.workers.counters())
            });
            if fits(&event) {
                return event;
            }
        }
    }

    /// The next datagram for QUIC.
    pub(crate) fn quic(&self) -> Vec<u8> {
        let quic = self.quic.lock().unwrap_or_else(PoisonError::into_inner);
        quic.recv_timeout(DEADLINE).expect("a datagram for QUIC")
    }

    /// Publishes routes: for each other host, the host that is next on the way; and the tree of each.
    pub(crate) fn route(&self, local: u8, next: &[(u8, u8)], trees: &[(u8, &[u8])]) {
        let mut forwarding = Forwarding::new(peer(local));
        for (far, via) in next {
            forwarding.peer_by_mac.insert(Host::mac(*far), peer(*far));
            forwarding.next_hop.insert(peer(*far), link(*via));
        }
        for (source, hops) in trees {
            forwarding.broadcast_hops.insert(peer(*source), hops.iter().map(|hop| link(*hop)).collect());
        }
        self.workers.publish(Arc::new(forwarding));
    }
}

/// How two routers are linked.
#[derive(Clone, Copy)]
pub(crate) struct LinkStyle {
    pub(crate) suite: Option<Suite>,
    pub(crate) is_ipv6: bool,
}

/// Links two routers, the second a little later than the first, and waits until both see it up and know its size.
pub(crate) fn connect(a: (&Router, u8), b: (&Router, u8), style: LinkStyle) -> u16 {
    let (left, right) = (params(a.1, b.1, style), params(b.1, a.1, style));
    a.0.workers.add_link(left);
    b.0.workers.add_link(right);
    let mut mtu = 0;
    for (router, far) in [(a.0, b.1), (b.0, a.1)] {
        router.wait_for("link up", |e| matches!(e, WorkerEvent::LinkUp { link: l, .. } if *l == link(far)));
        let event = router
            .wait_for("link size", |e| matches!(e, WorkerEvent::LinkMtu { link: l, .. } if *l == link(far)));
        if let WorkerEvent::LinkMtu { mtu: found, .. } = event {
            mtu = found;
        }
    }
    mtu
}

/// What host `near` is told about its link to host `far`.
pub(crate) fn params(near: u8, far: u8, style: LinkStyle) -> LinkParams {
    let secret = |from: u8| [from; 32];
    let remote = if style.is_ipv6 { underlay6(far, near) } else { underlay(far, near) };
    LinkParams {
        link: link(far),
        peer: peer(far),
        remote: SocketAddr::new(remote, PORT),
        local_index: u32::from(far),
        remote_index: u32::from(near),
        keys: style.suite.map(|suite| LinkKeys {
            suite,
            send_secret: secret(near),
            receive_secret: secret(far),
        }),
    }
}

/// The link towards a host.
pub(crate) fn link(far: u8) -> LinkId {
    LinkId(u64::from(far))
}

pub(crate) fn peer(number: u8) -> PeerName {
    PeerName([2, 0xee, 0, 0, 0, number])
}

/// A host's address on its cable to another.
pub(crate) fn underlay(near: u8, far: u8) -> IpAddr {
    IpAddr::from([10, 9, near.min(far) * 16 + near.max(far), if near < far { 1 } else { 2 }])
}

pub(crate) fn underlay6(near: u8, far: u8) -> IpAddr {
    let net = u16::from(near.min(far)) * 16 + u16::from(near.max(far));
    IpAddr::from([0xfd09, net, 0, 0, 0, 0, 0, if near < far { 1 } else { 2 }])
}

/// Removes all hosts; their interfaces and routers' TAPs go with them.
pub(crate) fn remove_all() {
    ip("-all netns delete");
}

/// Waits for something to become true.
pub(crate) fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let end = now() + DEADLINE;
    while !is_true() {
        assert!(now() < end, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Runs `ip` and insists on success.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip (iproute2) runs");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[expect(clippy::disallowed_methods, reason = "tests against the real kernel live in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
