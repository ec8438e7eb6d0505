//! The kernel's path between containers on two hosts, and over a relay, beside the same devices made by hand.

use anyhow::{Context as _, Result};
use weave_api::{ConnectionState, Overlay};
use weave_tests::{
    clock::{Look, wait_until},
    lab::Host,
    product::{Programs, Settings},
    rival::Vxlan,
};

use super::{
    Bench,
    paths::{ALL, Mesh, Path, SETTLE, Samples, measure_all},
    row::{Better, Row},
};
use crate::{inside, screen::complain};

pub(super) fn run(bench: &Bench, programs: &Programs) -> Result<Vec<Row>> {
    let mut lab = inside::lab()?;
    let (mut a, mut b) = (lab.add_host("a")?, lab.add_host("b")?);
    let (mut left, mut relay, mut right) =
        (lab.add_host("left")?, lab.add_host("relay")?, lab.add_host("right")?);
    lab.wire(&mut a, &mut b)?;
    lab.wire(&mut left, &mut relay)?;
    lab.wire(&mut relay, &mut right)?;
    let first = a.address()?.to_string();
    let direct = Mesh::start(&lab, programs, &[&a, &b], 1, |_| settings(2, &first))?;
    let sides = sides_of(&relay)?;
    let relayed = Mesh::start(&lab, programs, &[&left, &relay, &right], 2, |place| match place {
        1 => settings(3, ""),
        place => settings(3, &sides[place / 2]),
    })?;
    await_fastdp(&direct)?;
    await_fastdp(&relayed)?;
    await_relay(&left)?;
    await_relay(&right)?;
    let mtu = direct.mtu()?;
    let by_hand = Vxlan::between(&a, &b, 1, mtu)?;
    let relayed_by_hand = Vxlan::through(&left, &relay, &right, 1, relayed.mtu()?)?;
    complain(&format!("fastdp: underlay MTU 1500, containers {mtu}, the rival's too"));
    let bare: &[&str] = &["tcp1", "tcp4", "pingpong"];
    let relay_only: &[&str] = &["tcp1"];
    let [near, far] = &by_hand;
    let [left_hand, right_hand] = &relayed_by_hand;
    let paths = [
        Path::new(&lab, "raw", &a, (&b, b.address()?.into()), bare)?,
        Path::new(&lab, "kernel-vxlan", &near.container, (&far.container, far.address), ALL)?,
        Path::new(&lab, "fastdp", &direct.near, (&direct.far, direct.address), ALL)?,
        Path::new(
            &lab,
            "relay-by-hand",
            &left_hand.container,
            (&right_hand.container, right_hand.address),
            relay_only,
        )?,
        Path::new(&lab, "relay", &relayed.near, (&relayed.far, relayed.address), relay_only)?,
    ];
    let samples = measure_all(bench, "fastdp", &lab, &paths, |_| Ok(()))?;
    for (what, unit) in [("tcp1", "Gbit/s"), ("tcp4", "Gbit/s"), ("p50", "us"), ("p99", "us")] {
        samples.orient("fastdp", "raw", what, unit);
    }
    for path in ["kernel-vxlan", "fastdp"] {
        samples.orient("fastdp", path, "loss64", "of the datagrams sent");
    }
    Ok(rows(&samples))
}

/// No password: the kernel may carry what these routers' containers say.
fn settings(routers: usize, peer: &str) -> Settings {
    let peers = if peer.is_empty() { Vec::new() } else { vec![peer.to_owned()] };
    let flags = vec![format!("--ipalloc-init=consensus={routers}"), "--no-dns".to_owned()];
    Settings { peers, password: None, flags }
}

/// The relay's addresses, as its left and its right neighbour reach it.
fn sides_of(relay: &Host) -> Result<[String; 2]> {
    let address = |segment: &u8| relay.addresses_in(*segment)[0].to_string();
    let sides: Vec<String> = relay.segments().iter().map(address).collect();
    sides.try_into().ok().context("the relay is in two segments")
}

/// Waits until every link is carried by the kernel and the containers' MTU has followed.
fn await_fastdp(mesh: &Mesh<'_>) -> Result<()> {
    for router in &mesh.routers {
        wait_until("the kernel's path", SETTLE, || {
            let links = router.report()?.router.connections;
            let mut established = links.iter().filter(|c| c.state == ConnectionState::Established);
            let is_fast = established.all(|c| c.overlay == Some(Overlay::Fastdp));
            Ok(Look::when(is_fast, || format!("{links:?}")))
        })?;
    }
    wait_until("the MTU to follow the path", SETTLE, || {
        let mtu = mesh.mtu()?;
        Ok(Look::when(mtu == 1450, || mtu.to_string()))
    })
    .map(drop)
}

/// Waits until the kernel of `host` sends to a relay: until then the tunnel does.
fn await_relay(host: &Host) -> Result<()> {
    wait_until("the path over the relay in the kernel", SETTLE, || {
        let entries = host.run("bridge fdb show dev weave-vx")?;
        Ok(Look::when(entries.contains("vni 11"), || entries.clone()))
    })
    .map(drop)
}

fn rows(samples: &Samples) -> Vec<Row> {
    let row = |name: &str, unit, better, what| {
        samples.row(&format!("fastdp.{name}"), (unit, better), ("fastdp", "kernel-vxlan"), what)
    };
    use Better::{Less, More};
    vec![
        row("tcp1", "Gbit/s", More, "tcp1"),
        row("tcp4", "Gbit/s", More, "tcp4"),
        row("pingpong_p50", "us", Less, "p50"),
        row("pingpong_p99", "us", Less, "p99"),
        row("pps64", "/s", More, "pps64"),
        samples.row("fastdp.relay_tcp1", ("Gbit/s", More), ("relay", "relay-by-hand"), "tcp1"),
        row("cpu_per_gbit", "s/Gbit", Less, "cpu"),
    ]
}
