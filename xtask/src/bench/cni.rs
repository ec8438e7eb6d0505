//! ADD of a container's interface beside CNI's reference plugins `bridge` and `host-local`, each on a host of its own.
//!
//! A runtime of ours, one process on the host, runs the plugins, so that nothing but their own start and work is timed.

use std::{
    collections::BTreeMap,
    env,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weave_tests::{
    clock::now,
    cni::Plugins,
    cni_clients::REFERENCE_PLUGINS,
    lab::{Host, target_directory},
    product::{Programs, Router, Settings},
    tool,
};

use super::{
    Bench,
    row::{Better, Row},
};
use crate::{inside, screen::complain};

/// Containers that get an interface one after the other in a round, and how many do at once.
const ALONE: usize = 40;
const AT_ONCE: usize = 50;

/// The namespace that the others ping.
const TARGET: &str = "target";

const RIVAL: &str = "bridge+host-local";

/// A program to run to its end.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    program: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    stdin: String,
}

/// How long jobs took, in the order in which they were told, and all of them together.
#[derive(Debug, Serialize, Deserialize)]
struct Times {
    each_s: Vec<f64>,
    all_s: f64,
}

/// Runs programs that are told on stdin, and prints how long each took.
#[derive(Debug, Args)]
pub(crate) struct Runtime {
    /// Start all of them at once
    #[arg(long)]
    at_once: bool,
}

impl Runtime {
    pub(crate) fn run(&self) -> Result<()> {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        let jobs: Vec<Job> = serde_json::from_str(&text)?;
        let start = now();
        let each_s = if self.at_once {
            thread::scope(|scope| {
                let running: Vec<_> = jobs.iter().map(|job| scope.spawn(|| job.run())).collect();
                let joined =
                    running.into_iter().map(|job| job.join().map_err(|_| anyhow!("a job panicked"))?);
                joined.collect::<Result<_>>()
            })?
        } else {
            jobs.iter().map(Job::run).collect::<Result<_>>()?
        };
        let times = Times { each_s, all_s: start.elapsed().as_secs_f64() };
        writeln!(io::stdout(), "{}", serde_json::to_string(&times)?)?;
        Ok(())
    }
}

impl Job {
    fn run(&self) -> Result<f64> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(&self.environment);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = now();
        let mut child = command.spawn().with_context(|| format!("cannot run {}", self.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(self.stdin.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let took = start.elapsed();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(output.status.success(), "`{}` failed: {said}", tool::line(&command));
        Ok(took.as_secs_f64())
    }
}

/// A host whose containers get their interfaces from a plugin.
struct Site<'h> {
    host: &'h Host,
    /// Where a runtime looks for plugins.
    directory: PathBuf,
    config: Value,
    target: String,
}

/// What one round came to, in milliseconds but for the last.
#[derive(Debug, Default)]
struct Round {
    p50: f64,
    p99: f64,
    first_packet_p50: f64,
    del_p50: f64,
    at_once_s: f64,
}

/// Builds what is measured beside the router. To be called outside the sandbox.
pub(super) fn build() -> Result<()> {
    // The plugin is then there as well.
    if env::var_os("WEAVE_BIN_DIR").is_some() {
        return Ok(());
    }
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    cargo.args(["build", "--quiet", "--release", "--package", "weave-cni", "--target-dir"]);
    let status = cargo.arg(target_directory()?).status().context("cannot run cargo")?;
    ensure!(status.success(), "the build failed; its messages are above");
    Ok(())
}

pub(super) fn run(bench: &Bench, programs: &Programs) -> Result<Vec<Row>> {
    if Command::new("busybox").output().is_err() {
        complain("cni: left out; the first packet is busybox's ping (Debian: busybox-static)");
        return Ok(Vec::new());
    }
    let mut lab = inside::lab()?;
    let (mut ours, mut theirs) = (lab.add_host("h1")?, lab.add_host("h2")?);
    lab.join(&mut [&mut ours, &mut theirs])?;
    let flags = vec!["--ipalloc-init=consensus=1".to_owned(), "--no-dns".to_owned()];
    let settings = Settings { flags, ..Settings::default() };
    let mut router = Router::start(programs, &ours, &settings)?;
    router.await_ready()?;
    let plugins = Plugins::install(&lab, programs)?;
    let (alone, at_once) = if bench.quick { (3, 10) } else { (ALONE, AT_ONCE) };
    let config = json!({
        "cniVersion": "1.0.0", "name": "weave", "type": "weave-net",
        "socket": router.run_dir().join("weave.sock"),
    });
    let ours = Site::new(&ours, plugins.directory(), config, at_once)?;
    let theirs = if Path::new(REFERENCE_PLUGINS).join("host-local").is_file() {
        let config = rival(&lab.directory().join("host-local"));
        Some(Site::new(&theirs, Path::new(REFERENCE_PLUGINS), config, at_once)?)
    } else {
        complain("cni: no rival; the reference plugins are in Debian's containernetworking-plugins");
        None
    };
    let (mut our_rounds, mut their_rounds) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds() {
        our_rounds.push(ours.round(alone, at_once)?);
        if let Some(theirs) = &theirs {
            their_rounds.push(theirs.round(alone, at_once)?);
        }
    }
    Ok(rows(&our_rounds, &their_rounds))
}

fn rows(ours: &[Round], theirs: &[Round]) -> Vec<Row> {
    let row = |name, unit, figure: fn(&Round) -> f64| {
        let all = |rounds: &[Round]| rounds.iter().map(figure).collect::<Vec<_>>();
        let row = Row::new(name, unit, Better::Less, &all(ours));
        if theirs.is_empty() { row } else { row.against(RIVAL, &all(theirs)) }
    };
    vec![
        row("cni.add_p50", "ms", |round| round.p50),
        row("cni.add_p99", "ms", |round| round.p99),
        row("cni.first_packet_p50", "ms", |round| round.first_packet_p50),
        row("cni.del_p50", "ms", |round| round.del_p50),
        row("cni.add50_s", "s", |round| round.at_once_s),
    ]
}

/// The reference plugins as they work least: no masquerading, which takes runs of `iptables`.
fn rival(data: &Path) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "rival", "type": "bridge",
        "bridge": "cni0", "isGateway": true, "hairpinMode": true,
        "ipam": {
            "type": "host-local", "dataDir": data,
            "ranges": [[{ "subnet": "10.64.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }],
        },
    })
}

impl<'h> Site<'h> {
    /// Makes namespaces for containers, and gives the one that is pinged its interface.
    fn new(host: &'h Host, directory: &Path, config: Value, containers: usize) -> Result<Self> {
        let names = (0..containers).map(name).chain([TARGET.to_owned()]);
        let batch: String = names.map(|name| format!("netns add {name}\n")).collect();
        host.ip(&batch)?;
        let mut site = Self { host, directory: directory.to_owned(), config, target: String::new() };
        site.execute(false, &[site.plugin("ADD", TARGET)])?;
        let shown = host.run(&format!("ip -n {TARGET} -4 -o address show dev eth0"))?;
        let address = shown.split_whitespace().skip_while(|word| *word != "inet").nth(1);
        let address = address.and_then(|net| net.split('/').next());
        address.with_context(|| format!("{TARGET} has no address: {shown}"))?.clone_into(&mut site.target);
        Ok(site)
    }

