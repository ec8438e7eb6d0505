//! The real client, and what it has been told.

use std::{
    fs,
    path::PathBuf,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    time::Duration,
};

use weave_npc::{
    clock,
    cluster::Access,
    source::{Event, News, Readiness, Source},
};
use weave_policy::{Compiler, Facts, Flow, Protocol, Scope, Traffic, World};

use crate::server::Server;

/// How long anything may take: the longest pause after failures included, and other tests on the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory of its own, gone with this.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("npc-cluster-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

/// How to reach `server` without any secrets.
pub(crate) fn kubeconfig(server: &Server) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n",
        server.address()
    )
}

/// A source, and a compiler that is fed from it.
pub(crate) struct Follower {
    pub(crate) source: Source,
    events: Receiver<Event>,
    pub(crate) world: World,
    /// How much of what the server has is in the world.
    pub(crate) readiness: Readiness,
    compiler: Compiler,
    facts: Facts,
    /// How many changes were told.
    pub(crate) changes: usize,
    _files: Directory,
}

impl Follower {
    pub(crate) fn new(server: &Server) -> Self {
        Self::with_kubeconfig(&kubeconfig(server))
    }

    pub(crate) fn with_kubeconfig(text: &str) -> Self {
        let files = Directory::new();
        let access = Access::File(files.write("kubeconfig", text));
        let (sender, events) = sync_channel(64);
        let mut source = Source::cluster(access, "here".to_owned());
        source.watch(sender).unwrap();
        Self {
            source,
            events,
            world: World::default(),
            readiness: Readiness::nothing(),
            compiler: Compiler::new(Scope::Node("here".to_owned())),
            facts: Facts::default(),
            changes: 0,
            _files: files,
        }
    }

    /// Takes in what there is; waits for news a little if there is none.
    pub(crate) fn step(&mut self) {
        let _none_is_fine = self.events.recv_timeout(Duration::from_millis(20));
        let News { changes, readiness } = self.source.poll(&self.world).unwrap();
        self.readiness = readiness;
        for change in changes {
            self.changes += 1;
            self.world.apply(change.clone());
            self.compiler.handle_change(change);
        }
        if let Some(delta) = self.compiler.poll_delta() {
            self.facts.apply(&delta).unwrap();
        }
    }

    /// Goes on until `condition` holds.
    pub(crate) fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = clock::now();
        while !condition(self) {
            assert!(start.elapsed() < PATIENCE, "{what} did not come to be; known: {:#?}", self.world);
            self.step();
        }
    }

    /// Goes on until everything is as a directory with the objects of `server` says, and looks whether the facts fit.
    pub(crate) fn until_like(&mut self, server: &Server) {
        let wanted = by_directory(server);
        self.until("the world of the server", |follower| {
            follower.readiness == Readiness::Everything && follower.world == wanted
        });
        let mut addresses: Vec<_> = wanted.pods.values().flat_map(|pod| pod.addresses.clone()).collect();
        addresses.sort();
        addresses.dedup();
        let scope = Scope::Node("here".to_owned());
        for source in &addresses {
            for destination in &addresses {
                for port in [80, 81] {
                    let traffic = Traffic::To(Protocol::Tcp, port);
                    let flow = Flow { source: *source, destination: *destination, traffic };
                    assert_eq!(self.facts.verdict(&flow), wanted.verdict(&flow, &scope), "{flow:?}");
                }
            }
        }
        assert_eq!(self.facts.len(), compile(&wanted).len(), "something is left over");
    }
}

/// What a directory with the same objects says.
pub(crate) fn by_directory(server: &Server) -> World {
    let files = Directory::new();
    for (name, text) in server.manifests() {
        files.write(&name, &text);
    }
    let mut world = World::default();
    let News { changes, .. } = Source::directory(files.0.clone()).poll(&world).unwrap();
    changes.into_iter().for_each(|change| world.apply(change));
    world
}

fn compile(world: &World) -> Facts {
    let mut compiler = Compiler::new(Scope::Node("here".to_owned()));
    World::default().changes_to(world).into_iter().for_each(|change| compiler.handle_change(change));
    let mut facts = Facts::default();
    facts.apply(&compiler.poll_delta().unwrap_or_default()).unwrap();
    facts
}
