//! A Docker engine as its clients see it: lists, networks and events, over a unix socket, with containers that take their
//! time to start.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use serde_json::{Value, json};

/// Id of the only network.
const NETWORK: &str = "n1";

/// A container.
#[derive(Debug, Clone, Default)]
struct Container {
    name: String,
    labels: BTreeMap<String, String>,
    state: &'static str,
    /// What the network knows, and what lists know once it runs.
    address: Option<String>,
    created: u64,
}

#[derive(Debug, Default)]
struct State {
    containers: BTreeMap<String, Container>,
    events: Vec<Value>,
    lists: usize,
    is_down: bool,
    is_gone: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// The engine; its socket is gone with it.
pub(crate) struct Engine {
    shared: Shared,
    socket: PathBuf,
}

impl Engine {
    pub(crate) fn start(socket: &Path) -> Self {
        let shared = Shared::default();
        let engine = Self { shared, socket: socket.to_owned() };
        engine.listen();
        engine
    }

    fn listen(&self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        let shared = self.shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = shared.0.lock().unwrap();
                if state.is_gone {
                    return;
                }
                if state.is_down {
                    continue;
                }
                drop(state);
                let shared = shared.clone();
                thread::spawn(move || _ = serve(stream.unwrap(), &shared));
            }
        });
    }

    fn change(&self, what: impl FnOnce(&mut State)) {
        what(&mut self.shared.0.lock().unwrap());
        self.shared.1.notify_all();
    }

    /// `docker create`.
    pub(crate) fn create(&self, id: &str, labels: &[(&str, &str)]) {
        self.change(|state| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let created = state.events.len() as u64;
            let name = format!("name-of-{id}");
            state.containers.insert(
                id.to_owned(),
                Container { name, labels, state: "created", created, ..Container::default() },
            );
            state.events.push(event("container", "create", id));
        });
    }

    /// The first half of `docker start`: it joins its network, and its first process is not there yet.
    pub(crate) fn connect(&self, id: &str, address: &str) {
        self.change(|state| {
            state.containers.get_mut(id).unwrap().address = Some(address.to_owned());
            state.events.push(event("network", "connect", id));
        });
    }

    /// The second half.
    pub(crate) fn begin(&self, id: &str) {
        self.change(|state| {
            state.containers.get_mut(id).unwrap().state = "running";
            state.events.push(event("container", "start", id));
        });
    }

    /// `docker start`.
    pub(crate) fn run(&self, id: &str, address: &str) {
        self.connect(id, address);
        self.begin(id);
    }

    /// `docker stop`, or the end of its first process.
    pub(crate) fn stop(&self, id: &str) {
        self.change(|state| {
            let container = state.containers.get_mut(id).unwrap();
            (container.state, container.address) = ("exited", None);
            state.events.extend([event("container", "die", id), event("network", "disconnect", id)]);
        });
    }

    /// `docker rm`.
    pub(crate) fn remove(&self, id: &str) {
        self.change(|state| {
            state.containers.remove(id);
            state.events.push(event("container", "destroy", id));
        });
    }

    /// A change that no event tells, as if it had been lost.
    pub(crate) fn readdress_in_silence(&self, id: &str, address: &str) {
        self.change(|state| state.containers.get_mut(id).unwrap().address = Some(address.to_owned()));
    }

    /// The engine goes away with everything that it had open, and comes back.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.change(|state| state.is_down = is_down);
    }

    /// How often everything was listed.
    pub(crate) fn lists(&self) -> usize {
        self.shared.0.lock().unwrap().lists
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.change(|state| state.is_gone = true);
        let _to_wake_it = UnixStream::connect(&self.socket);
        let _best_effort = fs::remove_file(&self.socket);
    }
}

fn event(kind: &str, action: &str, container: &str) -> Value {
    let actor = match kind {
        "network" => json!({"ID": NETWORK, "Attributes": {"container": container, "name": "bridge"}}),
        _ => json!({"ID": container, "Attributes": {}}),
    };
    json!({"Type": kind, "Action": action, "Actor": actor, "scope": "local"})
}

fn serve(stream: UnixStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = request.split_whitespace().nth(1).unwrap_or_default();
    match path {
        "/containers/json?all=1" => answer(stream, 200, &list(&mut shared.0.lock().unwrap())),
        "/networks/bridge" => answer(stream, 200, &network(&shared.0.lock().unwrap())),
        _ if path.starts_with("/events?filters=") => tell(stream, shared),
        _ => answer(stream, 404, &json!({"message": "page not found"})),
    }
}

fn answer(mut stream: UnixStream, status: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn list(state: &mut State) -> Value {
    state.lists += 1;
    let of = |(id, container): (&String, &Container)| {
        // Lists know what a container was when it was last written down, which is not while it starts.
        let address = container.address.as_deref().filter(|_| container.state == "running");
        json!({"Id": id, "Names": [format!("/{}", container.name)], "Labels": container.labels, "Image": "x",
            "State": container.state, "Created": container.created, "HostConfig": {"NetworkMode": "bridge"},
            "NetworkSettings": {"Networks": {"bridge": {"NetworkID": NETWORK, "EndpointID": "", "GlobalIPv6Address": "",
                "IPAddress": address.unwrap_or_default()}}}})
    };
    state.containers.iter().map(of).collect()
}

fn network(state: &State) -> Value {
    let of = |(id, container): (&String, &Container)| {
        let address = container.address.as_ref()?;
        Some((
            id.clone(),
            json!({"Name": container.name, "IPv4Address": format!("{address}/16"), "IPv6Address": ""}),
        ))
    };
    let containers: serde_json::Map<String, Value> = state.containers.iter().filter_map(of).collect();
    json!({"Name": "bridge", "Id": NETWORK, "Containers": containers})
}

/// Events from now on, until the engine goes.
fn tell(mut stream: UnixStream, shared: &Shared) -> std::io::Result<()> {
    let mut told = shared.0.lock().unwrap().events.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    loop {
        let is_quiet = |state: &mut State| state.events.len() == told && !state.is_down && !state.is_gone;
        let state = shared.1.wait_while(shared.0.lock().unwrap(), is_quiet).unwrap();
        if state.is_down || state.is_gone {
            return Ok(());
        }
        let news: Vec<String> = state.events.iter().skip(told).map(|event| format!("{event}\n")).collect();
        told = state.events.len();
        drop(state);
        for line in news {
            write!(stream, "{:x}\r\n{line}\r\n", line.len())?;
        }
    }
}
