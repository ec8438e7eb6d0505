//! Getting a subcommand into its sandbox.

use std::{env, ffi::OsString, fs, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use weave_tests::{
    lab::{Lab, execute},
    product::{Profile, Programs},
    sandbox::{self, Place},
};

/// Builds the programs, then runs `body` in a sandbox, with the same command line and the programs. Checks afterwards
/// that the machine's own network is as it was.
pub(crate) fn run(
    name: &str,
    profile: Profile,
    body: impl FnOnce(&Programs) -> Result<()>,
) -> Result<ExitCode> {
    if !sandbox::is_inside() {
        Programs::build(profile)?;
    }
    let interfaces = interfaces()?;
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    match sandbox::enter(&arguments)? {
        Place::Inside => {
            let programs = Programs::built(profile)?;
            execute(name, || body(&programs)).map(|()| ExitCode::SUCCESS)
        }
        Place::Outside(status) => {
            ensure!(interfaces == self::interfaces()?, "the machine's own interfaces have changed meanwhile");
            let code = status.code().and_then(|c| u8::try_from(c).ok());
            Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
        }
    }
}

/// An empty lab whose traffic generator is this program.
pub(crate) fn lab() -> Result<Lab> {
    Lab::new(vec![env::current_exe()?.into(), "traffic".into()])
}

/// The names of the interfaces of the network namespace that this process is in.
fn interfaces() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/net/dev").context("cannot list network interfaces")?;
    let names = text.lines().filter_map(|l| l.split_once(':')).map(|(name, _)| name.trim().to_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}
