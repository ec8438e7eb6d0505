//! Traffic between two places over several paths, measured in turn: what the areas about packets have in common.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weave_tests::{
    accounting::{self, Machine},
    clock::{Look, now, wait_until},
    lab::{Container, Host, Lab, Place},
    product::{Programs, Router, Settings, mesh_in_words, shows_mesh},
    traffic::{FloodReport, PingPongReport, PingReport, Server, TcpReport, measure},
};

use super::{
    Bench,
    row::{Better, Row, median},
};
use crate::screen::complain;

/// How long the machine's load without ours is measured before the rounds; it is taken off.
const IDLE_WINDOW: Duration = Duration::from_secs(2);

/// Idle load, in cores, above which something else works on the machine.
const BUSY: f64 = 0.2;

/// How long the mesh and the first packet may take.
pub(super) const SETTLE: Duration = Duration::from_secs(30);

/// Everything that can be measured on a path, in the order in which it is.
pub(super) const ALL: &[&str] = &["tcp1", "tcp4", "pingpong", "flood64", "flood1350"];

/// Samples by path and measurement, one a round.
#[derive(Debug, Default)]
pub(super) struct Samples(BTreeMap<(&'static str, &'static str), Vec<f64>>);

impl Samples {
    pub(super) fn add(&mut self, path: &'static str, what: &'static str, value: f64) {
        self.0.entry((path, what)).or_default().push(value);
    }

    pub(super) fn of(&self, path: &'static str, what: &'static str) -> &[f64] {
        self.0.get(&(path, what)).map_or(&[], Vec::as_slice)
    }

    /// A row of `ours` against `theirs`, both from these samples.
    pub(super) fn row(
        &self,
        name: &str,
        (unit, better): (&'static str, Better),
        (ours, theirs): (&'static str, &'static str),
        what: &'static str,
    ) -> Row {
        Row::new(name, unit, better, self.of(ours, what)).against(theirs, self.of(theirs, what))
    }

    /// Prints a median that has no row of its own, if it was measured.
    pub(super) fn orient(&self, area: &str, path: &'static str, what: &'static str, unit: &str) {
        let values = self.of(path, what);
        if !values.is_empty() {
            complain(&format!("{area}: {path} {what} {:.3} {unit}", median(values)));
        }
    }
}

/// A way from one place to another that is measured.
pub(super) struct Path<'a> {
    name: &'static str,
    from: &'a Place,
    server: Server,
    /// What is measured on it.
    measures: &'static [&'static str],
}

impl<'a> Path<'a> {
    pub(super) fn new(
        lab: &Lab,
        name: &'static str,
        from: &'a Place,
        (to, address): (&Place, IpAddr),
        measures: &'static [&'static str],
    ) -> Result<Self> {
        Ok(Self { name, from, server: Server::start(lab.generator(), to, address)?, measures })
    }
}

/// Measures all paths, interleaved round by round; `after_round` may add more.
pub(super) fn measure_all(
    bench: &Bench,
    area: &str,
    lab: &Lab,
    paths: &[Path<'_>],
    mut after_round: impl FnMut(&mut Samples) -> Result<()>,
) -> Result<Samples> {
    let idle = accounting::idle_load(if bench.quick { IDLE_WINDOW / 10 } else { IDLE_WINDOW })?;
    complain(&format!("{area}: idle load {:.1} % of a core, taken off", idle * 100.0));
    if idle > BUSY {
        complain(&format!("{area}: the machine is busy with something else; these figures say little"));
    }
    let mut samples = Samples::default();
    for round in 1..=bench.rounds() {
        complain(&format!("{area}: round {round} of {}", bench.rounds()));
        for what in ALL {
            for path in paths.iter().filter(|p| p.measures.contains(what)) {
                sample(bench, lab, path, what, idle, &mut samples)
                    .with_context(|| format!("while measuring {what} over {}", path.name))?;
            }
        }
        after_round(&mut samples)?;
    }
    Ok(samples)
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

/// A mesh with a container on the first and on the last of its hosts.
pub(super) struct Mesh<'h> {
    pub(super) routers: Vec<Router<'h>>,
    pub(super) near: Container,
    pub(super) far: Container,
    /// The far container's.
    pub(super) address: IpAddr,
}

impl<'h> Mesh<'h> {
    /// Starts routers on `hosts`, each with the settings that `settings` gives it, waits for `links` links, attaches
    /// the containers and waits until they reach each other.
    pub(super) fn start(
        lab: &Lab,
        programs: &Programs,
        hosts: &[&'h Host],
        links: usize,
        settings: impl Fn(usize) -> Settings,
    ) -> Result<Self> {
        let start = |(place, host): (usize, &&'h Host)| Router::start(programs, host, &settings(place));
        let mut routers = hosts.iter().enumerate().map(start).collect::<Result<Vec<_>>>()?;
        for router in &mut routers {
            router.await_ready()?;
        }
        for router in &routers {
            wait_until("all routers to link", SETTLE, || {
                let report = router.report()?;
                let is_whole = shows_mesh(&report, hosts.len(), links * 2);
                Ok(Look::when(is_whole, || mesh_in_words(&report)))
            })?;
            router.tell("prime")?;
        }
        let ends = [routers.first(), routers.last()].map(|end| end.context("a mesh has two hosts or more"));
        let [near, far] = ends;
        let ((near, _), (far, address)) = (attach(near?)?, attach(far?)?);
        wait_until("the first packet between containers", SETTLE, || {
            let ping: PingReport =
                measure(lab.generator(), &near, &format!("ping {address} --count 1 --timeout 0.5"))?;
            Ok(Look::when(ping.received > 0, || format!("{ping:?}")))
        })?;
        Ok(Self { routers, near, far, address })
    }

    /// The MTU that our router gave the containers.
    pub(super) fn mtu(&self) -> Result<u16> {
        let text = self.near.run("ip -o link show dev ethwe")?;
        let mut words = text.split_whitespace().skip_while(|w| *w != "mtu");
        words.nth(1).and_then(|w| w.parse().ok()).with_context(|| format!("ip shows no mtu: {text}"))
    }
}

fn attach(router: &Router<'_>) -> Result<(Container, IpAddr)> {
    let container = router.host().add_container("we")?;
    let printed = router.tell("attach --netns /run/netns/we --without-dns we")?;
    let address = printed.parse().with_context(|| format!("`weave attach` printed `{printed}`"))?;
    Ok((container, address))
}
