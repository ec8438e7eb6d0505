//! Measurements, to be run alone: `cargo xtask bench policy` takes them in rounds. They print one line of JSON.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use weave_npc::{clock, kernel::Kernel, program::Multicast};
use weave_policy::{
    Block, Change, Compiler, Labels, Namespace, Peer, Pod as PodObject, PodId, Policy, PolicyId, Port,
    Protocol, Requirement, Rule, Scope, Selector, WhichPort,
};

use crate::lab::{Pod, run, shell};

const POLICIES: u32 = 10_000;
/// Turns from no table to all policies, since a machine's speed drifts; the best counts.
const TURNS: u32 = 3;
/// In each turn, for the best again: what disturbs lasts longer than a burst.
const BURSTS: u32 = 1_000;
/// Connections; fewer than wait at a listener of the standard library.
const BURST: u32 = 64;
/// Port that policy 0 allows, which the program finds at the first look.
const FIRST: u16 = 1_000;
/// Port that is allowed in the way that the program looks at last.
const LAST: u16 = 2_500;
/// Port of the throughput.
const BULK: u16 = 999;
/// Rules of the linear chain: as many.
const LINEAR: usize = 10_000;
/// What makes that.
const IPSET: &str = "ipset";
const IPTABLES: &str = "iptables-legacy-restore";

fn selector(app: u32) -> Selector {
    Selector::from_iter([Requirement::equals("app", format!("app-{app}"))])
}

/// Policy `n`, which allows pods of application `n` to reach those of application `n % 100` on one port.
fn policy(n: u32) -> Policy {
    let number = u16::try_from(1000 + n % 1000).unwrap();
    let port = Port { protocol: Protocol::Tcp, which: WhichPort::Numbers { first: number, last: number } };
    let peer = Peer::Pods { namespaces: Some(Selector::everything()), pods: selector(n) };
    Policy {
        id: PolicyId::new("x", format!("policy-{n}")),
        subject: selector(n % 100),
        ingress: Some(vec![Rule { peers: vec![peer], ports: vec![port] }]),
        egress: None,
    }
}

/// What the client may besides.
fn policy_of_client(client: &Pod) -> Policy {
    let rule = |peer, first, last| {
        let port = Port { protocol: Protocol::Tcp, which: WhichPort::Numbers { first, last } };
        Rule { peers: vec![peer], ports: vec![port] }
    };
    let block = Block::parse::<&str>(&format!("{}/32", client.v4()), &[]).unwrap();
    let bulk = rule(Peer::Pods { namespaces: None, pods: selector(0) }, BULK, BULK);
    Policy {
        id: PolicyId::new("x", "policy-of-client"),
        subject: selector(0),
        ingress: Some(vec![bulk, rule(Peer::Block(block), LAST - 100, LAST + 100)]),
        egress: None,
    }
}

fn pod(n: u32, app: u32, address: IpAddr) -> PodObject {
    PodObject {
        labels: Labels::from([("app".to_owned(), format!("app-{app}"))]),
        addresses: vec![address],
        ..PodObject::new(PodId::new("x", format!("pod-{n}")), "here")
    }
}

/// A listener in a pod.
struct Acceptor {
    to: SocketAddr,
    listener: TcpListener,
}

impl Acceptor {
    fn start(server: &Pod, port: u16) -> Self {
        let to = SocketAddr::new(server.v4(), port);
        Self { to, listener: server.inside(|| TcpListener::bind(to).unwrap()) }
    }

    /// How many connections a second can be opened, one after the other: the best burst. Only what is opened is timed, and
    /// never more than the server's queue holds: a full one costs a second. Nothing else runs meanwhile.
    fn rate(&self, client: &Pod, bursts: u32) -> f64 {
        let burst = || {
            let start = clock::now();
            let streams = [(); BURST as usize].map(|()| TcpStream::connect(self.to).unwrap());
            let took = start.elapsed();
            for _ in &streams {
                drop(self.listener.accept().unwrap());
            }
            f64::from(BURST) / took.as_secs_f64()
        };
        client.inside(|| (0..bursts).map(|_| burst()).fold(0.0, f64::max))
    }
}

/// A chain of Weave Net's shape, with a rule for each policy of which most do not apply: the first set of each has the
/// client, the second lacks the server. None where its tools are not installed.
fn linear_rate(client: &Pod, acceptor: &Acceptor) -> Option<f64> {
    let has = |tool: &str| Command::new(tool).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if [IPSET, IPTABLES].iter().any(|tool| has(tool).is_err()) {
        return None;
    }
    let from = client.v4();
    let sets = format!("create from hash:ip\ncreate nobody hash:ip\nadd from {from}\n");
    load(IPSET, &["restore"], &sets);
    let rule = "-A WEAVE-NPC-INGRESS -m set --match-set from src -m set --match-set nobody dst -p tcp --dport 1000 -j ACCEPT\n";
    let mut script = String::from(
        "*filter\n:WEAVE-NPC - [0:0]\n:WEAVE-NPC-INGRESS - [0:0]\n-A FORWARD -j WEAVE-NPC\n\
         -A WEAVE-NPC -m state --state RELATED,ESTABLISHED -j ACCEPT\n\
         -A WEAVE-NPC -m state --state NEW -j WEAVE-NPC-INGRESS\n",
    );
    script += &rule.repeat(LINEAR);
    script += "COMMIT\n";
    load(IPTABLES, &[], &script);
    Some(acceptor.rate(client, 30))
}

