//! `cargo xtask sim`: whole nodes on virtual time, replayed from a seed.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use weave_sim::{Failure, Outcome, Plan, Progress, run_watched};
use weave_tests::clock;

use crate::screen::{complain, say};

/// Arguments of `sim`.
#[derive(Debug, Args)]
pub(crate) struct Sim {
    /// Routers at the start
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=4000))]
    peers: u16,
    /// What everything is drawn from; the same seed gives the same run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds to run, from --seed on
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// No faults: measure how the mesh forms, how changes spread, and what it says at rest
    #[arg(long)]
    calm: bool,
    /// Links that a router wants at most; 0 for a full mesh. Without it the plan says (calm: 20 beyond 100 routers)
    #[arg(long)]
    conn_limit: Option<usize>,
    /// One JSON object per run on stdout instead of text
    #[arg(long)]
    json: bool,
    /// Tell what happens, event by event, on stderr
    #[arg(long)]
    trace: bool,
}

/// What is shown while a run goes on, on a terminal only.
struct Line {
    is_shown: bool,
    last: Option<std::time::Instant>,
}

impl Sim {
    /// Runs the plans; the first failure does not end the others, but the exit code tells.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut failures = 0_u64;
        for seed in self.seed..self.seed.saturating_add(self.seeds) {
            let plan = self.plan(seed);
            let start = clock::now();
            let mut line = Line::new(!self.trace);
            let result = run_watched(&plan, &mut |progress| line.show(&plan, progress));
            line.clear();
            let wall = start.elapsed();
            match (&result, self.json) {
                (_, true) => say(&self.as_json(seed, &result, wall).to_string()),
                (Ok(outcome), false) if self.seeds == 1 => report(&plan, outcome, wall),
                (Ok(outcome), false) => {
                    let agreed = outcome.agreed_after.as_secs_f64();
                    let grants = outcome.grants;
                    say(&format!("seed {seed}: all agreed after {agreed:.1} s, {grants} grants"));
                }
                (Err(_), false) => {}
            }
            if let Err(failure) = result {
                failures += 1;
                complain(&format!("seed {seed}: {failure}\nreplay with: {}", self.replay(seed)));
            }
        }
        if self.seeds > 1 && !self.json {
            say(&format!("{} of {} runs without a broken invariant", self.seeds - failures, self.seeds));
        }
        Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn plan(&self, seed: u64) -> Plan {
        let peers = usize::from(self.peers);
        let mut plan = if self.calm { Plan::calm(peers, seed) } else { Plan::bad_day(peers, seed) };
        if let Some(limit) = self.conn_limit {
            plan.limit_links(limit);
        }
        plan.trace = self.trace.then_some(complain);
        plan
    }

    fn replay(&self, seed: u64) -> String {
        let calm = if self.calm { " --calm" } else { "" };
        let limit = self.conn_limit.map(|limit| format!(" --conn-limit {limit}")).unwrap_or_default();
        format!("cargo xtask sim --peers {} --seed {seed}{calm}{limit} --trace", self.peers)
    }

    fn as_json(&self, seed: u64, result: &Result<Outcome, Failure>, wall: Duration) -> Value {
        let run =
            json!({ "peers": self.peers, "seed": seed, "calm": self.calm, "wall_s": wall.as_secs_f64() });
        let rest = match result {
            Ok(o) => json!({
                "ok": true,
                "agreed_s": o.agreed_after.as_secs_f64(),
                "change_p50_s": (o.changes > 0).then_some(o.change_p50.as_secs_f64()),
                "change_p99_s": (o.changes > 0).then_some(o.change_p99.as_secs_f64()),
                "changes": o.changes,
                "messages": o.messages,
                "bytes": o.bytes,
                "bytes_to_agree": o.bytes_to_agree,
                "bytes_per_s": o.steady_mean,
                "bytes_per_s_max": o.steady_max,
                "links": o.links,
                "grants": o.grants,
                "deaths": o.deaths,
                "takeovers": o.takeovers,
                "walks": o.walks,
                "virtual_s": o.elapsed.as_secs_f64(),
                "memory_mb": peak_memory_mb(),
            }),
            Err(failure) => {
                json!({ "ok": false, "failure": failure.to_string(), "replay": self.replay(seed) })
            }
        };
        let (Value::Object(mut all), Value::Object(rest)) = (run, rest) else { return Value::Null };
        all.extend(rest);
        Value::Object(all)
    }
}

fn report(plan: &Plan, outcome: &Outcome, wall: Duration) {
    let o = outcome;
    let limit = match plan.conn_limit {
        0 => "a full mesh".to_owned(),
        limit => format!("about {limit} links each"),
    };
    let kind = if plan.with_faults { "a bad day" } else { "a calm day" };
    say(&format!("{} routers, seed {}, {kind}, {limit}", plan.peers, plan.seed));
    let since = if plan.with_faults { "of the end of the bad weather" } else { "of all starting at once" };
    say(&format!("  agreed      within {:.2} s {since}", o.agreed_after.as_secs_f64()));
    if o.changes > 0 {
        let (p50, p99) = (o.change_p50.as_secs_f64(), o.change_p99.as_secs_f64());
        say(&format!("  changes     known to all after {p50:.3} s (p50), {p99:.3} s (p99 of {})", o.changes));
    }
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let (bytes, forming) = (megabytes(o.bytes), megabytes(o.bytes_to_agree));
    say(&format!("  traffic     {} messages, {bytes:.2} MB; {forming:.2} MB by then", o.messages));
    say(&format!("  at rest     {:.1} B/s a router, {:.1} B/s at most", o.steady_mean, o.steady_max));
    say(&format!(
        "  happened    {} links opened, {} deaths, {} take-overs, {} grants, {} refusals, {} addresses held",
        o.links, o.deaths, o.takeovers, o.grants, o.refusals, o.held
    ));
    say(&format!(
        "  verified    no address held twice ({} grants); topology, names, attachments and ring equal and true; \
         ring tiles the ranges; {} walks, floods exactly once; no honest input refused",
        o.grants, o.walks
    ));
    let memory = peak_memory_mb().map(|mb| format!(", {mb:.0} MB at most")).unwrap_or_default();
    say(&format!(
        "  took        {:.1} s for {:.0} virtual seconds{memory}",
        wall.as_secs_f64(),
        o.elapsed.as_secs_f64()
    ));
}

/// The most that this process ever had in memory.
fn peak_memory_mb() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes / 1e3)
}

impl Line {
    fn new(is_wanted: bool) -> Self {
        Self { is_shown: is_wanted && io::stderr().is_terminal(), last: None }
    }

    fn show(&mut self, plan: &Plan, progress: Progress) {
        /// Often enough to follow, seldom enough to cost nothing.
        const EVERY: Duration = Duration::from_millis(100);
        let now = clock::now();
        if !self.is_shown || self.last.is_some_and(|last| now - last < EVERY) {
            return;
        }
        self.last = Some(now);
        let Progress { phase, elapsed, living, agreeing, messages } = progress;
        let text = format!(
            "seed {}: {phase}, {:.1} virtual s, {agreeing} of {living} routers agree, {messages} messages",
            plan.seed,
            elapsed.as_secs_f64()
        );
        drop(write!(io::stderr(), "\r\x1b[K{text}"));
        drop(io::stderr().flush());
    }

    fn clear(&self) {
        if self.last.is_some() {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }
}
