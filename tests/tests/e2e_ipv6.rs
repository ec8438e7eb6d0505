//! IPv6 below and above.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use weave_tests::{
    lab::Host,
    product::Settings,
    scene::{
        LIMIT, attach, attach_each, await_all_pings, await_mesh, await_ping_of, finish, hosts, lab, play,
        routers, settings, start_all,
    },
    traffic::{Server, TcpReport, measure},
};

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn an_underlay_without_ipv4_carries_everything() -> Result<()> {
    play("an_underlay_without_ipv4_carries_everything", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        for host in &hosts {
            host.run("ip -4 addr flush dev eth1")?;
        }
        let first = hosts[0].addresses_in(1)[1];
        let routers = start_all(programs, &hosts, |host| {
            let peers = if host.number() == 1 { Vec::new() } else { vec![format!("[{first}]:6783")] };
            Settings { peers, ..settings(3, &[], &[]) }
        })?;
        await_mesh(&routers, 3)?;
        let attached = attach_each(&routers)?;
        await_all_pings(&lab, &attached)?;
        await_ping_of(&lab, &attached[0].container, attached[2].address(), 8000)?;
        let server = Server::start(lab.generator(), &attached[2].container, attached[2].address())?;
        let line = format!("tcp {} --seconds 0.5", server.at());
        let tcp: TcpReport = measure(lab.generator(), &attached[0].container, &line)?;
        ensure!(tcp.bytes > 1_000_000, "{tcp:?}");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn containers_reach_each_other_over_an_ipv6_range() -> Result<()> {
    play("containers_reach_each_other_over_an_ipv6_range", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &["--ipalloc-range=fd00:7ea::/64"])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        ensure!(attached.iter().all(|a| a.addresses.len() == 1 && a.address().is_ipv6()), "{attached:?}");
        // Addresses serve at once: nothing waits for duplicate detection.
        let shown = attached[0].container.run("ip -o -6 addr show dev ethwe scope global")?;
        ensure!(!shown.contains("tentative"), "{shown}");
        await_all_pings(&lab, &attached)?;
        await_ping_of(&lab, &attached[0].container, attached[1].address(), 8000)?;
        let server = Server::start(lab.generator(), &attached[1].container, attached[1].address())?;
        let line = format!("tcp {} --seconds 0.5", server.at());
        let tcp: TcpReport = measure(lab.generator(), &attached[0].container, &line)?;
        ensure!(tcp.bytes > 1_000_000, "{tcp:?}");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn with_two_ranges_every_container_has_an_address_of_each_family() -> Result<()> {
    play("with_two_ranges_every_container_has_an_address_of_each_family", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &["--ipalloc-range=10.40.0.0/16,fd00:7ea::/64"])?;
        await_mesh(&routers, 1)?;
        let attached = [attach(&routers[0], "c1", "--name one")?, attach(&routers[1], "c1", "--name two")?];
        for one in &attached {
            let families =
                [IpAddr::is_ipv4, IpAddr::is_ipv6].map(|is| one.addresses.iter().filter(|a| is(a)).count());
            ensure!(families == [1, 1], "{} has {:?}", one.id, one.addresses);
        }
        await_all_pings(&lab, &attached)?;
        weave_tests::clock::wait_until("both addresses of the name", LIMIT, || {
            let said = routers[0].tell("dns-lookup two")?;
            let has_all = attached[1].addresses.iter().all(|a| said.contains(&a.to_string()));
            Ok(weave_tests::clock::Look::when(has_all, || said.clone()))
        })?;
        let gone = routers[1].tell(&format!("detach {}", attached[1].id))?;
        ensure!(attached[1].addresses.iter().all(|a| gone.contains(&a.to_string())), "detach said {gone}");
        finish(routers)
    })
}
