//! The program `weave-npc`.
#![forbid(unsafe_code)]

use std::{
    io::{IsTerminal as _, Write},
    process::ExitCode,
};

use clap::Parser;
use tracing_subscriber::EnvFilter;
use weave_npc::{
    args::{Args, Command},
    control, daemon,
    kernel::Kernel,
};

/// What the client of the API server has to say, we say in our own words.
const LOGGED: &str = "info,kube_client=off,kube_runtime=off";

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // A closed pipe is no reason to fail differently.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let is_for_eyes = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(is_for_eyes)
        .with_writer(std::io::stderr)
        .init();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if standard error is gone.
            let _ = writeln!(std::io::stderr(), "weave-npc: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    match &args.command {
        Some(Command::Reset) => Kernel::remove(),
        Some(command) => {
            let Some((question, patience)) = command.question() else { return Ok(()) };
            let answer = control::ask(&args.socket, &question, patience)?;
            Ok(std::io::stdout().write_all(answer.as_bytes())?)
        }
        None => daemon::run(args.into_config()?),
    }
}
