//! Routers of this version beside those of a former one, host by host in its place, and back. `cargo xtask test --upgrade`
//! builds the former one.

use std::{collections::BTreeSet, env, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weave_api::Overlay;
use weave_tests::{
    clock::{Look, pause, wait_until},
    lab::{Host, Lab},
    product::{Programs, Router, Settings},
    scene::{
        Attached, LIMIT, attach, attach_each, await_all_pings, await_mesh, await_overlay, finish, hosts, lab,
        open, play, settings, start_all,
    },
    traffic::{PingReport, measure},
};

/// Names the directory of the former version's programs.
const FORMER: &str = "WEAVE_FORMER_DIR";

fn former(programs: &Programs) -> Result<Programs> {
    let directory = env::var_os(FORMER).map(PathBuf::from);
    let directory =
        directory.with_context(|| format!("{FORMER} is not set: run with cargo xtask test --upgrade"))?;
    let former = programs.with_weaver(directory.join("weaver"));
    ensure!(former.weaver().is_file(), "{} has not been built", former.weaver().display());
    Ok(former)
}

/// Starts the former version on each host; all but the first know the first.
fn start_former<'h>(
    programs: &Programs,
    hosts: &'h [Host],
    of: impl Fn(&[&Host]) -> Settings,
) -> Result<Vec<Router<'h>>> {
    start_all(&former(programs)?, hosts, |host| {
        let peers: &[&Host] = if host.number() == hosts[0].number() { &[] } else { &[&hosts[0]] };
        of(peers)
    })
}

/// Puts another version in a router's place, as a package manager does: stop, start.
fn replace(router: &mut Router<'_>, programs: &Programs) -> Result<()> {
    // One that refused to start does not run.
    let _running = router.stop();
    router.install(programs);
    router.restart()?;
    router.await_ready()
}

/// What `router` runs.
fn program(router: &Router<'_>) -> Result<PathBuf> {
    Ok(std::fs::read_link(format!("/proc/{}/exe", router.pid()?))?)
}

/// Every container's name is found at every router.
fn names_are_known(routers: &[Router<'_>], attached: &[Attached]) -> Result<()> {
    for router in routers {
        for one in attached {
            wait_until(&format!("the name of {} at {}", one.id, router.host().name()), LIMIT, || {
                let found = router.tell(&format!("dns-lookup {}", one.id))?;
                if found.contains(&one.address().to_string()) {
                    return Ok(Look::Found(()));
                }
                Ok(Look::NotYet(format!("{found}, of {}", router.tell("status dns")?)))
            })?;
        }
    }
    Ok(())
}

/// Pings from each to each while `body` works; none may be lost.
fn without_loss(
    lab: &Lab,
    attached: &[Attached],
    count: u16,
    body: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let pairs = attached.iter().flat_map(|from| attached.iter().map(move |to| (from, to)));
    let pairs: Vec<_> = pairs.filter(|(from, to)| from.id != to.id).collect();
    let (result, reports) = thread::scope(|scope| {
        let pinging: Vec<_> = pairs
            .iter()
            .map(|(from, to)| {
                let line = format!("ping {} --count {count} --timeout 2 --interval 0.02", to.address());
                scope.spawn(move || measure::<PingReport>(lab.generator(), &from.container, &line))
            })
            .collect();
        pause(Duration::from_millis(300));
        let result = body();
        (result, pinging.into_iter().map(|one| one.join()).collect::<Vec<_>>())
    });
    result?;
    for ((from, to), report) in pairs.iter().zip(reports) {
        let report = report.map_err(|_| anyhow::anyhow!("a ping thread panicked"))??;
        ensure!(report.received == report.sent, "{} to {}: {report:?}", from.id, to.id);
    }
    Ok(())
}

/// Every container has the address that it had, and a new one gets another.
fn addresses_are_kept(routers: &[Router<'_>], attached: &[Attached]) -> Result<()> {
    let held: BTreeSet<_> = attached.iter().map(Attached::address).collect();
    ensure!(held.len() == attached.len(), "an address is held twice: {held:?}");
    for (router, one) in routers.iter().zip(attached) {
        let ps = router.tell("ps")?;
        ensure!(ps.contains(&one.address().to_string()), "{} lost its address:\n{ps}", one.id);
    }
    for (number, router) in routers.iter().enumerate() {
        let new = attach(router, &format!("new{number}"), "")?;
        ensure!(!held.contains(&new.address()), "{} was given again", new.address());
    }
    Ok(())
}

#[test]
#[ignore = "needs a former version: run with cargo xtask test --upgrade"]
fn an_open_mesh_is_upgraded_host_by_host_without_losing_a_packet() -> Result<()> {
    play("an_open_mesh_is_upgraded_host_by_host_without_losing_a_packet", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let mut routers = start_former(programs, &hosts, |peers| open(3, peers, &[]))?;
        await_mesh(&routers, 3)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_all_pings(&lab, &attached)?;
        for at in 0..routers.len() {
            without_loss(&lab, &attached, 300, || replace(&mut routers[at], programs))
                .with_context(|| format!("while {} was upgraded", hosts[at].name()))?;
            await_mesh(&routers, 3)?;
            await_overlay(&routers, Overlay::Fastdp)?;
            await_all_pings(&lab, &attached)?;
        }
        for router in &routers {
            ensure!(program(router)? == programs.weaver().canonicalize()?, "{:?}", program(router)?);
        }
        addresses_are_kept(&routers, &attached)?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs a former version: run with cargo xtask test --upgrade"]
fn with_a_password_both_versions_speak_and_a_way_back_that_is_refused_loses_nothing() -> Result<()> {
    play("with_a_password_both_versions_speak_and_a_way_back_that_is_refused_loses_nothing", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let mut routers = start_former(programs, &hosts, |peers| settings(3, peers, &[]))?;
        await_mesh(&routers, 3)?;
        let named =
            |router: &Router<'_>| attach(router, "c1", &format!("--name {}-c1", router.host().name()));
        let attached = routers.iter().map(named).collect::<Result<Vec<Attached>>>()?;
        await_all_pings(&lab, &attached)?;
        names_are_known(&routers, &attached)?;
        // One, two, and then all three of this version.
        for at in [1, 0, 2] {
            replace(&mut routers[at], programs)?;
            await_mesh(&routers, 3)?;
            await_all_pings(&lab, &attached)?;
            names_are_known(&routers, &attached)?;
        }
        // The former version may not understand what this one keeps: then it says so, and changes nothing.
        if let Err(refusal) = replace(&mut routers[1], &former(programs)?) {
            let words = format!("{refusal:#}");
            ensure!(words.contains("store") && words.contains("exit status: 8"), "{words}");
            replace(&mut routers[1], programs)?;
        }
        await_mesh(&routers, 3)?;
        await_all_pings(&lab, &attached)?;
        names_are_known(&routers, &attached)?;
        addresses_are_kept(&routers, &attached)?;
        finish(routers)
    })
}
