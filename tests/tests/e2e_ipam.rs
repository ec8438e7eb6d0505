//! Two meshes that were started apart and meet: what operators see, and how `weave ipam repair` makes one of them.

use anyhow::{Context as _, Result, ensure};
use weave_api::{Exit, RepairResponse};
use weave_tests::{
    lab::Host,
    product::{Router, Settings},
    scene::{
        attach, await_all_pings, await_mesh, await_report, finish, hosts, lab, play, refused, routers,
        settings, start_all,
    },
    tool,
};

/// What `weave ipam repair` says, and how it ends.
fn repair(router: &Router<'_>, words: &str) -> Result<(String, i32)> {
    let output = tool::output(router.weave().args(["ipam", "repair"]).args(words.split_whitespace()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let code = output.status.code().context("it was ended by a signal")?;
    ensure!(!said.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok((said, code))
}

/// Each host has a router with a ring of its own; nobody knows anybody.
fn apart<'h>(programs: &weave_tests::product::Programs, hosts: &'h [Host]) -> Result<Vec<Router<'h>>> {
    start_all(programs, hosts, |_| Settings { password: None, ..settings(1, &[], &[]) })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn two_rings_that_met_become_one_and_what_was_held_twice_is_named() -> Result<()> {
    play("two_rings_that_met_become_one_and_what_was_held_twice_is_named", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = apart(programs, &hosts)?;
        for router in &routers {
            ensure!(repair(router, "")? == ("nothing to repair\n".to_owned(), 0));
        }
        // Both give out their first address, which is the same one; and each one that the other does not use.
        let twice = [attach(&routers[0], "twice", "")?, attach(&routers[1], "twice", "")?];
        ensure!(twice[0].address() == twice[1].address(), "{twice:?}");
        let once =
            [attach(&routers[0], "once", "10.32.1.1/12")?, attach(&routers[1], "once", "10.32.2.1/12")?];
        routers[1].tell(&format!("connect {}", hosts[0].address()?))?;
        await_mesh(&routers, 1)?;
        for router in &routers {
            await_report("the other ring", router, |report| {
                let conflicts = report.ipam.iter().flat_map(|ipam| &ipam.conflicts);
                conflicts.clone().any(|text| text.contains("weave ipam repair") && !text.contains("unknown"))
            })?;
        }
        // Traffic flows all the same.
        await_all_pings(&lab, &once)?;

        let plans: Vec<RepairResponse> = routers
            .iter()
            .map(|router| Ok(serde_json::from_str(&repair(router, "-o json")?.0)?))
            .collect::<Result<_>>()?;
        let gives_way = |plan: &RepairResponse| plan.meeting.as_ref().is_some_and(|m| m.gives_way);
        ensure!(gives_way(&plans[0]) != gives_way(&plans[1]), "{plans:?}");
        let loser = usize::from(gives_way(&plans[1]));
        let (said, code) = repair(&routers[1 - loser], "--yes")?;
        ensure!(code == 9 && said.contains("our ring is kept"), "{code}: {said}");
        let (said, code) = repair(&routers[loser], "")?;
        ensure!(code == 9 && said.contains("repair --yes"), "{code}: {said}");

        let (said, code) = repair(&routers[loser], "--yes")?;
        ensure!(code == i32::from(Exit::Conflict.code()), "{code}: {said}");
        ensure!(said.contains("has gone over") && said.matches("is ours now").count() == 1, "{said}");
        ensure!(said.matches("is not ours").count() == 1 && said.contains("in use on router"), "{said}");
        let (held, owner) = (format!("{}/12", twice[loser].address()), &twice[loser]);
        routers[loser].tell(&format!("detach {held} {}", owner.id))?;
        let netns = owner.container.netns().display().to_string();
        let given = routers[loser].tell(&format!("attach --netns {netns} {}", owner.id))?;
        ensure!(given != twice[loser].address().to_string(), "{given}");
        ensure!(repair(&routers[loser], "")?.1 == 0);
        for router in &routers {
            await_report("one ring", router, |report| {
                report.problems.is_empty() && report.ipam.iter().all(|ipam| ipam.conflicts.is_empty())
            })?;
        }
        await_all_pings(&lab, &once)?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_ring_without_containers_gives_way_to_one_that_has_some_by_itself() -> Result<()> {
    play("a_ring_without_containers_gives_way_to_one_that_has_some_by_itself", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = apart(programs, &hosts)?;
        routers[1].tell("prime")?;
        let one = attach(&routers[0], "c1", "")?;
        routers[1].tell(&format!("connect {}", hosts[0].address()?))?;
        await_mesh(&routers, 1)?;
        await_report("the ring of the other", &routers[1], |report| {
            report.ipam.iter().any(|ipam| ipam.seeds == [report_name(&routers[0])])
        })?;
        let two = attach(&routers[1], "c1", "")?;
        await_all_pings(&lab, &[one, two])?;
        ensure!(routers.iter().all(|router| router.report().is_ok_and(|report| report.problems.is_empty())));
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_refused_reset_leaves_a_router_that_gives_out_addresses_and_whose_containers_keep_theirs() -> Result<()> {
    play(
        "a_refused_reset_leaves_a_router_that_gives_out_addresses_and_whose_containers_keep_theirs",
        |programs| {
            let mut lab = lab()?;
            let hosts: [Host; 2] = hosts(&mut lab)?;
            let routers = start_all(programs, &hosts, |host| {
                let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
                Settings { password: None, ..settings(2, peers, &[]) }
            })?;
            await_mesh(&routers, 1)?;
            let kept = attach(&routers[0], "kept", "")?;
            attach(&routers[1], "other", "")?;
            // The heir is there and says nothing.
            hosts[1].run(&format!("kill -STOP {}", routers[1].pid()?))?;
            let said = refused(&routers[0], "reset --timeout 2", Exit::Conflict);
            hosts[1].run(&format!("kill -CONT {}", routers[1].pid()?))?;
            ensure!(said?.contains("taken our addresses over"));
            attach(&routers[0], "later", "")?;
            // What the heir was given is ours again where a container uses it.
            await_report("everything to be well again", &routers[0], |report| {
                report.problems.is_empty() && report.ipam.iter().all(|ipam| ipam.active == 2)
            })?;
            let held = format!("{}/12", kept.address());
            refused(&routers[1], &format!("expose {held}"), Exit::Conflict)?;
            finish(routers)
        },
    )
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_host_that_is_gone_for_good_is_removed_by_its_nickname() -> Result<()> {
    play("a_host_that_is_gone_for_good_is_removed_by_its_nickname", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let mut routers = routers(programs, &hosts, &[])?;
        for router in &routers {
            attach(router, "c1", "")?;
        }
        let dead = report_name(&routers[2]);
        let said = refused(&routers[0], "rmpeer h3", Exit::Conflict)?;
        ensure!(said.contains("h3 is alive"), "{said}");
        routers[2].kill()?;
        for router in &routers[..2] {
            await_report("a mesh without the dead one", router, |report| {
                report.router.peers.iter().all(|peer| peer.name != dead)
            })?;
            let shown = router.tell("status ipam")?;
            ensure!(shown.contains(&format!("{dead}(h3)")), "{shown}");
        }
        // Known after a restart too, and to nobody else.
        routers[0].kill()?;
        routers[0].restart()?;
        routers[0].await_ready()?;
        await_mesh(&routers[..2], 1)?;
        let said = refused(&routers[0], "rmpeer h4", Exit::NotFound)?;
        ensure!(said.contains("no peer is called h4"), "{said}");
        let said = routers[0].tell("rmpeer h3")?;
        ensure!(said.contains("IPs taken over from h3"), "{said}");
        for router in &routers[..2] {
            await_report("a ring without the dead one", router, |report| {
                report.ipam.iter().all(|ipam| ipam.owners.iter().all(|owner| owner.peer != dead))
            })?;
        }
        refused(&routers[0], "rmpeer h3", Exit::NotFound)?;
        routers.truncate(2);
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn who_is_waited_for_is_said_in_the_status_to_the_user_and_in_the_log() -> Result<()> {
    play("who_is_waited_for_is_said_in_the_status_to_the_user_and_in_the_log", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let mut routers = start_all(programs, &hosts[..2], |host| {
            let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0], &hosts[2]] };
            settings(5, peers, &[])
        })?;
        await_mesh(&routers, 1)?;
        let lines = |router: &Router<'_>| -> Result<Vec<String>> {
            Ok(router.tell("status ipam")?.lines().map(str::to_owned).collect())
        };
        let [own, other] = [1, 0].map(|n: usize| format!("{}(h{})", report_name(&routers[n]), n + 1));
        let never_met = format!("not heard: {}", hosts[2].address()?);
        let shown = lines(&routers[1])?;
        ensure!(shown[..2] == ["idle".to_owned(), format!("heard: {own}, {other}")], "{shown:?}");
        ensure!(
            shown[2].starts_with(&never_met) && shown[3].starts_with("1 more must be heard"),
            "{shown:?}"
        );
        // Who was met is named when it is gone.
        routers[0].kill()?;
        await_report("the loss of a peer", &routers[1], |report| {
            report.ipam.iter().flat_map(|ipam| &ipam.election).all(|vote| vote.heard.len() == 1)
        })?;
        let output = tool::output(routers[1].weave().args(["prime", "--timeout", "4"]))?;
        ensure!(output.status.code() == Some(Exit::Deadline.code().into()), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let (waited, ended) = said.split_once('\n').context("a line while it waits, and one at the end")?;
        for line in [waited, ended] {
            for text in ["awaiting consensus (quorum: 3, known: 1); not heard: ", &other] {
                ensure!(line.contains(text), "no {text:?} in {said}");
            }
        }
        let log = routers[1].log();
        let line = log.lines().find(|line| line.contains("addresses are waited for")).context("no line")?;
        ensure!(line.contains("quorum: 3, known: 1") && line.contains(&other), "{line}");
        routers.remove(0);
        finish(routers)
    })
}

fn report_name(router: &Router<'_>) -> weave_model::PeerName {
    weave_model::PeerName([2, 0, 0, 0, 0, router.host().number()])
}
