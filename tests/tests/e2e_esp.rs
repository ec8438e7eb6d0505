//! Encrypted frames that the kernel carries. Needs a kernel with ESP: run with `cargo xtask test --guest`.

use std::thread;

use anyhow::{Context as _, Result, ensure};
use weave_api::{KernelKey, Overlay};
use weave_tests::{
    clock::{Look, wait_until},
    lab::{Host, Lab, Place},
    product::{Programs, Router},
    rival::Vxlan,
    scene::{
        Attached, LIMIT, attach_each, await_all_pings, await_mesh, await_overlay, finish, hosts,
        hosts_on_segment, lab, play, routers, settings, start_all,
    },
    traffic::{PingReport, Recording, Server, TcpReport, measure, write_frames},
};

const VXLAN_PORT: [u8; 2] = 6784_u16.to_be_bytes();
const ENCAPSULATION_PORT: [u8; 2] = 6785_u16.to_be_bytes();
const UDP: u8 = 17;
const ESP: u8 = 50;

/// What was seen on the underlay: packets of ESP, and of VXLAN in the clear. IPv4 without options.
fn told_apart(frames: &[Vec<u8>]) -> (usize, usize) {
    let of = |protocol: u8| {
        frames.iter().filter(move |f| f.len() > 38 && f[12..14] == [8, 0] && f[23] == protocol)
    };
    (of(ESP).count(), of(UDP).filter(|frame| frame[36..38] == VXLAN_PORT).count())
}

/// Ends a recording that must show at least so many packets of ESP, and nothing in the clear.
fn shows_esp_alone(recording: Recording, at_least: usize) -> Result<()> {
    let (encrypted, clear) = told_apart(&recording.finish()?);
    ensure!(encrypted >= at_least && clear == 0, "{encrypted} packets of ESP, {clear} of VXLAN in the clear");
    Ok(())
}

/// Keys and policies of a host, as lines.
fn kept(host: &Host) -> Result<(usize, usize)> {
    let (states, policies) = (host.run("ip xfrm state")?, host.run("ip xfrm policy")?);
    let count = |text: &str| text.lines().filter(|line| line.starts_with("src ")).count();
    Ok((count(&states), count(&policies)))
}

/// Waits until a host has the keys and policies of this many links, and nothing else.
fn await_kept(host: &Host, links: usize) -> Result<()> {
    // Two that are taken, each by itself and in UDP, and one to send with; one policy each way, and four that close the port.
    let wanted = (5 * links, 2 * links + 4);
    wait_until("keys and policies of the links alone", LIMIT, || {
        let kept = kept(host)?;
        Ok(Look::when(kept == wanted, || format!("{kept:?} on {}", host.name())))
    })
    .map(drop)
}

fn pings(lab: &Lab, from: &Attached, to: &Attached, count: u16) -> Result<PingReport> {
    let line = format!("ping {} --count {count} --timeout 5 --interval 0.01", to.address());
    measure(lab.generator(), &from.container, &line)
}

