//! `weave-kube`: init, run, probe, manifest.
#![forbid(unsafe_code)]

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tokio::runtime::Builder;
use tracing_subscriber::EnvFilter;
use weave_kube::{
    install::Install,
    manifest::Manifest,
    run::{self, Settings},
};

/// What the client of the API server has to say, we say in our own words.
const LOGGED: &str = "info,kube_client=off,kube_runtime=off";

/// Runs a router on a node of Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "weave-kube", version)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install the CNI plugin, its configuration and kernel settings on the host, and exit
    Init(Install),
    /// Start the router and follow the cluster until it ends
    Run(Settings),
    /// Print the manifest for a cluster with these choices, for `kubectl apply -f -`
    #[command(
        after_help = "Example: weave-kube manifest --image registry.example/weave:1 --password-secret weave-password"
    )]
    Manifest(Manifest),
    /// Exit with 0 when the router is ready to serve pods
    Probe {
        /// Whether it answers is enough
        #[arg(long)]
        alive: bool,
        #[command(flatten)]
        settings: Settings,
    },
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let is_for_eyes = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_for_eyes).with_writer(io::stderr).init();
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // A closed pipe is no reason to fail differently.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    match serve(line.command) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::Init(install) => {
            let installed = install.run()?;
            installed.changes.iter().for_each(|change| tracing::info!("installed {change}"));
            installed.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Manifest(manifest) => {
            let text = manifest.render()?;
            io::stdout().write_all(text.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(settings) => runtime.block_on(run::run(settings)),
        Command::Probe { alive, settings } => {
            runtime.block_on(run::probe(&settings, alive)).map(|()| ExitCode::SUCCESS)
        }
    }
}
