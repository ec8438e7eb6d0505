//! `weaver`, the router: see `--help`, and ARCHITECTURE.md for how it is built.
#![forbid(unsafe_code)]

mod app;
mod args;
mod cleanup;
mod clock;
mod config;
mod doctor;
mod engine;
mod exit;
mod fastdp;
mod identity;
mod learning;
mod mark;
mod metrics;
mod ops;
mod quic;
mod report;
mod store;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{args::Args, config::Config, exit::exit_for};

fn main() -> ExitCode {
    let args = Args::parse();
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            exit::code(exit_for(&error))
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    init_log(&args.log_level)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (print_name_only, cleanup_only, doctor_only) = (args.print_peer_name, args.cleanup, args.doctor);
    let config = Config::from_args(args, &config::host_name()?, cores)?;
    if print_name_only {
        return print_name(&config);
    }
    if cleanup_only {
        return print_json(&runtime()?.block_on(cleanup::run(&config))?);
    }
    if doctor_only {
        return print_json(&runtime()?.block_on(doctor::host_only(&config))?);
    }
    let ending = runtime()?.block_on(app::run(&config))?;
    if ending == app::Ending::Reset {
        // In a runtime of its own: by now nothing of the router runs any more that could bring something back.
        let removed = runtime()?.block_on(cleanup::run(&config))?;
        tracing::info!(
            interfaces = removed.interfaces.len(),
            "everything of this router is gone from the host"
        );
    }
    Ok(())
}

/// Two threads: one can wait for the disk while the other answers.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(2).thread_stack_size(1 << 20).enable_all().build()?)
}

fn print_json(answer: &impl serde::Serialize) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(answer)?;
    #[expect(clippy::print_stdout, reason = "the answer of --cleanup and --doctor")]
    {
        println!("{json}");
    }
    Ok(())
}

fn print_name(config: &Config) -> anyhow::Result<()> {
    let store = store::Store::open(&config.db_prefix)?;
    let name = identity::Local::peek_name(&store, config.name)?;
    #[expect(clippy::print_stdout, reason = "the answer of --print-peer-name")]
    {
        println!("{name}");
    }
    Ok(())
}

/// One line on standard error, whatever the log level is.
fn complain(error: &anyhow::Error) {
    #[expect(clippy::print_stderr, reason = "the last word of a program that cannot go on")]
    {
        eprintln!("weaver: {error:#}");
    }
}

fn init_log(level: &str) -> anyhow::Result<()> {
    let level = if level == "warning" { "warn" } else { level };
    let parsed: tracing::Level = level.parse().map_err(|_| {
        exit::Fatal::usage(format!("--log-level {level}: give error, warn, info, debug or trace"))
    })?;
    // Libraries below ours speak of their own inner life; only what is wrong there concerns an operator.
    let others = if parsed == tracing::Level::TRACE { "info" } else { "warn" };
    let directives = [
        "weaver",
        "weave_node",
        "weave_mesh",
        "weave_ipam",
        "weave_dns",
        "weave_hostnet",
        "weave_worker",
        "weave_control",
    ]
    .iter()
    .map(|target| format!(",{target}={parsed}"))
    .collect::<String>();
    let filter = tracing_subscriber::EnvFilter::new(format!("{others}{directives}"));
    use std::io::IsTerminal as _;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
