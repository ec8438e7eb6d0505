//! The bridge of this host and the data plane's port on it.

use weave_hostnet::{BridgeSpec, Host, LinkIndex, names, tap::Tap};
use weave_model::Mac;

use super::explain;
use crate::{config::Config, identity::Local};

/// Until the paths are known: what Weave Net used, which passes nearly everywhere.
const FIRST_MTU: u16 = 1376;

/// The bridge and the data plane's port on it.
pub(super) struct Bridge {
    name: String,
    pub(super) index: LinkIndex,
    pub(super) mac: Mac,
    /// What it has at the start.
    pub(super) mtu: u16,
    taps: Vec<Tap>,
    pub(super) tap_port: LinkIndex,
    /// Whether this start made the bridge, and so may take it away again.
    is_ours_to_undo: bool,
}

/// The data plane's queues. They go with their last handle, and another weaver's interface is not touched.
pub(super) fn open_taps(config: &Config) -> anyhow::Result<Vec<Tap>> {
    Tap::open_queues(names::TAP, config.workers).map_err(|error| explain::tap(&error))
}

impl Bridge {
    /// Makes what is missing and puts the TAP on it. When it fails, nothing is left of it.
    pub(super) async fn set_up(
        host: &Host,
        config: &Config,
        local: &Local,
        taps: Vec<Tap>,
    ) -> anyhow::Result<Self> {
        let existing_mtu = host.link_mtu(&config.bridge).await?;
        let existed = existing_mtu.is_some();
        let present = || existing_mtu.and_then(|mtu| u16::try_from(mtu).ok());
        let mtu = config.mtu.or_else(present).unwrap_or(FIRST_MTU);
        let mac = names::mac_from_seed(&[b"bridge", &local.name.0[..]].concat());
        let spec = BridgeSpec {
            name: config.bridge.clone(),
            mac: Some(mac),
            mtu: mtu.into(),
            ..BridgeSpec::default()
        };
        let index = host.ensure_bridge(&spec).await?;
        match host.ensure_tap_port(names::TAP, index).await {
            Ok(tap_port) => {
                let name = config.bridge.clone();
                Ok(Self { name, index, mac, mtu, taps, tap_port, is_ours_to_undo: !existed })
            }
            Err(error) => {
                if !existed {
                    remove_bridge(host, &config.bridge).await;
                }
                Err(error)
            }
        }
    }

    /// Hands over the TAP's queues, once.
    pub(super) fn take_taps(&mut self) -> Vec<Tap> {
        std::mem::take(&mut self.taps)
    }

    /// Takes away what a failed start made.
    pub(super) async fn undo(&self, host: &Host) {
        if self.is_ours_to_undo {
            remove_bridge(host, &self.name).await;
        }
    }
}

async fn remove_bridge(host: &Host, name: &str) {
    if let Err(error) = host.remove_link(name).await {
        tracing::warn!(error = format!("{error:#}"), "the bridge of a failed start was not taken away");
    }
}