    fn round(&self, alone: usize, at_once: usize) -> Result<Round> {
        let name = name(0);
        let one = || [self.plugin("ADD", &name), self.ping(&name), self.plugin("DEL", &name)];
        let jobs: Vec<Job> = (0..alone).flat_map(|_| one()).collect();
        let times = self.execute(false, &jobs)?.each_s;
        let of =
            |figure: fn(&[f64]) -> f64| times.chunks_exact(3).map(|t| figure(t) * 1e3).collect::<Vec<_>>();
        let (mut adds, mut firsts, mut dels) = (of(|t| t[0]), of(|t| t[0] + t[1]), of(|t| t[2]));
        let all = |verb| (0..at_once).map(|n| self.plugin(verb, &self::name(n))).collect::<Vec<_>>();
        let at_once_s = self.execute(true, &all("ADD"))?.all_s;
        self.execute(false, &all("DEL"))?;
        Ok(Round {
            p50: percentile(&mut adds, 50),
            p99: percentile(&mut adds, 99),
            first_packet_p50: percentile(&mut firsts, 50),
            del_p50: percentile(&mut dels, 50),
            at_once_s,
        })
    }

    fn plugin(&self, verb: &str, name: &str) -> Job {
        let environment = [
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_CONTAINERID", format!("4f1c09aa21be{name}")),
            ("CNI_NETNS", format!("/run/netns/{name}")),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", self.directory.display().to_string()),
        ];
        let kind = self.config["type"].as_str().unwrap_or_default();
        Job {
            program: self.directory.join(kind),
            arguments: Vec::new(),
            environment: environment.map(|(key, value)| (key.to_owned(), value)).into(),
            stdin: self.config.to_string(),
        }
    }

    /// Ends with the first answer.
    fn ping(&self, name: &str) -> Job {
        let line = format!("--net=/run/netns/{name} busybox ping -c 1 -W 5 {}", self.target);
        Job {
            program: "nsenter".into(),
            arguments: line.split(' ').map(str::to_owned).collect(),
            environment: BTreeMap::new(),
            stdin: String::new(),
        }
    }

    fn execute(&self, at_once: bool, jobs: &[Job]) -> Result<Times> {
        let mut runtime = self.host.command(env::current_exe()?);
        runtime.arg("runtime").args(at_once.then_some("--at-once"));
        let text = tool::run_with_input(&mut runtime, &serde_json::to_string(jobs)?)?;
        Ok(serde_json::from_str(&text)?)
    }
}

fn name(number: usize) -> String {
    format!("p{number}")
}

/// The value below which `percent` of all are; sorts them.
fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = values.len() * percent / 100;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let mut values: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!((percentile(&mut values, 50), percentile(&mut values, 99)), (50.0, 99.0));
        assert_eq!(percentile(&mut [], 50), 0.0);
    }

    #[test]
    fn a_job_s_time_is_told_and_its_failure_is_not_a_time() {
        let job = |script: &str| Job {
            program: "sh".into(),
            arguments: ["-c", script].map(str::to_owned).into(),
            environment: BTreeMap::from([("WORD".to_owned(), "7".to_owned())]),
            stdin: "7\n".to_owned(),
        };
        assert!(job("read said; test $said = $WORD").run().is_ok());
        let refused = job("cat >/dev/null; echo no address; exit 1").run().unwrap_err();
        assert!(refused.to_string().contains("no address"), "{refused}");
    }
}
