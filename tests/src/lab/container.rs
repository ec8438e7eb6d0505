//! A container: what a router gives an address to.

use std::{
    fs,
    net::IpAddr,
    ops::Deref,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::place::Place;
use crate::sandbox;

/// A container on a host. It is a [`Place`]; its network has nothing but a loopback until something attaches it.
#[derive(Debug)]
pub struct Container {
    place: Place,
    short: String,
}

impl Container {
    pub(super) fn new(host: &Place, name: &str) -> Result<Self> {
        let full = format!("{}.{name}", host.name());
        fs::write(resolver_file(&full), "")?;
        let place = Place::container(host, &full)?;
        host.run(&format!("ip netns attach {name} {}", place.pid()))?;
        Ok(Self { place, short: name.to_owned() })
    }

    /// Its name on its host; [`Place::name`] has the host's name before it.
    #[must_use]
    pub fn short_name(&self) -> &str {
        &self.short
    }

    /// The path of its network namespace, as seen on its host.
    #[must_use]
    pub fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.short)
    }

    /// Makes programs in it ask `server` for names, with `domain` tried behind short ones.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn use_resolver(&self, server: IpAddr, domain: &str) -> Result<()> {
        let text = format!("nameserver {server}\nsearch {domain}\noptions timeout:2 attempts:2\n");
        Ok(fs::write(resolver_file(self.name()), text)?)
    }
}

fn resolver_file(name: &str) -> PathBuf {
    Path::new(sandbox::DIRECTORY).join(format!("{name}.resolv"))
}

impl Deref for Container {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}
