//! Frames that the kernel carries.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use weave_api::Overlay;
use weave_model::PeerName;
use weave_tests::{
    clock::{Look, pause, wait_until},
    lab::{Container, Host, Lab, Segment},
    product::{Programs, Router, Settings, peer_name},
    scene::{
        Attached, LIMIT, attach, attach_each, await_all, await_all_pings, await_mesh, await_overlay,
        await_ping, await_report, broadcasts_are_seen_once, finish, hosts, hosts_on_segment, kernel_encrypts,
        lab, links, open, play, settings, start_all, start_open,
    },
    traffic::{PingReport, Recording, Server, TcpReport, measure},
};

/// Ethernet type ARP, and UDP port of VXLAN, as they stand in packets.
const ARP: [u8; 2] = [0x08, 0x06];
const VXLAN_PORT: [u8; 2] = 6784_u16.to_be_bytes();

/// Waits until the containers' interfaces have this MTU.
fn await_mtu(attached: &[Attached], mtu: u16) -> Result<()> {
    await_mtu_of(attached, &[mtu])
}

/// Waits until the containers' interfaces have one of these MTUs.
fn await_mtu_of(attached: &[Attached], mtus: &[u16]) -> Result<()> {
    for one in attached {
        wait_until(&format!("an MTU of {mtus:?} in {}", one.id), LIMIT, || {
            let line = one.container.run("ip -o link show dev ethwe")?;
            let is_so = |mtu: &u16| line.contains(&format!(" mtu {mtu} "));
            Ok(Look::when(mtus.iter().any(is_so), || line.clone()))
        })?;
    }
    Ok(())
}

/// Bytes that went through the tunnel's door on a host, both ways.
fn through_tap(host: &Host) -> Result<u64> {
    let counters = host.counters()?;
    let tap = counters.get("weave-tap").context("no weave-tap")?;
    Ok(tap.received + tap.sent)
}

/// Bulk data from `from` to `to`; how much it was.
fn carries_tcp(lab: &Lab, from: &Attached, to: &Attached) -> Result<u64> {
    let server = Server::start(lab.generator(), &to.container, to.address())?;
    let mut carried = 0;
    // An emulated machine needs longer.
    for seconds in [0.5, 5.0] {
        let line = format!("tcp {} --seconds {seconds}", server.at());
        let tcp: TcpReport = measure(lab.generator(), &from.container, &line)?;
        carried += tcp.bytes;
        if carried > 1_000_000 {
            return Ok(carried);
        }
    }
    bail!("{} to {}: {carried} bytes in 5.5 s", from.id, to.id)
}

/// Bulk data from each to each passes the tunnel's door on none of the hosts.
fn the_kernel_carries_all(lab: &Lab, hosts: &[&Host], attached: &[Attached]) -> Result<()> {
    let before: Result<Vec<u64>> = hosts.iter().map(|host| through_tap(host)).collect();
    let mut carried = 0;
    for from in attached {
        for to in attached.iter().filter(|to| to.id != from.id) {
            carried += carries_tcp(lab, from, to)?;
        }
    }
    for (host, before) in hosts.iter().zip(before?) {
        let through = through_tap(host)? - before;
        ensure!(
            through < carried / 50,
            "{through} of {carried} bytes went through the tunnel on {}",
            host.name()
        );
    }
    Ok(())
}

/// What the FDB of every device says, line by line, without what is not ours.
fn forwarding_entries(host: &Host) -> Result<Vec<String>> {
    let all = host.run("bridge fdb show")?;
    let mut ours: Vec<String> =
        all.lines().filter(|line| line.contains("extern_learn")).map(|line| line.trim().to_owned()).collect();
    ours.sort();
    Ok(ours)
}

