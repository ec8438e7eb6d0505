//! Allocation: over the control API, and in this process without anything round it.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use weave_api::AllocateRequest;
use weave_ipam::{Config, Event, Init, Ipam, Reply, RequestId};
use weave_model::PeerName;
use weave_tests::{
    clock::now,
    product::{Api, Programs, Router, Settings},
};

use super::{
    Bench,
    row::{Better, Row},
};
use crate::inside;

/// Allocations one after the other, whose times give the percentiles.
const ONE_BY_ONE: usize = 2000;

/// Clients that allocate at once, and allocations of each.
const CLIENTS: usize = 8;
const EACH: usize = 500;

/// Allocations in this process.
const IN_PROCESS: usize = 20_000;

/// What one round came to; times in milliseconds, rates per second.
#[derive(Debug, Default)]
struct Round {
    consensus_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    per_s: f64,
}

pub(super) fn run(bench: &Bench, programs: &Programs) -> Result<Vec<Row>> {
    let shrink = if bench.quick { 10 } else { 1 };
    let mut rounds = Vec::new();
    let (mut process_ms, mut process_per_s) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds() {
        rounds.push(over_the_api(programs, shrink)?);
        let per_s = in_process(IN_PROCESS / shrink)?;
        process_per_s.push(per_s);
        process_ms.push(1e3 / per_s);
    }
    let all = |f: fn(&Round) -> f64| rounds.iter().map(f).collect::<Vec<_>>();
    let rival = "in-process";
    Ok(vec![
        Row::new("ipam.alloc_p50", "ms", Better::Less, &all(|r| r.p50_ms)).against(rival, &process_ms),
        Row::new("ipam.alloc_p99", "ms", Better::Less, &all(|r| r.p99_ms)).against(rival, &process_ms),
        Row::new("ipam.alloc_per_s", "/s", Better::More, &all(|r| r.per_s)).against(rival, &process_per_s),
        Row::new("ipam.inprocess_per_s", "/s", Better::More, &process_per_s),
        Row::new("ipam.first_consensus_s", "s", Better::Less, &all(|r| r.consensus_s)),
    ])
}

/// Three routers agree on a ring; then one of them is asked for addresses.
fn over_the_api(programs: &Programs, shrink: usize) -> Result<Round> {
    let mut lab = inside::lab()?;
    let mut hosts = ["h1", "h2", "h3"].into_iter().map(|n| lab.add_host(n)).collect::<Result<Vec<_>>>()?;
    lab.join(&mut hosts.iter_mut().collect::<Vec<_>>())?;
    let peer = hosts.first().context("there are three hosts")?.address()?.to_string();
    let settings = Settings {
        peers: vec![peer],
        password: Some("bench".to_owned()),
        flags: vec!["--ipalloc-init=consensus=3".to_owned(), "--no-dns".to_owned()],
    };
    let mut routers =
        hosts.iter().map(|h| Router::start(programs, h, &settings)).collect::<Result<Vec<_>>>()?;
    routers.iter_mut().try_for_each(Router::await_ready)?;
    let start = now();
    routers.iter().try_for_each(|r| r.tell("prime").map(drop))?;
    let consensus_s = start.elapsed().as_secs_f64();

    let run_dir = routers[0].run_dir();
    let mut times = allocate(run_dir, "one", ONE_BY_ONE / shrink)?;
    times.sort_unstable();
    let ms = |part: f64| {
        let index = (part * times.len() as f64) as usize;
        times.get(index.min(times.len() - 1)).map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    let start = now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| scope.spawn(move || allocate(run_dir, &format!("many{n}"), EACH / shrink)))
            .collect();
        clients.into_iter().try_for_each(|client| {
            client.join().map_err(|_| anyhow!("an allocating client panicked"))?.map(drop)
        })
    })?;
    let per_s = (CLIENTS * (EACH / shrink)) as f64 / start.elapsed().as_secs_f64();
    Ok(Round { consensus_s, p50_ms: ms(0.5), p99_ms: ms(0.99), per_s })
}

/// Allocates for `count` containers, one after the other, and returns how long each took.
fn allocate(run_dir: &Path, prefix: &str, count: usize) -> Result<Vec<Duration>> {
    let api = Api::of(run_dir)?;
    let one = |n| {
        let container = format!("{prefix}-{n}").parse()?;
        let request = AllocateRequest { container, subnet: None, timeout_s: Some(10) };
        let start = now();
        api.call(&request)?;
        Ok(start.elapsed())
    };
    (0..count).map(one).collect()
}

/// Allocations per second of the core alone: no socket, no disk.
fn in_process(count: usize) -> Result<f64> {
    let local = PeerName([2, 0, 0, 0, 0, 1]);
    let ranges = vec!["10.32.0.0/12".parse()?];
    let config =
        Config { local, ranges, default_subnets: Vec::new(), init: Init::Seed(vec![local]), store_id: 1 };
    let mut ipam = Ipam::new(config, std::iter::empty(), [7; 32], now())?;
    let mut granted = 0;
    let start = now();
    for n in 0..count {
        let (time, request) = (now(), RequestId(n as u64));
        ipam.allocate(request, format!("c{n}").parse()?, None, time + Duration::from_secs(1), time);
        while let Some(event) = ipam.poll_event() {
            granted += usize::from(matches!(event, Event::Reply { result: Ok(Reply::Addresses(_)), .. }));
        }
    }
    ensure!(granted == count, "{granted} of {count} allocations were granted");
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
