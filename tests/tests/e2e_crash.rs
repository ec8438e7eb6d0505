//! Routers that are killed without a word come back as if nothing had been.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use weave_api::{AllocateRequest, ListRequest};
use weave_tests::{
    clock::{Look, wait_until},
    lab::Host,
    product::{Api, Router},
    scene::{LIMIT, attach, await_all_pings, await_mesh, finish, hosts, lab, play, routers},
};

/// What clients were told: the address of each container that they asked for.
type Given = BTreeMap<String, IpAddr>;

/// Asks one router for addresses until told to stop, going on when it does not answer.
fn ask(run_dir: &std::path::Path, client: &str, stop: &AtomicBool, count: &AtomicU64) -> Result<Given> {
    let (api, mut given) = (Api::of(run_dir)?, Given::new());
    for n in 0..1_000_000 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{client}-{n}");
        let request = AllocateRequest { container: id.parse()?, subnet: None, timeout_s: Some(20) };
        match api.call(&request) {
            Ok(answer) => {
                ensure!(answer.addresses.len() == 1, "{id} was given {:?}", answer.addresses);
                given.insert(id, answer.addresses[0].address());
                count.fetch_add(1, Ordering::Relaxed);
            }
            // The router is dead, or dies with our request: what it may have given us, nobody has heard of.
            Err(_) => weave_tests::clock::pause(Duration::from_millis(20)),
        }
    }
    Ok(given)
}

/// Kills one router after the other under load, and returns all that was acknowledged.
fn kill_under_load(routers: &mut [Router<'_>], rounds: usize) -> Result<Given> {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let directories: Vec<_> = routers.iter().map(|router| router.run_dir().to_owned()).collect();
    thread::scope(|scope| {
        let mut clients = Vec::new();
        for (host, directory) in directories.iter().enumerate() {
            for client in 0..2 {
                let (stop, count) = (&stop, &count);
                clients.push(scope.spawn(move || ask(directory, &format!("h{host}c{client}"), stop, count)));
            }
        }
        let mut torment = || -> Result<()> {
            for round in 0..rounds {
                let before = count.load(Ordering::Relaxed);
                wait_until("fifty more addresses", LIMIT, || {
                    let now = count.load(Ordering::Relaxed);
                    Ok(Look::when(now >= before + 50, || format!("{} more", now - before)))
                })?;
                let victim = &mut routers[round % directories.len()];
                victim.kill()?;
                victim.restart()?;
                victim.await_ready()?;
            }
            Ok(())
        };
        let outcome = torment();
        stop.store(true, Ordering::Relaxed);
        let mut all = Given::new();
        for client in clients {
            all.extend(client.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        outcome.map(|()| all)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn routers_killed_again_and_again_under_load_neither_lose_nor_double_an_address() -> Result<()> {
    play("routers_killed_again_and_again_under_load_neither_lose_nor_double_an_address", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let mut routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 3)?;
        routers.iter().try_for_each(|router| router.tell("prime").map(drop))?;
        let given = kill_under_load(&mut routers, 6)?;
        await_mesh(&routers, 3)?;
        let mut holders: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        for router in &routers {
            for (owner, addresses) in router.call(&ListRequest {})?.addresses_by_owner {
                for address in addresses {
                    holders.entry(address.address()).or_default().push(owner.to_string());
                }
            }
        }
        let doubled: Vec<_> = holders.iter().filter(|(_, owners)| owners.len() > 1).collect();
        ensure!(doubled.is_empty(), "held twice: {doubled:?}");
        let lost: Vec<_> =
            given.iter().filter(|(id, a)| holders.get(*a).is_none_or(|o| o[0] != **id)).collect();
        ensure!(lost.is_empty(), "lost {} of {}: {lost:?}", lost.len(), given.len());
        let distinct: BTreeSet<_> = given.values().collect();
        ensure!(distinct.len() == given.len(), "one address was given to two");
        ensure!(given.len() >= 300, "only {} addresses were given", given.len());
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_killed_router_comes_back_with_its_name_its_containers_and_their_names() -> Result<()> {
    play("a_killed_router_comes_back_with_its_name_its_containers_and_their_names", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let mut routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let attached = [attach(&routers[0], "c1", "--name one")?, attach(&routers[1], "c1", "--name two")?];
        await_all_pings(&lab, &attached)?;
        for _ in 0..2 {
            let before = (routers[0].tell("ps")?, routers[0].report()?.router.name);
            routers[0].kill()?;
            // Containers of the same host go on talking to it, and keep what they have.
            let line = attached[0].container.run("ip -o addr show dev ethwe")?;
            ensure!(line.contains(&attached[0].address().to_string()), "the address went with the router");
            routers[0].restart()?;
            routers[0].await_ready()?;
            await_mesh(&routers, 1)?;
            ensure!(
                (routers[0].tell("ps")?, routers[0].report()?.router.name) == before,
                "something else is back"
            );
            wait_until("the name on the other host", LIMIT, || {
                let said = routers[1].tell("dns-lookup one")?;
                Ok(Look::when(said == attached[0].address().to_string(), || said.clone()))
            })?;
            ensure!(routers[0].tell("dns-lookup one")? == attached[0].address().to_string());
            await_all_pings(&lab, &attached)?;
            let next = attach(&routers[0], &format!("n{}", routers[0].pid()?), "")?;
            ensure!(attached.iter().all(|a| a.address() != next.address()), "an address was given twice");
        }
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn without_a_given_name_a_router_keeps_the_one_it_made() -> Result<()> {
    play("without_a_given_name_a_router_keeps_the_one_it_made", |programs| {
        let mut lab = lab()?;
        let [host]: [Host; 1] = hosts(&mut lab)?;
        let print = || -> Result<String> {
            let mut command = host.command(programs.weaver());
            command.args(["--print-peer-name", "--db-prefix=/run/named"]);
            weave_tests::tool::run(&mut command)
        };
        let name = print()?;
        ensure!(name.trim().parse::<weave_model::PeerName>().is_ok(), "`{name}` is not a name");
        ensure!(print()? == name, "another name at the second time");
        Ok(())
    })
}
