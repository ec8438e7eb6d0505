//! The real server on a real socket, with a simple engine behind and the real client in front.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use fake::{Engine, TempDir, wait_until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use weave_api::{
    AllocateRequest, AttachRequest, ClaimRequest, Client, ConnectRequest, ContainerRef, ErrorCode, Exit,
    ForgetRequest, ListRequest, LookupRequest, PrimeRequest, PsRequest, ReadyRequest,
};
use weave_control::{BindError, ListenConfig, Listener, MAX_CONNECTIONS, serve};

struct Server {
    dir: TempDir,
    engine: Engine,
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let dir = TempDir::new();
        let listener = Listener::bind(&ListenConfig::new(dir.join("run/weave.sock"))).await.unwrap();
        let client = Client::new(listener.socket());
        let engine = Engine::default();
        let (commands, receiver) = mpsc::channel(4);
        tokio::spawn(engine.clone().run(receiver));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, commands, async {
            let _ = stopped.await;
        }));
        Self { dir, engine, client, stop: Some(stop), task }
    }

    fn socket(&self) -> &Path {
        self.client.socket()
    }

    /// Sends bytes as they are and reads whatever comes back until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("no answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let form =
            if body.contains("peer=") { "application/x-www-form-urlencoded" } else { "application/json" };
        let answer = self
            .raw(
                format!(
                    "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {form}\r\ncontent-length: {length}\r\n\r\n{body}"
                )
                .as_bytes(),
            )
            .await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, body.to_owned())
    }

    async fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        timeout(Duration::from_secs(5), &mut self.task).await.expect("the server does not stop").unwrap();
    }
}

#[tokio::test]
async fn requests_reach_the_engine_and_its_answers_come_back() {
    let server = Server::start().await;
    let client = &server.client;
    let connect = ConnectRequest { peers: vec!["b".into(), "a:1".into()], replace: false };
    assert_eq!(client.call(&connect).await.unwrap().targets, ["a:1", "b"]);
    let forget = ForgetRequest { peers: vec!["b".into()] };
    assert_eq!(client.call(&forget).await.unwrap().targets, ["a:1"]);
    let attach = AttachRequest {
        container: ContainerRef::netns("/run/netns/c1"),
        addresses: vec!["10.9.1.7/24".parse().unwrap()],
        names: vec!["web".into()],
        ..AttachRequest::default()
    };
    let attached = client.call(&attach).await.unwrap();
    assert_eq!((attached.container.as_str(), attached.names[0].as_str()), ("c1", "web.weave.local."));
    let report = client.report().await.unwrap();
    assert_eq!(report.router.targets, ["a:1"]);
    assert_eq!(report.containers[0].addresses, attached.addresses);
    assert_eq!(client.call(&PsRequest::default()).await.unwrap().containers, report.containers);
    assert_eq!(client.call(&ListRequest {}).await.unwrap().addresses_by_owner.len(), 1);
    assert_eq!(client.call(&ReadyRequest::default()).await.unwrap().pid, std::process::id());
    assert_eq!(client.router_pid().await.unwrap(), i32::try_from(std::process::id()).ok());
}

#[tokio::test]
async fn a_refusal_arrives_with_code_message_and_hint() {
    let server = Server::start().await;
    let allocate = AllocateRequest { container: "web".parse().unwrap(), subnet: None, timeout_s: Some(1) };
    let held = server.client.call(&allocate).await.unwrap().addresses[0];
    let claim = ClaimRequest {
        container: "thief".parse().unwrap(),
        address: held,
        no_error_on_unknown: false,
        timeout_s: None,
    };
    let error = server.client.call(&claim).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert_eq!(error.code.exit(), Exit::Conflict);
    assert_eq!(error.to_string(), "10.32.0.1/12 is held by web; detach it there first");
}

