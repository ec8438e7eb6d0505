//! Containers send from their own addresses only ([`weave_hostnet::PortGuard`]): the records say which those are.
//!
//! A port is guarded before it is made, so that its first frame is looked at. What is in the kernel outlives the router, and is
//! looked through with every change and every few seconds.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use weave_api::ApiError;
use weave_hostnet::{Forgery, HostError, PortGuard, Station};
use weave_model::{ContainerId, Interface, Mac};

use super::{Ops, Record, host_error};

/// The guard of this host's ports.
pub(super) struct Ports {
    guard: PortGuard,
    is_wanted: bool,
    /// Whether it was said that this kernel cannot do it.
    is_absent: AtomicBool,
}

impl Ports {
    pub(super) fn new(is_wanted: bool) -> Self {
        Self { guard: PortGuard::default(), is_wanted, is_absent: AtomicBool::new(false) }
    }

    fn reconcile(&self, stations: &BTreeMap<String, Station>) -> Result<(), HostError> {
        if !self.is_wanted {
            return PortGuard::remove();
        }
        match self.guard.reconcile(stations) {
            Err(HostError::Unsupported { .. }) => {
                if !self.is_absent.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "this kernel has no nftables for bridges (NF_TABLES_BRIDGE): containers can send from the \
                         addresses of others"
                    );
                }
                Ok(())
            }
            other => other,
        }
    }
}

impl Ops {
    /// Guards a port that is about to be made, or to get more addresses, beside all others.
    pub(super) fn guard_port(&self, port: &str, mac: Mac, addresses: &[Interface]) -> Result<(), ApiError> {
        let mut stations = self.stations();
        let coming = stations.entry(port.to_owned()).or_default();
        coming.macs.insert(mac);
        coming.addresses.extend(addresses.iter().map(|interface| interface.address()));
        self.ports.reconcile(&stations).map_err(|error| host_error(&error.into()))
    }

    /// Brings the guard in line with what is attached here. What fails is tried again with the next change, or by
    /// [`sweep`](Self::sweep).
    pub(super) fn guard_ports(&self) {
        if let Err(error) = self.ports.reconcile(&self.stations()) {
            tracing::warn!(%error, "cannot keep containers from using the addresses of others; trying again");
        }
    }

    fn stations(&self) -> BTreeMap<String, Station> {
        let records = self.records();
        let guarded = |record: &&Record| record.container != ContainerId::expose() && !record.any_source;
        let station = |record: &Record| {
            let addresses: std::collections::BTreeSet<IpAddr> =
                record.addresses.iter().map(|interface| interface.address()).collect();
            (record.host_ifname.clone(), Station { macs: [record.mac].into(), addresses })
        };
        records.values().filter(guarded).map(station).collect()
    }

    /// How many frames of containers were dropped because they came from addresses of others, by why.
    pub(crate) fn forgeries(&self) -> BTreeMap<Forgery, u64> {
        // Nobody counts where there is no guard.
        self.ports.guard.forgeries().unwrap_or_default()
    }
}
