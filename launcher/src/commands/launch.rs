//! Starts a router and sees it through to readiness.

mod docker;
mod plan;

use std::{
    fs::DirBuilder,
    io,
    os::unix::{fs::DirBuilderExt, process::ExitStatusExt},
    path::Path,
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use weave_api::{ErrorCode, Exit, ReadyRequest, ReadyResponse, tcp_address};

use crate::{
    args::{Global, Launch, command},
    commands::launch::plan::Plan,
    context::{Context, Failure, print, talk},
    daemon::{self, Daemon, Log, beside_us},
};

/// How often the young router is looked at while it does not answer.
const POLL: Duration = Duration::from_millis(50);

/// How long one look waits for readiness; between looks we see whether the router lives.
const LOOK: Duration = Duration::from_secs(1);

/// How many of its last lines are shown when it dies.
const TAIL: usize = 20;

pub(super) async fn launch(launch: Launch, global: Global) -> Result<(), Failure> {
    let weaver = launch.weaver.unwrap_or_else(|| beside_us("weaver"));
    let plan = Plan::new(launch.args, &global)?;
    if plan.help {
        return help(&weaver);
    }
    let context = Context::new(&at_its_socket(&plan.global))?;
    refuse_second(&context).await?;
    if plan.password.is_some() {
        talk(
            "a password on the command line can be read by every user of this host while `weave launch` runs; \
              use WEAVE_PASSWORD or --password-file",
        );
    }
    let run_dir = &context.run_dir;
    let cannot = |what: &str, error: &io::Error| {
        let exit =
            if error.kind() == io::ErrorKind::PermissionDenied { Exit::Permission } else { Exit::Failed };
        Failure::new(exit, format!("cannot {what} in {}: {error}", run_dir.display()))
    };
    DirBuilder::new().recursive(true).mode(0o750).create(run_dir).map_err(|e| cannot("keep state", &e))?;
    let log = Log::open(Daemon::Router, run_dir).map_err(|e| cannot("write the log", &e))?;
    let mut child =
        spawn(&weaver, &plan, context.client.socket(), &log).map_err(|e| cannot("start the router", &e))?;
    let pid = child.id();
    let remember =
        || daemon::write_pid_file(Daemon::Router, run_dir, pid).map_err(|e| cannot("write the pid file", &e));
    remember()?;
    match wait_until_ready(&context, &mut child, plan.patience, &log).await {
        Ok(ready) => {
            // A second launch at the same moment may have overwritten it, and removed it when it lost.
            remember()?;
            docker::start(&context, &plan.docker).await;
            announce(&context, &ready)
        }
        Err(failure) => {
            if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                daemon::remove_pid_file(Daemon::Router, run_dir, pid);
            }
            Err(failure)
        }
    }
}

/// A router that we start is asked at its socket, wherever else it may listen.
fn at_its_socket(global: &Global) -> Global {
    let http_addr = global.http_addr.clone().filter(|address| tcp_address(address).is_none());
    Global { http_addr, ..global.clone() }
}

async fn refuse_second(context: &Context) -> Result<(), Failure> {
    let stop = "stop it with `weave stop`, or choose another --run-dir";
    let socket = context.client.socket().display();
    match context.client.router_pid().await {
        Ok(Some(pid)) => {
            return Err(Failure::new(
                Exit::Failed,
                format!("weaver is already running: process {pid} listens at {socket}; {stop}"),
            ));
        }
        Ok(None) => {
            return Err(Failure::new(Exit::Failed, format!("weaver is already running at {socket}; {stop}")));
        }
        Err(error) if error.code == ErrorCode::NotRunning => {}
        Err(error) => return Err(error.into()),
    }
    match daemon::running(Daemon::Router, &context.run_dir) {
        Some(pid) => Err(Failure::new(
            Exit::Failed,
            format!("weaver is already running: process {pid}, which does not listen at {socket}; {stop}"),
        )),
        None => Ok(()),
    }
}

