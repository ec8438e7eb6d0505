//! Running something in a lab from start to end, and keeping what it said when it fails.

use std::{
    env,
    ffi::OsStr,
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::sandbox::{self, Place};

/// Runs `body` in the sandbox that this process is in. When it fails or panics, the logs are copied out and the
/// error says where they are.
///
/// # Errors
/// Whatever `body` fails with.
pub fn execute<T>(name: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let outcome = catch_unwind(AssertUnwindSafe(body));
    let failed = !matches!(outcome, Ok(Ok(_)));
    let kept = if failed { keep_logs(name) } else { Ok(None) };
    let place = match kept {
        Ok(Some(place)) => format!("the logs are in {}", place.display()),
        Ok(None) => "there are no logs".to_owned(),
        Err(error) => format!("the logs could not be kept: {error:#}"),
    };
    match outcome {
        Ok(result) => result.with_context(|| place),
        Err(panic) => {
            drop(sandbox::complain(&place));
            resume_unwind(panic)
        }
    }
}

/// Runs a test's `body` in a sandbox of its own: this test program is run again for the test called `test` alone.
///
/// # Errors
/// Whatever `body` fails with, and when there can be no sandbox: a test that cannot run does not pass.
pub fn in_sandbox(test: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    match sandbox::enter_heard(&["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"])? {
        (Place::Inside, _) => execute(test, body),
        (Place::Outside(status), _) if status.success() => Ok(()),
        (Place::Outside(status), why) => {
            bail!("{test} failed inside its sandbox ({status}); its output is above\n{why}")
        }
    }
}

/// Copies the logs of the lab next to the build, to a directory named after the run.
fn keep_logs(name: &str) -> Result<Option<PathBuf>> {
    let from = super::logs();
    if !from.is_dir() {
        return Ok(None);
    }
    let keeper = sandbox::keeper().unwrap_or_default();
    let to = target_directory()?.join("lab-logs").join(format!("{name}-{keeper}"));
    fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        if let Some(file) = path.file_name() {
            fs::copy(&path, to.join(file))?;
        }
    }
    Ok(Some(to))
}

/// The build directory that this program lies in: the parent of `debug` or `release`.
///
/// # Errors
/// When the system does not say where the program lies.
pub fn target_directory() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let profile = program.ancestors().find(|d| {
        let name = d.file_name().and_then(OsStr::to_str);
        name.is_some_and(|n| n == "debug" || n == "release")
    });
    Ok(profile.and_then(Path::parent).unwrap_or_else(|| Path::new("target")).to_owned())
}
