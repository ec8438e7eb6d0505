//! The traffic generator as a program of its own, for tests, and a lab that does nothing but exist.
#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, Write as _},
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use weave_tests::{
    lab::Lab,
    sandbox::{self, Place},
    traffic::Generator,
};

/// Traffic generator of the lab.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Generator(Generator),
    /// Makes a lab with one host in which `sleep SECONDS` runs, says `ready` and waits for its end.
    Hold {
        /// How long; an odd number makes the process easy to find.
        seconds: String,
    },
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Generator(generator) => generator.run(),
        Command::Hold { seconds } => hold(&seconds),
    }
}

fn hold(seconds: &str) -> Result<()> {
    let Place::Inside = sandbox::enter(&["hold", seconds])? else { return Ok(()) };
    let mut lab = Lab::new(vec![env::current_exe()?.into()])?;
    let host = lab.add_host("held")?;
    let mut sleep = host.command("sleep");
    sleep.arg(seconds);
    let mut process = sleep.spawn()?;
    writeln!(io::stdout(), "ready")?;
    process.wait()?;
    Ok(())
}
