//! Hosts on one machine.
//!
//! A host is a network and a mount namespace with its own `/run`; a container is the same on a host. A switch
//! namespace joins hosts by segments; a host with a foot in two segments reaches both, hosts without a common one do
//! not reach each other. Names are short and unique in the lab, addresses follow from the numbers of segment and host:
//! 172.31.SEGMENT.HOST/24 and fd31:SEGMENT::HOST/64.

mod container;
mod host;
mod place;
mod process;
mod run;
mod segment;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

pub use container::Container;
pub use host::Host;
pub use place::{Counters, Place};
pub use process::Process;
pub use run::{execute, in_sandbox, target_directory};
pub use segment::Segment;

use crate::sandbox;

/// Everything made in one sandbox. Dropping it ends its processes; the sandbox removes the rest.
#[derive(Debug)]
pub struct Lab {
    generator: Vec<OsString>,
    switch: Place,
    hosts: u8,
    segments: u8,
}

impl Lab {
    /// An empty lab. `generator` is the command line, an absolute path first, behind which
    /// [`crate::traffic::Generator`] listens.
    ///
    /// # Errors
    /// When this process is not in a sandbox or may not make namespaces.
    pub fn new(generator: Vec<OsString>) -> Result<Self> {
        anyhow::ensure!(sandbox::is_inside(), "a lab is built inside a sandbox only");
        // What an earlier lab of this sandbox left; its logs stay.
        for entry in fs::read_dir(sandbox::DIRECTORY)? {
            let path = entry?.path();
            if path.is_dir() && path != logs() {
                fs::remove_dir_all(path)?;
            }
        }
        fs::create_dir_all(logs())?;
        Ok(Self { generator, switch: Place::host("switch")?, hosts: 0, segments: 0 })
    }

    /// Adds a host without any link.
    ///
    /// # Errors
    /// When the namespace cannot be made, or after 250 hosts.
    pub fn add_host(&mut self, name: &str) -> Result<Host> {
        anyhow::ensure!(self.hosts < 250, "a lab has at most 250 hosts");
        self.hosts += 1;
        Host::new(name, self.hosts)
    }

    /// Joins `hosts` by a switch: each gets an interface with an IPv4 and an IPv6 address.
    ///
    /// # Errors
    /// When an interface cannot be made.
    pub fn join(&mut self, hosts: &mut [&mut Host]) -> Result<Segment> {
        self.segments += 1;
        Segment::new(&self.switch, self.segments, hosts)
    }

    /// Joins two hosts by one veth pair, without a switch between: the fastest underlay there is.
    ///
    /// # Errors
    /// When an interface cannot be made.
    pub fn wire(&mut self, a: &mut Host, b: &mut Host) -> Result<()> {
        self.segments += 1;
        segment::wire(self.segments, a, b)
    }

    /// Bytes that all hosts together have sent on `segment`, Ethernet headers included.
    ///
    /// # Errors
    /// When the switch's counters cannot be read.
    pub fn sent_on(&self, segment: Segment) -> Result<u64> {
        let ports = format!("p{}-", segment.number());
        let counters = self.switch.counters()?;
        // What a port of the switch receives, its host has sent.
        Ok(counters.iter().filter(|(name, _)| name.starts_with(&ports)).map(|(_, c)| c.received).sum())
    }

    /// Where every segment passes, and nothing but the underlay: the place to capture it.
    #[must_use]
    pub fn switch(&self) -> &Place {
        &self.switch
    }

    /// The traffic generator's command line.
    #[must_use]
    pub fn generator(&self) -> &[OsString] {
        &self.generator
    }

    /// A directory of the lab: the same for all hosts, gone with the sandbox.
    #[must_use]
    pub fn directory(&self) -> &'static Path {
        Path::new(sandbox::DIRECTORY)
    }
}

/// Where processes of the lab write what they say.
#[must_use]
pub fn logs() -> PathBuf {
    Path::new(sandbox::DIRECTORY).join("logs")
}
