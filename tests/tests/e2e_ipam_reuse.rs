//! Addresses that come back: on another interface, on another host, after a restart, and through one reset after the other.

use anyhow::{Result, ensure};
use weave_api::AllocateRequest;
use weave_tests::{
    lab::Host,
    product::{Router, Settings},
    scene::{
        Attached, attach, await_mesh, await_ping, await_report, finish, hosts, lab, play, routers, settings,
        start_all,
    },
    traffic::{PingReport, measure},
};

/// Detaches a container and takes its namespace away.
fn remove(router: &Router<'_>, attached: Attached, name: &str) -> Result<()> {
    router.tell(&format!("detach {}", attached.id))?;
    router.host().run(&format!("ip netns del {name}"))?;
    drop(attached);
    Ok(())
}

/// Attaches a container with just this address, where that is free by now.
fn attach_with(router: &Router<'_>, name: &str, address: &str) -> Result<Attached> {
    let given = attach(router, name, &format!("ip:{address}"))?;
    ensure!(address.starts_with(&given.address().to_string()), "{address} was asked for: {given:?}");
    Ok(given)
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn an_address_on_a_new_interface_or_on_another_host_is_reached_at_once() -> Result<()> {
    play("an_address_on_a_new_interface_or_on_another_host_is_reached_at_once", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let (near, far) = (attach(&routers[0], "near", "")?, attach(&routers[1], "far", "")?);
        let mut moving = attach(&routers[0], "m0", "")?;
        let address = format!("{}/12", moving.address());
        let mut macs = vec![moving.mac()?];
        // Twice on the same host, then to and fro.
        for (turn, at) in [0, 0, 1, 0, 1].into_iter().enumerate() {
            for asking in [&near, &far] {
                await_ping(&lab, &asking.container, moving.address())?;
            }
            let before =
                routers.iter().find(|r| moving.id.starts_with(r.host().name())).unwrap_or(&routers[0]);
            remove(before, moving, &format!("m{turn}"))?;
            moving = attach_with(&routers[at], &format!("m{}", turn + 1), &address)?;
            macs.push(moving.mac()?);
            for asking in [&near, &far] {
                // No neighbour may go on sending to the interface that is gone: the kernel would for half a minute.
                let line = format!("ping {} --count 3 --timeout 1 --size 56", moving.address());
                let heard: PingReport = measure(lab.generator(), &asking.container, &line)?;
                ensure!(heard.received > 0, "turn {turn}, asked by {}: {heard:?}", asking.id);
                let known = asking.container.run(&format!("ip neigh show {}", moving.address()))?;
                ensure!(
                    known.contains(&moving.mac()?.to_string()),
                    "turn {turn}: {known}, not {:?}",
                    macs.last()
                );
            }
        }
        macs.dedup();
        ensure!(macs.len() > 1, "this shows nothing: every interface had the same hardware address");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn what_was_given_is_kept_over_a_restart_and_what_went_meanwhile_is_free() -> Result<()> {
    play("what_was_given_is_kept_over_a_restart_and_what_went_meanwhile_is_free", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let mut routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let exposed = routers[0].tell("expose")?;
        let (kept, gone) = (attach(&routers[0], "kept", "")?, attach(&routers[0], "gone", "")?);
        let other = attach(&routers[1], "other", "")?;
        let free_again = gone.address();
        let mut gone = Some(gone);
        for is_clean in [true, false] {
            if is_clean {
                ensure!(routers[0].stop()?.success(), "the router did not stop in good order");
                hosts[0].run("ip netns del gone")?;
                drop(gone.take());
            } else {
                routers[0].kill()?;
            }
            routers[0].restart()?;
            routers[0].await_ready()?;
            await_mesh(&routers, 1)?;
            await_report("what is still there, and nothing else", &routers[0], |report| {
                report.ipam.iter().all(|ipam| ipam.active == if is_clean { 2 } else { 3 })
            })?;
            ensure!(routers[0].tell("expose")? == exposed, "the host has another address now");
            let shown = routers[0].tell("ps")?;
            ensure!(shown.contains(&kept.address().to_string()), "{shown}");
            for container in [&kept, &other] {
                await_ping(&lab, &container.container, exposed.parse()?)?;
            }
            await_ping(&lab, &other.container, kept.address())?;
            if is_clean {
                ensure!(!shown.contains(&free_again.to_string()), "{shown}");
                let next = attach(&routers[0], "next", "")?;
                ensure!(next.address() == free_again, "{} is free, {next:?} was given", free_again);
                await_ping(&lab, &next.container, other.address())?;
            }
        }
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn one_reset_after_the_other_loses_no_address() -> Result<()> {
    play("one_reset_after_the_other_loses_no_address", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let flags = ["--ipalloc-range=10.32.0.0/26"];
        let mut routers = start_all(programs, &hosts, |host| {
            let peers: Vec<&Host> = hosts.iter().filter(|other| other.number() != host.number()).collect();
            Settings { password: None, ..settings(3, &peers, &flags) }
        })?;
        await_mesh(&routers, 3)?;
        for round in 0..2 {
            for at in 0..hosts.len() {
                let before = attach(&routers[at], &format!("c{round}"), "")?;
                routers[at].tell("reset")?;
                drop(before);
                // The others have all of it, and whoever comes back with nothing gets some.
                for other in (0..hosts.len()).filter(|other| *other != at) {
                    await_report("all addresses with those that stayed", &routers[other], |report| {
                        let owners = report.ipam.iter().flat_map(|ipam| &ipam.owners);
                        owners.clone().all(|owner| owner.reachable)
                            && owners.map(|owner| owner.addresses).sum::<u128>() == 64
                    })?;
                }
                routers[at].restart()?;
                routers[at].await_ready()?;
                await_mesh(&routers, 3)?;
                let back = attach(&routers[at], &format!("d{round}"), "")?;
                ensure!(back.address().to_string().starts_with("10.32.0."), "{back:?}");
            }
        }
        // Every address that no container has can still be given, wherever it lies.
        let active = |router: &Router<'_>| Ok(router.report()?.ipam.map_or(0, |ipam| ipam.active));
        let used = routers.iter().map(active).sum::<Result<u64>>()?;
        ensure!(used == 3, "each reset took all containers of its host: {used} addresses are in use");
        for n in used..62 {
            let container = format!("full{n}").parse()?;
            let request = AllocateRequest { container, subnet: None, timeout_s: Some(20) };
            routers[usize::try_from(n)? % 3].call(&request)?;
        }
        finish(routers)
    })
}
