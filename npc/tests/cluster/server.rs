//! An API server as far as a watcher can tell: lists in pages, watches from a version on, bookmarks, a history that it
//! forgets, and bad days.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// How long a watch waits for news before it sends a bookmark.
const BOOKMARK_EVERY: Duration = Duration::from_millis(100);
/// Items of a page, whatever the client asked for: so few that every list has several.
const PAGE: usize = 3;

/// Plural of the kind, namespace, name.
type Key = (String, String, String);

/// How the server treats requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As it should.
    Good,
    /// Connections are closed without a word.
    Down,
    /// Everything is answered with this status.
    Status(u16),
    /// Everything takes this long to begin.
    Slow(Duration),
    /// No pod is listed, the request waits; all else is good.
    WithholdsPods,
    /// The first page of pods is listed, the next waits; all else is good.
    WithholdsLaterPages,
}

/// How open watches end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As when their time is over.
    Clean,
    /// In the middle of an event.
    Torn,
}

/// A stream in either direction, encrypted or not.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

struct State {
    version: u64,
    objects: BTreeMap<Key, Value>,
    /// Version, object, what happened, and the object then.
    log: Vec<(u64, Key, &'static str, Value)>,
    /// Of this version and before nothing is remembered.
    forgotten: u64,
    /// The last event that was forgotten: a watch that has not sent it yet cannot go on.
    last_forgotten: u64,
    /// Versions of lists that are being read.
    snapshots: BTreeMap<u64, BTreeMap<Key, Value>>,
    mood: Mood,
    /// Whether a version that is too old is refused by the status of the answer, not by an event.
    refuses_by_status: bool,
    /// How many times watches were ended, and how the last time.
    ends: (u64, End),
    requests: Vec<String>,
    open_watches: usize,
}

/// The server.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
}

/// What a client has to know and to show.
#[derive(Clone)]
pub(crate) struct Security {
    pub(crate) tls: Arc<rustls::ServerConfig>,
    pub(crate) token: String,
}

impl Server {
    /// A server without objects at an address of its own.
    pub(crate) fn start(security: Option<Security>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            version: 1000,
            objects: BTreeMap::new(),
            log: Vec::new(),
            forgotten: 0,
            last_forgotten: 0,
            snapshots: BTreeMap::new(),
            mood: Mood::Good,
            refuses_by_status: false,
            ends: (0, End::Clean),
            requests: Vec::new(),
            open_watches: 0,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let server = Self { address, shared: shared.clone() };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, security) = (shared.clone(), security.clone());
                // A client that goes away is no news.
                thread::spawn(move || _ = serve(stream, security, &shared));
            }
        });
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn change<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        let result = what(&mut self.shared.0.lock().unwrap());
        self.shared.1.notify_all();
        result
    }

    /// Creates or replaces an object.
    pub(crate) fn put(&self, plural: &str, mut object: Value) {
        self.change(|state| {
            let key = key(plural, &object);
            state.version += 1;
            let what = if state.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
            let metadata = &mut object["metadata"];
            metadata["resourceVersion"] = json!(state.version.to_string());
            metadata["uid"] = json!(format!("{plural}-{}", key.2));
            metadata["managedFields"] = json!([{"manager": "kubelet", "operation": "Update", "apiVersion": "v1",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {"f:podIPs": {}}}}]);
            // As in answers of a real server, a list leaves the kind of its items out.
            state.objects.insert(key.clone(), object.clone());
            state.log.push((state.version, key, what, object));
        });
    }

    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.change(|state| {
            let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
            let mut object = state.objects.remove(&key).expect("there to be deleted");
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            state.log.push((state.version, key, "DELETED", object));
        });
    }

    /// All objects, as manifests: their file names and texts.
    pub(crate) fn manifests(&self) -> Vec<(String, String)> {
        self.change(|state| {
            let manifest = |((plural, namespace, name), object): (&Key, &Value)| {
                let mut object = object.clone();
                object["kind"] = json!(kind(plural));
                (format!("{plural}-{namespace}-{name}.json"), object.to_string())
            };
            state.objects.iter().map(manifest).collect()
        })
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.change(|state| state.mood = mood);
    }

    pub(crate) fn refuse_by_status(&self, does: bool) {
        self.change(|state| state.refuses_by_status = does);
    }

    /// Ends all watches that are open.
    pub(crate) fn end_watches(&self, end: End) {
        self.change(|state| state.ends = (state.ends.0 + 1, end));
    }

    /// Forgets all that has happened, and the lists that are being read.
    pub(crate) fn forget(&self) {
        self.change(|state| {
            state.version += 1;
            state.forgotten = state.version;
            state.last_forgotten = state.log.last().map_or(state.last_forgotten, |last| last.0);
            state.log.clear();
            state.snapshots.clear();
        });
    }

    /// How many requests came so far whose line contains all of `words`.
    pub(crate) fn requests(&self, words: &[&str]) -> usize {
        let is_meant = |line: &&String| words.iter().all(|word| line.contains(word));
        self.change(|state| state.requests.iter().filter(is_meant).count())
    }

    pub(crate) fn open_watches(&self) -> usize {
        self.change(|state| state.open_watches)
    }
}

