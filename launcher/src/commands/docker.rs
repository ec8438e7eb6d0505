//! Docker: its driver as a process, and its containers by their names.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use weave_api::{ContainerRef, Exit};
use weave_docker::{
    EngineError, Firewall, Hostnames, Options, ProxyOptions, Remote, TlsFiles, retire, serve,
};
use weave_model::ContainerId;

use crate::{
    args::{DockerPlugin, Proxy},
    context::{Context, Failure, print, talk},
    daemon::{self, Daemon, Process},
};

/// How long the driver may take to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long a container's name may be looked up.
const LOOK_UP: Duration = Duration::from_secs(5);

/// The driver's name, and that of the router's bridge.
const DRIVER: &str = "weave";
const BRIDGE: &str = "weave";

/// Name in the run directory of the socket for Docker's clients.
const PROXY: &str = "docker.sock";

/// Says that no network is to be made.
const NO_NETWORK: &str = "none";

/// Serves until it is told to end.
pub(super) async fn plugin(context: &Context, plugin: DockerPlugin) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&plugin.log_level)
        .map_err(|error| Failure::usage(format!("--log-level {}: {error}", plugin.log_level)))?;
    // Fails only where a log was set up before, and then there is one.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .try_init();
    let failed = |error: io::Error| Failure::new(Exit::Failed, format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let proxy = proxy(plugin.proxy)?;
    let options = Options {
        socket: plugin.plugin_socket,
        name: plugin.driver_name,
        engine: context.docker.clone(),
        router: context.client.clone(),
        network: (plugin.network != NO_NETWORK).then_some(plugin.network),
        firewall: firewall(plugin.weave_bridge),
        is_name_server: !plugin.no_expose,
        proxy,
    };
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve(options, shutdown).await.map_err(|error| Failure::new(Exit::Failed, format!("{error:#}")))
}

/// What is asked of the proxy, if there is to be one. Files are read, and nothing is opened.
pub(super) fn proxy(flags: Proxy) -> Result<Option<ProxyOptions>, Failure> {
    let Some(socket) = flags.proxy_socket else { return Ok(None) };
    let hostnames =
        Hostnames::new(flags.hostname_from_label, &flags.hostname_match, flags.hostname_replacement)
            .map_err(|error| Failure::usage(format!("--hostname-match: {error}")))?;
    let files = flags.tlscacert.zip(flags.tlscert).zip(flags.tlskey);
    let remote = flags.proxy_address.zip(files).map(|(address, ((authority, certificate), key))| {
        Remote::new(address, &TlsFiles { authority, certificate, key })
    });
    Ok(Some(ProxyOptions {
        socket,
        remote: remote.transpose().map_err(|error| Failure::usage(format!("{error:#}")))?,
        no_default_ipalloc: flags.no_default_ipalloc,
        without_dns: flags.without_dns,
        rewrite_inspect: flags.rewrite_inspect,
        hostnames,
    }))
}

/// With ourselves as the way to the host's programs.
fn firewall(bridge: String) -> Firewall {
    let ourselves = std::env::current_exe().map(|us| vec![us.into_os_string(), "exec-on-host".into()]);
    Firewall { bridge, on_host: ourselves.unwrap_or_default() }
}

/// Takes our networks from Docker, before the host leaves the mesh.
pub(super) async fn leave(context: &Context) {
    match retire(&context.docker, DRIVER).await {
        Ok(_) | Err(EngineError::Absent) => {}
        Err(error) => talk(format_args!("Docker keeps its networks of weave: {error}")),
    }
}

/// Ends the driver and takes back what it told the host's packet filter.
pub(super) async fn end_plugin(context: &Context, bridge: Option<&str>) {
    let Some(pid) = daemon::running(Daemon::DockerPlugin, &context.run_dir) else { return };
    let ended = || -> io::Result<()> {
        let Some(process) = Process::open(pid)? else { return Ok(()) };
        process.terminate()?;
        if !process.ended_within(FAREWELL)? {
            process.kill()?;
        }
        Ok(())
    };
    if let Err(error) = ended() {
        talk(format_args!("cannot end Docker's driver (process {pid}): {error}"));
    }
    firewall(bridge.unwrap_or(BRIDGE).to_owned()).dismiss().await;
    Daemon::DockerPlugin.remove_files(&context.run_dir);
    // Only if nobody else keeps anything there.
    let _ = std::fs::remove_dir(&context.run_dir);
}

/// A container that Docker knows.
#[derive(Debug)]
pub(super) struct Found {
    /// All 64 digits.
    pub(super) id: ContainerId,
    /// Without the slash.
    pub(super) name: String,
    /// Its first process, if it runs.
    pid: Option<u32>,
}

/// A container that is called as Docker calls one: by its whole id then, and where it lives. Any other as it was called.
pub(super) async fn resolve(context: &Context, mut container: ContainerRef) -> ContainerRef {
    let is_placed = container.netns.is_some() || container.pid.is_some();
    if let Some(found) = find(context, container.id.as_ref()).await {
        container.id = Some(found.id);
        if !is_placed {
            container.pid = found.pid;
        }
    }
    container
}

/// The container that Docker has of this name or id. A slow or broken engine must not keep anybody from doing something
/// about other containers.
pub(super) async fn find(context: &Context, given: Option<&ContainerId>) -> Option<Found> {
    // Colons are for owners of other kinds.
    let given = given?.as_str();
    if given.contains(':') {
        return None;
    }
    match tokio::time::timeout(LOOK_UP, context.docker.container(given)).await {
        Ok(Ok(container)) => Some(Found {
            id: container.id.parse().ok()?,
            name: container.name.trim_start_matches('/').to_owned(),
            pid: Some(container.state.pid).filter(|pid| *pid > 0),
        }),
        Ok(Err(EngineError::Absent | EngineError::Refused(..))) => None,
        Ok(Err(error)) => {
            talk(error);
            None
        }
        Err(_) => {
            talk("Docker does not answer");
            None
        }
    }
}

/// Where Docker's clients get our network without asking for it.
pub(super) fn proxy_socket(run_dir: &Path) -> PathBuf {
    run_dir.join(PROXY)
}

/// Lines for a shell. What `DOCKER_HOST` was is kept in `ORIG_DOCKER_HOST`, for the way back.
pub(super) fn env(context: &Context, restore: bool) -> Result<(), Failure> {
    if restore {
        return print(
            "if [ -n \"${ORIG_DOCKER_HOST-}\" ]; then export DOCKER_HOST=\"$ORIG_DOCKER_HOST\"; \
             else unset DOCKER_HOST; fi; unset ORIG_DOCKER_HOST;\n",
        );
    }
    let socket = listening(context)?;
    print(&format!(
        "export ORIG_DOCKER_HOST=\"${{DOCKER_HOST-}}\"; export DOCKER_HOST=unix://{};\n",
        socket.display()
    ))
}

/// A flag of `docker`.
pub(super) fn config(context: &Context) -> Result<(), Failure> {
    print(&format!("--host=unix://{}\n", listening(context)?.display()))
}

fn listening(context: &Context) -> Result<PathBuf, Failure> {
    let socket = proxy_socket(&context.run_dir);
    if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
        return Ok(socket);
    }
    let message = format!(
        "nobody serves Docker's clients at {}; `weave launch` does where Docker is, without --no-proxy",
        socket.display()
    );
    Err(Failure::new(Exit::NotRunning, message))
}
