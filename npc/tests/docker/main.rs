//! The containers of a Docker engine as pods: what comes out is what the engine says, whatever happens on the way.
#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "a lock that is poisoned, or a test that cannot go on"
)]

#[allow(dead_code, reason = "shared with the tests of the daemon")]
mod engine;

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
    clock, docker,
    source::{Event, News, Readiness, Source},
};
use weave_policy::World;

use engine::Engine;

/// How long anything may take, with other tests on the machine.
const PATIENCE: Duration = Duration::from_secs(60);

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: web, namespace: shop }
spec: { podSelector: { matchLabels: { app: web } } }
---
apiVersion: v1
kind: Pod
metadata: { name: elsewhere, namespace: shop }
status: { podIP: 10.9.9.9 }
";

/// A directory of its own, gone with this.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("npc-docker-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("policies")).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

/// A source, and the world as it tells it.
struct Follower {
    source: Source,
    events: Receiver<Event>,
    world: World,
    readiness: Readiness,
    directory: Directory,
}

impl Follower {
    fn new() -> Self {
        let directory = Directory::new();
        fs::write(directory.0.join("policies/web.yaml"), POLICY).unwrap();
        let access = docker::Access {
            engine: directory.0.join("docker.sock"),
            router: directory.0.join("no-router.sock"),
            node: "here".to_owned(),
        };
        let mut source = Source::docker(access, directory.0.join("policies"));
        let (sender, events) = sync_channel(64);
        source.watch(sender).unwrap();
        Self { source, events, world: World::default(), readiness: Readiness::nothing(), directory }
    }

    fn engine(&self) -> Engine {
        Engine::start(&self.directory.0.join("docker.sock"))
    }

    /// Goes on until the pods, as `namespace/name address...`, are these.
    fn until_pods_are(&mut self, wanted: &[&str]) {
        self.until(&format!("{wanted:?}"), |follower| follower.pods() == wanted);
    }

    fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = clock::now();
        while !condition(self) {
            assert!(start.elapsed() < PATIENCE, "{what} did not come to be; known: {:#?}", self.world);
            let _none_is_fine = self.events.recv_timeout(Duration::from_millis(20));
            self.look();
        }
    }

    fn look(&mut self) {
        let News { changes, readiness } = self.source.poll(&self.world).unwrap();
        self.readiness = readiness;
        for change in changes {
            self.world.apply(change);
        }
    }

    fn pods(&self) -> Vec<String> {
        let pod = |pod: &weave_policy::Pod| {
            let addresses = pod.own_addresses().iter().map(|address| format!(" {address}"));
            addresses.fold(pod.id.to_string(), |text, address| text + &address)
        };
        self.world.pods.values().map(pod).collect()
    }
}

const ELSEWHERE: &str = "shop/elsewhere 10.9.9.9";

#[test]
fn containers_come_and_go_and_are_known_before_their_first_process_runs() {
    let mut follower = Follower::new();
    let engine = follower.engine();
    follower.until("a first list", |follower| follower.readiness == Readiness::Everything);
    engine.create("c1", &[("weave.namespace", "shop"), ("app", "web")]);
    follower.until_pods_are(&[ELSEWHERE, "shop/name-of-c1"]);
    engine.connect("c1", "172.17.0.2");
    follower.until_pods_are(&[ELSEWHERE, "shop/name-of-c1 172.17.0.2"]);
    engine.begin("c1");
    engine.create("c2", &[]);
    engine.run("c2", "172.17.0.3");
    let both = ["default/name-of-c2 172.17.0.3", ELSEWHERE, "shop/name-of-c1 172.17.0.2"];
    follower.until_pods_are(&both);
    let pod = follower.world.pods.values().find(|pod| pod.id.name == "name-of-c1").unwrap();
    assert_eq!((pod.labels.get("app").map(String::as_str), pod.node.as_str()), (Some("web"), "here"));
    assert_eq!(follower.world.namespaces.keys().collect::<Vec<_>>(), ["default", "shop"]);
    // Its address is another's at once.
    engine.stop("c1");
    engine.create("c3", &[("weave.namespace", "shop")]);
    engine.run("c3", "172.17.0.2");
    follower.until_pods_are(&[
        "default/name-of-c2 172.17.0.3",
        ELSEWHERE,
        "shop/name-of-c1",
        "shop/name-of-c3 172.17.0.2",
    ]);
    for id in ["c1", "c2", "c3"] {
        engine.stop(id);
        engine.remove(id);
    }
    follower.until_pods_are(&[ELSEWHERE]);
}

#[test]
fn what_is_known_stays_while_the_engine_is_away_and_what_happened_is_found_afterwards() {
    let mut follower = Follower::new();
    assert!(matches!(follower.readiness, Readiness::Missing(_)), "there is no engine yet");
    let error = follower.source.catch_up().unwrap_err().to_string();
    assert!(error.contains("no Docker engine listens"), "{error}");
    let engine = follower.engine();
    engine.create("c1", &[]);
    engine.run("c1", "172.17.0.2");
    follower.until_pods_are(&["default/name-of-c1 172.17.0.2", ELSEWHERE]);
    engine.set_down(true);
    follower.until("a word about it", |follower| !follower.source.troubled().is_empty());
    assert!(follower.source.catch_up().is_err());
    follower.look();
    assert_eq!(follower.pods(), ["default/name-of-c1 172.17.0.2", ELSEWHERE]);
    assert_eq!(follower.readiness, Readiness::Everything);
    engine.stop("c1");
    engine.create("c2", &[]);
    engine.run("c2", "172.17.0.4");
    engine.set_down(false);
    follower.until_pods_are(&["default/name-of-c1", "default/name-of-c2 172.17.0.4", ELSEWHERE]);
    assert!(follower.source.troubled().is_empty());
}

#[test]
fn whoever_waits_is_told_of_everything_before_and_lost_events_are_made_up_for() {
    let mut follower = Follower::new();
    let engine = follower.engine();
    follower.until("a first list", |follower| follower.readiness == Readiness::Everything);
    for n in 0..50 {
        let id = format!("c{n}");
        engine.create(&id, &[]);
        engine.run(&id, &format!("172.17.1.{n}"));
        follower.source.catch_up().unwrap();
        follower.look();
        assert!(follower.pods().contains(&format!("default/name-of-c{n} 172.17.1.{n}")), "{n}");
    }
    assert!(engine.lists() >= 50);
    engine.readdress_in_silence("c7", "172.17.2.7");
    follower.until("another look", |follower| {
        follower.pods().contains(&"default/name-of-c7 172.17.2.7".to_owned())
    });
}