fn encrypted_by_the_kernel(routers: &[Router<'_>]) -> Result<()> {
    for router in routers {
        let status = router.tell("status connections")?;
        ensure!(
            status.lines().all(|line| line.contains(" encrypted ") && line.contains(" fastdp ")),
            "{status}"
        );
        ensure!(status.contains("mtu=1416"), "{status}");
    }
    Ok(())
}

#[test]
#[ignore = "needs a kernel with ESP: run with cargo xtask test --guest"]
fn with_a_password_the_underlay_shows_esp_alone_whatever_happens_to_the_router() -> Result<()> {
    play("with_a_password_the_underlay_shows_esp_alone_whatever_happens_to_the_router", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let recording = Recording::start(lab.generator(), lab.switch())?;
        let mut routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_all_pings(&lab, &attached)?;
        encrypted_by_the_kernel(&routers)?;
        hosts.iter().try_for_each(|host| await_kept(host, 1))?;
        let all = pings(&lab, &attached[0], &attached[1], 20)?;
        ensure!(all.received == all.sent, "{all:?}");

        // The kernel goes on without the router, encrypted.
        routers[0].kill()?;
        let down = pings(&lab, &attached[1], &attached[0], 20)?;
        ensure!(down.received == down.sent, "{down:?}");
        ensure!(kept(&hosts[0])? == (5, 6), "{:?}", kept(&hosts[0])?);

        // A new life has new keys, and nothing of the old one is left.
        let before = hosts[0].run("ip xfrm state")?;
        routers[0].restart()?;
        routers[0].await_ready()?;
        await_mesh(&routers, 1)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        hosts.iter().try_for_each(|host| await_kept(host, 1))?;
        let spis = |text: &str| -> Vec<String> {
            let words = text.split_whitespace().filter(|word| word.starts_with("0xe"));
            words.map(str::to_owned).collect()
        };
        let (old, new) = (spis(&before), spis(&hosts[0].run("ip xfrm state")?));
        ensure!(old.len() >= 5 && old.iter().all(|spi| !new.contains(spi)), "{old:?}, {new:?}");
        await_all_pings(&lab, &attached)?;

        shows_esp_alone(recording, 60)?;

        // Somebody flushes one lock or the other, or both at the same time: nothing leaves in the clear, and the tunnel takes
        // over until there are new keys.
        let flushes: [&[&str]; 4] = [
            &["ip xfrm policy flush"],
            &["ip xfrm policy flush", "ip xfrm state flush"],
            &["nft flush ruleset"],
            &["ip xfrm policy flush", "nft flush ruleset"],
        ];
        for flush in flushes {
            let recording = Recording::start(lab.generator(), lab.switch())?;
            flush.iter().try_for_each(|command| hosts[0].run(command).map(drop))?;
            let _some_are_lost = pings(&lab, &attached[0], &attached[1], 20)?;
            await_all_pings(&lab, &attached)?;
            await_overlay(&routers, Overlay::Fastdp)?;
            hosts.iter().try_for_each(|host| await_kept(host, 1))?;
            shows_esp_alone(recording, 1).with_context(|| flush.join(", "))?;
        }
        routers[0].tell("reset")?;
        wait_until("a host without keys and policies", LIMIT, || {
            let kept = kept(&hosts[0])?;
            Ok(Look::when(kept == (0, 0), || format!("{kept:?}")))
        })?;
        drop(routers);
        Ok(())
    })
}

