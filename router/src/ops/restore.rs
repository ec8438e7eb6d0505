//! What was attached before a restart, and what vanished without a word.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context as _;
use weave_model::ContainerId;

use super::{Ops, Record, stopping};
use crate::store::Part;

/// How often vanished containers are looked for. One that is seen gone twice in a row is released, so that a
/// container which is being restarted keeps its address.
const SWEEP: Duration = Duration::from_secs(5);

impl Ops {
    /// Takes up the containers that are still there, and releases those that went while we were away.
    pub(crate) async fn restore(&self) -> anyhow::Result<()> {
        let stored = self.store.read_all(Part::Attachment)?;
        self.recall_names()?;
        let present = self.present().await?;
        for (key, value) in stored {
            let record = Record::decode(&value).with_context(|| {
                format!("the record of container {} in the store is damaged", String::from_utf8_lossy(&key))
            })?;
            self.records().insert(record.container.clone(), record.clone());
            if record.container == ContainerId::expose() {
                self.restore_exposed(&record).await?;
            } else if present.contains(&record.host_ifname) {
                self.announce(&record).await.map_err(anyhow::Error::from)?;
            } else {
                self.release(&record).await;
            }
        }
        self.restore_names().await.map_err(anyhow::Error::from)?;
        self.guard_ports();
        // The host was exposed again before all containers were known.
        self.keep_sources();
        if !self.records().contains_key(&ContainerId::expose()) {
            self.masquerade(None).map_err(anyhow::Error::from)?;
        }
        Ok(())
    }

    async fn restore_exposed(&self, record: &Record) -> anyhow::Result<()> {
        self.host.expose(&self.bridge, &record.addresses).await?;
        let record = Record { mac: self.bridge_mac(), ..record.clone() };
        self.masquerade(Some(&record)).map_err(anyhow::Error::from)?;
        self.announce(&record).await.map_err(anyhow::Error::from)
    }

    /// The host's ends of containers' interfaces.
    async fn present(&self) -> anyhow::Result<BTreeSet<String>> {
        Ok(self.host.host_veths(&self.bridge).await?.into_iter().collect())
    }

    /// Looks for vanished containers, and for rules that somebody took away, until the engine stops.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut missing = BTreeSet::new();
        loop {
            tokio::time::sleep(SWEEP).await;
            {
                let _exclusive = self.exclusive.lock().await;
                self.guard_ports();
                self.mend_rules();
            }
            match self.sweep_once(&missing).await {
                Ok(now_missing) => missing = now_missing,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "cannot look for vanished containers")
                }
            }
        }
    }

    async fn sweep_once(
        &self,
        missing_before: &BTreeSet<ContainerId>,
    ) -> anyhow::Result<BTreeSet<ContainerId>> {
        if self.records().keys().all(|container| *container == ContainerId::expose()) {
            return Ok(BTreeSet::new());
        }
        let _exclusive = self.exclusive.lock().await;
        let present = self.present().await?;
        let mut missing = BTreeSet::new();
        for record in self.attached() {
            if record.container == ContainerId::expose() || present.contains(&record.host_ifname) {
                continue;
            }
            if missing_before.contains(&record.container) {
                self.release(&record).await;
            } else {
                missing.insert(record.container);
            }
        }
        Ok(missing)
    }

    /// Gives back everything of a container that is gone.
    pub(super) async fn release(&self, record: &Record) {
        let container = &record.container;
        tracing::info!(%container, addresses = ?record.addresses, "container is gone; its addresses are free");
        let mac = record.mac;
        // What an engine leased for an endpoint, the engine frees.
        let going =
            if record.endpoint.is_some() { self.held(container).await } else { Ok(record.addresses.clone()) };
        let going = going.unwrap_or_default();
        let withdrawn = async {
            self.withdraw_names(record.holder(), &record.addresses).await?;
            self.withdraw_last_names(record).await?;
            self.engine.run(move |engine, now| engine.node.detach(mac, now)).await.map_err(stopping)?;
            self.forget_record(container).await
        };
        if let Err(error) = withdrawn.await {
            tracing::warn!(%container, %error, "a vanished container was not released");
            return;
        }
        self.give_back(container, &going).await;
    }
}
