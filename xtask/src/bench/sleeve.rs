//! The tunnel between containers on two hosts, beside kernel VXLAN made by hand and the bare underlay.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weave_tests::{
    accounting::{self, Machine},
    clock::{Look, now, wait_until},
    lab::{Container, Host, Lab, Place},
    product::{Programs, Router, Settings, mesh_in_words, shows_mesh},
    rival::Vxlan,
    traffic::{FloodReport, PingPongReport, PingReport, Server, TcpReport, measure},
};

use super::{
    Bench,
    row::{Better, Row, median},
};
use crate::{inside, screen::complain};

/// The container MTU of VXLAN's own best setting on an underlay of 1500: 50 bytes of headers.
const VXLAN_BEST_MTU: u16 = 1450;

/// How long the machine's load without ours is measured before the rounds; it is taken off.
const IDLE_WINDOW: Duration = Duration::from_secs(2);

/// Idle load, in cores, above which something else works on the machine.
const BUSY: f64 = 0.2;

/// How long the mesh and the first packet may take.
const SETTLE: Duration = Duration::from_secs(30);

/// Samples by path and measurement, one a round.
#[derive(Debug, Default)]
struct Samples(BTreeMap<(&'static str, &'static str), Vec<f64>>);

impl Samples {
    fn add(&mut self, path: &'static str, what: &'static str, value: f64) {
        self.0.entry((path, what)).or_default().push(value);
    }

    fn of(&self, path: &'static str, what: &'static str) -> &[f64] {
        self.0.get(&(path, what)).map_or(&[], Vec::as_slice)
    }
}

/// A way from one place to another that is measured.
struct Path<'a> {
    name: &'static str,
    from: &'a Place,
    server: Server,
    /// What is measured on it.
    measures: &'static [&'static str],
}

impl<'a> Path<'a> {
    fn new(
        lab: &Lab,
        name: &'static str,
        from: &'a Place,
        to: &Place,
        address: IpAddr,
        measures: &'static [&'static str],
    ) -> Result<Self> {
        Ok(Self { name, from, server: Server::start(lab.generator(), to, address)?, measures })
    }
}

/// Everything that is measured on the paths that are compared.
const ALL: &[&str] = &["tcp1", "tcp4", "pingpong", "flood64", "flood1350"];

/// One mesh of two hosts, with a container on each.
struct Pair<'h> {
    routers: Vec<Router<'h>>,
    containers: Vec<Container>,
    far: IpAddr,
}

pub(super) fn run(bench: &Bench, programs: &Programs) -> Result<Vec<Row>> {
    let mut lab = inside::lab()?;
    let (mut a, mut b) = (lab.add_host("a")?, lab.add_host("b")?);
    let (mut c, mut d) = (lab.add_host("c")?, lab.add_host("d")?);
    lab.wire(&mut a, &mut b)?;
    lab.wire(&mut c, &mut d)?;
    let encrypted = pair(&lab, programs, [&a, &b], Some("bench".to_owned()))?;
    let plain = pair(&lab, programs, [&c, &d], None)?;
    let mtu = mtu(&encrypted.containers[0])?;
    let same = Vxlan::between(&a, &b, 1, mtu)?;
    let best = Vxlan::between(&a, &b, 2, VXLAN_BEST_MTU)?;
    complain(&format!("sleeve: underlay MTU 1500, containers {mtu}; vxlan-best has {VXLAN_BEST_MTU}"));
    let paths = [
        Path::new(&lab, "raw", &a, &b, b.address()?.into(), &["tcp1", "tcp4", "pingpong"])?,
        Path::new(&lab, "kernel-vxlan", &same[0].container, &same[1].container, same[1].address, ALL)?,
        Path::new(&lab, "vxlan-best", &best[0].container, &best[1].container, best[1].address, &["tcp1"])?,
        Path::new(&lab, "enc", &encrypted.containers[0], &encrypted.containers[1], encrypted.far, ALL)?,
        Path::new(&lab, "plain", &plain.containers[0], &plain.containers[1], plain.far, &["tcp1"])?,
    ];
    let idle = accounting::idle_load(if bench.quick { IDLE_WINDOW / 10 } else { IDLE_WINDOW })?;
    complain(&format!("sleeve: idle load {:.1} % of a core, taken off", idle * 100.0));
    if idle > BUSY {
        complain("sleeve: the machine is busy with something else; these figures say little");
    }
    let mut samples = Samples::default();
    for round in 1..=bench.rounds() {
        complain(&format!("sleeve: round {round} of {}", bench.rounds()));
        for what in ALL {
            for path in paths.iter().filter(|p| p.measures.contains(what)) {
                sample(bench, &lab, path, what, idle, &mut samples)
                    .with_context(|| format!("while measuring {what} over {}", path.name))?;
            }
        }
        for router in &encrypted.routers {
            samples.add("enc", "rss", accounting::resident_bytes(router.pid()?)? as f64 / 1e6);
        }
    }
    orientation(&samples);
    Ok(rows(&samples))
}

