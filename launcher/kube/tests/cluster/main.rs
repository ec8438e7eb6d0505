//! The real client against a server with good and bad days, and a ring that is easily looked through.
#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "a lock that is poisoned, or a test that cannot go on"
)]

mod node;
mod ring;
mod server;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::Notify, time::timeout};
use weave_kube::{
    clock,
    cluster::CALLS,
    lock::{self, Lock},
    reclaim::reclaim,
    roster::{Member, Roster},
    run::watch_names,
};

use ring::{Router, Space};
use server::Server;

fn member(number: usize) -> Member {
    Member {
        peer_name: format!("02:00:00:00:{:02x}:{:02x}", number / 256, number % 256),
        node_name: format!("n{number}"),
    }
}

/// A cluster of so many nodes, all in the list, each with a thousand addresses.
async fn cluster(nodes: usize) -> (Server, Arc<Mutex<Space>>) {
    let server = Server::start().await;
    let mut space = Space { ready: true, ..Space::default() };
    for number in 0..nodes {
        let member = member(number);
        server.add_node(&member.node_name);
        space.alive.insert(member.peer_name.clone());
        space.addresses_by_peer.insert(member.peer_name, 1000);
    }
    let api = server.cluster();
    // All at once, as after the roll-out of a DaemonSet, sixteen at a time.
    for numbers in (0..nodes).collect::<Vec<_>>().chunks(16) {
        let members: Vec<Member> = numbers.iter().map(|number| member(*number)).collect();
        let added = join_all(members.iter().map(|member| Roster::add(&api, member))).await;
        assert!(added.into_iter().all(|added| added.unwrap()));
    }
    (server, Arc::new(Mutex::new(space)))
}

fn router(number: usize, space: &Arc<Mutex<Space>>) -> Router {
    Router { peer: member(number).peer_name, space: Arc::clone(space) }
}

