//! Encrypted frames that the kernel carries. Needs a kernel with ESP: run with `cargo xtask test --guest`.

use anyhow::{Context as _, Result, ensure};
use weave_api::Overlay;
use weave_tests::{
    clock::{Look, wait_until},
    lab::{Host, Lab},
    product::Router,
    scene::{
        Attached, LIMIT, attach_each, await_all_pings, await_mesh, await_overlay, finish, hosts, lab, play,
        routers, settings, start_all,
    },
    traffic::{PingReport, Recording, measure},
};

const VXLAN_PORT: [u8; 2] = 6784_u16.to_be_bytes();
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
    // Two that are taken and one to send with; one policy each way, and four that close the port.
    let wanted = (3 * links, 2 * links + 4);
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
        ensure!(kept(&hosts[0])? == (3, 6), "{:?}", kept(&hosts[0])?);

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
        ensure!(old.len() >= 3 && old.iter().all(|spi| !new.contains(spi)), "{old:?}, {new:?}");
        await_all_pings(&lab, &attached)?;

        shows_esp_alone(recording, 60)?;

        // Somebody flushes one lock or the other: nothing leaves in the clear, and the tunnel takes over until there are
        // new keys.
        let flushes: [&[&str]; 3] = [
            &["ip xfrm policy flush"],
            &["ip xfrm policy flush", "ip xfrm state flush"],
            &["nft flush ruleset"],
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
