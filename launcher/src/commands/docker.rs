//! Docker: its driver as a process, and its containers by their names.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use weave_api::Exit;
use weave_docker::{Engine, Options, serve};

use crate::{
    args::DockerPlugin,
    context::{Context, Failure},
};

/// Says that no network is to be made.
const NO_NETWORK: &str = "none";

/// Serves until it is told to end.
pub(super) async fn plugin(context: &Context, plugin: DockerPlugin) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&plugin.log_level)
        .map_err(|error| Failure::usage(format!("--log-level {}: {error}", plugin.log_level)))?;
    // Fails only where a log was set up before, and then there is one.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
    let failed = |error: io::Error| Failure::new(Exit::Failed, format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let options = Options {
        socket: plugin.plugin_socket,
        engine: Engine::new(plugin.docker.docker_socket),
        router: context.client.clone(),
        network: (plugin.network != NO_NETWORK).then_some(plugin.network),
        bridge: plugin.weave_bridge,
    };
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve(options, shutdown).await.map_err(|error| Failure::new(Exit::Failed, format!("{error:#}")))
}
