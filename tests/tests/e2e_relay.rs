//! Hosts that do not reach each other directly.

use anyhow::{Result, ensure};
use weave_api::{ConnectionState, Report};
use weave_model::PeerName;
use weave_tests::{
    lab::{Host, Lab, Segment},
    product::{Programs, Router, Settings, peer_name, shows_mesh},
    scene::{
        Attached, attach_each, await_all, await_all_pings, await_mesh, await_report,
        broadcasts_are_seen_once, finish, hosts, hosts_on_segment, lab, play, settings, start_all,
    },
    traffic::{Server, TcpReport, measure},
};

/// Three hosts in a chain: the middle one reaches both, the outer ones only it.
fn chain(lab: &mut Lab) -> Result<([Host; 3], [Segment; 2])> {
    let (mut left, mut middle, mut right) = (lab.add_host("h1")?, lab.add_host("h2")?, lab.add_host("h3")?);
    let near = lab.join(&mut [&mut left, &mut middle])?;
    let far = lab.join(&mut [&mut middle, &mut right])?;
    Ok(([left, middle, right], [near, far]))
}

/// The outer routers know the middle one, by the address that they can reach.
fn chain_settings(hosts: &[Host; 3], segments: [Segment; 2]) -> impl Fn(&Host) -> Settings + use<> {
    let towards_middle = segments.map(|segment| hosts[1].addresses_in(segment.number())[0].to_string());
    move |host| {
        let mut settings = settings(3, &[], &[]);
        match host.number() {
            1 => settings.peers.push(towards_middle[0].clone()),
            3 => settings.peers.push(towards_middle[1].clone()),
            _ => {}
        }
        settings
    }
}

fn name(host: &Host) -> Result<PeerName> {
    Ok(peer_name(host).parse()?)
}

fn next_hop(report: &Report, to: PeerName) -> Option<PeerName> {
    report.router.unicast_routes.iter().find(|route| route.dest == to).and_then(|route| route.via)
}

fn is_linked(report: &Report, to: PeerName) -> bool {
    let links = &report.router.connections;
    links.iter().any(|c| c.peer == Some(to) && c.state == ConnectionState::Established && c.overlay.is_some())
}

/// Bulk data from `from` to `to`: how many bytes.
fn carries_tcp(lab: &Lab, from: &Attached, to: &Attached) -> Result<u64> {
    let server = Server::start(lab.generator(), &to.container, to.address())?;
    let tcp: TcpReport =
        measure(lab.generator(), &from.container, &format!("tcp {} --seconds 0.5", server.at()))?;
    // An emulated machine does no more than that in half a second.
    ensure!(tcp.bytes > 200_000, "{} to {}: {tcp:?}", from.id, to.id);
    Ok(tcp.bytes)
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn the_host_in_the_middle_relays_until_the_others_meet() -> Result<()> {
    play("the_host_in_the_middle_relays_until_the_others_meet", |programs| {
        let mut lab = lab()?;
        let (mut hosts, segments) = chain(&mut lab)?;
        let plan = chain_settings(&hosts, segments);
        // The underlay link is there from the start, and cut: addresses are announced when a router starts.
        let [left, _, right] = &mut hosts;
        let shortcut = lab.join(&mut [left, right])?;
        shortcut.cut_off(&hosts[2])?;
        let routers = start_all(programs, &hosts, plan)?;
        await_mesh(&routers, 2)?;
        let attached = attach_each(&routers)?;
        await_all_pings(&lab, &attached)?;
        let (left, right, middle) = (name(&hosts[0])?, name(&hosts[2])?, name(&hosts[1])?);
        await_report("a route through the middle", &routers[0], |r| next_hop(r, right) == Some(middle))?;
        carries_tcp(&lab, &attached[0], &attached[2])?;
        carries_tcp(&lab, &attached[2], &attached[0])?;
        ensure!(!is_linked(&routers[0].report()?, right), "they cannot be linked");

        shortcut.reconnect(&hosts[2])?;
        await_report("the direct link", &routers[0], |r| is_linked(r, right))?;
        await_report("a direct route", &routers[0], |r| next_hop(r, right) == Some(right))?;
        await_report("a direct route back", &routers[2], |r| next_hop(r, left) == Some(left))?;
        let relayed =
            |router: &Router<'_>| Ok::<_, anyhow::Error>(router.report()?.data_plane.total.rx_bytes);
        let before = relayed(&routers[1])?;
        let all = carries_tcp(&lab, &attached[0], &attached[2])?;
        let through_middle = relayed(&routers[1])? - before;
        ensure!(through_middle < all / 2, "{through_middle} of {all} bytes still went through the middle");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_cut_link_is_noticed_traffic_goes_round_it_and_comes_back() -> Result<()> {
    play("a_cut_link_is_noticed_traffic_goes_round_it_and_comes_back", |programs| {
        let mut lab = lab()?;
        let (hosts, segment): ([Host; 3], Segment) = hosts_on_segment(&mut lab)?;
        let routers = start_all(programs, &hosts, |host| {
            let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
            settings(3, peers, &[])
        })?;
        await_mesh(&routers, 3)?;
        let attached = attach_each(&routers)?;
        await_all_pings(&lab, &attached)?;
        let (middle, right) = (name(&hosts[1])?, name(&hosts[2])?);
        segment.cut(&hosts[0], &hosts[2])?;
        await_report("a route round the cut", &routers[0], |r| next_hop(r, right) == Some(middle))?;
        await_all_pings(&lab, &attached)?;
        carries_tcp(&lab, &attached[0], &attached[2])?;
        segment.heal(&hosts[0], &hosts[2])?;
        await_report("the direct route again", &routers[0], |r| next_hop(r, right) == Some(right))?;
        await_mesh(&routers, 3)?;
        await_all_pings(&lab, &attached)?;

        segment.cut_off(&hosts[2])?;
        let two = routers.split_at(2).0;
        await_all("the loss of the third", two, |r| !is_linked(r, right))?;
        await_all_pings(&lab, &attached[..2])?;
        segment.reconnect(&hosts[2])?;
        await_all("everybody again", &routers, |r| shows_mesh(r, 3, 6))?;
        await_all_pings(&lab, &attached)?;
        finish(routers)
    })
}

/// A container asks for an address that nobody has: every container sees each of its requests once.
fn is_seen_once(
    programs: &Programs,
    lab: &Lab,
    hosts: &[Host; 3],
    links: usize,
    settings: impl Fn(&Host) -> Settings,
) -> Result<()> {
    let routers = start_all(programs, hosts, settings)?;
    await_mesh(&routers, links)?;
    let attached = attach_each(&routers)?;
    await_all_pings(lab, &attached)?;
    broadcasts_are_seen_once(lab, &attached)?;
    finish(routers)
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_broadcast_reaches_every_container_exactly_once() -> Result<()> {
    play("a_broadcast_reaches_every_container_exactly_once", |programs| {
        {
            let mut lab = lab()?;
            let (hosts, segments) = chain(&mut lab)?;
            is_seen_once(programs, &lab, &hosts, 2, chain_settings(&hosts, segments))?;
        }
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        is_seen_once(programs, &lab, &hosts, 3, |host| {
            let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
            settings(3, peers, &[])
        })
    })
}