fn key(plural: &str, object: &Value) -> Key {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (plural.to_owned(), text("namespace"), text("name"))
}

fn kind(plural: &str) -> &'static str {
    match plural {
        "namespaces" => "Namespace",
        "networkpolicies" => "NetworkPolicy",
        _ => "Pod",
    }
}

fn api_version(plural: &str) -> &'static str {
    if plural == "networkpolicies" { "networking.k8s.io/v1" } else { "v1" }
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": format!("the server says {reason}")})
}

fn serve(
    stream: TcpStream,
    security: Option<Security>,
    shared: &(Mutex<State>, Condvar),
) -> std::io::Result<()> {
    let mut stream: Box<dyn Stream> = match &security {
        None => Box::new(stream),
        Some(security) => {
            let session = rustls::ServerConnection::new(security.tls.clone()).unwrap();
            Box::new(rustls::StreamOwned::new(session, stream))
        }
    };
    let mut lines = Vec::new();
    let mut reader = BufReader::new(&mut stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let Some(request) = lines.first().cloned() else { return Ok(()) };
    let token = security.map(|security| format!("authorization: bearer {}", security.token.to_lowercase()));
    let may_ask = token.is_none_or(|token| lines.iter().any(|line| line.to_lowercase() == token));
    let mut state = shared.0.lock().unwrap();
    state.requests.push(request.clone());
    let mood = state.mood;
    drop(state);
    match mood {
        Mood::Down => return Ok(()),
        Mood::Status(code) => return answer(&mut stream, code, &status(code, "InternalError")),
        // No other way to be slow.
        #[expect(clippy::disallowed_methods, reason = "this is about being slow")]
        Mood::Slow(time) => thread::sleep(time),
        Mood::Good | Mood::WithholdsPods | Mood::WithholdsLaterPages => {}
    }
    if !may_ask {
        return answer(&mut stream, 401, &status(401, "Unauthorized"));
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let plural = match path {
        "/api/v1/pods" => "pods",
        "/api/v1/namespaces" => "namespaces",
        "/apis/networking.k8s.io/v1/networkpolicies" => "networkpolicies",
        _ => return answer(&mut stream, 404, &status(404, "NotFound")),
    };
    if query.contains_key("watch") {
        watch(&mut stream, plural, &query, shared)
    } else {
        let is_withheld = |state: &mut State| match state.mood {
            Mood::WithholdsPods => plural == "pods",
            Mood::WithholdsLaterPages => plural == "pods" && query.contains_key("continue"),
            Mood::Good | Mood::Down | Mood::Status(_) | Mood::Slow(_) => false,
        };
        drop(shared.1.wait_while(shared.0.lock().unwrap(), is_withheld).unwrap());
        let (code, body) = list(plural, &query, &mut shared.0.lock().unwrap());
        answer(&mut stream, code, &body)
    }
}

fn answer(stream: &mut Box<dyn Stream>, code: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}

/// A page of the list as it was when its first page was read.
fn list(plural: &str, query: &BTreeMap<&str, &str>, state: &mut State) -> (u16, Value) {
    let limit: usize = query.get("limit").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
    let (version, start) = match query.get("continue").and_then(|token| token.split_once('.')) {
        Some((version, start)) => (version.parse().unwrap(), start.parse().unwrap()),
        None => {
            let version = state.version;
            state.snapshots.insert(version, state.objects.clone());
            (version, 0)
        }
    };
    let Some(snapshot) = state.snapshots.get(&version) else { return (410, status(410, "Expired")) };
    let all: Vec<&Value> =
        snapshot.iter().filter(|(key, _)| key.0 == plural).map(|(_, value)| value).collect();
    let page: Vec<&Value> = all.iter().skip(start).take(limit.min(PAGE)).copied().collect();
    let end = start + page.len();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if end < all.len() {
        metadata["continue"] = json!(format!("{version}.{end}"));
        metadata["remainingItemCount"] = json!(all.len() - end);
    }
    let body = json!({"kind": format!("{}List", kind(plural)), "apiVersion": api_version(plural), "metadata": metadata,
        "items": page});
    (200, body)
}

/// Events after a version, until somebody ends it.
fn watch(
    stream: &mut Box<dyn Stream>,
    plural: &str,
    query: &BTreeMap<&str, &str>,
    shared: &(Mutex<State>, Condvar),
) -> std::io::Result<()> {
    let mut version: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
    let has_bookmarks = query.get("allowWatchBookmarks") == Some(&"true");
    let mut state = shared.0.lock().unwrap();
    let ends = state.ends.0;
    let is_too_old = version < state.forgotten;
    if is_too_old && state.refuses_by_status {
        drop(state);
        return answer(stream, 410, &status(410, "Expired"));
    }
    state.open_watches += 1;
    drop(state);
    let mut result = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    while result.is_ok() {
        let state = shared.0.lock().unwrap();
        let is_quiet = |state: &mut State| {
            let has_nothing = state.log.last().is_none_or(|last| last.0 <= version);
            state.ends.0 == ends && has_nothing && !is_too_old && version >= state.last_forgotten
        };
        let (state, waited) = shared.1.wait_timeout_while(state, BOOKMARK_EVERY, is_quiet).unwrap();
        let is_too_old = is_too_old || version < state.last_forgotten;
        let is_over = state.ends.0 != ends;
        let end = state.ends.1;
        let mut events = Vec::new();
        for (at, key, what, object) in
            state.log.iter().filter(|entry| entry.0 > version && entry.1.0 == plural)
        {
            debug_assert!(*at > version, "{key:?}");
            let mut object = object.clone();
            object["kind"] = json!(kind(plural));
            object["apiVersion"] = json!(api_version(plural));
            events.push(json!({"type": what, "object": object}));
        }
        version = version.max(state.log.last().map_or(0, |last| last.0));
        drop(state);
        if is_too_old {
            events = vec![json!({"type": "ERROR", "object": status(410, "Expired")})];
        } else if waited.timed_out() && has_bookmarks {
            let metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
            let object =
                json!({"kind": kind(plural), "apiVersion": api_version(plural), "metadata": metadata});
            events.push(json!({"type": "BOOKMARK", "object": object}));
        }
        if is_over && end == End::Torn {
            // Half of what would have come, or of a bookmark that nobody asked for.
            let text = events.first().map_or_else(|| r#"{"type":"BOOKMARK"}"#.to_owned(), Value::to_string);
            result = chunk(stream, &text[..text.len() / 2]);
            break;
        }
        for event in events {
            result = result.and_then(|()| chunk(stream, &format!("{event}\n")));
        }
        if is_over || is_too_old {
            result = result.and_then(|()| stream.write_all(b"0\r\n\r\n")).and_then(|()| stream.flush());
            break;
        }
    }
    shared.0.lock().unwrap().open_watches -= 1;
    result
}

fn chunk(stream: &mut Box<dyn Stream>, text: &str) -> std::io::Result<()> {
    write!(stream, "{:x}\r\n{text}\r\n", text.len())?;
    stream.flush()
}