fn spawn(weaver: &Path, plan: &Plan, socket: &Path, log: &Log) -> io::Result<Child> {
    let mut command = daemon::detached(weaver.as_os_str())?;
    command.arg("--run-dir").arg(&plan.global.run_dir).args(&plan.arguments);
    if let Some(password) = &plan.password {
        command.env("WEAVE_PASSWORD", password);
    }
    // As a plain path, whatever form it was given in; an empty one means the run directory's.
    match plan.global.http_addr.as_deref() {
        Some("") | None => command.env_remove("WEAVE_HTTP_ADDR"),
        Some(address) if tcp_address(address).is_some() => command.env("WEAVE_HTTP_ADDR", address),
        Some(_) => command.env("WEAVE_HTTP_ADDR", socket),
    };
    if let Some(file) = &plan.global.http_token_file {
        command.env("WEAVE_HTTP_TOKEN_FILE", file);
    }
    command.stdin(Stdio::null()).stdout(log.handle()?).stderr(log.handle()?).spawn()
}

async fn wait_until_ready(
    context: &Context,
    child: &mut Child,
    patience: Duration,
    log: &Log,
) -> Result<ReadyResponse, Failure> {
    let deadline = Instant::now() + patience;
    let mut reason = "it does not listen on its control socket".to_owned();
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(died(status, log));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late(child.id(), patience, &reason, log));
        }
        let question = ReadyRequest { timeout_s: Some(LOOK.as_secs()) };
        let news = match timeout(left.min(LOOK * 2), context.client.call(&question)).await {
            // Another router's answer: ours is about to find out that it is the second.
            Ok(Ok(ready)) if ready.pid != child.id() => None,
            Ok(Ok(ready)) => return Ok(ready),
            Ok(Err(error)) if error.code == ErrorCode::Deadline => Some(error.message),
            Ok(Err(error)) if error.code.exit() == Exit::NotRunning => None,
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => Some("it listens on its control socket, and does not answer yet".to_owned()),
        };
        match news {
            Some(news) if news != reason => {
                talk(format_args!("waiting: {news}"));
                reason = news;
            }
            Some(_) => {}
            None => sleep(POLL).await,
        }
    }
}

fn late(pid: u32, patience: Duration, reason: &str, log: &Log) -> Failure {
    let (seconds, log) = (patience.as_secs(), log.path().display());
    let message = format!(
        "weaver (process {pid}) is not ready after {seconds} s: {reason}; it goes on trying, and logs to {log}"
    );
    Failure::new(Exit::Deadline, message)
}

/// Shows the last words of a router that ended before it was ready, and gives its exit code our meaning.
fn died(status: ExitStatus, log: &Log) -> Failure {
    for line in log.tail(TAIL) {
        talk(format_args!("| {line}"));
    }
    let log = log.path().display();
    let (exit, how) = match (status.code().map(|code| (code, Exit::from_code(code))), status.signal()) {
        (Some((_, Some(Exit::Ok))), _) => (Exit::Failed, "without an error".to_owned()),
        (Some((code, Some(exit))), _) => (exit, format!("with code {code}: {}", exit.meaning())),
        (Some((code, None)), _) => (Exit::Failed, format!("with code {code}")),
        (None, Some(signal)) => (Exit::Failed, format!("by signal {signal}")),
        (None, None) => (Exit::Failed, "for an unknown reason".to_owned()),
    };
    Failure::new(exit, format!("weaver ended before it was ready, {how}; its log is {log}"))
}

fn announce(context: &Context, ready: &ReadyResponse) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Launched<'a> {
        #[serde(flatten)]
        router: &'a ReadyResponse,
        socket: &'a Path,
    }
    let launched = Launched { router: ready, socket: context.client.socket() };
    context.answer(&launched, String::new)?;
    if context.output == crate::args::Output::Text {
        talk(format_args!("weaver is ready: {}({}), process {}", ready.name, ready.nickname, ready.pid));
    }
    Ok(())
}

/// Our own help, then the router's: every flag of `launch` that is not ours is the router's.
fn help(weaver: &Path) -> Result<(), Failure> {
    let mut definition = command();
    // Fills in the full names of subcommands.
    definition.build();
    let ours = definition.find_subcommand_mut("launch").map(|launch| launch.render_help().to_string());
    print(&ours.unwrap_or_default())?;
    print(plan::HELP)?;
    match std::process::Command::new(weaver).arg("--help").output() {
        Ok(answer) => print(&format!("\nFlags of weaver:\n\n{}", String::from_utf8_lossy(&answer.stdout))),
        Err(error) => {
            talk(format_args!("the flags of weaver are not shown: cannot run {}: {error}", weaver.display()));
            Ok(())
        }
    }
}
