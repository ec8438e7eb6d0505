//! `weave reset` and `weave trace`: what operators do when a host goes, and when something does not arrive.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use weave_api::{Exit, Overlay, TraceResponse};
use weave_tests::{
    clock::{Look, wait_until},
    lab::Host,
    product::{Router, Settings, peer_name},
    scene::{
        LIMIT, attach, attach_each, await_all, await_all_pings, await_mesh, await_report, finish, hosts, lab,
        play, refused, settings, start_all,
    },
    tool,
};

/// Fails if the host's kernel or disk holds anything of ours.
fn holds_nothing(router: &Router<'_>) -> Result<()> {
    let host = router.host();
    let links = host.run("ip -o link show")?;
    let ours = |line: &&str| line.contains(": weave") || line.contains("vethwe");
    ensure!(!links.lines().any(|line| ours(&line)), "{}: interfaces are left: {links}", host.name());
    let rules = host.run("nft list ruleset")?;
    ensure!(!rules.contains("weave"), "{}: rules are left: {rules}", host.name());
    let left = router.run_dir().exists();
    ensure!(!left, "{}: the directory of socket and store is left", host.name());
    Ok(())
}

fn store_of(router: &Router<'_>) -> String {
    router.run_dir().join("db").display().to_string()
}

/// Settings without a password: the kernel may carry everything.
fn open(routers: usize, peers: &[&Host], flags: &[&str]) -> Settings {
    Settings { password: None, ..settings(routers, peers, flags) }
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_reset_hands_the_addresses_over_and_leaves_nothing_on_the_host() -> Result<()> {
    play("a_reset_hands_the_addresses_over_and_leaves_nothing_on_the_host", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = start_all(programs, &hosts, |host| {
            let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
            open(2, peers, &[])
        })?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_all_pings(&lab, &attached)?;
        await_all("the kernel's path", &routers, |report| {
            report.router.connections.iter().all(|link| link.overlay == Some(Overlay::Fastdp))
        })?;
        routers[0].tell("expose")?;
        hosts[0].run("ip link show weave-vx")?;
        routers[0].tell("reset")?;
        holds_nothing(&routers[0])?;
        let inside = attached[0].container.run("ip -o link show")?;
        ensure!(!inside.contains("ethwe"), "the container has kept its interface: {inside}");
        await_report("all addresses", &routers[1], |report| {
            let owners = report.ipam.iter().flat_map(|ipam| &ipam.owners);
            owners.clone().count() == 1 && owners.clone().all(|owner| owner.own && owner.percent > 99.9)
        })?;
        // A second time there is nothing to do, and that is no failure.
        let again = routers[0].tell(&format!("reset --db-prefix {}", store_of(&routers[0])))?;
        ensure!(again == "there was nothing to remove", "{again}");
        refused(&routers[0], "status", Exit::NotRunning)?;
        // Others are not touched by what happened next door.
        hosts[1].run("ip link show weave-vx")?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_reset_that_would_lose_addresses_asks_for_force_and_needs_no_running_router() -> Result<()> {
    play("a_reset_that_would_lose_addresses_asks_for_force_and_needs_no_running_router", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let mut routers = start_all(programs, &hosts, |host| {
            let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
            open(2, peers, &[])
        })?;
        await_mesh(&routers, 1)?;
        attach_each(&routers)?;
        routers[1].kill()?;
        await_report("the loss of a peer", &routers[0], |report| {
            report.ipam.iter().flat_map(|ipam| &ipam.owners).any(|owner| !owner.reachable)
        })?;
        let said = refused(&routers[0], "reset --timeout 5", Exit::Conflict)?;
        ensure!(said.contains("taken our addresses over") && said.contains("--force"), "{said}");
        ensure!(routers[0].report()?.ready, "a refused reset has ended the router");
        routers[0].tell("reset --force --timeout 2")?;
        holds_nothing(&routers[0])?;
        // The other one was killed, and left everything.
        hosts[1].run("ip link show weave")?;
        let said = routers[1].tell(&format!("reset --db-prefix {}", store_of(&routers[1])))?;
        ensure!(said.starts_with("removed "), "{said}");
        holds_nothing(&routers[1])?;
        ensure!(!Path::new(&format!("{}-data", store_of(&routers[1]))).exists(), "the store is still there");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_trace_names_every_link_on_the_way_and_says_who_nobody_is() -> Result<()> {
    play("a_trace_names_every_link_on_the_way_and_says_who_nobody_is", |programs| {
        let mut lab = lab()?;
        let (mut left, mut middle, mut right) =
            (lab.add_host("h1")?, lab.add_host("h2")?, lab.add_host("h3")?);
        let near = lab.join(&mut [&mut left, &mut middle])?;
        let far = lab.join(&mut [&mut middle, &mut right])?;
        let hosts = [left, middle, right];
        let towards = [near, far].map(|segment| hosts[1].addresses_in(segment.number())[0].to_string());
        let routers = start_all(programs, &hosts, |host| {
            let mut settings = settings(3, &[], &[]);
            match host.number() {
                1 => settings.peers.push(towards[0].clone()),
                3 => settings.peers.push(towards[1].clone()),
                _ => {}
            }
            settings
        })?;
        await_mesh(&routers, 2)?;
        let here = attach(&routers[0], "here", "")?;
        let there = attach(&routers[2], "there", "--name there")?;
        let target = there.address().to_string();
        wait_until("the name there", LIMIT, || {
            let said = routers[0].tell("dns-lookup there")?;
            Ok(Look::when(said == target, || said.clone()))
        })?;
        for words in [target.clone(), "there".to_owned(), there.mac()?.to_string()] {
            let text = routers[0].tell(&format!("trace {words} -o json"))?;
            let trace: TraceResponse = serde_json::from_str(&text).context(text)?;
            ensure!(trace.stations.len() == 1, "{trace:?}");
            let station = &trace.stations[0];
            ensure!(station.peer.to_string() == peer_name(&hosts[2]), "{station:?}");
            ensure!(station.container.as_ref().is_some_and(|id| id.as_str() == "h3-there"), "{station:?}");
            let [first, second] = station.hops.as_slice() else {
                anyhow::bail!("not two links: {station:?}")
            };
            ensure!(first.to.to_string() == peer_name(&hosts[1]), "{first:?}");
            ensure!(first.encrypted == Some(true) && first.overlay == Some(Overlay::Sleeve), "{first:?}");
            ensure!(first.mtu.is_some() && first.rtt_us.is_some(), "{first:?}");
            ensure!(second.to == station.peer && second.overlay == Some(Overlay::Sleeve), "{second:?}");
        }
        let text = routers[0].tell(&format!("trace {target}"))?;
        ensure!(text.matches("\n   -> ").count() == 2 && text.contains("sleeve encrypted"), "{text}");
        let text = routers[0].tell(&format!("trace {}", here.address()))?;
        ensure!(text.contains("(this host)") && !text.contains("->"), "{text}");
        for nobody in ["10.47.255.1", "nosuchname", "02:00:00:00:77:77"] {
            let output = tool::output(routers[0].weave().args(["trace", nobody]))?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(output.status.code() == Some(Exit::NotFound.code().into()), "{}: {said}", output.status);
            ensure!(said.contains(nobody) && said.starts_with("no"), "{said}");
        }
        finish(routers)
    })
}
