//! Leaving a mesh for good.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Call, call::wait};

/// Hands our addresses to another router, takes everything of ours from the host and its disk, and ends the router.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetRequest {
    /// Even if nobody takes our addresses over: they can then only be had by `rmpeer`.
    #[serde(default)]
    pub force: bool,
    /// Seconds to wait until another router has confirmed that it has our addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// The router is about to end, and to take everything of its own with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetResponse {
    /// Why no other router has our addresses now, although there are others; absent when all is well.
    #[serde(default)]
    pub abandoned: Option<String>,
    /// Where the store was, in the form of `weaver --db-prefix`.
    pub db_prefix: PathBuf,
    /// The bridge, in the form of `weaver --weave-bridge`.
    pub bridge: String,
}

impl Call for ResetRequest {
    const PATH: &'static str = "/v1/reset";
    type Answer = ResetResponse;

    fn timeout(&self) -> Duration {
        wait(self.timeout_s)
    }
}

/// What `weaver --cleanup` took away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Removed {
    /// Network interfaces, by name.
    pub interfaces: Vec<String>,
    /// Files and directories.
    pub files: Vec<PathBuf>,
}
