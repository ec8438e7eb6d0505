//! `cargo xtask test`: every check and test there is, in the order in which they fail fastest.

use std::{env, process::Command};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::screen::say;

/// Arguments of `test`.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Leave out the routers end to end, the name server against dig, and the demo
    #[arg(long)]
    quick: bool,
    /// Only the whole table of network policies: every case, as the evaluator, the elements and the kernel see it
    #[arg(long, conflicts_with = "quick")]
    policy: bool,
}

/// One command of the run.
struct Check {
    title: &'static str,
    arguments: &'static [&'static str],
    is_quick: bool,
}

/// Everything that is run. Namespace tests fail where namespaces cannot be made: a test that cannot run has not passed.
const CHECKS: [Check; 7] = [
    Check { title: "formatting", arguments: &["fmt", "--all", "--check"], is_quick: true },
    Check {
        title: "lints",
        arguments: &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"],
        is_quick: true,
    },
    Check {
        title: "walls between crates",
        arguments: &["test", "--quiet", "--package", "weave-tests", "--test", "arrows"],
        is_quick: true,
    },
    Check {
        title: "unit, property and simulation tests, and those of the data plane in network namespaces",
        arguments: &["test", "--quiet", "--workspace", "--exclude", "weave-tests"],
        is_quick: true,
    },
    Check {
        title: "name server against dig",
        arguments: &[
            "test",
            "--quiet",
            "--package",
            "weave-dns",
            "--test",
            "tools",
            "--",
            "--include-ignored",
        ],
        is_quick: false,
    },
    Check {
        title: "routers end to end in network namespaces",
        arguments: &["test", "--package", "weave-tests", "--", "--include-ignored", "--test-threads=2"],
        is_quick: false,
    },
    Check { title: "demo", arguments: &["xtask", "demo"], is_quick: false },
];

/// The whole table of network policies, of which the others have a sample.
const POLICY_CHECKS: [Check; 2] = [
    Check {
        title: "network policies: the specification, requirement by requirement and case by case",
        arguments: &["test", "--package", "weave-policy"],
        is_quick: true,
    },
    Check {
        title: "network policies: every cell of every case, with real packets",
        arguments: &[
            "test",
            "--package",
            "weave-npc",
            "--test",
            "netns",
            "--",
            "--include-ignored",
            "--exact",
            "table::the_whole_table_is_as_the_specification_says",
        ],
        is_quick: true,
    },
];

impl Test {
    pub(crate) fn run(&self) -> Result<std::process::ExitCode> {
        let start = weave_tests::clock::now();
        let checks = if self.policy { &POLICY_CHECKS[..] } else { &CHECKS };
        let chosen: Vec<&Check> = checks.iter().filter(|c| c.is_quick || !self.quick).collect();
        for (number, check) in chosen.iter().enumerate() {
            say(&format!("[{}/{}] {}", number + 1, chosen.len(), check.title));
            let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut command = Command::new(cargo);
            command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args(check.arguments);
            let status = command.status().context("cannot run cargo")?;
            if !status.success() {
                bail!("{} failed: cargo {}", check.title, check.arguments.join(" "));
            }
        }
        say(&format!("all {} checks passed in {:.0} s", chosen.len(), start.elapsed().as_secs_f64()));
        Ok(std::process::ExitCode::SUCCESS)
    }
}
