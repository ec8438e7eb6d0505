//! How much a router logs.

use serde::{Deserialize, Serialize};

use crate::Call;

/// Changes how much is logged, until the router ends; without a level, only tells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLevelRequest {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(default)]
    pub level: Option<String>,
}

/// How much is logged now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevelResponse {
    /// The level in force.
    pub level: String,
}

impl Call for LogLevelRequest {
    const PATH: &'static str = "/v1/log-level";
    type Answer = LogLevelResponse;
}
