//! The router, asked with the patience that runtimes expect.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use weave_api::{ApiError, Call, Client, ErrorCode};

use crate::{CniError, Config};

/// How long ADD waits for a router that is not there: it may be between two lives (an upgrade). Runtimes ask again
/// after that.
const AWAY: Duration = Duration::from_secs(10);

/// How often it is looked for.
const POLL: Duration = Duration::from_millis(100);

/// One router.
#[derive(Debug)]
pub(crate) struct Router {
    client: Client,
}

impl Router {
    /// The router that the configuration names.
    pub(crate) fn of(config: &Config) -> Self {
        Self { client: Client::new(config.socket()) }
    }

    /// Asks once.
    pub(crate) async fn call<C: Call>(&self, request: &C) -> Result<C::Answer, ApiError> {
        self.client.call(request).await
    }

    /// Asks, and asks again for a while as long as no router runs.
    pub(crate) async fn call_when_there<C: Call>(&self, request: &C) -> Result<C::Answer, CniError> {
        let deadline = Instant::now() + AWAY.min(request.timeout());
        loop {
            let error = match self.call(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !is_away(&error) || timeout_at(deadline, sleep(POLL)).await.is_err() {
                return Err(error.into());
            }
        }
    }
}

/// Whether no router is there that could answer; nothing was asked of it then.
pub(crate) fn is_away(error: &ApiError) -> bool {
    matches!(error.code, ErrorCode::NotRunning | ErrorCode::NotReady | ErrorCode::ShuttingDown)
}
