//! What people see: steps with a mark, in colour on a terminal only.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use anyhow::Result;
use weave_tests::clock;

/// Writes a line to stdout. A closed pipe is the reader's decision, not our failure.
pub(crate) fn say(line: &str) {
    drop(writeln!(io::stdout(), "{line}"));
}

/// Writes a line to stderr.
pub(crate) fn complain(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

/// Steps that are shown as they are verified, and once more as a summary.
#[derive(Debug)]
pub(crate) struct Steps {
    terminal: bool,
    start: Instant,
    done: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    title: &'static str,
    outcome: String,
    is_verified: bool,
    took: Duration,
}

/// What a step came to: a value for later steps and a sentence for people.
pub(crate) struct Verified<T>(pub(crate) T, pub(crate) String);

impl Steps {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), start: clock::now(), done: Vec::new() }
    }

    /// Runs a step and shows what it came to. A step that fails is shown and ends the run.
    pub(crate) fn step<T>(
        &mut self,
        title: &'static str,
        body: impl FnOnce() -> Result<Verified<T>>,
    ) -> Result<T> {
        if self.terminal {
            drop(write!(io::stdout(), "  … {title}\r"));
            drop(io::stdout().flush());
        }
        let start = clock::now();
        let (result, outcome) = match body() {
            Ok(Verified(value, outcome)) => (Ok(value), outcome),
            Err(error) => {
                let outcome = format!("{error:#}");
                (Err(error), outcome)
            }
        };
        let step = Step { title, outcome, is_verified: result.is_ok(), took: start.elapsed() };
        say(&self.line(&step));
        self.done.push(step);
        result
    }

    /// Shows text of another program, set off from the steps.
    pub(crate) fn quote(&self, command: &str, text: &str) {
        let (dim, plain) = if self.terminal { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        say(&format!("{dim}      $ {command}"));
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            say(&format!("      {line}"));
        }
        if self.terminal {
            drop(write!(io::stdout(), "{plain}"));
        }
    }

    /// Shows every step once more, on one screen.
    pub(crate) fn summary(&self, heading: &str) {
        say(&format!("\n{heading}\n"));
        self.done.iter().for_each(|step| say(&self.line(step)));
        let verified = self.done.iter().filter(|s| s.is_verified).count();
        let (all, seconds) = (self.done.len(), self.start.elapsed().as_secs_f64());
        say(&format!("\n  {verified} of {all} steps verified in {seconds:.1} s"));
    }

    fn line(&self, step: &Step) -> String {
        let (mark, colour) = if step.is_verified { ("✓", "\x1b[32m") } else { ("✗", "\x1b[31m") };
        let mark = if self.terminal { format!("{colour}{mark}\x1b[0m") } else { mark.to_owned() };
        format!("  {mark} {:<11} {} ({:.1} s)", step.title, step.outcome, step.took.as_secs_f64())
    }
}
