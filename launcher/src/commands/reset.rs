//! Takes a host out of the mesh for good, and everything of ours from it.

use std::{path::Path, process::Command, time::Duration};

use weave_api::{ApiError, Exit, Removed, ResetRequest, ResetResponse};

use crate::{
    args::Reset,
    commands::{docker, stop},
    context::{Context, Failure, talk},
    daemon::{self, Daemon, Process, beside_us},
};

/// How long the router may take to end once it has said that it will; removing many interfaces takes the longest.
const LAST_BREATH: Duration = Duration::from_secs(60);

pub(super) async fn reset(context: &Context, reset: &Reset) -> Result<(), Failure> {
    context.need_local("weave reset")?;
    // While driver and router can still answer Docker's questions about it.
    docker::leave(context).await;
    let farewell = match context.client.router_pid().await {
        Ok(pid) => Some(leave(context, reset, pid).await?),
        Err(error) if error.code.exit() == Exit::NotRunning => {
            end_the_silent(context, reset, error)?;
            None
        }
        Err(error) => return Err(error.into()),
    };
    // The router has done it in its last breath, if it could: what it could not is done now, or is said why.
    let (db_prefix, bridge) = match &farewell {
        Some(said) => (said.db_prefix.as_path(), Some(said.bridge.as_str())),
        None => (reset.db_prefix.as_path(), None),
    };
    let removed = clean_up(context, db_prefix, bridge)?;
    docker::end_plugin(context, bridge).await;
    context.answer(&removed, || match (&farewell, removed.interfaces.len(), removed.files.len()) {
        (Some(_), ..) => String::new(),
        (None, 0, 0) => "there was nothing to remove\n".to_owned(),
        (None, interfaces, files) => format!("removed {interfaces} interfaces and {files} files\n"),
    })
}

/// Lets the router hand over its addresses and end.
async fn leave(context: &Context, reset: &Reset, pid: Option<i32>) -> Result<ResetResponse, Failure> {
    // Taken hold of before it ends: its number could come to mean another.
    let process = pid
        .map(Process::open)
        .transpose()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot watch weaver end: {error}")))?;
    let request = ResetRequest { force: reset.force, timeout_s: Some(reset.timeout) };
    let said = context.client.call(&request).await?;
    if let Some(why) = &said.abandoned {
        talk(format_args!("nobody has taken this router's addresses over: {why}"));
    }
    let ended = process.flatten().map(|process| process.ended_within(LAST_BREATH)).transpose();
    match ended {
        Ok(Some(true) | None) => Ok(said),
        Ok(Some(false)) => {
            let message = format!("weaver has not ended after {} s; its log says why", LAST_BREATH.as_secs());
            Err(Failure::new(Exit::Deadline, message))
        }
        Err(error) => Err(Failure::new(Exit::Failed, format!("cannot see weaver end: {error}"))),
    }
}

/// A router that was launched and does not listen knows nothing of a handover: it is ended only by force.
fn end_the_silent(context: &Context, reset: &Reset, error: ApiError) -> Result<(), Failure> {
    let Some(pid) = daemon::running(Daemon::Router, &context.run_dir) else { return Ok(()) };
    if !reset.force {
        talk(format_args!("weaver (process {pid}) runs and does not answer; `weave reset --force` ends it"));
        return Err(error.into());
    }
    stop::end(context, pid, LAST_BREATH, true)
}

/// Runs `weaver --cleanup`, which removes what is left on the host.
fn clean_up(context: &Context, db_prefix: &Path, bridge: Option<&str>) -> Result<Removed, Failure> {
    let mut command = host_tool(context, "--cleanup");
    command.arg("--db-prefix").arg(db_prefix);
    if let Some(bridge) = bridge {
        command.arg("--weave-bridge").arg(bridge);
    }
    answer_of(&mut command)
}

/// `weaver` in a form that looks at the host and ends.
pub(super) fn host_tool(context: &Context, form: &str) -> Command {
    let mut command =
        Command::new(std::env::var_os("WEAVER").map_or_else(|| beside_us("weaver"), Into::into));
    command.arg(form).arg("--run-dir").arg(&context.run_dir).env("WEAVE_HTTP_ADDR", context.client.socket());
    command
}

/// What it prints; its own words when it fails.
pub(super) fn answer_of<T: serde::de::DeserializeOwned>(command: &mut Command) -> Result<T, Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| {
        let message =
            format!("cannot run {program}: {error}; install it beside `weave`, or set WEAVER to its path");
        Failure::new(Exit::NotFound, message)
    })?;
    if !output.status.success() {
        let exit = output.status.code().and_then(Exit::from_code).unwrap_or(Exit::Failed);
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().last().unwrap_or("it does not say why");
        return Err(Failure::new(exit, said.strip_prefix("weaver: ").unwrap_or(said)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::new(Exit::Failed, format!("the answer of {program} makes no sense: {error}"))
    })
}
