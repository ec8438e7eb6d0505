//! Packets of all sizes over underlays of all sizes.

use anyhow::{Context as _, Result, ensure};
use weave_api::Overlay;
use weave_tests::{
    clock::{Look, wait_until},
    lab::{Host, Lab},
    scene::{
        Attached, LIMIT, attach_each, await_all, await_all_pings, await_mesh, await_ping_of, finish, hosts,
        lab, links, play, routers, start_open,
    },
    traffic::{PingPongReport, Server, TcpReport, measure},
};

/// Datagrams from one byte below to one above what fits a frame, and far beyond.
const SIZES: [u16; 6] = [64, 1300, 1348, 1349, 1400, 9000];

/// All sizes pass, by ping and by UDP; TCP carries bulk both ways.
fn everything_passes(lab: &Lab, attached: &[Attached]) -> Result<()> {
    let (near, far) = (&attached[0], &attached[1]);
    for size in [56, 1200, 1348, 1349, 8000, 40_000] {
        await_ping_of(lab, &near.container, far.address(), size)?;
    }
    let server = Server::start(lab.generator(), &far.container, far.address())?;
    for size in SIZES {
        let line = format!("ping-pong {} --seconds 0.1 --gap-us 2000 --size {size}", server.at());
        let echoes: PingPongReport = measure(lab.generator(), &near.container, &line)?;
        ensure!(echoes.lost == 0, "{size} bytes: {echoes:?}");
    }
    let back = Server::start(lab.generator(), &near.container, near.address())?;
    for (from, to) in [(near, &server), (far, &back)] {
        let line = format!("tcp {} --seconds 0.5", to.at());
        let tcp: TcpReport = measure(lab.generator(), &from.container, &line)?;
        // An emulated machine does no more than that in half a second.
        ensure!(tcp.bytes > 200_000, "bulk from {}: {tcp:?}", from.id);
    }
    Ok(())
}

/// Makes the whole underlay carry packets of at most `mtu` bytes.
fn narrow(hosts: &[Host], mtu: u16) -> Result<()> {
    hosts.iter().try_for_each(|host| host.ip(&format!("link set eth1 mtu {mtu}\n")))
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn packets_of_all_sizes_pass_and_go_on_when_the_underlay_narrows() -> Result<()> {
    play("packets_of_all_sizes_pass_and_go_on_when_the_underlay_narrows", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_all_pings(&lab, &attached)?;
        everything_passes(&lab, &attached)?;
        for mtu in [1300, 1000] {
            // IPv6 goes from an interface this narrow; the link is one over IPv4.
            narrow(&hosts, mtu)?;
            // Who carries learns what passes: the kernel may be given up for the tunnel in between, and the tunnel finds out
            // by what it is given to carry.
            wait_until("the path's new size in the status", LIMIT, || {
                await_ping_of(&lab, &attached[0].container, attached[1].address(), 1348)?;
                let links = routers[0].report()?.router.connections;
                let is_known = links.iter().any(|c| c.mtu.is_some_and(|m| m > 0 && m < mtu));
                Ok(Look::when(is_known, || format!("{links:?}")))
            })?;
            everything_passes(&lab, &attached)?;
        }
        ensure!(
            routers.iter().all(|r| r.report().is_ok_and(|r| r.router.terminations == 0)),
            "a link was lost"
        );
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn an_underlay_that_is_narrow_in_the_middle_is_found_out() -> Result<()> {
    play("an_underlay_that_is_narrow_in_the_middle_is_found_out", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        // The switch drops what is too large, and tells nobody.
        lab.switch().ip("link set p1-1 mtu 1300\nlink set p1-2 mtu 1300\n")?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_all_pings(&lab, &attached)?;
        everything_passes(&lab, &attached).with_context(|| {
            let links = routers.iter().map(|router| router.tell("status connections").unwrap_or_default());
            let container = attached[0].container.run("ip -o link show dev ethwe").unwrap_or_default();
            format!("{}\n{container}", links.collect::<Vec<_>>().join("\n"))
        })?;
        finish(routers)
    })
}

/// Containers send packets of 1280 bytes on any path, and the kernel's tunnel would drop them here.
#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_path_too_narrow_for_the_kernels_tunnel_is_left_to_ours() -> Result<()> {
    play("a_path_too_narrow_for_the_kernels_tunnel_is_left_to_ours", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        lab.switch().ip("link set p1-1 mtu 1300\nlink set p1-2 mtu 1300\n")?;
        let routers = start_open(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_all("the tunnel, and why", &routers, |report| {
            links(report).all(|link| {
                link.overlay == Some(Overlay::Sleeve)
                    && link.info.as_ref().is_some_and(|info| info.contains("only small heartbeats"))
            })
        })?;
        await_all_pings(&lab, &attached)?;
        everything_passes(&lab, &attached)?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_large_mtu_is_used_where_the_underlay_bears_it() -> Result<()> {
    play("a_large_mtu_is_used_where_the_underlay_bears_it", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        lab.switch().ip("link set p1-1 mtu 9000\nlink set p1-2 mtu 9000\n")?;
        narrow(&hosts, 9000)?;
        let routers = routers(programs, &hosts, &["--mtu=8800"])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        let shown = attached[0].container.run("ip -o link show dev ethwe")?;
        ensure!(shown.contains("mtu 8800 "), "{shown}");
        await_all_pings(&lab, &attached)?;
        everything_passes(&lab, &attached)?;
        finish(routers)
    })
}