#[tokio::test]
async fn nonsense_gets_one_clear_sentence_and_the_server_lives_on() {
    let server = Server::start().await;
    for (method, path, body, status, part) in [
        ("POST", "/v1/connect", "{", 400, "EOF while parsing"),
        ("POST", "/v1/connect", r#"{"peers":"b"}"#, 400, "expected a sequence"),
        ("POST", "/v1/connect", r#"{"peers":[],"relpace":true}"#, 400, "relpace"),
        ("POST", "/v1/connect", "", 400, "missing field `peers`"),
        ("POST", "/v1/attach", r#"{"container":{},"addresses":["10.9.1.7"]}"#, 400, "prefix length"),
        ("POST", "/v1/ip/allocate", r#"{"container":"a/b"}"#, 400, "letters, digits"),
        ("GET", "/v1/connect", "", 405, "does not understand GET"),
        ("GET", "/v1/nowhere", "", 404, "there is no /v1/nowhere in this API"),
        ("GET", "/%ff%00", "", 404, "there is no"),
        ("PUT", "/ip/web/10.32.0.300/12", "", 400, "10.32.0.300/12"),
        ("POST", "/ip/web/10.32.0.1/12", "", 400, "host bits set"),
    ] {
        let (got, answer) = server.http(method, path, body).await;
        assert_eq!(got, status, "{method} {path} {body}: {answer}");
        assert!(answer.contains(part), "{method} {path} {body}: {answer}");
    }
    assert!(server.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.starts_with("HTTP/1.1 400"));
    assert!(server.raw(b"GARBAGE\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let head = format!("GET /v1/report HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    let answer = server.raw(head.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(server.client.report().await.is_ok());
}

#[tokio::test]
async fn an_oversized_body_is_refused_in_words_whether_announced_or_not() {
    let server = Server::start().await;
    let peers: Vec<String> = (0..200_000).map(|n| format!("host-{n}")).collect();
    let error = server.client.call(&ConnectRequest { peers, replace: false }).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge);
    assert!(error.message.contains("larger than the 1048576 bytes"), "{error}");
    let mut chunked = b"POST /v1/connect HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..40 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.resize(chunked.len() + 0x10000, b' ');
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert!(server.raw(&chunked).await.starts_with("HTTP/1.1 413"));
    assert!(server.engine.0.lock().unwrap().targets.is_empty());
}

#[tokio::test]
async fn a_client_that_goes_away_withdraws_its_request() {
    let server = Server::start().await;
    let request = AllocateRequest { container: "waits".parse().unwrap(), subnet: None, timeout_s: Some(60) };
    let given_up = timeout(Duration::from_millis(200), server.client.call(&request)).await;
    assert!(given_up.is_err());
    let withdrawn = || server.engine.0.lock().unwrap().withdrawn.len();
    wait_until("the engine to notice", || withdrawn() == 1).await;
    let mut stream = UnixStream::connect(server.socket()).await.unwrap();
    stream.write_all(b"POST /ip/waits HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    drop(stream);
    wait_until("the engine to notice the script, too", || withdrawn() == 2).await;
}

#[tokio::test]
async fn waiting_requests_end_in_words_when_the_server_stops_and_the_socket_goes() {
    let mut server = Server::start().await;
    let client = server.client.clone();
    let waiting = tokio::spawn(async move {
        let request =
            AllocateRequest { container: "waits".parse().unwrap(), subnet: None, timeout_s: Some(60) };
        client.call(&request).await
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop().await;
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.code.exit(), Exit::NotRunning, "{error}");
    assert!(!server.socket().exists());
    assert_eq!(std::fs::read_dir(server.dir.join("run")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_engine_that_is_gone_is_reported_as_stopping() {
    let dir = TempDir::new();
    let listener = Listener::bind(&ListenConfig::new(dir.join("weave.sock"))).await.unwrap();
    let client = Client::new(listener.socket());
    let (commands, receiver) = mpsc::channel(1);
    drop(receiver);
    tokio::spawn(serve(listener, commands, std::future::pending()));
    assert_eq!(client.report().await.unwrap_err().code, ErrorCode::ShuttingDown);
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_group_only() {
    let server = Server::start().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(server.socket()), 0o660);
    assert_eq!(mode(server.socket().parent().unwrap()), 0o750);
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let dir = TempDir::new();
    let config = ListenConfig::new(dir.join("weave.sock"));
    drop(std::os::unix::net::UnixListener::bind(&config.socket).unwrap());
    let error = Client::new(&config.socket).report().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotRunning);
    assert!(error.message.contains("nobody listens at"), "{error}");
    let listener = Listener::bind(&config).await.unwrap();
    let second = Listener::bind(&config).await.unwrap_err();
    assert!(matches!(&second, BindError::AlreadyRunning(path) if *path == config.socket), "{second}");
    assert!(second.to_string().contains(config.socket.to_str().unwrap()), "{second}");
    // Somebody else's socket in our place is not ours to remove.
    std::fs::remove_file(&config.socket).unwrap();
    let stranger = std::os::unix::net::UnixListener::bind(&config.socket).unwrap();
    let inode = std::fs::metadata(&config.socket).unwrap().ino();
    drop(listener);
    assert_eq!(std::fs::metadata(&config.socket).unwrap().ino(), inode);
    drop(stranger);
}

#[tokio::test]
async fn of_many_that_start_at_once_over_a_dead_socket_one_wins() {
    let dir = TempDir::new();
    let config = ListenConfig::new(dir.join("weave.sock"));
    drop(std::os::unix::net::UnixListener::bind(&config.socket).unwrap());
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move { Listener::bind(&config).await })
        })
        .collect();
    let mut winners = Vec::new();
    for start in starts {
        match start.await.unwrap() {
            Ok(listener) => winners.push(listener),
            Err(error) => assert!(matches!(error, BindError::AlreadyRunning(_)), "{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
}

#[tokio::test]
async fn paths_that_cannot_be_a_socket_are_refused_and_left_alone() {
    let dir = TempDir::new();
    let file = dir.join("weave.sock");
    std::fs::write(&file, "precious").unwrap();
    let error = Listener::bind(&ListenConfig::new(&file)).await.unwrap_err();
    assert!(error.to_string().contains("is not a socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let long = dir.join(&"d".repeat(100)).join("weave.sock");
    let error = Listener::bind(&ListenConfig::new(long)).await.unwrap_err();
    assert!(error.to_string().contains("longer than 107 bytes"), "{error}");
    let error = Listener::bind(&ListenConfig::new("weave.sock")).await.unwrap_err();
    assert_eq!(error.exit(), Exit::Usage);
}

#[tokio::test]
async fn a_missing_socket_is_explained_with_its_path() {
    let dir = TempDir::new();
    let client = Client::new(dir.join("weave.sock"));
    let error = client.call(&PrimeRequest::default()).await.unwrap_err();
    let path = dir.join("weave.sock");
    let sentence = format!(
        "no weaver is running here: {} does not exist; start one with `weave launch`",
        path.display()
    );
    assert_eq!(error.to_string(), sentence);
}

#[tokio::test]
async fn clients_that_ask_for_nothing_keep_nobody_out() {
    let server = Server::start().await;
    let mut idle = crowd(&server, b"GET /v1/report HT").await;
    server.client.report().await.unwrap();
    // One takes the place that the answered client left, the other that of the one that came first.
    for _ in 0..2 {
        idle.push(UnixStream::connect(server.socket()).await.unwrap());
    }
    for mut first in idle.drain(..2) {
        let mut rest = Vec::new();
        let thrown_out = timeout(Duration::from_secs(5), first.read_to_end(&mut rest)).await;
        assert!(thrown_out.is_ok(), "a client that asks for nothing is kept");
    }
    let mut last = idle.pop().unwrap();
    last.write_all(b"GET /v1/report HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // And even if nobody comes.
    let mut first = idle.swap_remove(0);
    let thrown_out = timeout(Duration::from_secs(15), first.read_to_end(&mut Vec::new())).await;
    assert!(thrown_out.is_ok(), "a client that never finishes its request is kept");
}

#[tokio::test]
async fn while_all_places_are_taken_by_requests_under_way_more_are_turned_away_in_words() {
    let server = Server::start().await;
    let body = r#"{"container":{"id":"waits"}}"#;
    let length = body.len();
    let request = format!(
        "POST /v1/attach HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let waiting = crowd(&server, request.as_bytes()).await;
    let mut turned_away = String::new();
    for _ in 0..500 {
        turned_away = server.raw(b"").await;
        if !turned_away.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(turned_away.starts_with("HTTP/1.1 503"), "{turned_away}");
    assert!(turned_away.contains("too_busy"), "{turned_away}");
    drop(waiting);
    wait_until_ok(&server.client).await;
}

/// As many clients as are served at once, each of which has sent this.
async fn crowd(server: &Server, sent: &[u8]) -> Vec<UnixStream> {
    let mut clients = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = UnixStream::connect(server.socket()).await.unwrap();
        stream.write_all(sent).await.unwrap();
        clients.push(stream);
    }
    clients
}

async fn wait_until_ok(client: &Client) {
    for _ in 0..100 {
        if client.report().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the server does not recover");
}

#[tokio::test]
async fn old_scripts_find_their_endpoints() {
    let server = Server::start().await;
    assert_eq!(server.http("POST", "/connect", "peer=b&peer=a%3A1").await.0, 200);
    assert_eq!(server.http("GET", "/status/targets", "").await, (200, "a:1\nb\n".to_owned()));
    assert_eq!(server.http("POST", "/connect", "replace=true&peer=c").await.0, 200);
    assert_eq!(server.http("GET", "/status/targets", "").await.1, "c\n");
    assert_eq!(server.http("POST", "/forget", "peer=c").await.0, 200);
    assert_eq!(server.http("POST", "/ip/web", "").await, (200, "10.32.0.1/12".to_owned()));
    assert_eq!(server.http("GET", "/ip/web", "").await, (200, "10.32.0.1/12".to_owned()));
    assert_eq!(server.http("GET", "/ip/nobody", "").await.0, 404);
    assert_eq!(server.http("PUT", "/ip/thief/10.32.0.1/12", "").await.0, 409);
    assert_eq!(server.http("DELETE", "/ip/web", "").await.0, 204);
    assert_eq!(server.http("GET", "/ring", "").await, (200, String::new()));
    assert_eq!(server.http("GET", "/domain", "").await, (200, "weave.local.".to_owned()));
    assert_eq!(server.http("PUT", "/name/_/192.0.2.80?fqdn=printer.weave.local", "").await.0, 204);
    let (status, names) = server.http("GET", "/status/dns", "").await;
    assert_eq!(
        (status, names.starts_with("printer      192.0.2.80      weave:extern")),
        (200, true),
        "{names}"
    );
    assert_eq!(server.http("DELETE", "/name?fqdn=printer.weave.local", "").await.0, 204);
    assert_eq!(server.http("POST", "/expose/10.9.1.7/24?skipNAT=true", "").await.0, 204);
    let (_, taken) = server.http("DELETE", "/peer/node-b", "").await;
    assert_eq!(taken, "4096 IPs taken over from node-b\n");
    assert_eq!(server.http("GET", "/ipinfo/defaultsubnet", "").await.1, "10.32.0.0/12");
    assert_eq!(server.http("GET", "/ipinfo/tracker", "").await, (200, String::new()));
    assert_eq!(server.http("GET", "/dns-address", "").await, (200, "127.0.0.1".to_owned()));
    assert_eq!(server.http("GET", "/dns-address-port", "").await, (200, "127.0.0.1:53".to_owned()));
    let (status, answer) = server.http("GET", "/proxyaddrs", "").await;
    assert!(status == 404 && answer.contains("`weave docker-plugin`"), "{status} {answer}");
    server.engine.0.lock().unwrap().without_services = true;
    for path in ["/ipinfo/tracker", "/ipinfo/defaultsubnet", "/dns-address", "/dns-address-port"] {
        assert_eq!(server.http("GET", path, "").await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn old_scripts_can_tell_starting_and_switched_off_from_working() {
    let server = Server::start().await;
    assert_eq!(server.http("GET", "/status", "").await.0, 200);
    server.engine.0.lock().unwrap().starting = true;
    let (status, text) = server.http("GET", "/status", "").await;
    assert_eq!((status, text.contains("Service: router")), (503, true));
    server.engine.0.lock().unwrap().without_services = true;
    let (status, text) = server.http("GET", "/status/dns", "").await;
    assert_eq!(
        (status, text.as_str()),
        (404, "DNS is switched off on this router; start the router without `--no-dns`\n")
    );
    let (status, text) = server.http("GET", "/status/weather", "").await;
    assert_eq!((status, text.contains("connections, peers")), (404, true));
}

#[tokio::test]
async fn a_lookup_of_nothing_is_an_empty_list() {
    let server = Server::start().await;
    let lookup = LookupRequest { container: "nobody".parse().unwrap(), subnet: None };
    assert!(server.client.call(&lookup).await.unwrap().addresses.is_empty());
}
