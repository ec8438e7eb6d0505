//! Frames for more than one: stations that nobody knows, and groups.

use anyhow::{Result, ensure};
use weave_api::Overlay;
use weave_model::Mac;
use weave_tests::{
    clock::{Look, wait_until},
    lab::{Host, Lab},
    product::Router,
    scene::{
        Attached, LIMIT, NOBODY, attach, attach_each, await_mesh, await_overlay, finish, hosts, lab, open,
        play, start_open,
    },
    traffic::{PingReport, Recording, measure},
};

/// Frames to `to` from the first container, and how many of them each container sees.
fn frames_seen(lab: &Lab, attached: &[Attached], to: Mac, ping: &str) -> Result<Vec<usize>> {
    let recordings: Result<Vec<_>> =
        attached.iter().map(|one| Recording::start(lab.generator(), &one.container)).collect();
    let _: PingReport = measure(lab.generator(), &attached[0].container, ping)?;
    let from = attached[0].mac()?.0;
    let is_wanted = |frame: &&Vec<u8>| frame.len() > 14 && frame[..6] == to.0 && frame[6..12] == from;
    let frames: Result<Vec<_>> = recordings?.into_iter().map(Recording::finish).collect();
    Ok(frames?.iter().map(|frames| frames.iter().filter(is_wanted).count()).collect())
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn frames_for_a_station_that_nobody_knows_reach_everybody_but_not_for_ever() -> Result<()> {
    play("frames_for_a_station_that_nobody_knows_reach_everybody_but_not_for_ever", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let routers = start_open(programs, &hosts, &[])?;
        await_mesh(&routers, 3)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        let nobody = Mac([2, 0, 0x5e, 0, 0x53, 0x99]);
        attached[0].container.ip(&format!("neigh add {NOBODY} lladdr {nobody} dev ethwe nud permanent\n"))?;
        let few = frames_seen(&lab, &attached, nobody, &format!("ping {NOBODY} --count 5 --timeout 0.3"))?;
        ensure!(few == [5, 5, 5], "{few:?}");
        let line = format!("ping {NOBODY} --count 1500 --timeout 0.001");
        let many = frames_seen(&lab, &attached, nobody, &line)?;
        ensure!(many[0] == 1500 && many[1..].iter().all(|seen| (10..800).contains(seen)), "{many:?}");
        let dropped = routers[0].report()?.data_plane.drops.get("unknown_station").copied();
        ensure!(dropped.is_some_and(|count| count > 700), "{dropped:?}");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_group_reaches_the_containers_that_joined_it_and_no_others() -> Result<()> {
    play("a_group_reaches_the_containers_that_joined_it_and_no_others", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let mut routers = start_open(programs, &hosts[..2], &[])?;
        // One that is served by the tunnel.
        routers.push(Router::start(programs, &hosts[2], &open(3, &[&hosts[0]], &["--no-fastdp"]))?);
        await_mesh(&routers, 3)?;
        let mut attached = attach_each(&routers)?;
        for router in &routers {
            attached.push(attach(router, "silent", "")?);
        }
        for listener in &attached[1..4] {
            listener.container.ip("addr add 239.1.2.3/32 dev ethwe autojoin\n")?;
        }
        let group = Mac([1, 0, 0x5e, 1, 2, 3]);
        // A bridge trusts what it knows of listeners a while after it began to ask.
        wait_until("groups to go to those who joined them", LIMIT, || {
            let seen = frames_seen(&lab, &attached, group, "ping 239.1.2.3 --count 3 --timeout 0.3")?;
            Ok(Look::when(seen == [3, 3, 3, 3, 0, 0], || format!("{seen:?}")))
        })?;
        let seen = frames_seen(&lab, &attached, group, "ping 239.1.2.3 --count 20 --timeout 0.1")?;
        ensure!(seen == [20, 20, 20, 20, 0, 0], "{seen:?}");
        finish(routers)
    })
}