fn load(tool: &str, arguments: &[&str], script: &str) {
    let mut process = Command::new(tool).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    Write::write_all(&mut process.stdin.take().unwrap(), script.as_bytes()).unwrap();
    assert!(process.wait().unwrap().success(), "{tool} failed");
}

/// Gbit/s of one connection, for about a second.
fn throughput(client: &Pod, server: &Pod) -> f64 {
    let listener = server.inside(|| TcpListener::bind((server.v4(), BULK)).unwrap());
    let reader = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut buffer, mut total) = (vec![0; 1 << 18], 0);
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            total += length;
        }
        total
    });
    let start = clock::now();
    let mut stream = client.inside(|| TcpStream::connect((server.v4(), BULK)).unwrap());
    let data = vec![0; 1 << 18];
    while start.elapsed() < Duration::from_secs(1) {
        stream.write_all(&data).unwrap();
    }
    drop(stream);
    let bytes = reader.join().unwrap();
    bytes as f64 * 8e-9 / start.elapsed().as_secs_f64()
}

/// A compiler and a kernel with 10,000 pods in force, the client and the server among them, and so many policies.
fn in_force(policies: u32, Scene { client, server, .. }: &Scene) -> (Compiler, Kernel) {
    let mut compiler = Compiler::new(Scope::Everything);
    let mut kernel = Kernel::new(Multicast::Judge).unwrap();
    let mut changes = vec![Change::Namespace(Namespace::new("x", Labels::new()))];
    changes.push(Change::Pod(pod(0, 0, server.v4())));
    changes.push(Change::Pod(pod(1, 0, client.v4())));
    changes.extend(
        (2..10_000u32).map(|n| Change::Pod(pod(n, n, IpAddr::from((0x0a01_0000 + n).to_be_bytes())))),
    );
    changes.extend((0..policies).map(|n| Change::Policy(policy(n))));
    if policies > 0 {
        changes.push(Change::Policy(policy_of_client(client)));
    }
    changes.into_iter().for_each(|change| compiler.handle_change(change));
    // Without policies there is a table too.
    kernel.recover().unwrap();
    // Outside of the first user namespace the kernel takes no large transaction.
    for part in in_parts(&compiler.poll_delta().unwrap_or_default()) {
        kernel.apply(&part).unwrap();
    }
    kernel.settle().unwrap();
    (compiler, kernel)
}

/// How long it takes until a pod with other labels is in force, in order.
fn changes(compiler: &mut Compiler, kernel: &mut Kernel) -> Vec<f64> {
    let change = |n: u32| {
        let changed = pod(100 + n, n % 50, IpAddr::from((0x0a01_0000 + 100 + n).to_be_bytes()));
        let start = clock::now();
        compiler.handle_change(Change::Pod(changed));
        kernel.apply(&compiler.poll_delta().unwrap()).unwrap();
        start.elapsed().as_secs_f64() * 1e3
    };
    let mut times: Vec<f64> = (0..500u32).map(change).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Two pods, and listeners in one of them.
struct Scene {
    client: Pod,
    server: Pod,
    first: Acceptor,
    last: Acceptor,
}

/// The best of what was measured in one state of the kernel.
#[derive(Debug, Default)]
struct Rates {
    first: f64,
    last: f64,
    tcp: f64,
}

impl Rates {
    fn take(&mut self, scene: &Scene) {
        self.first = self.first.max(scene.first.rate(&scene.client, BURSTS));
        self.last = self.last.max(scene.last.rate(&scene.client, BURSTS));
        self.tcp = self.tcp.max(throughput(&scene.client, &scene.server));
    }
}

#[test]
#[ignore = "a measurement: run with cargo xtask bench policy"]
fn new_connections_and_changes_with_ten_thousand_policies() {
    run("measure::new_connections_and_changes_with_ten_thousand_policies", || {
        let (client, server) = (Pod::unknown(1), Pod::unknown(2));
        let [first, last] = [FIRST, LAST].map(|port| Acceptor::start(&server, port));
        let scene = Scene { client, server, first, last };
        // Connection tracking is on in all cases, as on any host with services.
        shell(
            "nft add table inet tracked; nft 'add chain inet tracked f { type filter hook forward priority 0; }'; \
             nft add rule inet tracked f ct state invalid counter",
        );
        let (mut bare, mut none, mut full) = (Rates::default(), Rates::default(), Rates::default());
        let mut times = Vec::new();
        for _ in 0..TURNS {
            bare.take(&scene);
            drop(in_force(0, &scene));
            none.take(&scene);
            let (mut compiler, mut kernel) = in_force(POLICIES, &scene);
            full.take(&scene);
            times = changes(&mut compiler, &mut kernel);
            Kernel::remove().unwrap();
        }
        let newconn_linear = linear_rate(&scene.client, &scene.first);
        println!(
            "{}",
            serde_json::json!({
                "newconn_bare": bare.first, "newconn_none": none.first, "newconn": full.first,
                "newconn_last": full.last, "newconn_linear": newconn_linear,
                "tcp_none": none.tcp, "tcp": full.tcp,
                "change_p50_ms": times[times.len() / 2], "change_p99_ms": times[times.len() * 99 / 100],
            })
        );
        shell("nft flush ruleset");
    });
}

/// Deltas that make the same of nothing, with elements in such an order that nothing is open in between.
fn in_parts(delta: &weave_policy::Delta) -> Vec<weave_policy::Delta> {
    let elements: Vec<_> = delta.add.iter().copied().collect();
    let part = |add| weave_policy::Delta { add, ..weave_policy::Delta::default() };
    elements.chunks(2000).map(|chunk| part(chunk.to_vec().into())).collect()
}
