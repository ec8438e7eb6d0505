//! What somebody on the underlay sees, and who is let in.

use anyhow::{Result, ensure};
use weave_api::ConnectionState;
use weave_tests::{
    clock::{Look, wait_until},
    lab::{Host, Lab},
    product::{Programs, Router, Settings, peer_name},
    scene::{LIMIT, attach_each, await_all_pings, await_mesh, finish, hosts, lab, play, settings, start_all},
    traffic::{PingPongReport, Recording, Server, TcpReport, measure},
};

/// What the traffic generator fills its payload with.
const PAYLOAD: &[u8] = &[0x5a; 24];

/// What two routers show to the underlay while their containers talk.
#[derive(Debug)]
struct Shown {
    frames: usize,
    payload: bool,
    names: bool,
    nicknames: bool,
    macs: bool,
    addresses: bool,
}

fn contains(frames: &[Vec<u8>], needle: &[u8]) -> bool {
    frames.iter().any(|frame| frame.windows(needle.len()).any(|window| window == needle))
}

/// Two hosts whose names occur nowhere by chance.
fn two_hosts(lab: &mut Lab) -> Result<[Host; 2]> {
    let (mut a, mut b) = (lab.add_host("alpha-quokka")?, lab.add_host("beta-numbat")?);
    lab.join(&mut [&mut a, &mut b])?;
    Ok([a, b])
}

