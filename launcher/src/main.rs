//! `weave`: the operator's command line.
//!
//! It asks the router over its control API and knows nothing else of it. What a command was asked for goes to standard
//! output, everything else to standard error, and the exit code says how it went.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod context;
mod daemon;
mod removed;
mod screen;
mod template;
mod watch;
mod yaml;

use std::process::ExitCode;

use weave_api::Exit;

use crate::context::Failure;

fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let output = cli.global.output;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(cli)),
        Err(error) => Err(Failure::new(Exit::Failed, format!("cannot start: {error}"))),
    };
    match outcome {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            failure.print(output);
            failure.exit.into()
        }
    }
}

/// Help goes to standard output and is a success; a usage error goes to standard error and is none.
fn usage(error: &clap::Error) -> ExitCode {
    if let Some(answer) = removed::answer(error) {
        context::talk(answer);
        return Exit::Usage.into();
    }
    // A closed pipe is no reason to fail differently.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() }
}
