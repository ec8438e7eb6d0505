//! Developer commands: `cargo xtask demo`, `lab`, `test`, `bench`, `sim`.
#![forbid(unsafe_code)]

mod bench;
mod demo;
mod guest;
mod inside;
mod kubernetes;
mod lab;
mod screen;
mod sim;
mod test;
mod upgrade;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Developer commands of weave.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show three hosts on this machine forming one encrypted network, and verify each step
    Demo(demo::Demo),
    /// Make hosts on this machine with a router each, to play with
    Lab(lab::Lab),
    /// Run a command, or a shell, on a host or in a container of a lab
    Enter(lab::Enter),
    /// Run every check and test
    Test(test::Test),
    /// Measure, side by side with what else there is
    Bench(bench::Bench),
    /// Run whole routers on virtual time, through bad days or calm ones
    Sim(sim::Sim),
    /// Runs programs on a host for the bench
    #[command(hide = true)]
    Runtime(bench::cni::Runtime),
    /// The traffic generator, as the lab runs it
    #[command(hide = true)]
    Traffic {
        #[command(subcommand)]
        generator: weave_tests::traffic::Generator,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            screen::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(demo) => demo.run(),
        Command::Lab(lab) => lab.run(),
        Command::Enter(enter) => enter.run(),
        Command::Test(test) => test.run(),
        Command::Bench(bench) => bench.run(),
        Command::Sim(sim) => sim.run(),
        Command::Runtime(runtime) => runtime.run().map(|()| ExitCode::SUCCESS),
        Command::Traffic { generator } => generator.run().map(|()| ExitCode::SUCCESS),
    }
}
