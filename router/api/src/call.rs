//! What every request has in common.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

/// How long a request that waits does so unless it says otherwise.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(60);

/// The longest that any request may wait: longer than this is a mistake, or a watch, and there are better ways to do
/// that.
pub const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// How long a router has to answer what needs no waiting, on top of what a request waits for.
pub const QUICK: Duration = Duration::from_secs(10);

/// Where the whole state is read with GET.
pub const REPORT_PATH: &str = "/v1/report";

/// Where the description of all this is read with GET.
pub const OPENAPI_PATH: &str = "/v1/openapi.json";

/// The description, in the format of OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// A request: posted as JSON to [`Call::PATH`], answered by JSON or an [`ApiError`](crate::ApiError).
pub trait Call: Serialize + DeserializeOwned + Send + 'static {
    /// Where it is posted.
    const PATH: &'static str;
    /// What a router answers.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// How long the router may wait for conditions to become right; zero for requests that are answered at once.
    fn timeout(&self) -> Duration {
        Duration::ZERO
    }
}

/// The wait that `timeout_s` asks for.
pub(crate) fn wait(timeout_s: Option<u64>) -> Duration {
    timeout_s.map_or(DEFAULT_WAIT, Duration::from_secs).min(MAX_WAIT)
}
