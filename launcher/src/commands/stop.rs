//! Ends the router.

use std::{io, time::Duration};

use weave_api::{ApiError, ErrorCode, Exit};

use crate::{
    args::Stop,
    context::{Context, Failure, talk},
    daemon::{self, Daemon, Process},
};

/// How long the kernel may take to end a killed process.
const AFTER_KILL: Duration = Duration::from_secs(5);

pub(super) async fn stop(context: &Context, stop: &Stop) -> Result<(), Failure> {
    context.need_local("weave stop")?;
    let pid = find(context).await?;
    end(context, pid, Duration::from_secs(stop.timeout), stop.force)
}

/// Ends the process, by force if it does not in this time and may be.
pub(super) fn end(context: &Context, pid: i32, patience: Duration, force: bool) -> Result<(), Failure> {
    let cannot = |error: io::Error| {
        let exit =
            if error.kind() == io::ErrorKind::PermissionDenied { Exit::Permission } else { Exit::Failed };
        Failure::new(exit, format!("cannot stop weaver (process {pid}): {error}"))
    };
    let Some(process) = Process::open(pid).map_err(cannot)? else { return Ok(()) };
    process.terminate().map_err(cannot)?;
    if !process.ended_within(patience).map_err(cannot)? {
        if !force {
            let message = format!(
                "weaver (process {}) has not ended after {} s; `weave stop --force` kills it",
                process.pid(),
                patience.as_secs()
            );
            return Err(Failure::new(Exit::Deadline, message));
        }
        talk(format_args!("weaver (process {pid}) does not end by itself; killing it"));
        process.kill().map_err(cannot)?;
        if !process.ended_within(AFTER_KILL).map_err(cannot)? {
            return Err(Failure::new(Exit::Failed, format!("weaver (process {pid}) cannot be killed")));
        }
    }
    if let Ok(pid) = u32::try_from(pid) {
        daemon::remove_pid_file(Daemon::Router, &context.run_dir, pid);
    }
    Ok(())
}

/// The process that listens; else the one that was launched and has not come so far, or no longer listens.
async fn find(context: &Context) -> Result<i32, Failure> {
    let error = match context.client.router_pid().await {
        Ok(Some(pid)) => return Ok(pid),
        Ok(None) => ApiError::new(ErrorCode::NotFound, "the router runs in another process namespace")
            .with_hint("stop it where it was started"),
        Err(error) => error,
    };
    daemon::running(Daemon::Router, &context.run_dir).ok_or_else(|| error.into())
}
