//! From `docker run` to a container's first answered packet, on our network and on Docker's own bridges, on one engine.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use weave_tests::{
    clock::now,
    docker::{self, Engine, IMAGE},
    product::{Programs, Router, Settings},
    tool,
};

use super::{
    Bench,
    row::{Better, Row, median},
};
use crate::{inside, screen::complain};

/// Containers on each network in a round; their median is the round's figure.
const RUNS: usize = 7;

/// Docker's default network, and one that a user made, whose containers find each other by name as ours do.
const RIVALS: [(&str, &str); 2] = [("bridge", "docker-bridge"), ("own", "docker-network")];

pub(super) fn run(bench: &Bench, programs: &Programs) -> Result<Vec<Row>> {
    let is_missing = |program: &str| Command::new(program).arg("--help").output().is_err();
    if is_missing("dockerd") || is_missing("docker") || is_missing("busybox") {
        complain(
            "docker: left out; it needs an engine and a static busybox (Debian: docker.io, busybox-static)",
        );
        return Ok(Vec::new());
    }
    let mut lab = inside::lab()?;
    let mut host = lab.add_host("h1")?;
    lab.join(&mut [&mut host])?;
    let flags = vec!["--ipalloc-init=consensus=1".to_owned()];
    let mut router = Router::start(programs, &host, &Settings { flags, ..Settings::default() })?;
    router.await_ready()?;
    let _driver = docker::start_driver(programs, &router)?;
    let engine = Engine::start(&host, &[])?;
    docker::await_network(&engine)?;
    engine.docker("network create own")?;
    let target = |network: &str| -> Result<(String, String)> {
        let name = format!("target-{network}");
        engine.run(&name, network, "")?;
        Ok((network.to_owned(), engine.address(&name, network)?))
    };
    let ours = target("weave")?;
    let theirs = RIVALS.iter().map(|(network, _)| target(network)).collect::<Result<Vec<_>>>()?;
    let runs = if bench.quick { 1 } else { RUNS };
    let mut figures: [Vec<f64>; 3] = Default::default();
    for _ in 0..bench.rounds() {
        let mut times: [Vec<f64>; 3] = Default::default();
        for _ in 0..runs {
            times[0].push(first_packet_ms(&engine, &ours)?);
            for (times, target) in times[1..].iter_mut().zip(&theirs) {
                times.push(first_packet_ms(&engine, target)?);
            }
        }
        figures.iter_mut().zip(&times).for_each(|(all, times)| all.push(median(times)));
    }
    let row = |name, of: usize| {
        Row::new(name, "ms", Better::Less, &figures[0]).against(RIVALS[of].1, &figures[of + 1])
    };
    Ok(vec![row("docker.first_packet", 0), row("docker.first_packet_named", 1)])
}

/// How long it takes until a container that is not there yet has heard from one that is.
fn first_packet_ms(engine: &Engine<'_>, (network, target): &(String, String)) -> Result<f64> {
    let arguments = ["run", "--rm", "--net", network, IMAGE, "/bin/ping", "-c", "1", "-W", "5", target];
    let mut command = engine.command(&arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = now();
    let mut child = command.spawn().context("cannot run docker")?;
    let stdout = BufReader::new(child.stdout.take().context("its output is piped")?);
    let mut answered = None;
    for line in stdout.lines() {
        if line?.contains(" bytes from ") {
            answered.get_or_insert_with(|| start.elapsed());
        }
    }
    let mut said = String::new();
    child.stderr.take().context("its messages are piped")?.read_to_string(&mut said)?;
    let status = child.wait()?;
    ensure!(status.success(), "`{}` failed ({status}): {said}", tool::line(&command));
    let answered = answered.with_context(|| format!("{target} on {network} did not answer"))?;
    Ok(answered.as_secs_f64() * 1e3)
}