fn kill(number: usize, server: &Server, space: &Arc<Mutex<Space>>) {
    server.delete_node(&member(number).node_name);
    space.lock().unwrap().alive.remove(&member(number).peer_name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_200_nodes_60_go_for_good_and_all_their_space_comes_back_whatever_the_server_does() {
    const NODES: usize = 200;
    let (server, space) = cluster(NODES).await;
    let dead: Vec<usize> = (0..NODES).filter(|number| number % 10 < 3).collect();
    server.lose_answers(7);
    for some in dead.chunks(20) {
        some.iter().for_each(|number| kill(*number, &server, &space));
        server.fail(5);
        // A few of the living look at the same time; a lock that lasts no time at all keeps nobody out.
        let looks = [3, 13, 23, 33].map(|number| {
            let (api, router) = (server.cluster(), router(number, &space));
            async move {
                let mut lock = Lock::new(member(number).node_name, Duration::ZERO);
                reclaim(&api, &router, &mut lock, &member(number)).await
            }
        });
        // Who failed has done what it has done.
        drop(join_all(looks).await);
    }
    server.lose_answers(0);
    let mut lock = Lock::new(member(9).node_name, Duration::ZERO);
    for _ in 0..100 {
        let progress = reclaim(&server.cluster(), &router(9, &space), &mut lock, &member(9)).await;
        if progress.is_ok_and(|progress| progress == weave_kube::reclaim::Progress::default()) {
            break;
        }
    }
    let roster = Roster::read(&server.cluster()).await.unwrap();
    let living: Vec<Member> = (0..NODES).filter(|number| !dead.contains(number)).map(member).collect();
    let listed: BTreeSet<Member> = roster.peers.into_iter().collect();
    assert_eq!(listed, living.iter().cloned().collect());
    let space = space.lock().unwrap();
    assert_eq!(space.addresses_by_peer.values().sum::<u128>(), 1000 * NODES as u128, "lost or doubled");
    let owners: BTreeSet<&String> = space.addresses_by_peer.keys().collect();
    assert!(owners.iter().all(|owner| space.alive.contains(*owner)), "space of the dead is left: {owners:?}");
    assert_eq!(space.taken, dead.len(), "each dead router's space was taken over once");
}

#[tokio::test]
async fn who_is_alive_keeps_its_space_though_its_node_is_gone() {
    let (server, space) = cluster(3).await;
    server.delete_node("n2");
    let mut lock = Lock::new("n0".to_owned(), lock::DURATION);
    let progress = reclaim(&server.cluster(), &router(0, &space), &mut lock, &member(0)).await.unwrap();
    assert_eq!(progress.left.len(), 1, "{progress:?}");
    assert_eq!(Roster::read(&server.cluster()).await.unwrap().peers.len(), 3);
    space.lock().unwrap().alive.remove(&member(2).peer_name);
    let progress = reclaim(&server.cluster(), &router(0, &space), &mut lock, &member(0)).await.unwrap();
    assert_eq!(progress.taken_over, [(member(2), 1000)]);
}

#[tokio::test]
async fn a_node_that_was_made_anew_takes_over_from_its_own_past() {
    let (server, space) = cluster(2).await;
    let again = Member { peer_name: "02:00:00:00:ff:01".to_owned(), ..member(1) };
    space.lock().unwrap().alive = BTreeSet::from([member(0).peer_name, again.peer_name.clone()]);
    assert!(Roster::add(&server.cluster(), &again).await.unwrap());
    assert!(!Roster::add(&server.cluster(), &again).await.unwrap(), "once is enough");
    let router = Router { peer: again.peer_name.clone(), space: Arc::clone(&space) };
    let mut lock = Lock::new("n1".to_owned(), lock::DURATION);
    let progress = reclaim(&server.cluster(), &router, &mut lock, &again).await.unwrap();
    assert_eq!(progress.taken_over, [(member(1), 1000)]);
    assert_eq!(Roster::read(&server.cluster()).await.unwrap().peers, [member(0), again]);
}

#[tokio::test]
async fn nothing_is_taken_over_without_a_ring_without_a_lease_or_in_an_empty_cluster() {
    let (server, space) = cluster(3).await;
    kill(2, &server, &space);
    let (api, ring) = (server.cluster(), router(0, &space));
    let mut mine = Lock::new("n0".to_owned(), lock::DURATION);
    space.lock().unwrap().ready = false;
    reclaim(&api, &ring, &mut mine, &member(0)).await.unwrap();
    space.lock().unwrap().ready = true;
    // Somebody else has the lease, and dies with it.
    let mut theirs = Lock::new("n1".to_owned(), lock::DURATION);
    let now = clock::now();
    assert_eq!(theirs.take(&api, now).await.unwrap(), None);
    reclaim(&api, &ring, &mut mine, &member(0)).await.unwrap();
    assert_eq!(space.lock().unwrap().taken, 0);
    assert_eq!(mine.take(&api, now + lock::DURATION / 2).await.unwrap(), Some("n1".to_owned()));
    // By our own clock it has run out only a whole duration after we saw it first.
    assert_eq!(mine.take(&api, now + lock::DURATION * 2).await.unwrap(), None);
    assert_eq!(theirs.take(&api, now).await.unwrap(), Some("n0".to_owned()));
    // A server that knows no node at all is not believed.
    server.delete_node("n0");
    server.delete_node("n1");
    let error = reclaim(&api, &ring, &mut mine, &member(0)).await.unwrap_err().to_string();
    assert!(error.contains("our own node n0"), "{error}");
    assert_eq!(space.lock().unwrap().taken, 0);
}

#[tokio::test]
async fn a_node_that_comes_or_goes_is_news_even_when_the_watch_missed_it() {
    let (server, _space) = cluster(20).await;
    let news = Arc::new(Notify::new());
    let watch = tokio::spawn(watch_names(server.cluster(), Arc::clone(&news)));
    let heard = || async { timeout(Duration::from_secs(30), news.notified()).await.expect("no news") };
    heard().await;
    server.add_node("new");
    heard().await;
    server.delete_node("n7");
    heard().await;
    // The history is forgotten, and with it that two nodes came and went.
    server.add_node("unseen");
    heard().await;
    server.forget();
    server.delete_node("n8");
    heard().await;
    server.fail(3);
    server.forget();
    server.add_node("another");
    heard().await;
    watch.abort();
}

#[tokio::test]
async fn every_call_is_declared_and_every_declared_call_is_made() {
    let (server, space) = cluster(3).await;
    let api = server.cluster();
    api.set_network_works("n0").await.unwrap();
    let condition = server.node("n0")["status"]["conditions"][0].clone();
    assert_eq!((&condition["type"], &condition["status"]), (&"NetworkUnavailable".into(), &"False".into()));
    assert!(condition["lastTransitionTime"].as_str().unwrap().contains('T'), "{condition}");
    assert_eq!(api.nodes().await.unwrap().len(), 3);
    kill(2, &server, &space);
    let mut lock = Lock::new("n0".to_owned(), lock::DURATION);
    reclaim(&api, &router(0, &space), &mut lock, &member(0)).await.unwrap();
    let news = Arc::new(Notify::new());
    let watch = tokio::spawn(watch_names(api, Arc::clone(&news)));
    timeout(Duration::from_secs(30), news.notified()).await.unwrap();
    server.add_node("new");
    timeout(Duration::from_secs(30), news.notified()).await.unwrap();
    watch.abort();
    let declared: BTreeSet<(String, String, Option<String>)> = CALLS
        .iter()
        .map(|(verb, resource, name)| ((*verb).to_owned(), (*resource).to_owned(), name.map(str::to_owned)))
        .collect();
    assert_eq!(server.asked(), declared);
}