#[test]
#[ignore = "needs a kernel with ESP: run with cargo xtask test --guest"]
fn three_hosts_have_keys_for_each_other_and_lose_them_with_the_link() -> Result<()> {
    play("three_hosts_have_keys_for_each_other_and_lose_them_with_the_link", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let recording = Recording::start(lab.generator(), lab.switch())?;
        let mut routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 3)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_all_pings(&lab, &attached)?;
        encrypted_by_the_kernel(&routers)?;
        hosts.iter().try_for_each(|host| await_kept(host, 2))?;
        routers.pop().context("three routers")?.tell("reset")?;
        hosts[..2].iter().try_for_each(|host| await_kept(host, 1))?;
        shows_esp_alone(recording, 10)?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs a kernel with ESP: run with cargo xtask test --guest"]
fn trusted_subnets_pass_the_closed_port_in_the_clear_if_both_ends_agree() -> Result<()> {
    play("trusted_subnets_pass_the_closed_port_in_the_clear_if_both_ends_agree", |programs| {
        for both in [true, false] {
            let mut lab = lab()?;
            let hosts: [Host; 2] = hosts(&mut lab)?;
            let recording = Recording::start(lab.generator(), lab.switch())?;
            let routers = start_all(programs, &hosts, |host| {
                let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
                let trusts = both || host.number() == 1;
                let flags: &[&str] = if trusts { &["--trusted-subnets=172.31.0.0/16"] } else { &[] };
                settings(2, peers, flags)
            })?;
            await_mesh(&routers, 1)?;
            let attached = attach_each(&routers)?;
            await_overlay(&routers, Overlay::Fastdp)?;
            await_all_pings(&lab, &attached)?;
            let (encrypted, clear) = told_apart(&recording.finish()?);
            ensure!((encrypted > 0, clear > 0) == (!both, both), "{encrypted} of ESP, {clear} in the clear");
            finish(routers)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs a kernel with ESP: run with cargo xtask test --guest"]
fn a_relay_in_the_kernel_opens_and_encrypts_again() -> Result<()> {
    play("a_relay_in_the_kernel_opens_and_encrypts_again", |programs| {
        let mut lab = lab()?;
        let mut hosts = ["h1", "h2", "h3"].map(|name| lab.add_host(name)).into_iter();
        let mut host = || hosts.next().context("three hosts")?;
        let (mut left, mut middle, mut right) = (host()?, host()?, host()?);
        let near = lab.join(&mut [&mut left, &mut middle])?;
        let far = lab.join(&mut [&mut middle, &mut right])?;
        let hosts = [left, middle, right];
        let recording = Recording::start(lab.generator(), lab.switch())?;
        let towards_middle = [near, far].map(|wire| hosts[1].addresses_in(wire.number())[0].to_string());
        let routers = start_all(programs, &hosts, |host| {
            let mut settings = settings(3, &[], &[]);
            match host.number() {
                1 => settings.peers.push(towards_middle[0].clone()),
                3 => settings.peers.push(towards_middle[1].clone()),
                _ => {}
            }
            settings
        })?;
        await_mesh(&routers, 2)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_all_pings(&lab, &attached)?;
        for host in [&hosts[0], &hosts[2]] {
            // Until the kernel is prepared to relay, the tunnels do.
            wait_until("a path over the relay in the kernel", LIMIT, || {
                let entries = host.run("bridge fdb show dev weave-vx")?;
                Ok(Look::when(entries.contains("vni 11"), || entries.clone()))
            })?;
        }
        let tap = || -> Result<u64> {
            let counters = hosts[1].counters()?;
            let tap = counters.get("weave-tap").context("no weave-tap")?;
            Ok(tap.received + tap.sent)
        };
        let before = tap()?;
        let line = format!("ping {} --count 100 --timeout 5 --size 1000", attached[2].address());
        let report: PingReport = measure(lab.generator(), &attached[0].container, &line)?;
        ensure!(report.received == report.sent, "{report:?}");
        let through = tap()? - before;
        ensure!(through < 20_000, "{through} bytes went through the tunnel on the relay");
        for (host, links) in hosts.iter().zip([1, 2, 1]) {
            await_kept(host, links)?;
        }
        shows_esp_alone(recording, 400)?;
        finish(routers)
    })
}

/// The key with which a router's only link sends.
fn key(router: &Router<'_>) -> Result<KernelKey> {
    let report = router.report()?;
    let link = report.router.connections.first().context("no link")?;
    link.kernel_key.clone().with_context(|| format!("no key: {link:?}"))
}

#[test]
#[ignore = "needs a kernel with ESP: run with cargo xtask test --guest"]
fn a_hundred_keys_follow_one_another_under_load_and_no_packet_is_lost() -> Result<()> {
    play("a_hundred_keys_follow_one_another_under_load_and_no_packet_is_lost", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let recording = Recording::start(lab.generator(), lab.switch())?;
        let routers = routers(programs, &hosts, &["--rekey-after=1"])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_all_pings(&lab, &attached)?;
        let ping = |from: &Attached, to: &Attached, size: u16| {
            let line =
                format!("ping {} --count 100 --timeout 10 --interval 0.005 --size {size}", to.address());
            measure::<PingReport>(lab.generator(), &from.container, &line)
        };
        let first = key(&routers[0])?.number;
        let mut sent = 0_u32;
        while key(&routers[0])?.number < first + 100 {
            let reports: Result<Vec<PingReport>> = thread::scope(|scope| {
                let (a, b) = (&attached[0], &attached[1]);
                let pinging = [(a, b, 1300), (b, a, 1300), (a, b, 56)]
                    .map(|(from, to, size)| scope.spawn(move || ping(from, to, size)));
                let joined = pinging.into_iter().map(|one| one.join());
                joined.map(|one| one.map_err(|_| anyhow::anyhow!("a ping thread panicked"))?).collect()
            });
            for report in reports? {
                ensure!(report.received == report.sent, "after {sent} others: {report:?}");
                sent += u32::from(report.sent);
            }
        }
        for router in &routers {
            let key = key(router)?;
            ensure!(key.cipher == "AES-256-GCM" || key.cipher == "ChaCha20-Poly1305", "{key:?}");
        }
        // Those that are taken, beside the one that is sent with: of the last two seconds.
        for host in &hosts {
            let (states, policies) = kept(host)?;
            ensure!(states <= 13 && policies == 6, "{states} keys, {policies} policies");
        }
        shows_esp_alone(recording, 2 * usize::try_from(sent)?)?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs a kernel with ESP: run with cargo xtask test --guest"]
fn where_only_udp_passes_esp_travels_in_udp() -> Result<()> {
    play("where_only_udp_passes_esp_travels_in_udp", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        for host in &hosts {
            host.run("nft add table inet lab")?;
            host.run("nft add chain inet lab in { type filter hook input priority -300 ; }")?;
            host.run("nft add rule inet lab in meta l4proto esp drop")?;
        }
        let mut routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        let recording = Recording::start(lab.generator(), lab.switch())?;
        await_all_pings(&lab, &attached)?;
        let all = pings(&lab, &attached[0], &attached[1], 50)?;
        ensure!(all.received == all.sent, "{all:?}");
        for router in &routers {
            let key = key(router)?;
            ensure!(key.in_udp, "{key:?}");
            let status = router.tell("status connections")?;
            ensure!(status.contains(" encrypted ") && status.contains("mtu=1408"), "{status}");
            let status = router.tell("status connections -o wide")?;
            ensure!(status.contains(" in UDP "), "{status}");
        }
        let frames = recording.finish()?;
        let (alone, clear) = told_apart(&frames);
        let in_udp = frames.iter().filter(|f| f.len() > 38 && f[12..14] == [8, 0] && f[23] == UDP);
        let in_udp = in_udp.filter(|frame| frame[36..38] == ENCAPSULATION_PORT).count();
        ensure!(
            in_udp >= 100 && alone == 0 && clear == 0,
            "{in_udp} in UDP, {alone} alone, {clear} in the clear"
        );

        // A new life finds its way again.
        routers[0].kill()?;
        routers[0].restart()?;
        routers[0].await_ready()?;
        await_mesh(&routers, 1)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_all_pings(&lab, &attached)?;
        finish(routers)
    })
}

/// A counter of what the kernel's IPsec dropped on a host.
fn dropped(host: &Host, reason: &str) -> Result<u64> {
    let all = host.run("cat /proc/net/xfrm_stat")?;
    let line = all.lines().find(|line| line.split_whitespace().next() == Some(reason));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    value.with_context(|| format!("no {reason} in {all}"))?.parse().context("a counter is a number")
}

/// Sends packets that were recorded on the underlay for `to` again, from `from`.
fn send_again(lab: &Lab, from: &Place, frames: &[Vec<u8>]) -> Result<u64> {
    let file = lab.directory().join("again.frames");
    write_frames(&file, frames)?;
    measure(lab.generator(), from, &format!("resend {}", file.display()))
}

/// Packets of ESP out of recorded frames for this address, without their Ethernet headers.
fn esp_for(frames: &[Vec<u8>], to: std::net::Ipv4Addr) -> Vec<Vec<u8>> {
    let is_one = |frame: &&Vec<u8>| {
        frame.len() > 34 && frame[12..14] == [8, 0] && frame[23] == ESP && frame[30..34] == to.octets()
    };
    frames.iter().filter(is_one).map(|frame| frame[14..].to_vec()).collect()
}

#[test]
#[ignore = "needs a kernel with ESP: run with cargo xtask test --guest"]
fn what_is_replayed_is_dropped_in_this_life_and_the_next() -> Result<()> {
    play("what_is_replayed_is_dropped_in_this_life_and_the_next", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let mut routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_all_pings(&lab, &attached)?;
        let recording = Recording::start(lab.generator(), &hosts[0])?;
        let all = pings(&lab, &attached[0], &attached[1], 50)?;
        ensure!(all.received == 50, "{all:?}");
        let recorded = esp_for(&recording.finish()?, hosts[1].address()?);
        ensure!(recorded.len() >= 50, "{} packets of ESP", recorded.len());

        let at_container = Recording::start(lab.generator(), &attached[1].container)?;
        let before = dropped(&hosts[1], "XfrmInStateSeqError")?;
        let sent = send_again(&lab, &hosts[0], &recorded)?;
        let replayed = dropped(&hosts[1], "XfrmInStateSeqError")? - before;
        ensure!(replayed == sent && sent >= 50, "{replayed} of {sent} were dropped as replayed");
        let seen = at_container.finish()?;
        let pings_seen = seen.iter().filter(|f| f.len() > 34 && f[12..14] == [8, 0] && f[23] == 1).count();
        ensure!(pings_seen == 0, "{pings_seen} replayed packets reached the container");

        // Of a life that is over: nobody has the key.
        routers[1].kill()?;
        routers[1].restart()?;
        routers[1].await_ready()?;
        await_mesh(&routers, 1)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        hosts.iter().try_for_each(|host| await_kept(host, 1))?;
        let before = dropped(&hosts[1], "XfrmInNoStates")?;
        let sent = send_again(&lab, &hosts[0], &recorded)?;
        let strange = dropped(&hosts[1], "XfrmInNoStates")? - before;
        ensure!(strange >= sent, "{strange} of {sent} were dropped for want of a key");
        finish(routers)
    })
}

/// Puts `key` in the place of the one with which `host` opens what `from` sends now.
fn falsify(host: &Host, from: &Host, key: &str) -> Result<()> {
    let (source, here) = (from.address()?.to_string(), host.address()?.to_string());
    let spi_in_use = sending_spi(from)?;
    let shown = host.run("ip xfrm state")?;
    let algorithm = shown.split("aead ").nth(1).and_then(|rest| rest.split(' ').next());
    let algorithm = algorithm.context("a key has an algorithm")?;
    host.run(&format!("ip xfrm state delete src {source} dst {here} proto esp spi {spi_in_use}"))?;
    host.run(&format!(
        "ip xfrm state add src {source} dst {here} proto esp spi {spi_in_use} reqid 0x57454156 mode transport \
         replay-window 32 flag esn aead {algorithm} {key} 128 sel src {source}/32 dst {here}/32 proto udp dport 6784"
    ))
    .map(drop)
}

/// The SPI with which a host of two sends, as its policy names it.
fn sending_spi(host: &Host) -> Result<String> {
    let policies = host.run("ip xfrm policy")?;
    // Policies for what arrives take any.
    let spi = policies.split("proto esp spi ").nth(1).and_then(|rest| rest.split_whitespace().next());
    Ok(spi.with_context(|| format!("nobody sends: {policies}"))?.to_owned())
}

#[test]
#[ignore = "needs a kernel with ESP: run with cargo xtask test --guest"]
fn with_a_wrong_or_swapped_key_the_tunnel_takes_over_and_nothing_is_in_the_clear() -> Result<()> {
    play("with_a_wrong_or_swapped_key_the_tunnel_takes_over_and_nothing_is_in_the_clear", |programs| {
        for is_swapped in [false, true] {
            let mut lab = lab()?;
            let hosts: [Host; 2] = hosts(&mut lab)?;
            let recording = Recording::start(lab.generator(), lab.switch())?;
            let routers = routers(programs, &hosts, &[])?;
            await_mesh(&routers, 1)?;
            let attached = attach_each(&routers)?;
            await_overlay(&routers, Overlay::Fastdp)?;
            await_all_pings(&lab, &attached)?;
            let own = sending_spi(&hosts[1])?;
            let shown = hosts[1].run("ip xfrm state")?;
            let sending =
                shown.split("src ").find(|state| state.contains(&own)).context("a key to send with")?;
            let swapped = sending.split_whitespace().find(|word| word.len() == 2 + 72);
            let swapped = swapped.context("a key has 36 bytes")?.to_owned();
            let wrong = format!("0x{}", "5a".repeat(36));
            let key = if is_swapped { swapped } else { wrong };
            let before = dropped(&hosts[1], "XfrmInStateProtoError")?;
            falsify(&hosts[1], &hosts[0], &key)?;
            let _some_are_lost = pings(&lab, &attached[0], &attached[1], 20)?;
            await_overlay(&routers, Overlay::Sleeve)?;
            await_all_pings(&lab, &attached)?;
            ensure!(dropped(&hosts[1], "XfrmInStateProtoError")? > before, "nothing failed to open");
            shows_esp_alone(recording, 4)?;
            finish(routers)?;
        }
        Ok(())
    })
}

/// Bytes that one TCP stream carries from one place to another in three seconds.
fn carried(lab: &Lab, from: &Place, to: &Place, address: std::net::IpAddr) -> Result<u64> {
    let server = Server::start(lab.generator(), to, address)?;
    let line = format!("tcp {} --seconds 3", server.at());
    let report: TcpReport = measure(lab.generator(), from, &line)?;
    Ok(report.bytes)
}

/// Three rounds on an underlay of this kind, of a plain stream beside one through the mesh: what both carried.
fn compare(programs: &Programs, flags: &[&str], overlay: Overlay, weather: &str) -> Result<[u64; 2]> {
    let mut lab = lab()?;
    let (hosts, segment): ([Host; 2], _) = hosts_on_segment(&mut lab)?;
    for host in &hosts {
        // The switch loses packets one by one, as a wire does, and not as many as one system call sends.
        host.run("ip link set dev eth1 gso_max_segs 1")?;
    }
    let routers = routers(programs, &hosts, flags)?;
    await_mesh(&routers, 1)?;
    let attached = attach_each(&routers)?;
    await_overlay(&routers, overlay)?;
    await_all_pings(&lab, &attached)?;
    let mtu = routers[0].report()?.router.connections.first().and_then(|link| link.mtu);
    for host in &hosts {
        let port = format!("p{}-{}", segment.number(), host.number());
        lab.switch().run(&format!("tc qdisc add dev {port} root netem {weather}"))?;
    }
    let mut carried_by = [0; 2];
    for _ in 0..3 {
        carried_by[0] += carried(&lab, &hosts[0], &hosts[1], hosts[1].address()?.into())?;
        let through_mesh =
            carried(&lab, &attached[0].container, &attached[1].container, attached[1].address())?;
        ensure!(through_mesh > 0, "a stream stood still");
        carried_by[1] += through_mesh;
    }
    let report = routers[0].report()?;
    let link = report.router.connections.first().context("a link")?;
    ensure!(link.overlay == Some(overlay) && link.mtu == mtu, "bad weather is no reason to change: {link:?}");
    finish(routers)?;
    Ok(carried_by)
}

#[test]
#[ignore = "needs a kernel with ESP and netem: run with cargo xtask test --guest"]
fn streams_through_the_mesh_bear_loss_and_delay_as_plain_ones_do() -> Result<()> {
    play("streams_through_the_mesh_bear_loss_and_delay_as_plain_ones_do", |programs| {
        for weather in ["delay 10ms", "delay 10ms loss 1%", "delay 10ms loss 5%"] {
            let ways: [(&[&str], Overlay); 2] = [(&[], Overlay::Fastdp), (&["--no-fastdp"], Overlay::Sleeve)];
            for (flags, overlay) in ways {
                let [plain, through_mesh] = compare(programs, flags, overlay, weather)
                    .with_context(|| format!("{weather}, encrypted {overlay}"))?;
                println!("{weather}, encrypted {overlay}: {through_mesh} bytes beside {plain}");
                // An emulated processor is what bounds a path without loss.
                let is_lossy = weather.contains("loss");
                ensure!(
                    !is_lossy || through_mesh > plain / 4,
                    "{weather}, encrypted {overlay}: {through_mesh} bytes beside {plain}"
                );
            }
        }
        Ok(())
    })
}

/// Rounds of the comparison: alternating, so that both meet the same moods of the machine.
const ROUNDS: usize = 5;

/// Prints a line as `cargo xtask bench --json` does, which is who asks for it.
#[test]
#[ignore = "needs a kernel with ESP: run with cargo xtask bench esp"]
fn frames_are_encrypted_as_fast_as_by_devices_made_by_hand() -> Result<()> {
    play("frames_are_encrypted_as_fast_as_by_devices_made_by_hand", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_all_pings(&lab, &attached)?;
        encrypted_by_the_kernel(&routers)?;
        let [near, far] = Vxlan::encrypted_between(&hosts[0], &hosts[1], 1, 1416)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            theirs.push(carried(&lab, &near.container, &far.container, far.address)?);
            ours.push(carried(&lab, &attached[0].container, &attached[1].container, attached[1].address())?);
        }
        let by_hand = hosts[0].run("ip -s xfrm state list spi 1")?;
        ensure!(!by_hand.contains(" 0(bytes), 0(packets)"), "the rival is not encrypted: {by_hand}");
        let median = |bytes: &mut Vec<u64>| {
            bytes.sort_unstable();
            // Of three seconds.
            bytes[ROUNDS / 2] as f64 * 8.0 / 3e9
        };
        let spread = ours.iter().max().zip(ours.iter().min()).map_or(0, |(most, least)| most - least);
        let (ours_median, theirs_median) = (median(&mut ours), median(&mut theirs));
        let spread = spread as f64 * 8.0 / 3e9 / ours_median;
        let ratio = ours_median / theirs_median;
        println!(
            "{{\"name\":\"esp.tcp1\",\"value\":{ours_median:.4},\"unit\":\"Gbit/s\",\"rival\":\"vxlan-esp-by-hand\",\
             \"rival_value\":{theirs_median:.4},\"ratio\":{ratio:.3},\"rounds\":{ROUNDS},\"spread\":{spread:.3}}}"
        );
        // Far below what is to be expected, and above what a path through a program of ours would reach.
        ensure!(ratio > 0.75, "{ours_median} Gbit/s beside {theirs_median}");
        finish(routers)
    })
}
