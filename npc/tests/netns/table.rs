//! The table of the conformance cases, with real packets: nine pods, all pairs, both families, TCP and UDP.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use weave_hostnet::poll::{wait_readable, wait_writable};
use weave_npc::{clock, kernel::Kernel, program::Multicast};
use weave_policy::{Compiler, Flow, PodId, Protocol, Scope, Traffic, Verdict, World};

use crate::{
    cases::{Case, cases},
    lab::{Pod, run},
    upstream::upstream_cases,
    words,
};

const PORTS: [u16; 2] = [80, 81];
/// How long what is allowed may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it is waited for what is forbidden when all that is allowed has come through, at least.
const GRACE: Duration = Duration::from_millis(40);

/// An attempt that is under way.
enum Attempt {
    Tcp(Socket),
    Udp(UdpSocket),
}

impl Attempt {
    fn begin(flow: &Flow) -> io::Result<Self> {
        let Traffic::To(protocol, port) = flow.traffic else { unreachable!() };
        let to = SocketAddr::new(flow.destination, port);
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        if protocol == Protocol::Udp {
            let socket = Socket::new(domain, Type::DGRAM, None)?;
            let socket = UdpSocket::from(socket);
            socket.connect(to)?;
            socket.send(b"hello")?;
            return Ok(Self::Udp(socket));
        }
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // It is under way when this says so.
        let _in_progress = socket.connect(&to.into());
        Ok(Self::Tcp(socket))
    }

    fn is_through(&self) -> bool {
        match self {
            Self::Tcp(socket) => {
                wait_writable(socket.as_fd(), Duration::ZERO).unwrap() && socket.peer_addr().is_ok()
            }
            Self::Udp(socket) => wait_readable(&[socket.as_fd()], Some(Duration::ZERO)).unwrap(),
        }
    }
}

/// Begins all flows, each from its pod.
fn begin(pods: &BTreeMap<PodId, Pod>, flows: &[Flow]) -> Vec<(Flow, Attempt)> {
    let mut attempts = Vec::new();
    for pod in pods.values() {
        let own = |flow: &&Flow| flow.source == pod.v4() || flow.source == pod.v6();
        let begin = || {
            flows.iter().filter(own).map(|flow| (*flow, Attempt::begin(flow).unwrap())).collect::<Vec<_>>()
        };
        attempts.extend(pod.inside(begin));
    }
    attempts
}

/// Every flow between two pods of `world`.
fn flows(world: &World) -> Vec<Flow> {
    let addresses: Vec<(IpAddr, &PodId)> = world
        .pods
        .values()
        .flat_map(|pod| pod.addresses.iter().map(move |address| (*address, &pod.id)))
        .collect();
    let pairs = addresses.iter().flat_map(|from| addresses.iter().map(move |to| (from, to)));
    let others = pairs.filter(|(from, to)| from.1 != to.1 && from.0.is_ipv4() == to.0.is_ipv4());
    let traffics =
        [Protocol::Tcp, Protocol::Udp].into_iter().flat_map(|p| PORTS.map(|port| Traffic::To(p, port)));
    let traffics: Vec<Traffic> = traffics.collect();
    others
        .flat_map(|(from, to)| {
            traffics.iter().map(|t| Flow { source: from.0, destination: to.0, traffic: *t })
        })
        .collect()
}

/// Compares all cells with what the specification says; returns how many there were.
fn check(pods: &BTreeMap<PodId, Pod>, world: &World, case: &Case) -> usize {
    let flows = flows(world);
    let (mut allowed, mut forbidden) = (Vec::new(), Vec::new());
    for (flow, attempt) in begin(pods, &flows) {
        match world.verdict(&flow, &Scope::Everything) {
            Verdict::Allowed => allowed.push((flow, attempt)),
            Verdict::Denied(_) => forbidden.push((flow, attempt)),
        }
    }
    let start = clock::now();
    while !allowed.is_empty() || start.elapsed() < GRACE {
        allowed.retain(|(_, attempt)| !attempt.is_through());
        let late: Vec<&Flow> = allowed.iter().map(|(flow, _)| flow).collect();
        assert!(start.elapsed() < PATIENCE, "case `{}`: these do not pass: {late:?}", case.name);
        let through = forbidden.iter().find(|(_, attempt)| attempt.is_through());
        assert!(through.is_none(), "case `{}`: {:?} passes", case.name, through.map(|(flow, _)| flow));
        std::thread::yield_now();
    }
    flows.len()
}

/// Returns how many cells there were.
fn check_all(cases: impl Iterator<Item = Case>) -> usize {
    let mut world = words::world();
    let pods: BTreeMap<PodId, Pod> = world
        .pods
        .values()
        .map(|pod| {
            let place = Pod::at(pod.addresses[0], pod.addresses[1]);
            place.serve(&PORTS);
            (pod.id.clone(), place)
        })
        .collect();
    let mut compiler = Compiler::new(Scope::Everything);
    let mut kernel = Kernel::new(Multicast::Judge).unwrap();
    World::default().changes_to(&world).into_iter().for_each(|change| compiler.handle_change(change));
    kernel.apply(&compiler.poll_delta().unwrap_or_default()).unwrap();
    let mut cells = 0;
    for case in cases {
        // Every case begins with the same objects.
        let mut changes = world.changes_to(&words::world());
        for step in &case.steps {
            changes.extend(step.iter().cloned());
            for change in changes.drain(..) {
                world.apply(change.clone());
                compiler.handle_change(change);
            }
            kernel.apply(&compiler.poll_delta().unwrap_or_default()).unwrap();
            cells += check(&pods, &world, &case);
        }
    }
    cells
}

/// Every case there is.
fn all() -> impl Iterator<Item = Case> {
    cases().into_iter().chain(upstream_cases())
}

#[test]
fn a_sample_of_the_table_is_as_the_specification_says() {
    run("table::a_sample_of_the_table_is_as_the_specification_says", || {
        let cells = check_all(all().step_by(8));
        assert!(cells > 18_000, "{cells}");
    });
}

#[test]
#[ignore = "takes a minute: run with cargo xtask test --policy"]
fn the_whole_table_is_as_the_specification_says() {
    run("table::the_whole_table_is_as_the_specification_says", || {
        let cells = check_all(all());
        assert!(cells > 160_000, "{cells}");
    });
}
