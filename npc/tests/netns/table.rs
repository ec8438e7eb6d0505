//! The table of the conformance cases, with real packets: nine pods on two nodes and sometimes a tenth, all pairs, both
//! families, all three protocols.

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
use weave_policy::{Change, Compiler, Flow, PodId, Protocol, Scope, Traffic, Verdict, World};

use crate::{
    cases::{Case, NEW_NAMESPACE, cases},
    lab::{Node, Pod, run},
    sctp::Sctp,
    upstream::upstream_cases,
    words,
};

const PORTS: [u16; 2] = [80, 81];
/// How long what is allowed may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it is waited for what is forbidden when all that is allowed has come through, at least.
const GRACE: Duration = Duration::from_millis(40);

/// The nodes, by name.
const NODES: [&str; 2] = ["here", "there"];

/// A pod that listens at all ports.
struct Place {
    pod: Pod,
    sctp: Sctp,
}

/// An attempt that is under way.
enum Attempt<'a> {
    Tcp(Socket),
    Udp(UdpSocket),
    Sctp(&'a Sctp, (IpAddr, u16, u16)),
}

impl<'a> Attempt<'a> {
    /// `number` tells it from all others of the same two pods at the same time.
    fn begin(flow: &Flow, sctp: &'a Sctp, number: u16) -> io::Result<Self> {
        let Traffic::To(protocol, port) = flow.traffic else { unreachable!() };
        let to = SocketAddr::new(flow.destination, port);
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        match protocol {
            Protocol::Tcp => {
                let socket = Socket::new(domain, Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                // It is under way when this says so.
                let _in_progress = socket.connect(&to.into());
                Ok(Self::Tcp(socket))
            }
            Protocol::Udp => {
                let socket = UdpSocket::from(Socket::new(domain, Type::DGRAM, None)?);
                socket.connect(to)?;
                socket.send(b"hello")?;
                Ok(Self::Udp(socket))
            }
            Protocol::Sctp => {
                let association = (flow.destination, port, 1024 + number);
                sctp.ask(association)?;
                Ok(Self::Sctp(sctp, association))
            }
        }
    }

    fn is_through(&self) -> bool {
        match self {
            Self::Tcp(socket) => {
                wait_writable(socket.as_fd(), Duration::ZERO).unwrap() && socket.peer_addr().is_ok()
            }
            Self::Udp(socket) => wait_readable(&[socket.as_fd()], Some(Duration::ZERO)).unwrap(),
            Self::Sctp(sctp, association) => sctp.is_answered(*association),
        }
    }
}

/// Begins all flows, each from its pod.
fn begin<'a>(places: &'a BTreeMap<PodId, Place>, flows: &[Flow], round: u16) -> Vec<(Flow, Attempt<'a>)> {
    let mut attempts = Vec::new();
    for Place { pod, sctp } in places.values() {
        let own = |flow: &&Flow| flow.source == pod.v4() || flow.source == pod.v6();
        let begin = || {
            let own = flows.iter().filter(own);
            own.map(|flow| (*flow, Attempt::begin(flow, sctp, round).unwrap())).collect::<Vec<_>>()
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
    let traffics = Protocol::ALL.into_iter().flat_map(|p| PORTS.map(|port| Traffic::To(p, port)));
    let traffics: Vec<Traffic> = traffics.collect();
    others
        .flat_map(|(from, to)| {
            traffics.iter().map(|t| Flow { source: from.0, destination: to.0, traffic: *t })
        })
        .collect()
}

/// Compares all cells with what the specification says; returns how many there were.
fn check(places: &BTreeMap<PodId, Place>, world: &World, case: &Case, round: u16) -> usize {
    let flows = flows(world);
    let (mut allowed, mut forbidden) = (Vec::new(), Vec::new());
    for (flow, attempt) in begin(places, &flows, round) {
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

/// Puts pods with an even last number on the other node.
fn placed(change: Change) -> Change {
    let Change::Pod(mut pod) = change else { return change };
    pod.node = NODES[usize::from(node_of(pod.addresses[0]))].to_owned();
    Change::Pod(pod)
}

fn node_of(address: IpAddr) -> u8 {
    let IpAddr::V4(v4) = address else { panic!("the first address is of IPv4") };
    1 - v4.octets()[3] % 2
}

/// All objects as they are at the beginning of each case.
fn start() -> World {
    let mut world = World::default();
    for change in World::default().changes_to(&words::world()) {
        world.apply(placed(change));
    }
    world
}

/// All pods that there ever are.
fn places(other: &Node) -> BTreeMap<PodId, Place> {
    let mut pods: Vec<_> = start().pods.into_values().collect();
    pods.push(words::pod("w", "a", NEW_NAMESPACE, 1));
    let place = |addresses: &[IpAddr]| {
        let node = if node_of(addresses[0]) == 0 { String::new() } else { other.enter() };
        let pod = Pod::on(&node, addresses[0], addresses[1]);
        pod.serve(&PORTS);
        let sctp = Sctp::serve(&pod, &PORTS);
        Place { pod, sctp }
    };
    pods.into_iter().map(|pod| (pod.id.clone(), place(&pod.addresses))).collect()
}

/// What one node does: isolate its own pods.
struct Enforcer {
    compiler: Compiler,
    kernel: Kernel,
}

impl Enforcer {
    /// On the node that the calling thread is on.
    fn new(node: &str) -> Self {
        let compiler = Compiler::new(Scope::Node(node.to_owned()));
        Self { compiler, kernel: Kernel::new(Multicast::Judge).unwrap() }
    }

    fn take(&mut self, changes: &[Change]) {
        changes.iter().for_each(|change| self.compiler.handle_change(change.clone()));
        self.kernel.apply(&self.compiler.poll_delta().unwrap_or_default()).unwrap();
    }
}

/// Returns how many cells there were.
fn check_all(cases: impl Iterator<Item = Case>) -> usize {
    let other = Node::new();
    let places = places(&other);
    let mut world = start();
    let mut nodes = [Enforcer::new(NODES[0]), other.inside(|| Enforcer::new(NODES[1]))];
    let all = World::default().changes_to(&world);
    nodes.iter_mut().for_each(|node| node.take(&all));
    let (mut cells, mut round) = (0, 0);
    for case in cases {
        // Every case begins with the same objects.
        let mut changes = world.changes_to(&start());
        for step in &case.steps {
            changes.extend(step.iter().cloned().map(placed));
            changes.iter().for_each(|change| world.apply(change.clone()));
            nodes.iter_mut().for_each(|node| node.take(&changes));
            changes.clear();
            round += 1;
            cells += check(&places, &world, &case, round);
        }
    }
    other.inside(|| Kernel::remove().unwrap());
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
        assert!(cells > 27_000, "{cells}");
    });
}

#[test]
#[ignore = "takes a minute: run with cargo xtask test --policy"]
fn the_whole_table_is_as_the_specification_says() {
    run("table::the_whole_table_is_as_the_specification_says", || {
        let cells = check_all(all());
        assert!(cells > 260_000, "{cells}");
    });
}
