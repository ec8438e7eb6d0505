//! The tunnel between containers on two hosts, beside kernel VXLAN made by hand and the bare underlay.

use anyhow::Result;
use weave_tests::{
    accounting,
    lab::{Host, Lab},
    product::{Programs, Settings},
    rival::Vxlan,
};

use super::{
    Bench,
    paths::{ALL, Mesh, Path, Samples, measure_all},
    row::{Better, Row},
};
use crate::{inside, screen::complain};

/// The container MTU of VXLAN's own best setting on an underlay of 1500: 50 bytes of headers.
const VXLAN_BEST_MTU: u16 = 1450;

pub(super) fn run(bench: &Bench, programs: &Programs) -> Result<Vec<Row>> {
    let mut lab = inside::lab()?;
    let (mut a, mut b) = (lab.add_host("a")?, lab.add_host("b")?);
    let (mut c, mut d) = (lab.add_host("c")?, lab.add_host("d")?);
    lab.wire(&mut a, &mut b)?;
    lab.wire(&mut c, &mut d)?;
    let encrypted = pair(&lab, programs, [&a, &b], Some("bench"))?;
    let plain = pair(&lab, programs, [&c, &d], None)?;
    let mtu = encrypted.mtu()?;
    let same = Vxlan::between(&a, &b, 1, mtu)?;
    let best = Vxlan::between(&a, &b, 2, VXLAN_BEST_MTU)?;
    complain(&format!("sleeve: underlay MTU 1500, containers {mtu}; vxlan-best has {VXLAN_BEST_MTU}"));
    let bare: &[&str] = &["tcp1", "tcp4", "pingpong"];
    let paths = [
        Path::new(&lab, "raw", &a, (&b, b.address()?.into()), bare)?,
        Path::new(&lab, "kernel-vxlan", &same[0].container, (&same[1].container, same[1].address), ALL)?,
        Path::new(&lab, "vxlan-best", &best[0].container, (&best[1].container, best[1].address), &["tcp1"])?,
        Path::new(&lab, "enc", &encrypted.near, (&encrypted.far, encrypted.address), ALL)?,
        Path::new(&lab, "plain", &plain.near, (&plain.far, plain.address), &["tcp1"])?,
    ];
    let samples = measure_all(bench, "sleeve", &lab, &paths, |samples| {
        for router in &encrypted.routers {
            samples.add("enc", "rss", accounting::resident_bytes(router.pid()?)? as f64 / 1e6);
        }
        Ok(())
    })?;
    orientation(&samples);
    Ok(rows(&samples))
}

/// Routers on two hosts that use the sleeve, and a container on each.
fn pair<'h>(
    lab: &Lab,
    programs: &Programs,
    hosts: [&'h Host; 2],
    password: Option<&str>,
) -> Result<Mesh<'h>> {
    let first = hosts[0].address()?.to_string();
    let flags = ["--ipalloc-init=consensus=2", "--no-dns", "--no-fastdp"].map(str::to_owned);
    Mesh::start(lab, programs, &hosts, 1, |_| Settings {
        peers: vec![first.clone()],
        password: password.map(str::to_owned),
        flags: flags.to_vec(),
    })
}

/// Figures that have no row of their own: the underlay, VXLAN with its own best MTU, loss.
fn orientation(samples: &Samples) {
    for path in ["raw", "kernel-vxlan", "vxlan-best"] {
        for (what, unit) in [("tcp1", "Gbit/s"), ("tcp4", "Gbit/s"), ("p50", "us"), ("p99", "us")] {
            samples.orient("sleeve", path, what, unit);
        }
    }
    for path in ["kernel-vxlan", "enc"] {
        samples.orient("sleeve", path, "loss64", "of the datagrams sent");
    }
}

fn rows(samples: &Samples) -> Vec<Row> {
    let row = |name: &str, unit, better, path, what| {
        samples.row(&format!("sleeve.{name}"), (unit, better), (path, "kernel-vxlan"), what)
    };
    use Better::{Less, More};
    vec![
        row("enc_tcp1", "Gbit/s", More, "enc", "tcp1"),
        row("enc_tcp4", "Gbit/s", More, "enc", "tcp4"),
        row("plain_tcp1", "Gbit/s", More, "plain", "tcp1"),
        row("enc_pingpong_p50", "us", Less, "enc", "p50"),
        row("enc_pingpong_p99", "us", Less, "enc", "p99"),
        row("enc_pps64", "/s", More, "enc", "pps64"),
        row("enc_udp1350", "Gbit/s", More, "enc", "udp1350"),
        row("cpu_per_gbit", "s/Gbit", Less, "enc", "cpu"),
        Row::new("sleeve.rss_mb", "MB", Less, samples.of("enc", "rss")),
    ]
}
