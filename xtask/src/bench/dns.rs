//! The name server under dnsperf, beside dnsmasq with the same names, in a host's namespace over loopback.

use std::{fmt::Write as _, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weave_api::DnsAddRequest;
use weave_tests::{
    accounting,
    clock::{Look, wait_until},
    lab::{Host, Process},
    product::{Programs, Router, Settings},
    tool,
};

use super::{
    Bench,
    row::{Better, Row},
};
use crate::{inside, screen::complain};

/// Names that are asked for, with an address each.
const NAMES: u32 = 1000;

/// Where the rival listens.
const RIVAL: &str = "127.0.0.2";

/// From so many sockets.
const CLIENTS: &str = "8";

/// Queries per second when it is measured what one takes.
const MODERATE: &str = "5000";

/// What one server did under one load.
#[derive(Debug)]
struct Load {
    /// Answers per second of the server's processor time.
    per_core: f64,
    p99_ms: f64,
}

pub(super) fn run(bench: &Bench, programs: &Programs) -> Result<Vec<Row>> {
    if Command::new("dnsperf").arg("-h").output().is_err() {
        complain("dns: left out; the load comes from dnsperf (Debian: dnsperf)");
        return Ok(Vec::new());
    }
    let mut lab = inside::lab()?;
    let mut host = lab.add_host("h1")?;
    // dnsperf takes no IPv4 address of a server where the loopback is all that has one.
    lab.join(&mut [&mut host])?;
    let (questions, hosts_file) = (lab.directory().join("questions"), lab.directory().join("names"));
    // Not on all addresses: the rival has one of its own.
    let flags = ["--ipalloc-init=consensus=1", "--dns-listen-address=127.0.0.1:53"].map(str::to_owned);
    let settings = Settings { flags: flags.into(), ..Settings::default() };
    let mut router = Router::start(programs, &host, &settings)?;
    router.await_ready()?;
    write_names(&router, &questions, &hosts_file)?;
    let rival = dnsmasq(&host, &hosts_file)?;
    if rival.is_none() {
        complain("dns: the rival dnsmasq is left out; it is not installed (Debian: dnsmasq-base)");
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds() {
        ours.push(load(&host, "127.0.0.1", router.pid()?, &questions, bench.seconds())?);
        if let Some(rival) = &rival {
            theirs.push(load(&host, RIVAL, rival.pid(), &questions, bench.seconds())?);
        }
    }
    let all = |loads: &[Load], f: fn(&Load) -> f64| loads.iter().map(f).collect::<Vec<_>>();
    let rows = [
        (
            Row::new("dns.qps_core", "/s", Better::More, &all(&ours, |l| l.per_core)),
            all(&theirs, |l| l.per_core),
        ),
        (Row::new("dns.p99", "ms", Better::Less, &all(&ours, |l| l.p99_ms)), all(&theirs, |l| l.p99_ms)),
    ];
    let against = |(row, theirs): (Row, Vec<f64>)| match &theirs[..] {
        [] => row,
        theirs => row.against("dnsmasq", theirs),
    };
    Ok(rows.into_iter().map(against).collect())
}

/// Gives the router its names, and writes them as questions for dnsperf and as a file of hosts for the rival.
fn write_names(router: &Router<'_>, questions: &Path, hosts: &Path) -> Result<()> {
    let (mut asked, mut listed) = (String::new(), String::new());
    for n in 0..NAMES {
        let (name, address) = (format!("n{n}.weave.local"), std::net::Ipv4Addr::from(0x0a20_0101 + n));
        router.call(&DnsAddRequest {
            container: None,
            addresses: vec![address.into()],
            fqdn: Some(name.clone()),
            service: None,
        })?;
        writeln!(asked, "{name} A")?;
        writeln!(listed, "{address} {name}")?;
    }
    fs::write(questions, asked)?;
    fs::write(hosts, listed).context("the names cannot be written")
}

fn dnsmasq(host: &Host, names: &Path) -> Result<Option<Process>> {
    if Command::new("dnsmasq").arg("--version").output().is_err() {
        return Ok(None);
    }
    let mut command = host.command("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
    ]);
    command.args(["--bind-interfaces", "--pid-file=", "--local-ttl=1", "--local=/weave.local/"]);
    command.arg(format!("--listen-address={RIVAL}")).arg(format!("--addn-hosts={}", names.display()));
    let process = host.spawn(command, "dnsmasq")?;
    wait_until("dnsmasq to answer", Duration::from_secs(10), || {
        let mut dig = host.command("dig");
        dig.args(["+short", "+tries=1", "+timeout=1", &format!("@{RIVAL}"), "n0.weave.local"]);
        let said = tool::output(&mut dig)?;
        Ok(Look::when(said.stdout.starts_with(b"10."), || process.last_words(3)))
    })?;
    Ok(Some(process))
}

/// Lets dnsperf ask as fast as it can for `seconds`, and then at a moderate rate, which shows what one query takes.
fn load(host: &Host, server: &str, pid: u32, questions: &Path, seconds: f64) -> Result<Load> {
    let seconds = seconds.ceil().max(1.0).to_string();
    let ask = |words: &[&str]| -> Result<String> {
        let mut command = host.command("dnsperf");
        command
            .args(["-f", "inet", "-s", server, "-l", &seconds, "-t", "1", "-W", "-c", CLIENTS, "-d"])
            .arg(questions);
        let said = tool::run(command.args(words))?;
        let lost = number(&said, "Queries lost:")?;
        ensure!(lost == 0.0, "{lost} queries to {server} were not answered:\n{said}");
        Ok(said)
    };
    let before = accounting::cpu_seconds(pid)?;
    let completed = number(&ask(&["-q", "100"])?, "Queries completed:")?;
    let cpu = accounting::cpu_seconds(pid)? - before;
    Ok(Load { per_core: completed / cpu.max(0.01), p99_ms: p99_ms(&ask(&["-v", "-Q", MODERATE])?)? })
}

/// The first number behind a label.
fn number(text: &str, label: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .with_context(|| format!("dnsperf does not say `{label}`:\n{text}"))
}

/// From lines such as `> NOERROR n0.weave.local A 0.000372`, one for each answer, in seconds.
fn p99_ms(text: &str) -> Result<f64> {
    let answers = text.lines().filter_map(|line| line.strip_prefix("> NOERROR "));
    let mut times: Vec<f64> = answers.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    let at = times.len() * 99 / 100;
    times.get(at).map(|time| time * 1e3).context("dnsperf saw no answer that has an address")
}