/// Pings every 10 ms while `body` runs; an answer counts that comes within `patience` seconds.
fn ping_during(
    lab: &Lab,
    (from, to): (&Attached, &Attached),
    (count, patience): (u16, f32),
    body: impl FnOnce() -> Result<()>,
) -> Result<PingReport> {
    let line = format!("ping {} --count {count} --timeout {patience} --interval 0.01", to.address());
    let report = thread::scope(|scope| {
        let pinging = scope.spawn(|| measure::<PingReport>(lab.generator(), &from.container, &line));
        pause(Duration::from_millis(300));
        let result = body();
        let report = pinging.join().map_err(|_| anyhow::anyhow!("the ping thread panicked"))?;
        result.and(report)
    })?;
    Ok(report)
}

/// Drops what arrives on UDP 6784 at `host`, or stops doing so.
fn block(host: &Host) -> Result<()> {
    host.run("nft add table inet lab")?;
    host.run("nft add chain inet lab in { type filter hook input priority -300 ; }")?;
    host.run("nft add rule inet lab in udp dport 6784 drop").map(drop)
}

fn unblock(host: &Host) -> Result<()> {
    host.run("nft delete table inet lab").map(drop)
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn the_kernel_carries_what_an_open_mesh_says() -> Result<()> {
    play("the_kernel_carries_what_an_open_mesh_says", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let mut routers = start_open(programs, &hosts, &[])?;
        await_mesh(&routers, 3)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_mtu(&attached, 1450)?;
        await_all_pings(&lab, &attached)?;
        the_kernel_carries_all(&lab, &hosts.each_ref(), &attached)?;
        let status = routers[0].tell("status connections")?;
        ensure!(
            status.lines().all(|line| line.contains(" fastdp ") && line.contains("mtu=1450")),
            "{status}"
        );

        // The work of the kernel outlives the router, and the next one takes it up.
        let before = forwarding_entries(&hosts[0])?;
        ensure!(
            before.len() >= 6,
            "two stations on the bridge and in the tunnel, two destinations: {before:#?}"
        );
        routers[0].stop()?;
        ensure!(forwarding_entries(&hosts[0])? == before, "stopping changed the kernel's tables");
        let down: PingReport = measure(
            lab.generator(),
            &attached[0].container,
            &format!("ping {} --count 5 --timeout 0.5", attached[1].address()),
        )?;
        ensure!(down.received == 5, "{down:?}");
        // An upgrade may take longer than its peers wait for a router.
        wait_until("the others to have given the router up", LIMIT, || {
            let known = routers[1].report()?.router.peers.len() + routers[2].report()?.router.peers.len();
            Ok(Look::when(known == 4, || format!("{known} known to both")))
        })?;
        for (from, to) in [(0, 1), (1, 0), (2, 0)] {
            let line = format!("ping {} --count 5 --timeout 0.5", attached[to].address());
            let late: PingReport = measure(lab.generator(), &attached[from].container, &line)?;
            ensure!(late.received == 5, "from {from} to {to}: {late:?}");
        }
        routers[0].restart()?;
        routers[0].await_ready()?;
        await_mesh(&routers, 3)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_killed_router_costs_no_packet_and_its_return_none() -> Result<()> {
    play("a_killed_router_costs_no_packet_and_its_return_none", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let mut routers = start_open(programs, &hosts, &[])?;
        await_mesh(&routers, 3)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_mtu(&attached, 1450)?;
        await_all_pings(&lab, &attached)?;
        let mut command = hosts[0].command("bridge");
        command.args(["monitor", "fdb"]);
        let monitor = hosts[0].spawn(command, "monitor")?;
        let killed = &mut routers[0];
        let server = Server::start(lab.generator(), &attached[0].container, attached[0].address())?;
        let usual = format!("tcp {} --seconds 1", server.at());
        let usual: TcpReport = measure(lab.generator(), &attached[2].container, &usual)?;
        let bulk = format!("tcp {} --seconds 5", server.at());
        let (ping, bulk) = thread::scope(|scope| {
            let sending =
                scope.spawn(|| measure::<TcpReport>(lab.generator(), &attached[2].container, &bulk));
            let ping = ping_during(&lab, (&attached[0], &attached[1]), (600, 2.0), || {
                killed.kill()?;
                pause(Duration::from_secs(1));
                killed.restart()?;
                killed.await_ready()
            });
            let bulk = sending.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))?;
            anyhow::Ok((ping?, bulk?))
        })?;
        ensure!(ping.received == ping.sent, "{ping:?}");
        // A stream that stood still for a second while the router was gone would show.
        ensure!(
            bulk.seconds < 6.0 && bulk.gbit_per_s() > usual.gbit_per_s() / 3.0,
            "{bulk:?}, usual: {usual:?}"
        );
        await_mesh(&routers, 3)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        let mac = attached[1].mac()?.to_string();
        let deleted: Vec<String> = monitor
            .said()
            .lines()
            .filter(|l| l.contains("Deleted") && l.contains(&mac))
            .map(str::to_owned)
            .collect();
        ensure!(deleted.is_empty(), "entries were deleted: {deleted:#?}");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn blocked_vxlan_falls_back_to_the_tunnel_and_returns() -> Result<()> {
    play("blocked_vxlan_falls_back_to_the_tunnel_and_returns", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = start_open(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_all_pings(&lab, &attached)?;
        let rounds: [&[&Host]; 3] = [&[&hosts[0], &hosts[1]], &[&hosts[0]], &[&hosts[1]]];
        for blocked in rounds {
            await_overlay(&routers, Overlay::Fastdp)?;
            let ping = ping_during(&lab, (&attached[0], &attached[1]), (400, 0.1), || {
                blocked.iter().try_for_each(|host| block(host))
            })?;
            ensure!(ping.longest_gap_ms < 2_000.0, "{ping:?}");
            await_overlay(&routers, Overlay::Sleeve)?;
            await_report("the reason", &routers[0], |report| {
                links(report).all(|link| link.info.as_ref().is_some_and(|info| info.contains("6784")))
            })?;
            let ping = ping_during(&lab, (&attached[1], &attached[0]), (200, 2.0), || {
                blocked.iter().try_for_each(|host| unblock(host))
            })?;
            ensure!(ping.received == ping.sent, "{ping:?}");
        }
        await_overlay(&routers, Overlay::Fastdp)?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn containers_get_the_largest_mtu_that_the_underlay_carries() -> Result<()> {
    play("containers_get_the_largest_mtu_that_the_underlay_carries", |programs| {
        for underlay in [1400, 9000] {
            let mut lab = lab()?;
            let hosts: [Host; 2] = hosts(&mut lab)?;
            set_mtu(&lab, &hosts, underlay)?;
            let routers = start_open(programs, &hosts, &[])?;
            await_mesh(&routers, 1)?;
            let attached = attach_each(&routers)?;
            await_overlay(&routers, Overlay::Fastdp)?;
            await_mtu(&attached, underlay - 50)?;
            the_kernel_carries_all(&lab, &hosts.each_ref(), &attached)?;
            // The switch begins to lose what is large, without a word.
            lab.switch().ip("link set p1-1 mtu 1380\nlink set p1-2 mtu 1380\n")?;
            // Some kernels let frames pass a bridge's port that are larger by a VLAN tag (`is_skb_forwardable`).
            await_mtu_of(&attached, &[1330, 1334])?;
            the_kernel_carries_all(&lab, &hosts.each_ref(), &attached)?;
            finish(routers)?;
        }
        Ok(())
    })
}

fn set_mtu(lab: &Lab, hosts: &[Host], mtu: u16) -> Result<()> {
    for host in hosts {
        lab.switch().ip(&format!("link set p1-{} mtu {mtu}\n", host.number()))?;
        host.ip(&format!("link set eth1 mtu {mtu}\n"))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn nobody_asks_the_network_for_a_container_that_is_known() -> Result<()> {
    play("nobody_asks_the_network_for_a_container_that_is_known", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = start_open(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_mtu(&attached, 1450)?;
        wait_until("the neighbour to be known", LIMIT, || {
            let known = hosts[0].run("ip neigh show dev weave")?;
            Ok(Look::when(known.contains(&attached[1].address().to_string()), || known.clone()))
        })?;
        let recording = Recording::start(lab.generator(), &hosts[0])?;
        let line = format!("ping {} --count 3", attached[1].address());
        let ping: PingReport = measure(lab.generator(), &attached[0].container, &line)?;
        ensure!(ping.received == 3, "{ping:?}");
        let asked = recording.finish()?.iter().filter(|frame| is_tunnelled_arp(frame)).count();
        ensure!(asked == 0, "{asked} ARP requests left the host");
        finish(routers)
    })
}

/// An Ethernet frame with IPv4, UDP to the VXLAN port, and ARP inside.
fn is_tunnelled_arp(frame: &[u8]) -> bool {
    let inner = 14 + 20 + 8 + 8;
    frame.len() > inner + 14 && frame[36..38] == VXLAN_PORT && frame[inner + 12..inner + 14] == ARP
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn nothing_leaves_in_the_clear_where_there_is_a_password() -> Result<()> {
    play("nothing_leaves_in_the_clear_where_there_is_a_password", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let recording = Recording::start(lab.generator(), &hosts[0])?;
        let flags = ["--trusted-subnets=192.0.2.0/24"];
        let routers = start_all(programs, &hosts, |host| {
            let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
            settings(2, peers, &flags)
        })?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_all_pings(&lab, &attached)?;
        let can_encrypt = kernel_encrypts(&hosts[0]);
        await_overlay(&routers, if can_encrypt { Overlay::Fastdp } else { Overlay::Sleeve })?;
        let status = routers[0].tell("status connections")?;
        ensure!(status.contains("fastdp is not encrypted") != can_encrypt, "{status}");
        let clear = recording.finish()?.iter().filter(|f| f.len() > 38 && f[36..38] == VXLAN_PORT).count();
        ensure!(clear == 0, "{clear} VXLAN packets left the host");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn trusted_subnets_and_an_ipv6_underlay_are_carried_by_the_kernel() -> Result<()> {
    play("trusted_subnets_and_an_ipv6_underlay_are_carried_by_the_kernel", |programs| {
        let mut lab = lab()?;
        let (hosts, segment): ([Host; 2], Segment) = hosts_on_segment(&mut lab)?;
        let flags = ["--trusted-subnets=fd31::/16,172.31.0.0/16"];
        let routers = start_all(programs, &hosts, |host| {
            let mut settings = settings(2, &[], &flags);
            if host.number() == 2 {
                settings.peers.push(hosts[0].addresses_in(segment.number())[1].to_string());
            }
            settings
        })?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_mtu(&attached, 1430)?;
        the_kernel_carries_all(&lab, &hosts.each_ref(), &attached)?;
        finish(routers)
    })
}

/// Pairs of hosts, by their places, that a wire joins.
type Wires<'a> = &'a [(usize, usize)];

/// Four hosts, with a wire for each pair of numbers; routers know those whom a wire leads to.
fn wired<'h>(
    programs: &Programs,
    lab: &mut Lab,
    hosts: &'h mut Vec<Host>,
    wires: Wires<'_>,
    slow: &[usize],
) -> Result<Vec<Router<'h>>> {
    for number in 1..=4 {
        hosts.push(lab.add_host(&format!("h{number}"))?);
    }
    let mut peers: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (a, b) in wires {
        let (left, right) = hosts.split_at_mut(*b);
        let segment = lab.join(&mut [&mut left[*a], &mut right[0]])?;
        peers.entry(*b).or_default().push(hosts[*a].addresses_in(segment.number())[0].to_string());
    }
    start_all(programs, hosts, |host| {
        let place = usize::from(host.number()) - 1;
        let flags: &[&str] = if slow.contains(&place) { &["--no-fastdp"] } else { &[] };
        let peers = peers.get(&place).cloned().unwrap_or_default();
        Settings { peers, ..open(4, &[], flags) }
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_line_of_hosts_is_relayed_by_their_kernels() -> Result<()> {
    play("a_line_of_hosts_is_relayed_by_their_kernels", |programs| {
        let mut lab = lab()?;
        let mut hosts = Vec::new();
        let routers = wired(programs, &mut lab, &mut hosts, &[(0, 1), (1, 2), (2, 3)], &[])?;
        await_mesh(&routers, 3)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_mtu(&attached, 1450)?;
        await_all_pings(&lab, &attached)?;
        let places: Vec<&Host> = routers.iter().map(Router::host).collect();
        // Until the kernels are prepared to relay, the tunnels do.
        for (host, others) in [(places[0], ["vni 11", "vni 12"]), (places[3], ["vni 11", "vni 12"])] {
            wait_until("paths over relays in the kernel", LIMIT, || {
                let entries = host.run("bridge fdb show dev weave-vx")?;
                Ok(Look::when(others.iter().all(|vni| entries.contains(vni)), || entries.clone()))
            })?;
        }
        the_kernel_carries_all(&lab, &places, &attached)?;
        broadcasts_are_seen_once(&lab, &attached)?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn rings_and_stars_of_kernels_and_tunnels_reach_everybody_once() -> Result<()> {
    play("rings_and_stars_of_kernels_and_tunnels_reach_everybody_once", |programs| {
        let ring: Wires<'_> = &[(0, 1), (1, 2), (2, 3), (0, 3)];
        let star: Wires<'_> = &[(0, 1), (0, 2), (0, 3)];
        let shapes: [(Wires<'_>, &[usize]); 3] = [(ring, &[]), (ring, &[2]), (star, &[1])];
        for (wires, slow) in shapes {
            let mut lab = lab()?;
            let mut hosts = Vec::new();
            let routers = wired(programs, &mut lab, &mut hosts, wires, slow)?;
            await_mesh(&routers, wires.len())?;
            let attached = attach_each(&routers)?;
            let slow: Vec<String> = slow.iter().map(|place| peer_name(routers[*place].host())).collect();
            let is_slow = |name: PeerName| slow.contains(&name.to_string());
            await_all("every link on its best overlay", &routers, |report| {
                links(report).all(|link| {
                    let any_slow = is_slow(report.router.name) || link.peer.is_some_and(is_slow);
                    link.overlay == Some(if any_slow { Overlay::Sleeve } else { Overlay::Fastdp })
                })
            })?;
            await_all_pings(&lab, &attached)?;
            broadcasts_are_seen_once(&lab, &attached)?;
            let (first, others) = attached.split_first().context("four containers")?;
            for other in others {
                carries_tcp(&lab, first, other)?;
                carries_tcp(&lab, other, first)?;
            }
            finish(routers)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn who_turns_fastdp_off_loses_the_devices_and_nothing_else() -> Result<()> {
    play("who_turns_fastdp_off_loses_the_devices_and_nothing_else", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = start_open(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let near = attach(&routers[0], "c1", "")?;
        let far = attach(&routers[1], "c1", "")?;
        await_overlay(&routers, Overlay::Fastdp)?;
        finish(routers)?;
        let routers = start_open(programs, &hosts, &["--no-fastdp"])?;
        await_mesh(&routers, 1)?;
        await_overlay(&routers, Overlay::Sleeve)?;
        let attached = [near, far];
        await_all_pings(&lab, &attached)?;
        for host in &hosts {
            let devices = host.run("ip -o link show type vxlan")?;
            ensure!(devices.trim().is_empty(), "{devices}");
        }
        let status = routers[0].tell("status connections")?;
        ensure!(status.contains("--no-fastdp"), "{status}");
        finish(routers)
    })
}

/// What nobody attached: an interface of a machine that somebody plugged into the bridge.
fn plug(host: &Host, name: &str, address: &str) -> Result<Container> {
    let machine = host.add_container(name)?;
    host.ip(&format!(
        "link add {name} mtu 1450 type veth peer name eth0 mtu 1450 address 02:00:5e:00:53:01 netns {}\n\
         link set {name} master weave up\n",
        machine.pid()
    ))?;
    machine.ip(&format!("addr add {address} dev eth0\nlink set eth0 up\n"))?;
    Ok(machine)
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_station_that_nobody_attached_is_found_and_followed() -> Result<()> {
    play("a_station_that_nobody_attached_is_found_and_followed", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let routers = start_open(programs, &hosts, &[])?;
        await_mesh(&routers, 3)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        for (place, name) in [(0, "vm1"), (1, "vm2"), (0, "vm3")] {
            let machine = plug(&hosts[place], name, "10.47.200.1/12")?;
            for other in &attached {
                await_ping(&lab, &machine, other.address())?;
                await_ping(&lab, &other.container, "10.47.200.1".parse()?)?;
            }
            // The third host sends to where it is, and to nobody else.
            wait_until("the station in the third host's tunnel", LIMIT, || {
                let entries = hosts[2].run("bridge fdb show dev weave-vx")?;
                let wanted = format!("02:00:5e:00:53:01 dst {}", hosts[place].address()?);
                Ok(Look::when(entries.contains(&wanted), || entries.clone()))
            })?;
            hosts[place].ip(&format!("link del {name}\n"))?;
        }
        wait_until("the station to be forgotten", LIMIT, || {
            let entries = hosts[2].run("bridge fdb show dev weave-vx")?;
            Ok(Look::when(!entries.contains("02:00:5e:00:53:01"), || entries.clone()))
        })?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn strangers_cannot_send_frames_to_containers() -> Result<()> {
    play("strangers_cannot_send_frames_to_containers", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let (members, stranger) = (&hosts[..2], &hosts[2]);
        let routers = start_open(programs, members, &[])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        stranger.ip(&format!(
            "link add vx type vxlan id 1 remote {} dstport 6784\n\
             link set vx address 02:00:5e:00:53:02 up\naddr add 10.47.255.253/12 dev vx\n",
            hosts[0].address()?
        ))?;
        let recording = Recording::start(lab.generator(), &attached[0].container)?;
        let line = format!("ping {} --count 2 --timeout 0.5", attached[0].address());
        let ping: PingReport = measure(lab.generator(), stranger, &line)?;
        let of_stranger = |frame: &&Vec<u8>| frame.len() > 12 && frame[6..12] == [2, 0, 0x5e, 0, 0x53, 2];
        let seen = recording.finish()?.iter().filter(of_stranger).count();
        ensure!(ping.received == 0 && seen == 0, "{seen} frames of a stranger reached a container; {ping:?}");
        let rules = hosts[0].run("nft list table inet weave-fastdp")?;
        let is_counted = |line: &str| {
            line.contains("strangers") && line.contains("packets ") && !line.contains("packets 0 ")
        };
        ensure!(rules.lines().any(is_counted), "the stranger was not counted: {rules}");

        // Somebody flushes all rules: ours come back.
        hosts[0].run("nft flush ruleset")?;
        wait_until("the rules to come back", LIMIT, || {
            let rules = hosts[0].run("nft list ruleset")?;
            let tables = ["inet weave-fastdp", "inet weave", "bridge weave-ports"];
            let are_back = tables.iter().all(|table| rules.contains(&format!("table {table} {{")));
            Ok(Look::when(are_back && rules.contains("6783"), || rules.clone()))
        })?;
        await_all_pings(&lab, &attached)?;
        finish(routers)
    })
}
