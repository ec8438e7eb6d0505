//! Docker's side of a launch: where its engine is, it gets its driver and its network.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use weave_docker::Engine;

use crate::{
    args::{self, Command},
    commands::docker::{proxy, proxy_socket},
    context::{Context, Failure, talk},
    daemon::{self, Daemon, Log, Process},
};

/// The network that is made for containers.
const NETWORK: &str = "weave";

/// How long a launch looks on until Docker has the network. Docker may be busy, or wait for something else.
const PATIENCE: Duration = Duration::from_secs(15);

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// How long a former driver may take to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a launch knows of Docker.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Whether the driver is wanted at all.
    pub(super) is_wanted: bool,
    /// Where the engine listens.
    pub(super) engine: PathBuf,
    /// Where it looks for its driver.
    pub(super) plugin: PathBuf,
    /// Whether Docker's clients get a socket whose containers are on the network without asking for it.
    pub(super) is_proxy_wanted: bool,
    /// Flags of the driver's process that are passed on.
    pub(super) flags: Vec<OsString>,
    /// The router's bridge, if it has a name of its own.
    pub(super) bridge: Option<String>,
}

impl Plan {
    /// Says what is wrong with the flags before anything is started.
    pub(super) fn check(&self, run_dir: &Path) -> Result<(), Failure> {
        let Some(first) = self.flags.first() else { return Ok(()) };
        if !self.is_wanted || !self.is_proxy_wanted {
            let flag = first.to_string_lossy();
            let flag = flag.split('=').next().unwrap_or_default();
            let message =
                format!("{flag} is about Docker's clients, whom --no-proxy or --no-plugin sends away");
            return Err(Failure::usage(message));
        }
        let line =
            ["weave", "docker-plugin"].map(OsString::from).into_iter().chain(self.proxy_words(run_dir));
        let parsed = args::parse(line).map_err(|error| {
            let text = error.to_string();
            Failure::usage(text.lines().next().unwrap_or_default().trim_start_matches("error: "))
        })?;
        if let Command::DockerPlugin(plugin) = parsed.command {
            proxy(plugin.proxy)?;
        }
        Ok(())
    }

    fn proxy_words(&self, run_dir: &Path) -> Vec<OsString> {
        let socket = [OsStr::new("--proxy-socket").to_owned(), proxy_socket(run_dir).into_os_string()];
        socket.into_iter().chain(self.flags.iter().cloned()).collect()
    }
}

/// Starts the driver if an engine is there. A router without Docker is a router all the same, so failures are only told.
pub(super) async fn start(context: &Context, plan: &Plan) {
    let is_socket = |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if !plan.is_wanted || !is_socket(&plan.engine) {
        return;
    }
    match spawn(context, plan) {
        Ok((child, log)) => announce(child, &log, &Engine::new(&plan.engine)).await,
        Err(error) => talk(format_args!("Docker's driver is not started: {error}")),
    }
}

/// In place of a former one, which may be of another version.
fn spawn(context: &Context, plan: &Plan) -> io::Result<(Child, Log)> {
    let run_dir = &context.run_dir;
    if let Some(former) = daemon::running(Daemon::DockerPlugin, run_dir)
        && let Some(process) = Process::open(former)?
    {
        process.terminate()?;
        if !process.ended_within(FAREWELL)? {
            process.kill()?;
        }
    }
    let log = Log::open(Daemon::DockerPlugin, run_dir)?;
    let mut command = daemon::detached(std::env::current_exe()?.as_os_str())?;
    command.arg("--run-dir").arg(run_dir).arg("docker-plugin");
    command.arg("--docker-socket").arg(&plan.engine).arg("--plugin-socket").arg(&plan.plugin);
    command.arg("--network").arg(NETWORK);
    if plan.is_proxy_wanted {
        command.args(plan.proxy_words(run_dir));
    }
    if let Some(bridge) = &plan.bridge {
        command.arg("--weave-bridge").arg(bridge);
    }
    command.env("WEAVE_HTTP_ADDR", context.client.socket()).env_remove("WEAVE_PASSWORD");
    let child = command.stdin(Stdio::null()).stdout(log.handle()?).stderr(log.handle()?).spawn()?;
    daemon::write_pid_file(Daemon::DockerPlugin, run_dir, child.id())?;
    Ok((child, log))
}

/// Looks on until Docker has the network, or something else is worth saying.
async fn announce(mut child: Child, log: &Log, engine: &Engine) {
    let deadline = Instant::now() + PATIENCE;
    let mut news = "Docker does not answer".to_owned();
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            for line in log.tail(5) {
                talk(format_args!("| {line}"));
            }
            talk(format_args!("Docker's driver has ended ({status}); its log is {}", log.path().display()));
            return;
        }
        match engine.has_network(NETWORK).await {
            Ok(true) => {
                talk(format_args!("Docker has the network {NETWORK}: `docker run --network {NETWORK} …`"));
                return;
            }
            Ok(false) => news = format!("Docker has no network {NETWORK} yet"),
            Err(error) => news = error.to_string(),
        }
        sleep(LOOK).await;
    }
    talk(format_args!("{news}; the driver goes on trying, and logs to {}", log.path().display()));
}
