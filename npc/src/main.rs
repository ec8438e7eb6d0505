//! The program `weave-npc`.
#![forbid(unsafe_code)]

use std::{
    io::{IsTerminal as _, Write},
    process::ExitCode,
};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use weave_npc::{
    args::{Args, Command},
    control, daemon,
    kernel::Kernel,
};

/// What the client of the API server has to say, we say in our own words.
const LOGGED: &str = "info,kube_client=off,kube_runtime=off";

fn main() -> ExitCode {
    let args = match Args::read(std::env::args_os()) {
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
        None => {
            end_when_told()?;
            daemon::run(args.into_config()?)
        }
    }
}

/// Ends the process at SIGTERM and SIGINT, at once: what is in the kernel stays in force. The first process of a container,
/// which we are in a pod, gets no signal that it does not wait for, and would be killed only after its pod's whole patience.
fn end_when_told() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        std::process::exit(0);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
    Ok(())
}
