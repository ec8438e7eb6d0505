//! `cargo xtask test --upgrade`: builds a former version out of the repository's history, kept in `target/upgrade`.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use weave_tests::{lab::target_directory, tool};

use crate::screen::say;

/// The version that this one must get on with, unless another is named: the last before routers encrypted what the kernel
/// carries and guarded the ports of containers.
pub(crate) const FORMER: &str = "7237b12";

/// Where the tests find its programs.
pub(crate) const DIRECTORY: &str = "WEAVE_FORMER_DIR";

/// The directory of the programs of `revision`, which are built unless they are there.
pub(crate) fn programs(revision: &str) -> Result<PathBuf> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut git = Command::new("git");
    git.current_dir(root).args(["rev-parse", "--verify", "--quiet", &format!("{revision}^{{commit}}")]);
    let commit = tool::run(&mut git).with_context(|| {
        format!("{revision} is not in this clone: git fetch --unshallow, or name another")
    })?;
    let place = target_directory()?.join("upgrade").join(commit.trim());
    let (source, programs) = (place.join("source"), place.join("target/debug"));
    if programs.join("weaver").exists() {
        return Ok(programs);
    }
    say(&format!("building the former version, {}", commit.trim()));
    fs::create_dir_all(&source)?;
    let mut archive = Command::new("git");
    let mut archive =
        archive.current_dir(root).args(["archive", commit.trim()]).stdout(Stdio::piped()).spawn()?;
    let packed = archive.stdout.take().context("git has an output")?;
    let unpacked = Command::new("tar").arg("-x").current_dir(&source).stdin(packed).status()?;
    ensure!(archive.wait()?.success() && unpacked.success(), "{revision} cannot be unpacked");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&source).args(["build", "--quiet", "--locked", "--package", "weave-router"]);
    cargo.arg("--target-dir").arg(place.join("target"));
    ensure!(cargo.status()?.success(), "{revision} does not build");
    Ok(programs)
}
