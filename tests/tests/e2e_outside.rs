//! Containers and the world outside, through an exposed host: who is seen by whom.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use weave_tests::{
    clock::{Look, wait_until},
    lab::{Host, Lab, Place},
    product::Router,
    scene::{Attached, LIMIT, attach, await_mesh, finish, hosts, lab, play, routers},
    tool,
    traffic::{PingReport, measure},
};

/// Counts echo requests from this address at a container.
fn count(at: &Attached, from: &str) -> Result<()> {
    let table = format!("seen{}", from.replace('.', "_"));
    at.container.run(&format!("nft add table ip {table}"))?;
    at.container.run(&format!("nft add chain ip {table} in {{ type filter hook input priority 0 ; }}"))?;
    at.container
        .run(&format!("nft add rule ip {table} in ip saddr {from} icmp type echo-request counter"))
        .map(drop)
}

/// How many came.
fn counted(at: &Attached, from: &str) -> Result<u64> {
    let listed = at.container.run(&format!("nft list table ip seen{}", from.replace('.', "_")))?;
    let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
    Ok(words.nth(1).context("nft shows no counter")?.parse()?)
}

fn ping(lab: &Lab, from: &Place, to: IpAddr) -> Result<u64> {
    let report: PingReport = measure(lab.generator(), from, &format!("ping {to} --count 3 --timeout 1"))?;
    Ok(report.received.into())
}

/// A container of a host, whose way out is that host.
fn container(router: &Router<'_>, name: &str, gateway: &str) -> Result<Attached> {
    let attached = attach(router, name, "")?;
    attached.container.run(&format!("ip route add default via {gateway}"))?;
    Ok(attached)
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn containers_see_who_calls_from_outside_where_they_are_called_by_their_own_host() -> Result<()> {
    play("containers_see_who_calls_from_outside_where_they_are_called_by_their_own_host", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let mut routers = routers(programs, &hosts[..2], &["--no-masq-local"])?;
        await_mesh(&routers, 1)?;
        let outside = &hosts[2];
        let [door, caller] = [hosts[0].address()?, outside.address()?];
        // One is there before the host is exposed.
        let before = attach(&routers[0], "c1", "")?;
        let exposed = routers[0].tell("expose")?;
        before.container.run(&format!("ip route add default via {exposed}"))?;
        let far = container(&routers[1], "c1", &routers[1].tell("expose")?)?;
        let after = container(&routers[0], "c2", &exposed)?;
        tool::run(hosts[0].command("sh").args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))?;
        outside.run(&format!("ip route add 10.32.0.0/12 via {door}"))?;
        let caller = caller.to_string();
        for attached in [&before, &after, &far] {
            count(attached, &caller)?;
            count(attached, &exposed)?;
        }
        for local in [&before, &after] {
            ensure!(ping(&lab, outside, local.address())? == 3, "{} does not answer", local.id);
            let seen = (counted(local, &caller)?, counted(local, &exposed)?);
            ensure!(seen == (3, 0), "{} saw the caller and the host {seen:?} times", local.id);
        }
        // Its answers would not come by here, so the host stands in for the caller.
        ensure!(ping(&lab, outside, far.address())? == 3, "{} does not answer", far.id);
        let seen = (counted(&far, &caller)?, counted(&far, &exposed)?);
        ensure!(seen == (0, 3), "{} saw the caller and the host {seen:?} times", far.id);
        ensure!(ping(&lab, &before.container, caller.parse()?)? == 3, "the way out is closed");

        // Who goes is not among them any more, and what somebody throws away comes back.
        let set = || hosts[0].run("nft list set inet weave local4");
        routers[0].tell(&format!("detach {}", after.id))?;
        let listed = set()?;
        let [stays, gone] = [&before, &after].map(|one| one.address().to_string());
        ensure!(listed.contains(&stays) && !listed.contains(&gone), "{listed}");
        hosts[0].run("nft flush ruleset")?;
        wait_until("our table to be back", LIMIT, || {
            let listed = set();
            Ok(Look::when(listed.as_ref().is_ok_and(|all| all.contains(&stays)), || format!("{listed:?}")))
        })?;
        ensure!(ping(&lab, outside, before.address())? == 3 && counted(&before, &caller)? == 6);
        // One whose record comes behind that of the host, over a restart.
        let netns = after.container.netns();
        let zoe = routers[0].tell(&format!("attach --netns {} zoe", netns.display()))?;
        ensure!(set()?.contains(&zoe), "{zoe} is not among them");
        routers[0].kill()?;
        hosts[0].run("nft flush ruleset")?;
        routers[0].restart()?;
        routers[0].await_ready()?;
        let listed = set()?;
        ensure!(listed.contains(&stays) && listed.contains(&zoe), "{zoe} or {stays} is not among {listed}");
        routers[0].tell("hide")?;
        ensure!(set().is_err(), "the set is still there, and nothing is exposed");
        finish(routers)
    })
}