/// Starts routers on two hosts, attaches a container to each and waits until they reach each other.
fn pair<'h>(
    lab: &Lab,
    programs: &Programs,
    hosts: [&'h Host; 2],
    password: Option<String>,
) -> Result<Pair<'h>> {
    let settings = Settings {
        peers: vec![hosts[0].address()?.to_string()],
        password,
        flags: vec!["--ipalloc-init=consensus=2".to_owned(), "--no-dns".to_owned()],
    };
    let start = |host| Router::start(programs, host, &settings);
    let mut routers = hosts.into_iter().map(start).collect::<Result<Vec<_>>>()?;
    let mut containers = Vec::new();
    let mut far = None;
    for router in &mut routers {
        router.await_ready()?;
    }
    for router in &routers {
        wait_until("both routers to link", SETTLE, || {
            let report = router.report()?;
            Ok(Look::when(shows_mesh(&report, 2, 2), || mesh_in_words(&report)))
        })?;
        router.tell("prime")?;
        let container = router.host().add_container("we")?;
        let printed = router.tell("attach --netns /run/netns/we --without-dns we")?;
        far = Some(printed.parse().with_context(|| format!("`weave attach` printed `{printed}`"))?);
        containers.push(container);
    }
    let far = far.context("two containers were attached")?;
    wait_until("the first packet between containers", SETTLE, || {
        let ping: PingReport =
            measure(lab.generator(), &containers[0], &format!("ping {far} --count 1 --timeout 0.5"))?;
        Ok(Look::when(ping.received > 0, || format!("{ping:?}")))
    })?;
    Ok(Pair { routers, containers, far })
}

/// The MTU that our router gave a container.
fn mtu(container: &Container) -> Result<u16> {
    let text = container.run("ip -o link show dev ethwe")?;
    let mut words = text.split_whitespace().skip_while(|w| *w != "mtu");
    words.nth(1).and_then(|w| w.parse().ok()).with_context(|| format!("ip shows no mtu: {text}"))
}

fn sample(
    bench: &Bench,
    lab: &Lab,
    path: &Path<'_>,
    what: &'static str,
    idle: f64,
    samples: &mut Samples,
) -> Result<()> {
    let (at, seconds) = (path.server.at(), bench.seconds());
    let run = |arguments: String| format!("{arguments} --seconds {seconds}");
    match what {
        "tcp1" | "tcp4" => {
            let streams = if what == "tcp1" { 1 } else { 4 };
            let (before, start) = (Machine::read()?, now());
            let report: TcpReport =
                measure(lab.generator(), path.from, &run(format!("tcp {at} --streams {streams}")))?;
            let cpu = Machine::read()?.since(before) - idle * start.elapsed().as_secs_f64();
            samples.add(path.name, what, report.gbit_per_s());
            if streams == 1 {
                samples.add(path.name, "cpu", cpu.max(0.0) / (report.bytes as f64 * 8.0 / 1e9));
            }
        }
        "pingpong" => {
            let report: PingPongReport =
                measure(lab.generator(), path.from, &run(format!("ping-pong {at}")))?;
            ensure!(report.lost * 100 < report.count, "{} of {} echoes lost", report.lost, report.count);
            samples.add(path.name, "p50", report.p50_us);
            samples.add(path.name, "p99", report.p99_us);
        }
        "flood64" => {
            let report: FloodReport =
                measure(lab.generator(), path.from, &run(format!("flood {at} --size 64")))?;
            samples.add(path.name, "pps64", report.per_s());
            samples.add(path.name, "loss64", 1.0 - report.delivered as f64 / report.sent.max(1) as f64);
        }
        _ => {
            let report: FloodReport =
                measure(lab.generator(), path.from, &run(format!("flood {at} --size 1350")))?;
            samples.add(path.name, "udp1350", report.gbit_per_s());
        }
    }
    Ok(())
}

/// Figures that have no row of their own: the underlay, VXLAN with its own best MTU, loss.
fn orientation(samples: &Samples) {
    let show = |path, what, unit: &str| {
        let values = samples.of(path, what);
        if !values.is_empty() {
            complain(&format!("sleeve: {path} {what} {:.3} {unit}", median(values)));
        }
    };
    for path in ["raw", "kernel-vxlan", "vxlan-best"] {
        show(path, "tcp1", "Gbit/s");
        show(path, "tcp4", "Gbit/s");
        show(path, "p50", "us");
        show(path, "p99", "us");
    }
    for path in ["kernel-vxlan", "enc"] {
        show(path, "loss64", "of the datagrams sent");
    }
}

fn rows(samples: &Samples) -> Vec<Row> {
    let row = |name: &str, unit, better, path, what| {
        let row = Row::new(&format!("sleeve.{name}"), unit, better, samples.of(path, what));
        row.against("kernel-vxlan", samples.of("kernel-vxlan", what))
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
