//! The program as a node runs it, with a router that does nothing but write down what it is told.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command as Process},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use weave_api::{
    AddressesResponse, NetworkResponse, ReadyResponse, RmpeerResponse, TakenOver, TargetsResponse,
};
use weave_control::{Command, ListenConfig, Listener, serve};
use weave_kube::roster::{Member, Roster};
use weave_model::{ContainerId, PeerName};

use crate::server::Server;

/// The router's program: says its name, or writes down its arguments and lives until it is told to end.
const WEAVER: &str = r#"#!/bin/sh
for argument; do [ "$argument" = --print-peer-name ] && echo 02:00:00:00:00:01 && exit 0; done
echo "$@" > DIR/started
trap 'echo ended > DIR/ended; exit 7' TERM
while :; do sleep 0.05; done
"#;

/// One node: its files, its router's control API, and what that was asked.
struct Node {
    directory: PathBuf,
    asked: Arc<Mutex<BTreeMap<&'static str, Vec<String>>>>,
}

impl Node {
    async fn new(server: &Server) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("weave-kube-node-{}-{number}", std::process::id()));
        fs::create_dir_all(directory.join("run")).unwrap();
        let weaver = directory.join("weaver");
        fs::write(&weaver, WEAVER.replace("DIR", directory.to_str().unwrap())).unwrap();
        fs::set_permissions(&weaver, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.join("kubeconfig"), server.kubeconfig()).unwrap();
        let listener = Listener::bind(&ListenConfig::new(directory.join("run/weave.sock"))).await.unwrap();
        let (commands, receiver) = mpsc::channel(4);
        tokio::spawn(serve(listener, commands, std::future::pending()));
        let asked = Arc::new(Mutex::new(BTreeMap::new()));
        tokio::spawn(be_router(receiver, Arc::clone(&asked)));
        Self { directory, asked }
    }

    fn start(&self, more: &[&str]) -> Child {
        let mut process = Process::new(env!("CARGO_BIN_EXE_weave-kube"));
        process.args(["run", "--node=n1", "--api-patience=1", "--extra-args=--log-level debug"]).args(more);
        for (flag, file) in
            [("weaver", "weaver"), ("kubeconfig", "kubeconfig"), ("run-dir", "run"), ("db-prefix", "db")]
        {
            process.arg(format!("--{flag}={}", self.directory.join(file).display()));
        }
        process.env_remove("WEAVE_HTTP_ADDR").spawn().unwrap()
    }

    fn last(&self, what: &str) -> String {
        self.asked.lock().unwrap().get(what).and_then(|all| all.last().cloned()).unwrap_or_default()
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.directory.join(file)).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.directory));
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "what is not asked here is a failure, whatever it is")]
async fn be_router(
    mut commands: mpsc::Receiver<Command>,
    asked: Arc<Mutex<BTreeMap<&'static str, Vec<String>>>>,
) {
    let note = |what: &'static str, words: String| asked.lock().unwrap().entry(what).or_default().push(words);
    let mut exposed = Vec::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Ready(_, reply) => {
                let (version, nickname) = ("9".to_owned(), "n1".to_owned());
                drop(reply.send(Ok(ReadyResponse {
                    version,
                    name: PeerName([2, 0, 0, 0, 0, 1]),
                    nickname,
                    pid: 1,
                })));
            }
            Command::Expose(_, reply) => {
                exposed = vec!["10.32.0.1/12".parse().unwrap()];
                let container = ContainerId::expose();
                drop(reply.send(Ok(AddressesResponse { container, addresses: exposed.clone() })));
            }
            Command::Connect(request, reply) => {
                note("connect", request.peers.join(" "));
                drop(reply.send(Ok(TargetsResponse { targets: request.peers })));
            }
            Command::Rmpeer(request, reply) => {
                note("rmpeer", request.peers.join(" "));
                assert!(!request.force, "nobody forces anything");
                let taken = |peer| TakenOver { peer, addresses: 1000 };
                drop(
                    reply.send(Ok(RmpeerResponse {
                        taken_over: request.peers.into_iter().map(taken).collect(),
                    })),
                );
            }
            Command::Network(_, reply) => {
                drop(reply.send(Ok(NetworkResponse {
                    bridge: "weave".to_owned(),
                    mtu: 1376,
                    exposed: exposed.clone(),
                    default_subnets: vec!["10.32.0.0/12".parse().unwrap()],
                    ipam_ready: true,
                    ipam_status: Some("ready".to_owned()),
                })));
            }
            other => panic!("nobody asks {other:?}"),
        }
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..600 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} does not come");
}

