//! `weave doctor`: what is wrong here, and what to do about it.
//!
//! Looks and asks, and changes nothing. The host's part needs no running router (`weaver --doctor`); what is known of links
//! comes from the report that everybody can read.

mod host;
mod links;

use std::path::PathBuf;

use weave_api::{ApiError, Diagnosis};
use weave_hostnet::Host;
use weave_model::{ContainerId, Subnet};

use crate::{config::Config, ops::Ops};

/// What the examination of a host needs to know of the configuration.
pub(crate) struct Subject {
    pub(crate) ranges: Vec<Subnet>,
    pub(crate) bridge: String,
    pub(crate) db_prefix: PathBuf,
    pub(crate) fastdp: bool,
    /// Whether what the kernel carries has to be encrypted: there is a password.
    pub(crate) is_private: bool,
}

impl Subject {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            ranges: config.ipam.as_ref().map(|ipam| ipam.ranges.clone()).unwrap_or_default(),
            bridge: config.bridge.clone(),
            db_prefix: config.db_prefix.clone(),
            fastdp: config.fastdp,
            is_private: !config.passwords.is_empty(),
        }
    }
}

/// Examines a host on which no router runs.
pub(crate) async fn host_only(config: &Config) -> anyhow::Result<Diagnosis> {
    let host = Host::open().await?;
    let mut diagnosis = Diagnosis::default();
    host::examine(&host, &Subject::new(config), false, &mut diagnosis).await?;
    diagnosis.sort();
    Ok(diagnosis)
}

impl Ops {
    /// Examines the host, the router and its links.
    pub(crate) async fn doctor(&self) -> Result<Diagnosis, ApiError> {
        let report = self.report().await?;
        let is_exposed = report.containers.iter().any(|container| container.id == ContainerId::expose());
        let mut diagnosis = Diagnosis::default();
        host::examine(&self.host, &self.subject, is_exposed, &mut diagnosis)
            .await
            .map_err(|error| ApiError::internal(format!("{error:#}")))?;
        links::examine(&report, &mut diagnosis);
        diagnosis.sort();
        Ok(diagnosis)
    }
}
