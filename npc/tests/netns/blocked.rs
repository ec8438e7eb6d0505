//! What the kernel tells of packets that it drops.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::mpsc::sync_channel,
    time::Duration,
};

use weave_hostnet::nft::Session;
use weave_npc::{
    blocked::{Listener, logging},
    items::{self, Items},
    program::{Bank, Multicast, program},
    source::Event,
};
use weave_policy::{
    Change, Compiler, Direction, Pod as PodObject, PodId, Policy, PolicyId, Protocol, Scope, Selector,
    Traffic,
};

use crate::lab::{Npc, Pod, run, wait_until, works, write};

/// Every packet that is dropped is counted, and each connection told once, with its ends as the pods see them.
#[test]
fn what_is_dropped_is_counted_and_told() {
    run("blocked::what_is_dropped_is_counted_and_told", || {
        let (server, client) = (Pod::unknown(1), Pod::unknown(2));
        server.serve(&[80]);
        let mut compiler = Compiler::new(Scope::Everything);
        let object = PodObject {
            addresses: vec![server.v4(), server.v6()],
            ..PodObject::new(PodId::new("x", "server"), "here")
        };
        compiler.handle_change(Change::Pod(object));
        let deny = Policy::with_types(PolicyId::new("x", "p"), Selector::everything(), None, vec![], vec![]);
        compiler.handle_change(Change::Policy(deny));
        let program = logging(program(Multicast::Judge));
        let mut elements = Items::default();
        for element in &compiler.poll_delta().unwrap().add {
            Bank::ALL.into_iter().for_each(|bank| elements.add(items::item(bank, element)));
        }
        let session = Session::open().unwrap();
        session.install(&program, &elements.changes(&program)).unwrap();
        assert!(session.read(&program).unwrap().is_some(), "the kernel has it as it was made");
        let (sender, events) = sync_channel(64);
        let listener = Listener::default();
        listener.start(sender).unwrap();
        assert!(Listener::default().start(sync_channel(1).0).is_err(), "one listens at a time");
        for to in [server.v4(), server.v6()] {
            assert!(client.connect(to, 80).is_none());
            let event = events.recv_timeout(Duration::from_secs(5)).unwrap();
            let Event::Blocked(blocked) = event else { panic!("{event:?}") };
            assert_eq!((blocked.flow.destination, blocked.direction), (to, Direction::Ingress));
            assert_eq!(blocked.flow.traffic, Traffic::To(Protocol::Tcp, 80));
        }
        let before = counted(&listener);
        // More than the kernel may tell: they are dropped all the same.
        client.inside(|| {
            let socket = std::net::UdpSocket::bind("10.0.0.2:0").unwrap();
            (0..5000).for_each(|_| _ = socket.send_to(b"x", (server.v4(), 80)));
        });
        wait_until("more to be counted", Duration::from_secs(5), || counted(&listener) >= before + 100);
        assert!(counted(&listener) < before + 5000, "the kernel tells a limited number");
        assert!(server.connect(client.v4(), 9).is_none(), "nobody listens there");
    });
}

fn counted(listener: &Listener) -> u64 {
    listener.tally().packets_by_series.values().sum()
}

/// Issue of operators: is it up, and how is it?
#[test]
fn metrics_are_served_under_their_original_names() {
    run("blocked::metrics_are_served_under_their_original_names", || {
        let (server, client) = (Pod::new("server", 1), Pod::new("client", 2));
        server.serve(&[80]);
        write("policy.yaml", &crate::traffic::policy("p", "server", "  ingress: [{}]"));
        let _npc = Npc::start(&[]);
        assert!(client.connect(server.v4(), 80).is_some_and(|mut stream| works(&mut stream)));
        let get = |path: &str| {
            let mut stream = TcpStream::connect("127.0.0.1:6781").unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        assert!(get("/readyz").starts_with("HTTP/1.1 200 OK"));
        let metrics = get("/metrics");
        for line in
            ["weavenpc_policy_enforcement_errors_total 0", "weavenpc_pods 2.0", "weavenpc_policies 1.0"]
        {
            assert!(metrics.lines().any(|l| l == line), "{line} is not in {metrics}");
        }
    });
}
