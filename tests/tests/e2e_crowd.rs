//! Many routers at once.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use weave_api::{ConnectionState, Report};
use weave_model::PeerName;
use weave_tests::{
    clock,
    lab::Host,
    product::{Router, shows_mesh},
    scene::{attach, await_all, await_mesh, await_ping, finish, hosts, lab, play, routers},
};

const CROWD: usize = 10;

/// The peers that a router has an established link to, each as often as it has one.
fn linked(report: &Report) -> Vec<PeerName> {
    let established = report.router.connections.iter().filter(|c| c.state == ConnectionState::Established);
    established.filter_map(|c| c.peer).collect()
}

/// Exactly one link to every other.
fn is_meshed(routers: &[Router<'_>]) -> Result<()> {
    for router in routers {
        let links = linked(&router.report()?);
        let distinct: BTreeSet<_> = links.iter().collect();
        ensure!(distinct.len() == links.len(), "{} has two links to one peer", router.host().name());
        ensure!(links.len() == routers.len() - 1, "{} has {} links", router.host().name(), links.len());
    }
    Ok(())
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn ten_routers_that_know_one_find_all_and_do_without_it() -> Result<()> {
    play("ten_routers_that_know_one_find_all_and_do_without_it", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; CROWD] = hosts(&mut lab)?;
        let start = clock::now();
        let mut routers = routers(programs, &hosts, &["--no-dns"])?;
        await_mesh(&routers, CROWD * (CROWD - 1) / 2)?;
        let seconds = start.elapsed();
        ensure!(seconds < Duration::from_secs(60), "it took {seconds:?}");
        is_meshed(&routers)?;
        let (near, far) = (attach(&routers[1], "c1", "")?, attach(&routers[CROWD - 1], "c1", "")?);
        await_ping(&lab, &near.container, far.address())?;

        let mut common = routers.remove(0);
        common.kill()?;
        await_all("the loss of the one that all knew", &routers, |report| {
            let rest = report.router.peers.iter().filter(|peer| peer.reachable).count();
            rest == CROWD - 1 && linked(report).len() == CROWD - 2
        })?;
        is_meshed(&routers)?;
        await_ping(&lab, &near.container, far.address())?;
        common.restart()?;
        common.await_ready()?;
        routers.insert(0, common);
        await_all("everybody again", &routers, |report| shows_mesh(report, CROWD, CROWD * (CROWD - 1)))?;
        is_meshed(&routers)?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn two_that_dial_each_other_at_once_keep_one_link() -> Result<()> {
    play("two_that_dial_each_other_at_once_keep_one_link", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 4] = hosts(&mut lab)?;
        let routers = weave_tests::scene::start_all(programs, &hosts, |host| {
            let others: Vec<&Host> = hosts.iter().filter(|other| other.number() != host.number()).collect();
            weave_tests::scene::settings(4, &others, &["--no-dns"])
        })?;
        await_mesh(&routers, 6)?;
        is_meshed(&routers)?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_router_that_dials_itself_says_so_and_makes_no_link() -> Result<()> {
    play("a_router_that_dials_itself_says_so_and_makes_no_link", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let own = hosts[0].address()?.to_string();
        let mut alone = Router::start(
            programs,
            &hosts[0],
            &weave_tests::product::Settings { peers: vec![own], ..weave_tests::scene::settings(1, &[], &[]) },
        )?;
        alone.await_ready()?;
        clock::wait_until("the status to say it", weave_tests::scene::LIMIT, || {
            let said = alone.tell("status connections")?;
            Ok(clock::Look::when(said.contains("itself") || said.contains("ourself"), || said.clone()))
        })?;
        ensure!(alone.report()?.router.peers.len() == 1);
        finish(vec![alone])
    })
}
