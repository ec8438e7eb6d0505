//! `cargo xtask bench`: ours and what else there is, in one run, interleaved round by round.
//!
//! Both ends of every measurement and both load generators share this machine; a ratio compares two figures of the same
//! run and says nothing about any other machine.

mod baseline;
mod calibrate;
pub(crate) mod cni;
mod dns;
mod docker;
mod esp;
mod fastdp;
mod ipam;
mod join;
mod mesh;
mod paths;
mod policy;
mod row;
mod sleeve;

use std::{
    env,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use weave_tests::{
    lab::target_directory,
    product::{Profile, Programs},
    sandbox,
};

use crate::{
    inside,
    screen::{complain, say},
};
use baseline::Baseline;
use row::Row;

/// Arguments of `bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Bench {
    /// What to measure; everything unless given
    #[arg(value_name = "AREA")]
    areas: Vec<Area>,
    /// How often each figure is taken; the median is shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Print one JSON object per line instead of a table
    #[arg(long)]
    json: bool,
    /// One short round of everything: shows that it works, measures nothing worth keeping
    #[arg(long)]
    quick: bool,
    /// How many routers join in the mesh area, instead of 20 and then 40
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=200))]
    routers: Vec<u8>,
    /// Keep the figures as the new baseline
    #[arg(long, conflicts_with = "quick")]
    save: bool,
}

/// A part of the product that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Area {
    /// The kernel's path against the same devices made by hand
    Fastdp,
    /// The user-space tunnel against kernel VXLAN and the bare underlay
    Sleeve,
    /// Many routers that find each other
    Mesh,
    /// Address allocation
    Ipam,
    /// The name server
    Dns,
    /// Docker's containers, from `docker run` to their first answer
    Docker,
    /// CNI's ADD
    Cni,
    /// Network policies
    Policy,
    /// The kernel's path with a password, in an emulated machine whose kernel has ESP; only when asked for
    Esp,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        if self.areas.contains(&Area::Esp) && self.areas.len() > 1 {
            bail!("`esp` is measured in a machine of its own: ask for it alone");
        }
        // Nothing of ours is on the way of what the kernel carries.
        if cfg!(debug_assertions) && self.areas[..] != [Area::Esp] {
            return Err(become_optimised()?);
        }
        if self.areas().contains(&Area::Policy) && !sandbox::is_inside() {
            policy::build()?;
        }
        if self.areas().contains(&Area::Cni) && !sandbox::is_inside() {
            cni::build()?;
        }
        if self.areas[..] == [Area::Esp] {
            return esp::run(self).map(|()| ExitCode::SUCCESS);
        }
        let code = inside::run("bench", Profile::Release, |programs| self.inside(programs));
        if self.areas().contains(&Area::Docker) && !sandbox::is_inside() {
            weave_tests::docker::remove_cgroups();
        }
        code
    }

    fn areas(&self) -> &[Area] {
        match &self.areas[..] {
            [] => &[
                Area::Fastdp,
                Area::Sleeve,
                Area::Mesh,
                Area::Ipam,
                Area::Dns,
                Area::Docker,
                Area::Cni,
                Area::Policy,
            ],
            chosen => chosen,
        }
    }

    fn inside(&self, programs: &Programs) -> Result<()> {
        let mut baseline = Baseline::read()?;
        complain("both hosts and both load generators share this machine's processors");
        calibrate::run(self)?;
        let mut all = Vec::new();
        for area in self.areas() {
            let rows = match area {
                Area::Fastdp => fastdp::run(self, programs)?,
                Area::Sleeve => sleeve::run(self, programs)?,
                Area::Mesh => mesh::run(self, programs)?,
                Area::Ipam => ipam::run(self, programs)?,
                Area::Dns => dns::run(self, programs)?,
                Area::Docker => docker::run(self, programs)?,
                Area::Cni => cni::run(self, programs)?,
                Area::Policy => policy::run(self)?,
                Area::Esp => Vec::new(),
            };
            for mut row in rows {
                baseline.compare(&mut row);
                say(&if self.json { row.json()? } else { row.to_string() });
                all.push(row);
            }
        }
        self.regressions(&baseline, &all);
        if self.save { baseline.write(&all) } else { Ok(()) }
    }

    fn regressions(&self, baseline: &Baseline, rows: &[Row]) {
        for row in rows.iter().filter(|_| !self.quick) {
            if let Some(before) = baseline.regression(row) {
                complain(&format!("REGRESSION {}: {:.4} {}, was {before:.4}", row.name, row.value, row.unit));
            }
        }
    }

    /// How many rounds to take.
    fn rounds(&self) -> usize {
        if self.quick { 1 } else { usize::from(self.rounds) }
    }

    /// How long one measurement of traffic takes, in seconds.
    fn seconds(&self) -> f64 {
        if self.quick { 0.4 } else { 2.0 }
    }
}

/// Builds this program with optimisation and becomes it. Returns only what went wrong.
fn become_optimised() -> Result<anyhow::Error> {
    if sandbox::is_inside() {
        bail!("the sandbox is entered by the optimised program only");
    }
    let target = target_directory()?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--release", "--package", "xtask", "--target-dir"]).arg(&target);
    let status = build.status().context("cannot run cargo")?;
    anyhow::ensure!(status.success(), "the build failed; its messages are above");
    let error = Command::new(target.join("release/xtask")).args(env::args_os().skip(1)).exec();
    Ok(error.into())
}
