//! An API server as far as this program can tell: lists in pages, watches, bookmarks, a history that it forgets, writes
//! that conflict, and bad days.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, patch},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use weave_kube::cluster::Cluster;

/// Resource and name.
type Key = (String, String);

/// Namespace of everything that has one.
const NAMESPACE: &str = "kube-system";

/// Items of a page, whatever was asked for.
const PAGE: usize = 7;

#[derive(Default)]
struct Objects {
    version: u64,
    by_key: BTreeMap<Key, Value>,
    /// Version, what happened, and the object then; of nodes only.
    log: Vec<(u64, &'static str, Value)>,
    /// Of this version and before nothing is remembered.
    forgotten: u64,
    /// What was asked: verb, resource, name.
    asked: BTreeSet<(String, String, Option<String>)>,
    /// How many of the next requests fail.
    failures: u32,
    /// Every write of so many fails after it was done.
    lost_answers: u32,
    writes: u32,
}

/// The server.
#[derive(Clone)]
pub(crate) struct Server {
    objects: Arc<Mutex<Objects>>,
    changed: Arc<watch::Sender<u64>>,
    address: SocketAddr,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let objects = Arc::new(Mutex::new(Objects { version: 100, ..Objects::default() }));
        let server = Self { objects, changed: Arc::new(watch::Sender::new(100)), address };
        let router = Router::new()
            .route("/api/v1/nodes", get(nodes))
            .route("/api/v1/nodes/{name}/status", patch(patch_status))
            .route("/api/v1/namespaces/{namespace}/{resource}", axum::routing::post(create))
            .route("/api/v1/namespaces/{namespace}/{resource}/{name}", get(read).put(replace))
            .route(
                "/apis/coordination.k8s.io/v1/namespaces/{namespace}/{resource}",
                axum::routing::post(create),
            )
            .route(
                "/apis/coordination.k8s.io/v1/namespaces/{namespace}/{resource}/{name}",
                get(read).put(replace),
            )
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    /// A kubeconfig for it.
    pub(crate) fn kubeconfig(&self) -> String {
        let cluster = json!({ "name": "c", "cluster": { "server": format!("http://{}", self.address) } });
        let context = json!({ "name": "c", "context": { "cluster": "c", "user": "u" } });
        json!({ "apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context],
            "users": [{ "name": "u", "user": {} }], "current-context": "c" })
        .to_string()
    }

    /// A client of one node.
    pub(crate) fn cluster(&self) -> Cluster {
        let mut config = kube::Config::new(format!("http://{}", self.address).parse().unwrap());
        config.default_retry = false;
        Cluster::with(config, NAMESPACE).unwrap()
    }

    fn with<T>(&self, work: impl FnOnce(&mut Objects) -> T) -> T {
        let mut objects = self.objects.lock().unwrap();
        let done = work(&mut objects);
        let version = objects.version;
        self.changed.send_if_modified(|told| std::mem::replace(told, version) != version);
        done
    }

