//! The real client against a server with good and bad days: what comes out is what a directory with the same objects
//! says, whatever happened on the way.
#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "a lock that is poisoned, or a test that cannot go on"
)]

mod authority;
mod follower;
mod objects;
mod secure;
#[allow(dead_code, reason = "shared with the tests of the daemon")]
mod server;

use std::time::Duration;

use serde_json::json;
use weave_npc::{cluster::Kind, source::Readiness};

use follower::{Follower, by_directory};
use objects::{allow, namespace, pod, policy};
use server::{End, Mood, Server};

/// Two namespaces, eight pods on two nodes, three policies: more than a page of pods and policies each.
fn populated() -> Server {
    let server = Server::start(None);
    populate(&server);
    server
}

/// Something new of each kind, so that whoever waits for news has some.
fn stir(server: &Server, what: &str) {
    server.put("namespaces", namespace("stir", &json!({"team": what})));
    server.put("networkpolicies", allow("stir", "stir", what, "web", "red"));
    server.put("pods", pod("stir", "stir", what, "there", None, 1));
}

fn populate(server: &Server) {
    server.put("namespaces", namespace("x", &json!({"team": "red"})));
    server.put("namespaces", namespace("y", &json!({"team": "blue"})));
    for (n, app) in ["web", "web", "db", "job"].into_iter().enumerate() {
        for (space, node) in [("x", "here"), ("y", "there")] {
            let address = format!("10.0.{}.{n}", u8::from(space == "y"));
            server.put("pods", pod(space, &format!("p{n}"), app, node, Some(&address), 1));
        }
    }
    server.put("networkpolicies", allow("x", "db", "db", "web", "red"));
    server.put("networkpolicies", allow("x", "web", "web", "job", "blue"));
    for n in 0..3 {
        server.put("networkpolicies", policy("y", &format!("deny{n}"), json!({"podSelector": {}})));
    }
}

#[test]
fn what_is_there_at_first_is_listed_in_pages() {
    let server = populated();
    let mut follower = Follower::new(&server);
    follower.until_like(&server);
    assert!(server.requests(&["pods?", "continue="]) >= 2);
    assert_eq!(server.requests(&["limit=500"]), server.requests(&["limit="]));
}

#[test]
fn whatever_happens_to_objects_arrives() {
    let server = populated();
    let mut follower = Follower::new(&server);
    follower.until_like(&server);
    // Created before it has an address, then started; relabelled; rescheduled under its old name.
    server.put("pods", pod("x", "new", "web", "here", None, 2));
    follower.until_like(&server);
    server.put("pods", pod("x", "new", "web", "here", Some("10.0.0.77"), 2));
    follower.until_like(&server);
    server.put("pods", pod("x", "new", "db", "here", Some("10.0.0.77"), 2));
    follower.until_like(&server);
    server.put("pods", pod("x", "new", "db", "there", Some("10.0.1.77"), 3));
    follower.until_like(&server);
    // Its address is another's before anybody says that it has gone, and after.
    server.put("pods", pod("x", "heir", "web", "here", Some("10.0.1.77"), 4));
    follower.until_like(&server);
    server.delete("pods", "x", "new");
    follower.until_like(&server);
    // Finished pods keep an address that is not theirs any more (E19).
    let mut finished = pod("x", "heir", "web", "here", Some("10.0.1.77"), 4);
    finished["status"]["phase"] = json!("Succeeded");
    server.put("pods", finished);
    follower.until_like(&server);
    // Namespaces and policies.
    server.put("namespaces", namespace("y", &json!({"team": "red"})));
    follower.until_like(&server);
    server.put("networkpolicies", allow("x", "db", "db", "job", "red"));
    server.delete("networkpolicies", "x", "web");
    follower.until_like(&server);
    server.delete("networkpolicies", "y", "deny0");
    for n in 0..4 {
        server.delete("pods", "y", &format!("p{n}"));
    }
    follower.until_like(&server);
    assert_eq!(server.requests(&["pods?", "watch"]), 1, "one watch told it all");
}

#[test]
fn watches_that_end_or_tear_lose_nothing_and_repeat_nothing() {
    let server = populated();
    let mut follower = Follower::new(&server);
    follower.until_like(&server);
    let lists = server.requests(&["limit="]);
    let mut told = follower.changes;
    for (n, end) in [End::Clean, End::Torn, End::Clean, End::Torn].into_iter().enumerate() {
        follower.until("open watches", |_| server.open_watches() == 3);
        server.end_watches(end);
        server.put("pods", pod("x", "p0", &format!("app{n}"), "here", Some("10.0.0.0"), 1));
        follower.until_like(&server);
        told += 1;
    }
    assert_eq!(follower.changes, told, "each change once");
    assert_eq!(server.requests(&["limit="]), lists, "nothing had to be listed again");
}

