//! `weaver`, the router: see `--help`, and ARCHITECTURE.md for how it is built.
#![forbid(unsafe_code)]

mod app;
mod args;
mod cleanup;
mod clock;
mod config;
mod config_file;
mod doctor;
mod engine;
mod exit;
mod fastdp;
mod identity;
mod labels;
mod learning;
mod logging;
mod mark;
mod metrics;
mod ops;
mod quic;
mod report;
mod store;
mod supervisor;

use std::process::ExitCode;

use crate::{args::Args, config::Config, exit::exit_for, supervisor::Supervisor};

fn main() -> ExitCode {
    match args::parse(std::env::args_os().collect()).and_then(start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<clap::Error>() => usage(&error),
        Err(error) => {
            complain(&error);
            exit::code(exit_for(&error))
        }
    }
}

/// clap's own account of it: help and version are no mistakes.
fn usage(error: &anyhow::Error) -> ExitCode {
    let Some(error) = error.downcast_ref::<clap::Error>() else { return exit::code(exit::Exit::Usage) };
    // A closed pipe is no reason to end otherwise.
    let _ = error.print();
    exit::code(if error.use_stderr() { exit::Exit::Usage } else { exit::Exit::Ok })
}

fn start(args: Args) -> anyhow::Result<()> {
    let logging = logging::init(&args.log_level, args.log_format)?;
    let supervisor = Supervisor::new(&args.supervisor);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (print_name_only, cleanup_only, doctor_only) = (args.print_peer_name, args.cleanup, args.doctor);
    let check_only = args.check_config;
    let config = Config::from_args(args, &config::host_name()?, cores)?;
    if check_only {
        return Ok(());
    }
    if print_name_only {
        return print_name(&config);
    }
    if cleanup_only {
        return print_json(&runtime()?.block_on(cleanup::run(&config))?);
    }
    if doctor_only {
        return print_json(&runtime()?.block_on(doctor::host_only(&config))?);
    }
    let ending = runtime()?.block_on(app::run(&config, &logging, &supervisor))?;
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
