//! Showing something again and again: `--watch`.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use weave_api::Exit;

use crate::context::{Failure, print};

/// Clears the screen and goes to its upper left corner (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows it once, or every so many seconds until the user has had enough. A router that is away for a while is said
/// to be, and looked for again: watching it come back is what this is for.
pub(crate) async fn repeat<F>(every_s: Option<u64>, show: impl Fn() -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let Some(seconds) = every_s else { return show().await };
    let every = Duration::from_secs(seconds.max(1));
    let failed = |error: io::Error| Failure::new(Exit::Failed, format!("cannot wait for Ctrl-C: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let is_terminal = io::stdout().is_terminal();
    loop {
        if is_terminal {
            print(CLEAR)?;
        }
        match show().await {
            Err(failure) if !is_passing(failure.exit) => return Err(failure),
            Err(failure) => failure.print(crate::args::Output::Text),
            Ok(()) => {}
        }
        tokio::select! {
            () = sleep(every) => {}
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

const fn is_passing(exit: Exit) -> bool {
    matches!(exit, Exit::NotRunning | Exit::Deadline | Exit::Failed)
}