fn end(child: &mut Child) -> Option<i32> {
    let told = Process::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    child.wait().unwrap().code()
}

fn probe(run_dir: &Path) -> bool {
    let mut process = Process::new(env!("CARGO_BIN_EXE_weave-kube"));
    process
        .args(["probe", "--run-dir"])
        .arg(run_dir)
        .env_remove("WEAVE_HTTP_ADDR")
        .status()
        .unwrap()
        .success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_follows_reclaims_starts_without_the_server_and_ends_as_its_router_does() {
    let server = Server::start().await;
    ["n1", "n2"].iter().for_each(|name| server.add_node(name));
    let node = Node::new(&server).await;
    let api = server.cluster();
    let gone = Member { peer_name: "02:00:00:00:00:02".to_owned(), node_name: "n2".to_owned() };
    let own = Member { peer_name: "02:00:00:00:00:01".to_owned(), node_name: "n1".to_owned() };
    Roster::add(&api, &gone).await.unwrap();
    assert!(!probe(&node.directory.join("run")), "the host has no address yet");

    let mut child = node.start(&[]);
    until("the node's condition", || server.node("n1")["status"]["conditions"][0]["reason"] == "WeaveIsUp")
        .await;
    let started = node.text("started");
    for word in ["--nickname=n1", "--ipalloc-init=consensus=2", "--log-level debug", "192.0.2.1"] {
        assert!(started.contains(word), "{word}: {started}");
    }
    assert!(probe(&node.directory.join("run")));
    assert_eq!(Roster::read(&api).await.unwrap().peers, [own.clone(), gone.clone()]);
    server.add_node("n3");
    until("the third node as a target", || node.last("connect") == "192.0.2.1 192.0.2.1").await;
    server.delete_node("n2");
    until("the take-over", || node.last("rmpeer") == gone.peer_name).await;
    until("the fewer targets", || node.last("connect") == "192.0.2.1").await;
    assert_eq!(end(&mut child), Some(7), "the router's own exit code");
    assert_eq!(node.text("ended").trim(), "ended");
    assert_eq!(Roster::read(&api).await.unwrap().peers, std::slice::from_ref(&own));

    // Nobody has taken its space: it may trust its mark of this boot.
    fs::write(node.directory.join("run/ring-mark"), "mark").unwrap();
    fs::remove_file(node.directory.join("started")).unwrap();
    let mut child = node.start(&[]);
    until("its start", || !node.text("started").is_empty()).await;
    assert_eq!(end(&mut child), Some(7));
    assert_eq!(node.text("run/ring-mark"), "mark");

    // The server is away: the peers are those of the last time, and nobody can tell whose the space is.
    fs::remove_file(node.directory.join("started")).unwrap();
    server.fail(1000);
    let mut child = node.start(&[]);
    until("its start without the server", || node.text("started").contains("192.0.2.1")).await;
    assert_eq!(node.text("run/ring-mark"), "");
    server.fail(0);
    assert_eq!(end(&mut child), Some(7));

    // Others have taken its space over while it was away.
    Roster::remove(&api, &own).await.unwrap();
    fs::remove_file(node.directory.join("started")).unwrap();
    fs::write(node.directory.join("run/ring-mark"), "mark").unwrap();
    let mut child = node.start(&["--peers=192.0.2.77 192.0.2.78"]);
    until("its start", || node.text("started").contains("192.0.2.77 192.0.2.78")).await;
    assert_eq!(node.text("run/ring-mark"), "");
    assert_eq!(Roster::read(&api).await.unwrap().peers, [own]);
    assert_eq!(end(&mut child), Some(7));
}

#[tokio::test]
async fn a_first_start_without_the_server_says_what_is_missing() {
    let server = Server::start().await;
    server.fail(1000);
    let node = Node::new(&server).await;
    let mut child = node.start(&[]);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(node.text("started"), "");
}
