//! Measures how many queries a second the server answers over loopback, and how long each takes.
//!
//! `cargo run --release -p weave-dns --example qps [SECONDS] [CLIENTS]` (default 3 seconds, 4 sockets with 32 queries
//! under way on each). The server has a thread of its own; divide by the CPU that it used, which is printed, to
//! get queries per second and core. Run it inside a network namespace with `lo` up.

#![allow(clippy::print_stdout, reason = "the figures are the output")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use tokio::{
    net::UdpSocket,
    runtime::{Builder, Runtime},
    time::{Instant, timeout},
};
use weave_dns::{DnsConfig, Server, Upstreams};
use weave_model::PeerName;
use weave_names::{Domain, Names};

/// Names in the table.
const NAMES: u16 = 10_000;
/// Queries under way on each socket.
const WINDOW: usize = 32;

/// What one client saw.
#[derive(Default)]
struct Tally {
    latencies_us: Vec<u32>,
    lost: usize,
}

fn main() -> Result<()> {
    let arguments: Vec<u64> = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    let seconds = arguments.first().copied().unwrap_or(3).clamp(1, 30);
    let clients = arguments.get(1).copied().unwrap_or(4).clamp(1, 64);

    let server_runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let server = server_runtime.block_on(server_with_names())?;
    let address = *server.local_addrs().first().context("an address")?;
    let cpu_before = cpu_of_other_threads(&server_runtime)?;
    let tallies = Builder::new_current_thread().enable_all().build()?.block_on(async {
        let until = Instant::now() + Duration::from_secs(seconds);
        let tasks: Vec<_> = (0..clients).map(|n| tokio::spawn(client(address, n, until))).collect();
        let mut tallies = Vec::new();
        for task in tasks {
            tallies.push(task.await??);
        }
        anyhow::Ok(tallies)
    })?;
    let cpu = cpu_of_other_threads(&server_runtime)?.saturating_sub(cpu_before);
    report(&tallies, Duration::from_secs(seconds), cpu);
    server_runtime.block_on(server.stop());
    Ok(())
}

async fn server_with_names() -> Result<Server> {
    let local = PeerName([2, 0, 0, 0, 0, 1]);
    let mut names = Names::new(Domain::default(), local);
    for n in 0..NAMES {
        let [high, low] = n.to_be_bytes();
        let change = names.add(&"c".parse()?, &format!("name{n}"), [10, 32, high, low].into())?;
        names.handle_fact(local, &change.key, change.value.as_deref())?;
    }
    let config = DnsConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        upstreams: Upstreams::List(Vec::new()),
        ..DnsConfig::default()
    };
    Server::start(config, Arc::new(ArcSwap::new(names.snapshot()))).await
}

/// Keeps a window of queries under way; a lost one is given up after a second.
async fn client(server: SocketAddr, seed: u64, until: Instant) -> Result<Tally> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(server).await?;
    let mut tally = Tally::default();
    let mut sent_at = [None; WINDOW];
    let mut next_name = seed;
    let mut buffer = [0; 512];
    while Instant::now() < until {
        for (slot, sent) in sent_at.iter_mut().enumerate().filter(|(_, sent)| sent.is_none()) {
            next_name =
                next_name.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *sent = Some(Instant::now());
            socket.send(&query(u16::try_from(slot)?, (next_name >> 33) % u64::from(NAMES))).await?;
        }
        let Ok(first) = timeout(Duration::from_secs(1), socket.recv(&mut buffer)).await else {
            tally.lost += sent_at.iter_mut().filter_map(Option::take).count();
            continue;
        };
        let mut len = first?;
        loop {
            if len > 40
                && let Some(sent) = sent_at.get_mut(usize::from(buffer[1])).and_then(Option::take)
            {
                tally.latencies_us.push(u32::try_from(sent.elapsed().as_micros())?);
            }
            match socket.try_recv(&mut buffer) {
                Ok(more) => len = more,
                Err(_) => break,
            }
        }
    }
    Ok(tally)
}

fn query(id: u16, name: u64) -> Vec<u8> {
    let label = format!("name{name}");
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message[..2].copy_from_slice(&id.to_be_bytes());
    for label in [label.as_str(), "weave", "local"] {
        message.push(u8::try_from(label.len()).unwrap_or_default());
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// CPU time of the server's thread so far (Linux: user and system ticks of 10 ms).
fn cpu_of_other_threads(server: &Runtime) -> Result<Duration> {
    let path = server
        .block_on(async { tokio::spawn(async { std::fs::read_link("/proc/thread-self") }).await })??;
    let stat = std::fs::read_to_string(std::path::Path::new("/proc").join(path).join("stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn report(tallies: &[Tally], took: Duration, cpu: Duration) {
    let mut latencies: Vec<u32> = tallies.iter().flat_map(|t| t.latencies_us.iter().copied()).collect();
    latencies.sort_unstable();
    let lost: usize = tallies.iter().map(|t| t.lost).sum();
    let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).copied().unwrap_or_default();
    let qps = latencies.len() as f64 / took.as_secs_f64();
    let per_core = latencies.len() as f64 / cpu.as_secs_f64().max(0.01);
    println!("queries/s          {qps:.0}");
    println!(
        "queries/s and core {per_core:.0}   (server used {:.2} s of CPU in {:.1} s)",
        cpu.as_secs_f64(),
        took.as_secs_f64()
    );
    println!("latency            p50 {} us, p99 {} us", at(0.5), at(0.99));
    println!("lost               {lost}");
}
