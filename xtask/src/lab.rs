//! `cargo xtask lab` and `cargo xtask enter`.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;
use weave_tests::{
    clock::{Look, wait_until},
    lab::Host,
    product::{Profile, Programs, Router, Settings, mesh_in_words, shows_mesh},
    sandbox,
};

use crate::{
    inside,
    screen::{complain, say},
};

/// Arguments of `lab`.
#[derive(Debug, Args)]
pub(crate) struct Lab {
    /// How many hosts; all on one segment, each with a router and a container
    #[arg(value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    hosts: u8,
    /// Leave the data plane unencrypted
    #[arg(long)]
    open: bool,
    /// Build with optimisation
    #[arg(long)]
    release: bool,
}

/// Arguments of `enter`.
#[derive(Debug, Args)]
pub(crate) struct Enter {
    /// The number that the lab printed
    lab: u32,
    /// A host, such as h1, or a container, such as h1.c1
    place: String,
    /// A command; a shell unless given
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl Lab {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let profile = if self.release { Profile::Release } else { Profile::Dev };
        inside::run("lab", profile, |programs| self.inside(programs))
    }

    fn inside(&self, programs: &Programs) -> Result<()> {
        let mut lab = inside::lab()?;
        let names = (1..=self.hosts).map(|n| format!("h{n}"));
        let mut hosts = names.map(|name| lab.add_host(&name)).collect::<Result<Vec<_>>>()?;
        lab.join(&mut hosts.iter_mut().collect::<Vec<_>>())?;
        let containers = hosts.iter().map(|h| h.add_container("c1")).collect::<Result<Vec<_>>>()?;
        let peer = hosts.first().context("a lab has hosts")?.address()?.to_string();
        let settings = Settings {
            peers: vec![peer],
            password: (!self.open).then(|| "lab".to_owned()),
            flags: vec![format!("--ipalloc-init=consensus={}", self.hosts)],
        };
        let start = |host| Router::start(programs, host, &settings);
        let mut routers = hosts.iter().map(start).collect::<Result<Vec<_>>>()?;
        routers.iter_mut().try_for_each(Router::await_ready)?;
        await_full_mesh(&routers)?;
        for (router, container) in routers.iter().zip(&containers) {
            let host = router.host().name();
            let address = router.tell(&format!(
                "attach --netns {} --name {host}-c1 {host}-c1",
                container.netns().display()
            ))?;
            let resolver = router.tell("expose")?;
            container
                .use_resolver(resolver.parse().context("`weave expose` prints an address")?, "weave.local")?;
            say(&format!("{host:<5} {:<15} container {host}-c1 {address}", router.host().address()?));
        }
        stay(&hosts.iter().collect::<Vec<_>>(), "c1", programs)
    }
}

/// Waits until every router knows every link of a full mesh.
fn await_full_mesh(routers: &[Router<'_>]) -> Result<()> {
    let count = routers.len();
    for router in routers {
        wait_until("the whole mesh", std::time::Duration::from_secs(60), || {
            let report = router.report()?;
            let is_whole = shows_mesh(&report, count, count * (count - 1));
            Ok(Look::when(is_whole, || mesh_in_words(&report)))
        })?;
    }
    Ok(())
}

/// Says how to enter each host, and waits for Ctrl-C: everything ends with this process.
pub(crate) fn stay(hosts: &[&Host], container: &str, programs: &Programs) -> Result<()> {
    let keeper = sandbox::keeper().context("this is not a sandbox")?;
    say("\nEnter from another terminal:");
    for host in hosts {
        let name = host.name();
        say(&format!(
            "  cargo xtask enter {keeper} {name}      cargo xtask enter {keeper} {name}.{container}"
        ));
    }
    let weave = programs.weave().display();
    say(&format!("\nOn a host:  {weave} --run-dir {}/weave-HOST status", sandbox::DIRECTORY));
    say("Ctrl-C ends it all.");
    loop {
        std::thread::park();
    }
}

impl Enter {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let status = sandbox::shell(self.lab, &self.place, &self.command)?.status()?;
        if !status.success() && self.command.is_empty() {
            complain(&format!("left {} ({status})", self.place));
        }
        Ok(status.code().and_then(|c| u8::try_from(c).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
    }
}
