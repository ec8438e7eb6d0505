//! `weave-net`; called `weave-ipam`, or with `ipam` as its first argument, it is that plugin.
#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, Read as _, Write as _},
    path::Path,
    process::ExitCode,
};

use tokio::runtime::{Builder, Runtime};
use weave_cni::{CniError, Code, Environment, Outcome, Plugin, Verb, Version, run};

/// The longest configuration that is read, bytes; real ones, with the result of an ADD in them, have a few thousand.
const MAX_INPUT: u64 = 4 << 20;

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let first = arguments.next().unwrap_or_default();
    if first == "--version" || first == "--help" {
        return about();
    }
    let is_ipam = Path::new(&name).file_name().is_some_and(|name| name == "weave-ipam") || first == "ipam";
    let plugin = if is_ipam { Plugin::Ipam } else { Plugin::Net };
    let environment: Environment = env::vars_os().collect();
    match serve(plugin, &environment) {
        Ok(is_success) => ExitCode::from(u8::from(!is_success)),
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}: {error}", name.display());
            ExitCode::FAILURE
        }
    }
}

fn about() -> ExitCode {
    let versions: Vec<&str> = Version::ALL.iter().map(|version| version.as_str()).collect();
    let text = format!(
        "CNI plugin weave-net (as `weave-ipam`: addresses only) {}\nCNI versions: {}\n\
         It is run by container runtimes: the request is in the environment, the configuration on stdin.",
        env!("CARGO_PKG_VERSION"),
        versions.join(", ")
    );
    if writeln!(io::stdout(), "{text}").is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reads, carries out, answers. An ADD whose answer nobody takes is taken back.
fn serve(plugin: Plugin, environment: &Environment) -> io::Result<bool> {
    let mut stdin = Vec::new();
    io::stdin().take(MAX_INPUT).read_to_end(&mut stdin)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(run(plugin, environment, &stdin));
    let is_success = outcome.is_success;
    let told = tell(&outcome);
    if told.is_err() && is_success && environment.verb() == Ok(Verb::Add) {
        take_back(&runtime, plugin, environment, &stdin);
    }
    told.map(|()| is_success)
}

fn tell(outcome: &Outcome) -> io::Result<()> {
    for note in &outcome.notes {
        // For whoever reads the runtime's log; nothing depends on it.
        let _ = writeln!(io::stderr(), "weave-net: {note}");
    }
    if let Some(document) = &outcome.stdout {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{document:#}")?;
        stdout.flush()?;
    }
    Ok(())
}

fn take_back(runtime: &Runtime, plugin: Plugin, environment: &Environment, stdin: &[u8]) {
    let undone = runtime.block_on(run(plugin, &environment.with_verb(Verb::Del), stdin));
    if !undone.is_success {
        let error = CniError::new(Code::Io, "what ADD made could not be taken back");
        let _ = writeln!(io::stderr(), "weave-net: {error}: {:?}", undone.stdout);
    }
}
