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

/// Requests that are under way at once, of which each has a connection of its own, and allocations of each.
const CROWD: usize = 100;
const EACH_OF_CROWD: usize = 40;

/// Routers that are started at once, with empty stores.
const COLD: [u8; 3] = [3, 10, 30];

/// Allocations in this process.
const IN_PROCESS: usize = 20_000;

/// What one round came to; times in milliseconds, rates per second.
#[derive(Debug, Default)]
struct Round {
    consensus_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    per_s: f64,
    crowd_p50_ms: f64,
    crowd_p99_ms: f64,
    crowd_per_s: f64,
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
    let cold = COLD.iter().map(|count| cold_starts(bench, programs, *count)).collect::<Result<Vec<_>>>()?;
    let all = |f: fn(&Round) -> f64| rounds.iter().map(f).collect::<Vec<_>>();
    let rival = "in-process";
    let rows = vec![
        Row::new("ipam.alloc_p50", "ms", Better::Less, &all(|r| r.p50_ms)).against(rival, &process_ms),
        Row::new("ipam.alloc_p99", "ms", Better::Less, &all(|r| r.p99_ms)).against(rival, &process_ms),
        Row::new("ipam.alloc_per_s", "/s", Better::More, &all(|r| r.per_s)).against(rival, &process_per_s),
        Row::new("ipam.inprocess_per_s", "/s", Better::More, &process_per_s),
        Row::new("ipam.first_consensus_s", "s", Better::Less, &all(|r| r.consensus_s)),
        Row::new("ipam.crowd100_p50", "ms", Better::Less, &all(|r| r.crowd_p50_ms)),
        Row::new("ipam.crowd100_p99", "ms", Better::Less, &all(|r| r.crowd_p99_ms)),
        Row::new("ipam.crowd100_per_s", "/s", Better::More, &all(|r| r.crowd_per_s)),
    ];
    Ok(rows.into_iter().chain(cold).collect())
}

/// From the first start until every router says that the ring is there.
fn cold_starts(bench: &Bench, programs: &Programs, count: u8) -> Result<Row> {
    let rounds = (0..bench.rounds()).map(|_| cold_start(programs, count)).collect::<Result<Vec<_>>>()?;
    Ok(Row::new(&format!("ipam.cold{count}_s"), "s", Better::Less, &rounds))
}

fn cold_start(programs: &Programs, count: u8) -> Result<f64> {
    let mut lab = inside::lab()?;
    let mut hosts = (1..=count).map(|n| lab.add_host(&format!("h{n}"))).collect::<Result<Vec<_>>>()?;
    lab.join(&mut hosts.iter_mut().collect::<Vec<_>>())?;
    let peer = hosts.first().context("at least one router starts")?.address()?.to_string();
    let settings = Settings {
        peers: vec![peer],
        password: Some("bench".to_owned()),
        flags: vec![format!("--ipalloc-init=consensus={count}"), "--no-dns".to_owned()],
    };
    let start = now();
    let mut routers =
        hosts.iter().map(|h| Router::start(programs, h, &settings)).collect::<Result<Vec<_>>>()?;
    routers.iter_mut().try_for_each(Router::await_ready)?;
    routers.iter().try_for_each(|r| r.tell("prime").map(drop))?;
    Ok(start.elapsed().as_secs_f64())
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
    let one = allocate(run_dir, "one", ONE_BY_ONE / shrink)?;
    let (_, per_s) = at_once(run_dir, CLIENTS, EACH / shrink)?;
    let (crowd, crowd_per_s) = at_once(run_dir, CROWD, EACH_OF_CROWD / shrink)?;
    Ok(Round {
        consensus_s,
        p50_ms: percentile_ms(&one, 0.5),
        p99_ms: percentile_ms(&one, 0.99),
        per_s,
        crowd_p50_ms: percentile_ms(&crowd, 0.5),
        crowd_p99_ms: percentile_ms(&crowd, 0.99),
        crowd_per_s,
    })
}

/// How long each allocation of all clients took, and allocations per second.
fn at_once(run_dir: &Path, clients: usize, each: usize) -> Result<(Vec<Duration>, f64)> {
    let start = now();
    let times = thread::scope(|scope| {
        let allocating = |n| move || allocate(run_dir, &format!("of{clients}-{n}"), each);
        let running: Vec<_> = (0..clients).map(|n| scope.spawn(allocating(n))).collect();
        let ended = running
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow!("an allocating client panicked"))?);
        ended.collect::<Result<Vec<_>>>()
    })?;
    Ok((times.concat(), (clients * each) as f64 / start.elapsed().as_secs_f64()))
}

fn percentile_ms(times: &[Duration], part: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let index = (part * sorted.len() as f64) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).map_or(0.0, |t| t.as_secs_f64() * 1e3)
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
