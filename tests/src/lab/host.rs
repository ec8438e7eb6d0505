//! A host: where a router runs.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Deref,
};

use anyhow::{Context as _, Result};

use super::{container::Container, place::Place};

/// A machine in the lab. It is a [`Place`], with a number and feet in segments.
#[derive(Debug)]
pub struct Host {
    place: Place,
    number: u8,
    segments: Vec<u8>,
}

impl Host {
    pub(super) fn new(name: &str, number: u8) -> Result<Self> {
        Ok(Self { place: Place::host(name)?, number, segments: Vec::new() })
    }

    /// The host's number, from 1.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    pub(super) fn joined(&mut self, segment: u8) {
        self.segments.push(segment);
    }

    /// Its IPv4 address in the first segment that it joined.
    ///
    /// # Errors
    /// When it joined none.
    pub fn address(&self) -> Result<Ipv4Addr> {
        let first = self.segments.first().with_context(|| format!("{} is in no segment", self.name()))?;
        Ok(ipv4(*first, self.number))
    }

    /// Its addresses, IPv4 then IPv6, in `segment`.
    #[must_use]
    pub fn addresses_in(&self, segment: u8) -> [IpAddr; 2] {
        [ipv4(segment, self.number).into(), ipv6(segment, self.number).into()]
    }

    /// The segments it is in, in the order in which it joined them.
    #[must_use]
    pub fn segments(&self) -> &[u8] {
        &self.segments
    }

    /// Adds a container: a network namespace under `/run/netns` of this host and a process that holds it.
    ///
    /// # Errors
    /// When the namespace cannot be made.
    pub fn add_container(&self, name: &str) -> Result<Container> {
        Container::new(&self.place, name)
    }
}

impl Deref for Host {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

/// The IPv4 address of `host` in `segment`.
pub(super) const fn ipv4(segment: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, segment, host)
}

/// The IPv6 address of `host` in `segment`.
pub(super) const fn ipv6(segment: u8, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd31, segment as u16, 0, 0, 0, 0, 0, host as u16)
}
