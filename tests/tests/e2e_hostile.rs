//! What somebody on the underlay can do to a link: nothing but have it counted.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use weave_tests::{
    clock::{Look, wait_until},
    lab::{Host, Lab},
    product::Router,
    scene::{LIMIT, attach_each, await_mesh, await_ping, finish, lab, play, settings, start_all},
    traffic::{PingPongReport, Recording, Server, measure, write_frames},
};

/// Bytes of an Ethernet, an IPv4 (without options) and a UDP header.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;

/// An IPv4 packet with a UDP datagram of ours in it, checksums set right (UDP's switched off, as IPv4 permits).
fn with_payload(packet: &[u8], payload: &[u8]) -> Result<Vec<u8>> {
    let mut new = packet[..IPV4 + UDP].to_vec();
    new.extend(payload);
    let (total, udp) = (u16::try_from(new.len())?, u16::try_from(UDP + payload.len())?);
    new[2..4].copy_from_slice(&total.to_be_bytes());
    new[10..12].fill(0);
    new[IPV4 + 4..IPV4 + 6].copy_from_slice(&udp.to_be_bytes());
    new[IPV4 + 6..IPV4 + 8].fill(0);
    let sum = new[..IPV4].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    new[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    Ok(new)
}

/// The packets among `frames` that carry one datagram of the tunnel to `victim`, each once.
fn sleeve_packets(frames: &[Vec<u8>], victim: &Host) -> Result<Vec<Vec<u8>>> {
    let to = victim.address()?.octets();
    let mut packets = BTreeMap::new();
    for packet in frames.iter().filter_map(|frame| frame.get(ETHERNET..)) {
        let is_udp = packet.len() > IPV4 + UDP && packet[0] == 0x45 && packet[9] == 17;
        if !is_udp || packet[16..20] != to || packet.len() > 1500 {
            continue;
        }
        let (port, first) = (u16::from_be_bytes([packet[22], packet[23]]), packet[IPV4 + UDP]);
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        if port == weave_model::DEFAULT_PORT && first == 1 && length <= packet.len() {
            let payload = packet[IPV4 + UDP..length].to_vec();
            packets.insert(payload.clone(), with_payload(packet, &payload)?);
        }
    }
    Ok(packets.into_values().collect())
}

fn drops(router: &Router<'_>) -> Result<BTreeMap<String, u64>> {
    Ok(router.report()?.data_plane.drops)
}

/// Sends packets from the attacker's host as if they were the peer's, and waits until the victim has counted as many
/// as `reasons` together.
fn inject(
    lab: &Lab,
    attacker: &Host,
    victim: &Router<'_>,
    packets: &[Vec<u8>],
    reasons: &[&str],
) -> Result<()> {
    let counted = || -> Result<u64> {
        let drops = drops(victim)?;
        Ok(reasons.iter().map(|reason| drops.get(*reason).copied().unwrap_or_default()).sum())
    };
    let before = counted()?;
    let file = lab.directory().join("evil.frames");
    write_frames(&file, packets)?;
    let sent: u64 = measure(lab.generator(), attacker, &format!("resend {}", file.display()))?;
    ensure!(sent == packets.len() as u64, "{sent} of {} packets were sent", packets.len());
    let waited = wait_until(&format!("{sent} datagrams counted as {reasons:?}"), LIMIT, || {
        let (now, all) = (counted()?, drops(victim)?);
        Ok(Look::when(now >= before + sent, || format!("{} were; all drops: {all:?}", now - before)))
    });
    waited.map(drop)
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn replayed_truncated_and_altered_datagrams_are_dropped_and_counted_by_reason() -> Result<()> {
    play("replayed_truncated_and_altered_datagrams_are_dropped_and_counted_by_reason", |programs| {
        let mut lab = lab()?;
        let (mut near, mut far, mut attacker) =
            (lab.add_host("h1")?, lab.add_host("h2")?, lab.add_host("evil")?);
        lab.join(&mut [&mut near, &mut far, &mut attacker])?;
        let hosts = [near, far];
        let routers = start_all(programs, &hosts, |host| {
            let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
            settings(2, peers, &[])
        })?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_ping(&lab, &attached[0].container, attached[1].address())?;
        let server = Server::start(lab.generator(), &attached[0].container, attached[0].address())?;
        let recording = Recording::start(lab.generator(), lab.switch())?;
        let line = format!("ping-pong {} --seconds 0.5 --gap-us 5000 --size 300", server.at());
        let _: PingPongReport = measure(lab.generator(), &attached[1].container, &line)?;
        let packets = sleeve_packets(&recording.finish()?, &hosts[0])?;
        ensure!(packets.len() >= 20, "only {} datagrams were recorded", packets.len());

        let victim = &routers[0];
        inject(&lab, &attacker, victim, &packets, &["replayed"])?;
        let payload = |packet: &[u8]| packet[IPV4 + UDP..].to_vec();
        let flipped: Result<Vec<_>> = packets
            .iter()
            .enumerate()
            .map(|(n, packet)| {
                let mut payload = payload(packet);
                // Behind the clear header, at another place each time.
                let at = 12 + n % (payload.len() - 12);
                payload[at] ^= 1 << (n % 8);
                // A number that was not seen, so that it is the seal that tells.
                payload[8..12].copy_from_slice(&(u32::MAX / 2).to_be_bytes());
                with_payload(packet, &payload)
            })
            .collect();
        inject(&lab, &attacker, victim, &flipped?, &["forged", "wrong_epoch"])?;
        let truncated: Result<Vec<_>> = packets
            .iter()
            .enumerate()
            .map(|(n, packet)| {
                let payload = payload(packet);
                with_payload(packet, &payload[..1 + n % (payload.len() - 1)])
            })
            .collect();
        inject(&lab, &attacker, victim, &truncated?, &["truncated", "forged", "replayed", "wrong_epoch"])?;

        let pinged: PingPongReport = measure(lab.generator(), &attached[1].container, &line)?;
        ensure!(pinged.lost == 0, "traffic suffers: {pinged:?}");
        ensure!(victim.report()?.router.terminations == 0, "a link was lost");
        let report = victim.tell("report")?;
        ensure!(report.contains("\"replayed\""), "`weave report` names the reasons");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn garbage_of_all_sizes_on_the_port_changes_nothing() -> Result<()> {
    play("garbage_of_all_sizes_on_the_port_changes_nothing", |programs| {
        let mut lab = lab()?;
        let (mut near, mut far, mut attacker) =
            (lab.add_host("h1")?, lab.add_host("h2")?, lab.add_host("evil")?);
        lab.join(&mut [&mut near, &mut far, &mut attacker])?;
        let hosts = [near, far];
        let routers = start_all(programs, &hosts, |host| {
            let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
            settings(2, peers, &[])
        })?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_ping(&lab, &attached[0].container, attached[1].address())?;
        for (seed, address) in hosts[0].addresses_in(1).into_iter().enumerate() {
            let to = SocketAddr::new(address, weave_model::DEFAULT_PORT);
            let line = format!("garbage {to} --count 20000 --seed {}", seed + 1);
            let sent: u64 = measure(lab.generator(), &attacker, &line)?;
            ensure!(sent > 1000, "only {sent} datagrams were sent");
        }
        // From the peer's own address, where the router believes datagrams most.
        let source = hosts[1].address()?.octets();
        let mut seed = 7_u32;
        let packets: Result<Vec<_>> = (0..1400_usize)
            .map(|length| {
                let mut packet = vec![0; IPV4 + UDP];
                packet[..2].copy_from_slice(&[0x45, 0]);
                packet[8..10].copy_from_slice(&[64, 17]);
                packet[12..16].copy_from_slice(&source);
                packet[16..20].copy_from_slice(&hosts[0].address()?.octets());
                packet[20..24].copy_from_slice(&[0x1a, 0x7f, 0x1a, 0x7f]);
                let payload: Vec<u8> = (0..length)
                    .map(|at| {
                        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        // Every kind of first byte that means something, then chance.
                        if at == 0 { [1, 2, 0x40, 0xc0, 0][length % 5] } else { (seed >> 24) as u8 }
                    })
                    .collect();
                with_payload(&packet, &payload)
            })
            .collect();
        let file = lab.directory().join("garbage.frames");
        write_frames(&file, &packets?)?;
        let sent: u64 = measure(lab.generator(), &attacker, &format!("resend {}", file.display()))?;
        ensure!(sent == 1400, "only {sent} datagrams were sent");
        await_ping(&lab, &attached[0].container, attached[1].address())?;
        await_mesh(&routers, 1)?;
        let report = routers[0].report()?;
        ensure!(report.router.terminations == 0, "a link was lost");
        let counted: u64 = report.data_plane.drops.values().sum();
        ensure!(counted > 1000, "garbage is counted: {:?}", report.data_plane.drops);
        let seconds = weave_tests::accounting::cpu_seconds(routers[0].pid()?).context("the router lives")?;
        ensure!(seconds < 60.0, "garbage cost {seconds} s of processor time");
        finish(routers)
    })
}