/// Records the underlay from before the first router starts until containers have talked over UDP and TCP.
fn shown(programs: &Programs, of: impl Fn(&Host, Settings) -> Settings) -> Result<Shown> {
    let mut lab = lab()?;
    let hosts = two_hosts(&mut lab)?;
    let recording = Recording::start(lab.generator(), lab.switch())?;
    let routers = start_all(programs, &hosts, |host| {
        let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
        of(host, settings(2, peers, &[]))
    })?;
    await_mesh(&routers, 1)?;
    let attached = attach_each(&routers)?;
    await_all_pings(&lab, &attached)?;
    let server = Server::start(lab.generator(), &attached[1].container, attached[1].address())?;
    let near = &attached[0].container;
    let udp: PingPongReport =
        measure(lab.generator(), near, &format!("ping-pong {} --seconds 0.1 --size 900", server.at()))?;
    let tcp = |seconds: f64| {
        measure::<TcpReport>(lab.generator(), near, &format!("tcp {} --seconds {seconds}", server.at()))
    };
    let brief = tcp(0.01)?;
    // On an emulated machine that was over before it began.
    let tcp = if brief.bytes > 0 { brief } else { tcp(1.0)? };
    ensure!(udp.count > 0 && tcp.bytes > 0, "nothing was sent: {udp:?}, {tcp:?}");
    let frames = recording.finish()?;
    let mut shown = Shown {
        frames: frames.len(),
        payload: contains(&frames, PAYLOAD),
        names: false,
        nicknames: false,
        macs: false,
        addresses: false,
    };
    for (host, there) in hosts.iter().zip(&attached) {
        let name: Vec<u8> =
            peer_name(host).split(':').filter_map(|b| u8::from_str_radix(b, 16).ok()).collect();
        ensure!(name.len() == 6, "a name has six bytes");
        shown.names |= contains(&frames, &name) || contains(&frames, peer_name(host).as_bytes());
        shown.nicknames |= contains(&frames, host.name().as_bytes());
        shown.macs |= contains(&frames, &there.mac()?.0);
        shown.addresses |= contains(&frames, there.address().to_string().as_bytes());
    }
    finish(routers)?;
    Ok(shown)
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn with_a_password_the_underlay_shows_no_payload_no_name_and_no_container() -> Result<()> {
    play("with_a_password_the_underlay_shows_no_payload_no_name_and_no_container", |programs| {
        let seen = shown(programs, |_, settings| settings)?;
        ensure!(seen.frames > 50, "{seen:?}");
        ensure!(!(seen.payload || seen.names || seen.nicknames || seen.macs || seen.addresses), "{seen:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn without_a_password_the_underlay_shows_the_payload() -> Result<()> {
    play("without_a_password_the_underlay_shows_the_payload", |programs| {
        let seen = shown(programs, |_, settings| Settings { password: None, ..settings })?;
        ensure!(seen.payload && seen.macs, "{seen:?}");
        ensure!(!seen.nicknames, "the control connection is encrypted all the same: {seen:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn data_is_plain_only_where_both_ends_trust_the_subnet() -> Result<()> {
    const TRUST: &str = "--trusted-subnets=172.31.0.0/16,fd31::/16";
    let trusting = |mut settings: Settings| {
        settings.flags.push(TRUST.to_owned());
        settings
    };
    play("data_is_plain_only_where_both_ends_trust_the_subnet", |programs| {
        let both = shown(programs, |_, settings| trusting(settings))?;
        ensure!(both.payload && both.macs && !both.nicknames, "both ends trust: {both:?}");
        let dialler = shown(programs, |h, s| if h.number() == 2 { trusting(s) } else { s })?;
        ensure!(!dialler.payload && !dialler.macs, "only the dialling end trusts: {dialler:?}");
        let listener = shown(programs, |h, s| if h.number() == 1 { trusting(s) } else { s })?;
        ensure!(!listener.payload && !listener.macs, "only the listening end trusts: {listener:?}");
        Ok(())
    })
}

/// Starts a listener and a dialler with these passwords; neither may ever become a peer of the other, and both say why.
fn strangers(programs: &Programs, passwords: [Option<&str>; 2]) -> Result<()> {
    let mut lab = lab()?;
    let hosts: [Host; 2] = hosts(&mut lab)?;
    let routers = start_all(programs, &hosts, |host| {
        let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
        let password = passwords[usize::from(host.number() - 1)].map(str::to_owned);
        Settings { password, ..settings(1, peers, &[]) }
    })?;
    let (listener, dialler) = (&routers[0], &routers[1]);
    wait_until("the dialling end to say it", LIMIT, || {
        let said = dialler.tell("status connections")?;
        Ok(Look::when(said.to_lowercase().contains("password"), || said))
    })?;
    wait_until("the listening end to say it", LIMIT, || {
        let said = listener.log();
        let is_said = said.lines().any(|l| l.contains("WARN") && l.to_lowercase().contains("password"));
        Ok(Look::when(is_said, || said.clone()))
    })?;
    for router in &routers {
        let report = router.report()?;
        ensure!(report.router.peers.len() == 1, "{} learnt of another router", router.host().name());
        ensure!(report.router.connections.iter().all(|c| c.state != ConnectionState::Established));
    }
    finish(routers)
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_wrong_password_or_none_never_becomes_a_link_and_both_ends_say_so() -> Result<()> {
    play("a_wrong_password_or_none_never_becomes_a_link_and_both_ends_say_so", |programs| {
        strangers(programs, [Some("right"), Some("wrong")])?;
        strangers(programs, [Some("right"), None])?;
        strangers(programs, [None, Some("right")])
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_password_is_changed_router_by_router_without_a_day_of_silence() -> Result<()> {
    play("a_password_is_changed_router_by_router_without_a_day_of_silence", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let second = lab.directory().join("next-password");
        // Written by an editor, with a line end.
        std::fs::write(&second, "the next one\n")?;
        let both = format!("--password-file={}", second.display());
        let old = settings(2, &[], &[&both]);
        let mut listener = Router::start(programs, &hosts[0], &old)?;
        listener.await_ready()?;
        let new = Settings { password: Some("the next one".to_owned()), ..settings(2, &[&hosts[0]], &[]) };
        let mut dialler = Router::start(programs, &hosts[1], &new)?;
        dialler.await_ready()?;
        let routers = vec![listener, dialler];
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_all_pings(&lab, &attached)?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn the_password_is_nowhere_to_be_read() -> Result<()> {
    play("the_password_is_nowhere_to_be_read", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = weave_tests::scene::routers(programs, &hosts, &["--log-level=trace"]);
        ensure!(routers.is_err(), "a flag given twice is refused");
        let routers = start_all(programs, &hosts, |host| {
            let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
            let mut settings = settings(2, peers, &[]);
            settings.flags.retain(|flag| !flag.starts_with("--log-level"));
            settings.flags.push("--log-level=trace".to_owned());
            settings
        })?;
        await_mesh(&routers, 1)?;
        for router in &routers {
            let command_line = std::fs::read(format!("/proc/{}/cmdline", router.pid()?))?;
            let told =
                [router.tell("report")?, router.log(), String::from_utf8_lossy(&command_line).into_owned()];
            ensure!(
                told.iter().all(|text| !text.contains("correct horse")),
                "{} tells it",
                router.host().name()
            );
        }
        finish(routers)
    })
}
