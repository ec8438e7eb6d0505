//! Joining and staying joined, for meshes of some sizes.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use weave_tests::product::Programs;

use super::{
    Bench,
    join::{self, Joined},
    row::{Better, Row},
};
use crate::screen::complain;

/// The sizes that have names in the contract and bars in the issues.
const SIZES: [u8; 2] = [20, 40];

/// How long a joined mesh is watched, once per size.
const WATCH: Duration = Duration::from_secs(60);

/// How long it is watched in the other rounds: just enough to show a mesh that has not come to rest.
const GLANCE: Duration = Duration::from_secs(2);

pub(super) fn run(bench: &Bench, programs: &Programs) -> Result<Vec<Row>> {
    let sizes = match &bench.routers[..] {
        [] if bench.quick => &[5],
        [] => SIZES.as_slice(),
        chosen => chosen,
    };
    let (mut rows, mut largest) = (Vec::new(), Vec::new());
    for size in sizes {
        largest = (1..=bench.rounds()).map(|n| one(bench, programs, *size, n)).collect::<Result<Vec<_>>>()?;
        rows.extend(rows_of(*size, &largest));
    }
    rows.extend(cost(&largest));
    Ok(rows)
}

fn one(bench: &Bench, programs: &Programs, size: u8, round: usize) -> Result<Joined> {
    let is_watched = round == bench.rounds() && !bench.quick;
    let joined = join::run(programs, size, if is_watched { WATCH } else { GLANCE })
        .with_context(|| format!("{size} routers, run {round}: they did not all join"))?;
    let Joined { seconds, bytes, rss_mb, steady_bytes_per_s, idle_cpu_pct } = joined;
    let mut line = format!("mesh: {size} routers, run {round}: {seconds:.2} s, {:.2} MB sent", bytes / 1e6);
    write!(line, ", RSS {rss_mb:.1} MB")?;
    if is_watched {
        write!(line, "; then {steady_bytes_per_s:.0} B/s and {idle_cpu_pct:.2} % CPU per router")?;
    }
    complain(&line);
    Ok(joined)
}

fn rows_of(size: u8, runs: &[Joined]) -> Vec<Row> {
    let all = |f: fn(&Joined) -> f64| runs.iter().map(f).collect::<Vec<_>>();
    vec![
        row(&format!("join{size}_s"), "s", &all(|j| j.seconds)),
        row(&format!("join{size}_bytes"), "B", &all(|j| j.bytes)),
        row(&format!("steady{size}_bytes_per_s"), "B/s", &watched(runs, |j| j.steady_bytes_per_s)),
    ]
}

/// What routers cost, from the largest mesh.
fn cost(runs: &[Joined]) -> Vec<Row> {
    let memory: Vec<f64> = runs.iter().map(|j| j.rss_mb).collect();
    vec![row("rss_mb", "MB", &memory), row("idle_cpu_pct", "%", &watched(runs, |j| j.idle_cpu_pct))]
}

fn row(name: &str, unit: &'static str, samples: &[f64]) -> Row {
    Row::new(&format!("mesh.{name}"), unit, Better::Less, samples)
}

/// The last run alone was watched long enough to say what is steady.
fn watched(runs: &[Joined], f: fn(&Joined) -> f64) -> Vec<f64> {
    runs.last().map(f).into_iter().collect()
}
