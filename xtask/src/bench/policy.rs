//! Network policies: what they cost a connection, and how fast they change.
//!
//! The figures are taken by a test of `weave-npc` in namespaces of its own, and by an example of `weave-policy`; both print
//! a line of JSON.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use weave_tests::{lab::target_directory, tool};

use super::{
    Bench,
    row::{Better, Row},
};
use crate::screen::complain;

/// The test that measures; the copy of its program that [`build`] makes; and the example that compiles.
const TEST: &str = "measure::new_connections_and_changes_with_ten_thousand_policies";
const PROGRAM: &str = "npc-measure";
const EXAMPLE: &str = "examples/scale";
/// Namespaces of the large cluster: with four pods and three policies each.
const NAMESPACES: u32 = 25_000;

/// One round in the kernel.
#[derive(Debug, Deserialize)]
struct Traffic {
    /// Without our table.
    newconn_bare: f64,
    /// With it, and no policy.
    newconn_none: f64,
    newconn: f64,
    /// Allowed in the way that the program looks at last.
    newconn_last: f64,
    /// None where the tools of the rival are not installed.
    newconn_linear: Option<f64>,
    tcp_none: f64,
    tcp: f64,
    change_p50_ms: f64,
    change_p99_ms: f64,
}

/// One round of compiling.
#[derive(Debug, Deserialize)]
struct Compiled {
    seconds: f64,
    mebibytes: f64,
    objects_mebibytes: f64,
}

/// Builds what measures. To be called outside the sandbox.
pub(super) fn build() -> Result<()> {
    let example = cargo(&["build", "--package", "weave-policy", "--example", "scale"])?;
    ensure!(example.status.success(), "the build failed: {}", String::from_utf8_lossy(&example.stderr));
    // The test starts the daemon's program to tidy up, so that is built as well.
    let test =
        cargo(&["test", "--package", "weave-npc", "--test", "netns", "--no-run", "--message-format=json"])?;
    ensure!(test.status.success(), "the build failed: {}", String::from_utf8_lossy(&test.stderr));
    let messages = String::from_utf8_lossy(&test.stdout).into_owned();
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["target"]["name"] == "netns";
        message["executable"].as_str().filter(|_| is_test).map(PathBuf::from)
    };
    let built = messages.lines().find_map(executable).context("cargo names no program of the test")?;
    let copy = release(PROGRAM)?;
    fs::copy(&built, &copy).with_context(|| format!("copying {}", built.display()))?;
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<std::process::Output> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args(arguments);
    cargo.args(["--release", "--quiet", "--target-dir"]).arg(target_directory()?);
    cargo.output().context("cannot run cargo")
}

fn release(name: impl AsRef<Path>) -> Result<PathBuf> {
    Ok(target_directory()?.join("release").join(name))
}

pub(super) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let (mut traffic, mut compiled) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds() {
        complain(&format!("policy: round {round} of {}", bench.rounds()));
        traffic.push(measure::<Traffic>(Command::new(release(PROGRAM)?).args([
            "--exact",
            TEST,
            "--ignored",
            "--nocapture",
        ]))?);
        let namespaces = if bench.quick { NAMESPACES / 10 } else { NAMESPACES };
        let mut scale = Command::new(release(EXAMPLE)?);
        compiled.push(measure::<Compiled>(scale.args([&namespaces.to_string(), "json"]))?);
    }
    let of = |figure: fn(&Traffic) -> f64| traffic.iter().map(figure).collect::<Vec<f64>>();
    let size = |figure: fn(&Compiled) -> f64| compiled.iter().map(figure).collect::<Vec<f64>>();
    let (newconn, none) = (of(|t| t.newconn), of(|t| t.newconn_none));
    use Better::{Less, More};
    let mut rows = vec![Row::new("policy.newconn_10k", "/s", More, &newconn).against("no-policies", &none)];
    rows.push(
        Row::new("policy.newconn_10k_last", "/s", More, &of(|t| t.newconn_last))
            .against("no-policies", &none),
    );
    rows.push(
        Row::new("policy.newconn_table", "/s", More, &none).against("no-table", &of(|t| t.newconn_bare)),
    );
    let linear: Vec<f64> = traffic.iter().filter_map(|round| round.newconn_linear).collect();
    if linear.is_empty() {
        complain(
            "policy: no rival, for which ipset and iptables-legacy are needed: apt-get install ipset iptables",
        );
    } else {
        let row = Row::new("policy.newconn_10k_linear", "/s", More, &newconn);
        rows.push(row.against("iptables-ipset", &linear));
    }
    let objects = Row::new("", "MiB", Less, &size(|c| c.objects_mebibytes)).value;
    complain(&format!("policy: the objects of the large cluster take {objects:.0} MiB beside the compiler"));
    rows.extend([
        Row::new("policy.estab_tcp1", "Gbit/s", More, &of(|t| t.tcp))
            .against("no-policies", &of(|t| t.tcp_none)),
        Row::new("policy.change_p50", "ms", Less, &of(|t| t.change_p50_ms)),
        Row::new("policy.change_p99", "ms", Less, &of(|t| t.change_p99_ms)),
        Row::new("policy.compile_s", "s", Less, &size(|c| c.seconds)),
        Row::new("policy.compile_mb", "MiB", Less, &size(|c| c.mebibytes)),
    ]);
    Ok(rows)
}

/// Runs a program and reads the line of JSON that it prints.
fn measure<T: for<'a> Deserialize<'a>>(command: &mut Command) -> Result<T> {
    let text = tool::run(command)?;
    read(&text).with_context(|| format!("`{}` measured nothing: {text}", tool::line(command)))
}

/// The line of JSON in the output of a program.
fn read<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T> {
    let line = text.lines().find(|line| line.starts_with('{')).context("no line of JSON")?;
    Ok(serde_json::from_str(line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_among_what_a_test_prints() {
        let text = "running 1 test\n{\"seconds\":1.5,\"mebibytes\":301,\"objects_mebibytes\":147}\nok\n";
        let compiled: Compiled = read(text).unwrap();
        assert_eq!((compiled.seconds, compiled.mebibytes, compiled.objects_mebibytes), (1.5, 301.0, 147.0));
        assert!(read::<Traffic>(text).is_err());
        assert!(read::<Compiled>("running 0 tests\n").is_err());
    }
}
