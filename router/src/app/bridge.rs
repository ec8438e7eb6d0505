//! The bridge of this host and the data plane's port on it.

use weave_hostnet::{BridgeSpec, Host, LinkIndex, names, tap::Tap};
use weave_model::Mac;

use super::explain;
use crate::{config::Config, identity::Local};

/// The bridge and the data plane's port on it.
pub(super) struct Bridge {
    name: String,
    pub(super) mac: Mac,
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
        let existed = host.link_index(&config.bridge).await?.is_some();
        let mac = names::mac_from_seed(&[b"bridge", &local.name.0[..]].concat());
        let spec = BridgeSpec {
            name: config.bridge.clone(),
            mac: Some(mac),
            mtu: config.mtu.into(),
            ..BridgeSpec::default()
        };
        let index = host.ensure_bridge(&spec).await?;
        match host.ensure_tap_port(names::TAP, index).await {
            Ok(tap_port) => {
                Ok(Self { name: config.bridge.clone(), mac, taps, tap_port, is_ours_to_undo: !existed })
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
