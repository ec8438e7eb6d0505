//! A server with names, an upstream server that says what a test wants, and a client.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::timeout,
};
use weave_dns::{DnsConfig, Server, Upstreams};
use weave_model::PeerName;
use weave_names::{Domain, Names, Snapshot};

/// No answer on this machine's loopback takes longer.
const PATIENCE: Duration = Duration::from_secs(8);

pub(crate) const LOCAL: PeerName = PeerName([2, 0, 0, 0, 0, 1]);

/// The names of the usual test: one address, two families, fifty addresses, a sub-domain, a service.
pub(crate) fn names() -> Names {
    let mut names = Names::new(Domain::default(), LOCAL);
    let mut records = vec![
        ("one".to_owned(), "10.32.0.1".to_owned(), None),
        ("two".to_owned(), "10.32.0.2".to_owned(), None),
        ("two".to_owned(), "fd00::2".to_owned(), None),
        ("six".to_owned(), "fd00::6".to_owned(), None),
        ("deep.sub".to_owned(), "10.32.0.3".to_owned(), None),
        ("web".to_owned(), "10.32.0.4".to_owned(), Some("http/tcp:8080")),
    ];
    records.extend((1..=50).map(|n| ("many".to_owned(), format!("10.32.1.{n}"), None)));
    for (name, address, service) in records {
        let service = service.map(|s| s.parse().unwrap());
        let host = format!("{name}.weave.local");
        let change =
            names.add_service(&"c1".parse().unwrap(), &host, address.parse().unwrap(), service).unwrap();
        names.handle_fact(LOCAL, &change.key, change.value.as_deref()).unwrap();
    }
    names
}

pub(crate) async fn start(snapshot: Arc<Snapshot>, upstreams: Upstreams) -> (Server, Arc<ArcSwap<Snapshot>>) {
    let config = DnsConfig { upstreams, ..config("127.0.0.1:0") };
    let names = Arc::new(ArcSwap::new(snapshot));
    (Server::start(config, Arc::clone(&names)).await.unwrap(), names)
}

pub(crate) fn config(listen: &str) -> DnsConfig {
    DnsConfig {
        listen: vec![listen.parse().unwrap()],
        upstreams: Upstreams::List(Vec::new()),
        fallback_timeout: Duration::from_secs(2),
        ..DnsConfig::default()
    }
}

pub(crate) async fn start_without_upstream() -> Server {
    start(names().snapshot(), Upstreams::List(Vec::new())).await.0
}

pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

pub(crate) fn with_edns(mut query: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    query.set_edns(edns);
    query
}

pub(crate) async fn udp(server: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let len = timeout(PATIENCE, socket.recv(&mut buffer)).await.ok()?.unwrap();
    buffer.truncate(len);
    Some(buffer)
}

pub(crate) async fn tcp(server: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(&[&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()).await.unwrap();
    let len = timeout(PATIENCE, stream.read_u16()).await.unwrap().unwrap();
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await.unwrap();
    message
}

/// Asks by UDP and checks what every answer must have.
pub(crate) async fn ask(server: &Server, query: &Message) -> Message {
    let bytes = udp(server.local_addrs()[0], &query.to_vec().unwrap()).await.expect("an answer");
    let answer = Message::from_vec(&bytes).unwrap();
    assert_eq!(answer.metadata.id, query.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert_eq!(answer.queries, query.queries);
    assert_eq!(answer.edns.is_some(), query.edns.is_some(), "EDNS is answered with EDNS");
    answer
}

/// The addresses of an answer, in its order.
pub(crate) fn addresses(answer: &Message) -> Vec<IpAddr> {
    answer.answers.iter().filter_map(|r| r.data.ip_addr()).collect()
}

/// Whether there is one authority, and it is a SOA.
pub(crate) fn has_soa(answer: &Message) -> bool {
    matches!(answer.authorities.as_slice(), [record] if matches!(record.data, RData::SOA(_)))
}

/// An upstream server, UDP and TCP on one port.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

/// What an upstream server does with a query; the flag tells TCP from UDP. None is silence.
pub(crate) type Behaviour = fn(Message, Via) -> Option<Vec<u8>>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Udp,
    Tcp,
}

impl Upstream {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let count = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut buffer = vec![0; 4096];
            loop {
                let (len, from) = udp.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Relaxed);
                let query = Message::from_vec(&buffer[..len]).unwrap();
                if let Some(answer) = behaviour(query, Via::Udp) {
                    udp.send_to(&answer, from).await.unwrap();
                }
            }
        });
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let len = stream.read_u16().await.unwrap();
                let mut query = vec![0; usize::from(len)];
                stream.read_exact(&mut query).await.unwrap();
                if let Some(answer) = behaviour(Message::from_vec(&query).unwrap(), Via::Tcp) {
                    let len = u16::try_from(answer.len()).unwrap().to_be_bytes();
                    stream.write_all(&[&len, answer.as_slice()].concat()).await.unwrap();
                }
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}
