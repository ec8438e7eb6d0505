//! The image of the router, made as `Dockerfile.prebuilt` says, and what its containers need of a host.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::Engine;
use crate::{
    lab::{Host, target_directory},
    product::Router,
    sandbox, tool,
};

/// Names the directory of static programs that were built elsewhere: these go into the image, nothing is built.
const BINARIES: &str = "WEAVE_STATIC_BIN_DIR";

/// What the image is called in `examples/docker/compose.yaml`.
pub const ROUTER_IMAGE: &str = "weave";

/// The programs in it.
const PROGRAMS: [&str; 2] = ["weaver", "weave"];

/// Makes a host's `/etc` and `/var/lib/weave` its own, lets it show mounts to containers that come later, as `systemd` does,
/// and makes names known there.
const HOST_SCRIPT: &str = r#"
set -e
mkdir -p "$1/etc" "$1/lib"
cp -a /etc/. "$1/etc"
printf "$2" >> "$1/etc/hosts"
mount -n --bind "$1/etc" /etc
mount -n --bind "$1/lib" /var/lib
mount -n --make-rshared /
mkdir -p /etc/weave /run/docker/netns
printf 'correct horse battery\n' > /etc/weave/password
"#;

/// Builds router and command as the Dockerfile does, static, but unoptimised. To be called outside the sandbox, where the
/// registry of crates can be reached; takes minutes the first time.
///
/// # Errors
/// When the build fails.
pub fn build_static_programs() -> Result<()> {
    if env::var_os(BINARIES).is_some() {
        return Ok(());
    }
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    cargo.args(["build", "--quiet", "--package", "weave-router", "--package", "weave-launcher"]);
    cargo.arg("--target").arg(triple()).arg("--target-dir").arg(target_directory()?.join("static"));
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "the build failed; its messages are above");
    Ok(())
}

/// What this machine's programs are built for.
fn triple() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

/// A directory of the lab with the static programs alone, without what debuggers want.
fn context() -> Result<PathBuf> {
    let directory = Path::new(sandbox::DIRECTORY).join("image-context");
    if directory.exists() {
        return Ok(directory);
    }
    fs::create_dir_all(&directory)?;
    let built = target_directory()?.join("static").join(triple()).join("debug");
    let built = env::var_os(BINARIES).map_or(built, PathBuf::from);
    for program in PROGRAMS {
        let strip = &mut Command::new("strip");
        tool::run(strip.arg("-o").arg(directory.join(program)).arg(built.join(program)))?;
    }
    Ok(directory)
}

impl Engine<'_> {
    /// Builds the router's image with this engine.
    ///
    /// # Errors
    /// When Docker refuses, or the programs have not been built.
    pub fn build_router_image(&self) -> Result<()> {
        let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../Dockerfile.prebuilt");
        let mut build = self.command(&["build", "--tag", ROUTER_IMAGE, "--file", recipe]);
        // Without a builder of its own to install.
        build.env("DOCKER_BUILDKIT", "0");
        tool::run(build.arg(context()?)).map(drop)
    }

    /// Makes a managed plugin of the programs with this configuration, whose router is the host's, and enables it.
    ///
    /// # Errors
    /// When Docker refuses, or the programs have not been built.
    pub fn install_plugin(&self, config: &str, router: &Router<'_>) -> Result<()> {
        const NAME: &str = "weave-swarm";
        let directory = Path::new(sandbox::DIRECTORY).join("plugin");
        if !directory.exists() {
            fs::create_dir_all(directory.join("rootfs/bin"))?;
            fs::copy(context()?.join("weave"), directory.join("rootfs/bin/weave"))?;
            fs::copy(config, directory.join("config.json"))?;
        }
        self.docker(&format!("plugin create {NAME} {}", directory.display()))?;
        let (router, engine) = (router.run_dir().display(), super::socket());
        self.docker(&format!("plugin set {NAME} router.source={router} engine.source={}", engine.display()))?;
        self.docker(&format!("plugin enable {NAME}")).map(drop)
    }

    /// A `docker-compose` command for this engine, this project and this file; arguments are to be added.
    #[must_use]
    pub fn compose(&self, project: &str, file: &str) -> Command {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let mut command = self.host().command("timeout");
        command.args(["--signal=KILL", &super::HANGS.as_secs().to_string(), "docker-compose"]);
        command.args(["--project-name", project, "--file"]);
        command.arg(file).env("DOCKER_HOST", format!("unix://{}", super::socket().display()));
        command
    }
}

/// Prepares a host for containers of the router's image: `/etc` is a copy with a password for the mesh and `names`, lines of
/// `/etc/hosts`; `/var/lib` is empty.
///
/// # Errors
/// When that cannot be done.
pub fn prepare_host(host: &Host, names: &str) -> Result<()> {
    let own = Path::new(sandbox::DIRECTORY).join(format!("own-{}", host.name()));
    fs::create_dir_all(&own)?;
    let mut command = host.command("sh");
    tool::run(command.args(["-c", HOST_SCRIPT, "sh"]).arg(&own).arg(names)).map(drop)
}
