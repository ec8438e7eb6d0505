//! One function per command.

mod addresses;
mod docker;
mod doctor;
mod documents;
mod ipam;
mod launch;
mod names;
mod peers;
mod reset;
mod settings;
mod status;
mod stop;
mod words;

use crate::{
    args::{Cli, Command, Config},
    context::{Context, Failure},
};

/// Does what the command line asks for.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    // Looked at only by the commands that need a router: the others must work where the environment is wrong.
    let context = Context::new(&cli.global);
    match cli.command {
        Command::Completion { shell } => documents::completion(shell),
        Command::Man { dir } => documents::man(&dir),
        Command::ExecDetached { command } => Err(crate::daemon::exec_detached(&command)),
        Command::ExecOnHost { command } => Err(crate::daemon::exec_on_host(&command)),
        Command::Npc { arguments } => Err(crate::daemon::exec_beside_us("weave-npc", &arguments)),
        Command::Launch(launch) => launch::launch(launch, cli.global).await,
        Command::Stop(stop) => stop::stop(&context?, &stop).await,
        Command::Reset(reset) => reset::reset(&context?, &reset).await,
        Command::Doctor(doctor) => doctor::doctor(&context?, &doctor.db_prefix).await,
        Command::Trace { target } => doctor::trace(&context?, target).await,
        Command::Connect(connect) => peers::connect(&context?, connect).await,
        Command::Forget(peers) => peers::forget(&context?, peers).await,
        Command::Prime(wait) => peers::prime(&context?, wait.timeout).await,
        Command::Rmpeer(rmpeer) => peers::rmpeer(&context?, rmpeer).await,
        Command::LogLevel { level } => settings::log_level(&context?, level).await,
        Command::Config { command: Some(Config::Check { file }) } => settings::check(&context?, &file),
        Command::Ipam { command } => ipam::ipam(&context?, command).await,
        Command::Attach(attach) => addresses::attach(&context?, attach).await,
        Command::Detach(detach) => addresses::detach(&context?, detach).await,
        Command::Expose(expose) => addresses::expose(&context?, expose).await,
        Command::Hide(addresses) => addresses::hide(&context?, addresses).await,
        Command::Ps(ps) => status::ps(&context?, ps).await,
        Command::DnsAdd(dns) => names::add(&context?, dns).await,
        Command::DnsRemove(dns) => names::remove(&context?, dns).await,
        Command::DnsLookup(lookup) => names::lookup(&context?, lookup).await,
        Command::Env { restore } => docker::env(&context?, restore),
        Command::Config { command: None } => docker::config(&context?),
        Command::DnsArgs => names::docker_args(&context?).await,
        Command::DockerPlugin(plugin) => docker::plugin(&context?, *plugin).await,
        Command::Status(status) => status::status(&context?, &status).await,
        Command::Report { format } => status::report(&context?, format.as_deref()).await,
        Command::Version => status::version(&context?).await,
    }
}