#[test]
fn a_server_that_forgot_is_asked_for_everything_again() {
    let server = populated();
    let mut follower = Follower::new(&server);
    follower.until_like(&server);
    for (n, by_status) in [false, true].into_iter().enumerate() {
        follower.until("open watches", |_| server.open_watches() == 3);
        server.refuse_by_status(by_status);
        server.set_mood(Mood::Down);
        server.end_watches(End::Torn);
        // Nobody will ever be told of these.
        server.delete("pods", "x", &format!("p{n}"));
        server.put("pods", pod("x", "heir", "db", "here", Some(&format!("10.0.0.{n}")), 9));
        server.delete("networkpolicies", "y", &format!("deny{n}"));
        server.put("namespaces", namespace("x", &json!({"team": format!("green{n}")})));
        server.forget();
        server.set_mood(Mood::Good);
        follower.until_like(&server);
        stir(&server, "calm");
        follower.until_like(&server);
    }
}

#[test]
fn a_list_whose_version_expires_between_its_pages_is_begun_anew() {
    let server = populated();
    server.set_mood(Mood::Slow(Duration::from_millis(100)));
    let mut follower = Follower::new(&server);
    follower.until("the first page", |_| server.requests(&["pods?", "continue="]) > 0);
    server.delete("pods", "x", "p0");
    server.forget();
    server.set_mood(Mood::Good);
    follower.until_like(&server);
}

#[test]
fn while_the_server_is_away_what_is_known_stays() {
    let server = populated();
    let mut follower = Follower::new(&server);
    follower.until_like(&server);
    for mood in [Mood::Down, Mood::Status(500), Mood::Status(503), Mood::Status(429), Mood::Status(403)] {
        follower.until("open watches", |_| server.open_watches() == 3);
        server.set_mood(mood);
        let (known, asked) = (follower.world.clone(), server.requests(&[]));
        server.end_watches(End::Torn);
        follower.until("closed watches", |_| server.open_watches() == 0);
        server.put("pods", pod("x", "late", &format!("{mood:?}"), "here", Some("10.0.0.88"), 5));
        follower.until("attempts", |_| server.requests(&[]) >= asked + 6);
        follower.until("a word about it", |follower| follower.source.troubled().len() == 3);
        assert_eq!(follower.world, known);
        server.set_mood(Mood::Good);
        stir(&server, &format!("{mood:?}").replace(['(', ')'], "-"));
        follower.until_like(&server);
    }
}

#[test]
fn it_says_how_much_it_knows_until_it_knows_everything() {
    let server = populated();
    server.set_mood(Mood::Status(500));
    let mut follower = Follower::new(&server);
    follower.until("attempts", |_| server.requests(&[]) >= 3);
    assert_eq!(follower.readiness, Readiness::Missing(Kind::ALL.to_vec()));
    server.set_mood(Mood::WithholdsPods);
    follower.until("who is isolated", |follower| follower.readiness == Readiness::Isolation);
    assert_eq!(follower.world.pods.len(), 0);
    server.set_mood(Mood::Good);
    // What is said to be known has been told by then.
    follower.until("everything", |follower| follower.readiness == Readiness::Everything);
    assert_eq!(follower.world, by_directory(&server));
    follower.until_like(&server);
}

/// Any order of events and faults, from a seed that the failure shows.
#[test]
fn after_any_storm_it_is_like_the_server() {
    for seed in 1..=20u64 {
        let server = populated();
        let mut follower = Follower::new(&server);
        let mut state = seed;
        let mut draw = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for _ in 0..60 {
            let (space, n) = (["x", "y"][draw(2) as usize], draw(4));
            let (app, node) = (["web", "db", "job"][draw(3) as usize], ["here", "there"][draw(2) as usize]);
            let team = ["red", "blue"][draw(2) as usize];
            let (name, address) = (format!("p{n}"), format!("10.0.0.{}", draw(5)));
            let exists = |server: &Server, prefix: &str| {
                server.manifests().iter().any(|(file, _)| file == &format!("{prefix}-{space}-{name}.json"))
            };
            match draw(12) {
                0..=3 => server.put("pods", pod(space, &name, app, node, Some(&address), draw(9) as u8)),
                4 if exists(&server, "pods") => server.delete("pods", space, &name),
                5 => server.put("networkpolicies", allow(space, &name, app, "web", "red")),
                6 if exists(&server, "networkpolicies") => server.delete("networkpolicies", space, &name),
                7 => server.put("namespaces", namespace(space, &json!({"team": team}))),
                8 => server.end_watches([End::Clean, End::Torn][draw(2) as usize]),
                9 => server.forget(),
                10 => server.set_mood([Mood::Good, Mood::Down, Mood::Status(500)][draw(3) as usize]),
                _ => follower.step(),
            }
        }
        server.set_mood(Mood::Good);
        eprintln!("seed {seed}");
        follower.until_like(&server);
    }
}
