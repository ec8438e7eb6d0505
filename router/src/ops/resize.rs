//! Another MTU for everything on the bridge.

use std::sync::atomic::Ordering;

use weave_hostnet::NetnsRef;
use weave_model::ContainerId;

use super::Ops;

impl Ops {
    /// What an interface gets that is made now.
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu.load(Ordering::Relaxed)
    }

    /// Gives the bridge, its uplinks and all containers this MTU: what sends is made smaller first and larger last. Goes on
    /// after a failure.
    pub(crate) async fn resize_all(&self, mtu: u16) {
        let _exclusive = self.exclusive.lock().await;
        let shrinks = mtu < self.mtu.swap(mtu, Ordering::Relaxed);
        if shrinks {
            self.resize_containers(mtu).await;
            self.resize_bridge(mtu).await;
        } else {
            self.resize_bridge(mtu).await;
            self.resize_containers(mtu).await;
        }
        tracing::info!(mtu, "interfaces follow the paths");
    }

    /// The bridge with all its ports that are ours.
    async fn resize_bridge(&self, mtu: u16) {
        let resized = async {
            if let Some(bridge) = self.host.link_index(&self.bridge).await? {
                self.host.set_mtu(bridge, mtu.into()).await?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = resized.await {
            tracing::warn!(error = format!("{error:#}"), "an interface on the bridge keeps its MTU");
        }
    }

    async fn resize_containers(&self, mtu: u16) {
        for record in self.attached() {
            if record.container == ContainerId::expose() {
                continue;
            }
            let netns = NetnsRef::Path(record.netns.clone());
            let wanted = record.max_mtu.map_or(mtu, |most| most.min(mtu)).into();
            let resized = if record.endpoint.is_some() {
                let inside = (!record.netns.as_os_str().is_empty()).then_some(&netns);
                self.host.set_endpoint_mtu(&record.host_ifname, inside, wanted).await
            } else {
                self.host.set_container_mtu(&netns, record.ifname(), wanted).await
            };
            if let Err(error) = resized {
                // One that has just gone is released by the sweep.
                let (container, error) = (&record.container, format!("{error:#}"));
                tracing::info!(%container, error, "a container's interface keeps its MTU");
            }
        }
    }
}
