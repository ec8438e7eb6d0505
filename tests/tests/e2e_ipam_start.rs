//! The first ring: who is counted, who need not wait, and what can be claimed before it is there.

use anyhow::{Result, ensure};
use weave_api::Exit;
use weave_tests::{
    lab::Host,
    product::{Router, Settings, peer_name},
    scene::{
        attach, await_all_pings, await_mesh, await_report, finish, hosts, lab, play, refused, routers,
        settings,
    },
    tool,
};

/// A router that is started with this `--ipalloc-init`, and knows these.
fn start<'h>(
    programs: &weave_tests::product::Programs,
    host: &'h Host,
    init: &str,
    peers: &[&Host],
) -> Result<Router<'h>> {
    let peers = peers.iter().map(|peer| Ok(peer.address()?.to_string())).collect::<Result<_>>()?;
    let flags = vec![format!("--ipalloc-init={init}"), "--log-level=debug".to_owned()];
    let mut router = Router::start(programs, host, &Settings { peers, password: None, flags })?;
    router.await_ready()?;
    Ok(router)
}

/// What a command says that waits in vain, and meanwhile.
fn in_vain(router: &Router<'_>, words: &str) -> Result<String> {
    let output = tool::output(router.weave().args(words.split_whitespace()))?;
    ensure!(output.status.code() == Some(Exit::Deadline.code().into()), "weave {words}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn observers_call_the_vote_and_are_not_counted() -> Result<()> {
    play("observers_call_the_vote_and_are_not_counted", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let voter = start(programs, &hosts[0], "consensus=2", &[])?;
        let observer = start(programs, &hosts[2], "observer", &[&hosts[0]])?;
        let mut routers = vec![voter, observer];
        await_mesh(&routers, 1)?;
        let said = in_vain(&routers[0], "prime --timeout 1")?;
        ensure!(said.contains("awaiting consensus (quorum: 2, known: 1)"), "{said}");
        ensure!(!routers[0].tell("status ipam")?.contains(&peer_name(&hosts[2])), "an observer is counted");
        let said = in_vain(&routers[1], "prime --timeout 1")?;
        ensure!(said.contains("waiting for the ring"), "{said}");
        routers.push(start(programs, &hosts[1], "consensus=2", &[&hosts[0]])?);
        await_mesh(&routers, 3)?;
        // Nobody else asks for anything.
        let first = attach(&routers[1], "c1", "")?;
        for router in &routers {
            await_report("the ring", router, |report| {
                report.ipam.iter().any(|ipam| ipam.ready && ipam.seeds.len() == 2)
            })?;
        }
        await_all_pings(&lab, &[first, attach(&routers[0], "c1", "")?])?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn with_a_list_of_seeds_nobody_waits_for_anybody() -> Result<()> {
    play("with_a_list_of_seeds_nobody_waits_for_anybody", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let seeds: Vec<String> = hosts.iter().map(peer_name).collect();
        let init = format!("seed={}", seeds.join(","));
        let apart = |host| start(programs, host, &init, &[]);
        let routers = hosts.iter().map(apart).collect::<Result<Vec<_>>>()?;
        let all = routers.iter().map(|router| attach(router, "c1", "")).collect::<Result<Vec<_>>>()?;
        for router in &routers[1..] {
            router.tell(&format!("connect {}", hosts[0].address()?))?;
        }
        await_mesh(&routers, 3)?;
        await_all_pings(&lab, &all)?;
        for router in &routers {
            let report = router.report()?;
            ensure!(report.problems.is_empty(), "{:?}", report.problems);
        }
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn an_address_of_another_is_claimed_when_it_is_free_and_refused_with_its_holder_when_it_is_not() -> Result<()>
{
    let name = "an_address_of_another_is_claimed_when_it_is_free_and_refused_with_its_holder_when_it_is_not";
    play(name, |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts[..2], &["--ipalloc-range=10.32.0.0/24"])?;
        await_mesh(&routers, 1)?;
        let [one, two] = [attach(&routers[0], "c1", "")?, attach(&routers[1], "c1", "")?];
        let held = format!("{}/24", two.address());
        let said = refused(&routers[0], &format!("expose {held}"), Exit::Conflict)?;
        let holder = format!("{}(h2)", peer_name(&hosts[1]));
        ensure!(said.contains("is in use on router") && said.contains(&holder), "{said}");
        let next = match two.address() {
            std::net::IpAddr::V4(address) => std::net::Ipv4Addr::from(u32::from(address) + 1),
            std::net::IpAddr::V6(address) => anyhow::bail!("{address} is of another family"),
        };
        let claimed = attach(&routers[0], "c2", &format!("ip:{next}/24"))?;
        ensure!(claimed.address() == next, "{claimed:?}");
        await_all_pings(&lab, &[one, two, claimed])?;

        // Without a ring: what lies outside the ranges waits for nobody, what lies inside does.
        let alone = Router::start(programs, &hosts[2], &settings(3, &[], &[]))?;
        let mut alone = vec![alone];
        alone[0].await_ready()?;
        let outside = attach(&alone[0], "c1", "192.168.77.4/24")?;
        ensure!(outside.address().to_string() == "192.168.77.4", "{outside:?}");
        let said = in_vain(&alone[0], "expose --timeout 1 10.32.0.9/12")?;
        ensure!(said.contains("quorum: 2, known: 1); 1 more must be launched or connected"), "{said}");
        finish(alone)?;
        finish(routers)
    })
}
