//! Processes that outlive the call that started them, but not the lab.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    clock::{Look, wait_until},
    tool,
};

/// A running process with a log. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) fn spawn(mut command: Command, log: &str) -> Result<Self> {
        let log = super::logs().join(format!("{log}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot run `{}`", tool::line(&command)))?;
        Ok(Self { child, log })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has said so far, earlier processes with the same log included.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last `count` lines it has said.
    #[must_use]
    pub fn last_words(&self, count: usize) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends it with SIGKILL, which it cannot notice.
    ///
    /// # Errors
    /// When it was waited for already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end with `signal`, such as `TERM`, and waits.
    ///
    /// # Errors
    /// When it has not ended after `limit`.
    pub fn stop(&mut self, signal: &str, limit: Duration) -> Result<ExitStatus> {
        tool::run(Command::new("kill").args(["-s", signal, &self.pid().to_string()]))?;
        let ended = wait_until("the process to end", limit, || {
            Ok(self.ended()?.map_or_else(|| Look::NotYet("still running".to_owned()), Look::Found))
        });
        Ok(ended?.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