    pub(crate) fn add_node(&self, name: &str) {
        let node = json!({ "metadata": { "name": name },
            "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }] } });
        self.with(|objects| objects.put("nodes", name, node));
    }

    pub(crate) fn delete_node(&self, name: &str) {
        self.with(|objects| {
            let mut node = objects.by_key.remove(&("nodes".to_owned(), name.to_owned())).unwrap();
            objects.version += 1;
            node["metadata"]["resourceVersion"] = json!(objects.version.to_string());
            objects.log.push((objects.version, "DELETED", node));
        });
    }

    pub(crate) fn node(&self, name: &str) -> Value {
        self.with(|objects| objects.by_key[&("nodes".to_owned(), name.to_owned())].clone())
    }

    /// Forgets what has happened: watches from before are refused.
    pub(crate) fn forget(&self) {
        self.with(|objects| {
            objects.version += 1;
            objects.forgotten = objects.version;
            objects.log.clear();
        });
    }

    /// The next requests fail.
    pub(crate) fn fail(&self, requests: u32) {
        self.with(|objects| objects.failures = requests);
    }

    /// Every so many writes the answer is lost, though the write was made.
    pub(crate) fn lose_answers(&self, every: u32) {
        self.with(|objects| objects.lost_answers = every);
    }

    pub(crate) fn asked(&self) -> BTreeSet<(String, String, Option<String>)> {
        self.with(|objects| objects.asked.clone())
    }

    /// Notes what is asked; the failure that it meets, if it does.
    fn ask(&self, verb: &str, resource: &str, name: Option<&str>) -> Option<Response> {
        self.with(|objects| {
            objects.asked.insert((verb.to_owned(), resource.to_owned(), name.map(str::to_owned)));
            if objects.failures == 0 {
                return None;
            }
            objects.failures -= 1;
            Some(refuse(500, "InternalError"))
        })
    }

    /// The answer to a write; lost now and then.
    fn written(&self, object: Value) -> Response {
        let is_lost = self.with(|objects| {
            objects.writes += 1;
            objects.lost_answers > 0 && objects.writes % objects.lost_answers == 0
        });
        if is_lost { refuse(504, "Timeout") } else { Json(object).into_response() }
    }
}

impl Objects {
    fn put(&mut self, resource: &str, name: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        object["metadata"]["name"] = json!(name);
        let before = self.by_key.insert((resource.to_owned(), name.to_owned()), object.clone());
        if resource == "nodes" {
            let what = if before.is_some() { "MODIFIED" } else { "ADDED" };
            self.log.push((self.version, what, object.clone()));
        }
        object
    }
}

fn refuse(code: u16, reason: &str) -> Response {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": format!("the server says {reason}") });
    (StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}

fn list(nodes: &[Value], version: u64, next: Option<usize>) -> Value {
    let token = next.map(|next| format!("{version}.{next}")).unwrap_or_default();
    json!({ "kind": "NodeList", "apiVersion": "v1", "items": nodes,
        "metadata": { "resourceVersion": version.to_string(), "continue": token } })
}

async fn nodes(State(server): State<Server>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let is_watch = query.get("watch").is_some_and(|text| text == "true" || text == "1");
    if let Some(failure) = server.ask(if is_watch { "watch" } else { "list" }, "nodes", None) {
        return failure;
    }
    let number = |key: &str| query.get(key).and_then(|text| text.parse::<u64>().ok());
    if is_watch {
        let since = number("resourceVersion").unwrap_or_default();
        if since < server.with(|objects| objects.forgotten) {
            return refuse(410, "Expired");
        }
        return follow(server, since);
    }
    let start = query.get("continue").and_then(|token| token.split_once('.')?.1.parse().ok()).unwrap_or(0);
    server.with(|objects| {
        let all: Vec<Value> =
            objects.by_key.iter().filter(|(key, _)| key.0 == "nodes").map(|(_, node)| node.clone()).collect();
        let end = if number("limit").is_some() { (start + PAGE).min(all.len()) } else { all.len() };
        let next = (end < all.len()).then_some(end);
        Json(list(&all[start.min(end)..end], objects.version, next)).into_response()
    })
}

/// Events as they come, a bookmark when none does; it breaks off when what it needs is forgotten.
fn follow(server: Server, since: u64) -> Response {
    let changed = server.changed.subscribe();
    let events = stream::unfold((server, changed, since), |(server, mut changed, since)| async move {
        loop {
            let (events, version, is_lost) = server.with(|objects| {
                let new: Vec<(u64, &str, Value)> =
                    objects.log.iter().filter(|(version, ..)| *version > since).cloned().collect();
                (new, objects.version, since < objects.forgotten)
            });
            if is_lost {
                return None;
            }
            let mut text = String::new();
            for (_, what, object) in &events {
                text += &json!({ "type": what, "object": object }).to_string();
                text += "\n";
            }
            if text.is_empty() {
                if timeout(Duration::from_millis(100), changed.changed()).await.is_ok() {
                    continue;
                }
                let bookmark = json!({ "kind": "Node", "apiVersion": "v1",
                    "metadata": { "resourceVersion": version.to_string() } });
                text = json!({ "type": "BOOKMARK", "object": bookmark }).to_string() + "\n";
            }
            return Some((Ok::<_, Infallible>(text), (server, changed, version)));
        }
    });
    Response::new(Body::from_stream(events))
}

async fn patch_status(
    State(server): State<Server>,
    Path(name): Path<String>,
    Json(patch): Json<Value>,
) -> Response {
    if let Some(failure) = server.ask("patch", "nodes/status", None) {
        return failure;
    }
    let patched = server.with(|objects| {
        let mut node = objects.by_key.get(&("nodes".to_owned(), name.clone()))?.clone();
        node["status"]["conditions"] = patch["status"]["conditions"].clone();
        Some(objects.put("nodes", &name, node))
    });
    patched.map_or_else(|| refuse(404, "NotFound"), |node| server.written(node))
}

type At = Path<(String, String, String)>;

async fn read(State(server): State<Server>, Path((_, resource, name)): At) -> Response {
    if let Some(failure) = server.ask("get", &resource, Some(&name)) {
        return failure;
    }
    let found = server.with(|objects| objects.by_key.get(&(resource, name)).cloned());
    found.map_or_else(|| refuse(404, "NotFound"), |object| Json(object).into_response())
}

async fn replace(
    State(server): State<Server>,
    Path((_, resource, name)): At,
    Json(object): Json<Value>,
) -> Response {
    if let Some(failure) = server.ask("update", &resource, Some(&name)) {
        return failure;
    }
    let put = server.with(|objects| {
        let present =
            objects.by_key.get(&(resource.clone(), name.clone())).cloned().ok_or((404, "NotFound"))?;
        if present["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
            return Err((409, "Conflict"));
        }
        Ok(objects.put(&resource, &name, object))
    });
    put.map_or_else(|(code, reason)| refuse(code, reason), |object| server.written(object))
}

async fn create(
    State(server): State<Server>,
    Path((_, resource)): Path<(String, String)>,
    Json(object): Json<Value>,
) -> Response {
    if let Some(failure) = server.ask("create", &resource, None) {
        return failure;
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let put = server.with(|objects| {
        if objects.by_key.contains_key(&(resource.clone(), name.clone())) {
            return Err((409, "AlreadyExists"));
        }
        Ok(objects.put(&resource, &name, object))
    });
    put.map_or_else(|(code, reason)| refuse(code, reason), |object| server.written(object))
}
