//! Containers come, go, vanish, and are asked for wrongly.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use weave_api::{Exit, ListRequest};
use weave_tests::{
    clock::{Look, wait_until},
    lab::Host,
    product::Router,
    scene::{
        LIMIT, attach, await_all_pings, await_mesh, await_ping, finish, hosts, lab, play, refused, routers,
    },
    traffic::{PingReport, measure},
};

/// Everything that an attach may change: addresses held, containers, names, interfaces of the host.
fn state(router: &Router<'_>) -> Result<BTreeMap<&'static str, String>> {
    let links = router.host().run("ip -o link show")?;
    let mut links: Vec<&str> = links.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    links.sort_unstable();
    Ok(BTreeMap::from([
        ("addresses", format!("{:?}", router.call(&ListRequest {})?.addresses_by_owner)),
        ("containers", router.tell("ps")?),
        ("names", router.tell("status dns")?),
        ("links", links.join(" ")),
    ]))
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_failed_attach_says_why_and_leaves_nothing() -> Result<()> {
    play("a_failed_attach_says_why_and_leaves_nothing", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let taken = attach(&routers[0], "c1", "--name one")?;
        let bare = hosts[0].add_container("bare")?;
        let foreign = attach(&routers[1], "c1", "")?;
        let before = state(&routers[0])?;
        let netns = bare.netns();
        let netns = netns.display();
        let file = lab.directory().join("no-namespace");
        std::fs::write(&file, "text")?;
        for (line, exit, word) in [
            ("attach --netns /run/netns/none none".to_owned(), Exit::NotFound, "/run/netns/none"),
            (format!("attach --netns {} odd", file.display()), Exit::Failed, "namespace"),
            ("attach no-such-container".to_owned(), Exit::NotFound, "no-such-container"),
            ("attach --pid 4000000 odd".to_owned(), Exit::NotFound, "4000000"),
            (format!("attach ip:{}/12 --netns {netns} thief", taken.address()), Exit::Conflict, "h1-c1"),
            (
                format!("attach ip:{}/12 --netns {netns} --timeout 5 thief", foreign.address()),
                Exit::Conflict,
                "",
            ),
            (format!("attach net:10.99.0.0/24 --netns {netns} outside"), Exit::Usage, "10.99.0.0/24"),
            (format!("attach --name a..b --netns {netns} misnamed"), Exit::Usage, "a..b"),
            (format!("attach --name w.elsewhere.org. --netns {netns} misnamed"), Exit::Usage, "elsewhere"),
        ] {
            let said = refused(&routers[0], &line, exit)?;
            ensure!(said.contains(word), "weave {line}: {said}");
            wait_until(&format!("nothing left of `weave {line}`"), LIMIT, || {
                let now = state(&routers[0])?;
                Ok(Look::when(now == before, || format!("{now:?}; before: {before:?}")))
            })?;
            let links = bare.run("ip -o link show")?;
            ensure!(links.lines().count() == 1, "weave {line} left in the container: {links}");
        }
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn attaching_twice_changes_nothing_and_detaching_takes_everything() -> Result<()> {
    play("attaching_twice_changes_nothing_and_detaching_takes_everything", |programs| {
        let mut lab = lab()?;
        let [host]: [Host; 1] = hosts(&mut lab)?;
        let hosts = [host];
        let routers = routers(programs, &hosts, &[])?;
        let router = &routers[0];
        let empty = state(router)?;
        let one = attach(router, "c1", "--name one")?;
        let before = (state(router)?, one.container.run("ip -o addr show")?);
        let again = router.tell(&format!(
            "attach --netns {} --name one {}",
            one.container.netns().display(),
            one.id
        ))?;
        ensure!(again == one.address().to_string(), "the second attach gave {again}");
        ensure!(
            (state(router)?, one.container.run("ip -o addr show")?) == before,
            "the second attach changed something"
        );
        // A second address, then both go one by one.
        let more = format!("attach net:10.33.0.0/16 --netns {} {}", one.container.netns().display(), one.id);
        let second = router.tell(&more)?;
        ensure!(second.starts_with("10.33."), "{second}");
        let listed = router.tell("ps")?;
        ensure!(listed.contains(&second) && listed.contains(&one.address().to_string()), "{listed}");
        router.tell(&format!("detach net:10.33.0.0/16 {}", one.id))?;
        ensure!(state(router)? == before.0, "detaching the second address changed more than that");
        let gone = router.tell(&format!("detach {}", one.id))?;
        ensure!(gone == one.address().to_string(), "detach said {gone}");
        ensure!(state(router)? == empty, "something is left: {:?}", state(router)?);
        ensure!(one.container.run("ip -o link show")?.lines().count() == 1, "an interface is left");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_container_that_vanishes_gives_back_its_address_and_its_name() -> Result<()> {
    play("a_container_that_vanishes_gives_back_its_address_and_its_name", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let mut routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let before = state(&routers[0])?;
        let vanish = |router: &Router<'_>, name: &str| -> Result<()> {
            let one = attach(router, name, "--name gone")?;
            wait_until("its name on the other host", LIMIT, || {
                let said = routers_lookup(&hosts[1], programs, "gone")?;
                Ok(Look::when(said == one.address().to_string(), || said.clone()))
            })?;
            // The last process and the last mount go: the kernel takes the interface with the namespace.
            router.host().run(&format!("ip netns del {name}"))?;
            drop(one);
            Ok(())
        };
        vanish(&routers[0], "c1")?;
        await_clean(&routers[0], &before)?;
        await_forgotten(&hosts[1], programs)?;
        // While the router is away.
        vanish_while_dead(&mut routers[0])?;
        await_clean(&routers[0], &before)?;
        await_mesh(&routers, 1)?;
        await_forgotten(&hosts[1], programs)?;
        let (a, b) = (attach(&routers[0], "d1", "")?, attach(&routers[1], "d1", "")?);
        await_all_pings(&lab, &[a, b])?;
        finish(routers)
    })
}

/// Attaches a container, kills the router, removes the container and starts the router again.
fn vanish_while_dead(router: &mut Router<'_>) -> Result<()> {
    let two = attach(router, "c2", "--name gone")?;
    router.kill()?;
    router.host().run("ip netns del c2")?;
    drop(two);
    router.restart()?;
    router.await_ready()
}

fn await_clean(router: &Router<'_>, before: &BTreeMap<&'static str, String>) -> Result<()> {
    let waited = wait_until("everything of the container to be gone", LIMIT, || {
        let now = state(router)?;
        Ok(Look::when(now == *before, || format!("{now:?}; before: {before:?}")))
    });
    waited.map(drop)
}

/// What the router of `host` answers when asked for a name.
fn routers_lookup(host: &Host, programs: &weave_tests::product::Programs, name: &str) -> Result<String> {
    let mut command = host.command(programs.weave());
    command.arg(format!("--run-dir=/run/weave-lab/weave-{}", host.name())).args(["dns-lookup", name]);
    let output = weave_tests::tool::output(&mut command)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn await_forgotten(host: &Host, programs: &weave_tests::product::Programs) -> Result<()> {
    let waited = wait_until("its name to be forgotten on the other host", LIMIT, || {
        let said = routers_lookup(host, programs, "gone")?;
        Ok(Look::when(said.is_empty(), || said.clone()))
    });
    waited.map(drop)
}

/// Frames of containers that were dropped on this host because they came from addresses of others.
fn forged(host: &Host) -> Result<u64> {
    let table = host.run("nft list table bridge weave-ports")?;
    let mut words = table.split_whitespace();
    let mut sum = 0;
    while words.any(|word| word == "packets") {
        sum += words.next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(sum)
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_container_speaks_for_itself_only_unless_it_may_do_otherwise() -> Result<()> {
    play("a_container_speaks_for_itself_only_unless_it_may_do_otherwise", |programs| {
        let mut lab = lab()?;
        let [host]: [Host; 1] = hosts(&mut lab)?;
        let hosts = [host];
        let mut routers = routers(programs, &hosts, &[])?;
        let both =
            [attach(&routers[0], "c1", "")?, attach(&routers[0], "c2", "net:10.33.0.0/16 net:default")?];
        await_ping(&lab, &both[0].container, both[1].address())?;
        await_all_pings(&lab, &[attach(&routers[0], "c3", "")?, attach(&routers[0], "c4", "")?])?;
        ensure!(forged(&hosts[0])? == 0, "{} honest frames were dropped", forged(&hosts[0])?);
        // Another Ethernet address, and as if it were on a router that knows nothing yet.
        both[0].container.run("ip link set ethwe address 02:00:00:00:00:99")?;
        routers[0].kill()?;
        let line = format!("ping {} --count 1 --timeout 0.5", both[1].address());
        let unheard = || -> Result<bool> {
            let before = forged(&hosts[0])?;
            let report: PingReport = measure(lab.generator(), &both[0].container, &line)?;
            Ok(report.received == 0 && forged(&hosts[0])? > before)
        };
        ensure!(unheard()?, "what a router leaves behind guards nothing");
        routers[0].restart()?;
        routers[0].await_ready()?;
        ensure!(unheard()?, "a router that was started again guards nothing");
        let netns = both[0].container.netns();
        routers[0].tell(&format!("attach --any-source --netns {} {}", netns.display(), both[0].id))?;
        await_ping(&lab, &both[0].container, both[1].address())?;
        finish(routers)
    })
}
