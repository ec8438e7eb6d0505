//! A server for load generators: serves names on one thread until its standard input ends, then says what it did.
//!
//! ```text
//! cargo run --release -p weave-dns --example load -- 127.0.0.1:5300 1000 queries.txt
//! dnsperf -s 127.0.0.1 -p 5300 -d queries.txt -l 10
//! ```
//!
//! `queries.txt` is written: the names, in dnsperf's format. The same names in the format of a hosts file go to
//! `queries.txt.hosts`, so that other servers can be measured beside this one.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program at a terminal")]

use std::{fmt::Write as _, fs, net::IpAddr, sync::Arc};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use weave_dns::{DnsConfig, LATENCY_BUCKETS, Outcome, Server, Stats, Upstreams};
use weave_model::PeerName;
use weave_names::{Domain, Names};

const LOCAL: PeerName = PeerName([2, 0, 0, 0, 0, 1]);

/// One thread, so that the figure is that of one core.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let listen = words.next().context("give the address to listen on")?.parse()?;
    let count: u32 = words.next().context("give the number of names")?.parse()?;
    let queries = words.next().context("give the file for dnsperf")?;
    let names = ArcSwap::new(table(count, &queries)?.snapshot());
    let upstreams = Upstreams::List(Vec::new());
    let config = DnsConfig { listen: vec![listen], upstreams, ..DnsConfig::default() };
    let server = Server::start(config, Arc::new(names)).await?;
    eprintln!("{count} names are served on {listen}");
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    print(&server.stats());
    server.stop().await;
    Ok(())
}

/// A table of `count` names with an address each; writes down what to ask.
fn table(count: u32, queries: &str) -> Result<Names> {
    let mut names = Names::new(Domain::default(), LOCAL);
    let container = "load".parse()?;
    let (mut asked, mut hosts) = (String::new(), String::new());
    for n in 0..count {
        let name = format!("n{n}.weave.local");
        let address = IpAddr::V4((0x0a20_0001 + n).into());
        let change = names.add(&container, &name, address)?;
        names.handle_fact(LOCAL, &change.key, change.value.as_deref())?;
        writeln!(asked, "{name} A")?;
        writeln!(hosts, "{address} {name}")?;
    }
    fs::write(queries, asked)?;
    fs::write(format!("{queries}.hosts"), hosts)?;
    Ok(names)
}

fn print(stats: &Stats) {
    for outcome in Outcome::ALL {
        println!("{:>10} {}", stats.count(outcome), outcome.as_str());
    }
    let bounds = LATENCY_BUCKETS.iter().map(|bound| format!("at most {bound:?}"));
    for (bound, count) in bounds.chain(["longer".to_owned()]).zip(stats.latency) {
        println!("{count:>10} took {bound}");
    }
}
