//! The router, which may be away for a moment.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use weave_api::{ApiError, Call, Client, ErrorCode};

/// How long a request stands by while no router runs: as long as one takes to start again.
const ABSENCE: Duration = Duration::from_secs(8);

/// Pause between two looks whether it is back.
const LOOK: Duration = Duration::from_millis(200);

/// Asks the router, and waits for one that is starting. Only for requests that may be repeated.
pub(crate) async fn ask<C: Call>(client: &Client, request: &C) -> Result<C::Answer, ApiError> {
    let deadline = Instant::now() + ABSENCE;
    loop {
        match client.call(request).await {
            Err(error) if is_away(&error) => {
                if timeout_at(deadline, sleep(LOOK)).await.is_err() {
                    return Err(error);
                }
            }
            answer => return answer,
        }
    }
}

/// Whether the error says that no router runs, or that it is starting or stopping.
pub(crate) fn is_away(error: &ApiError) -> bool {
    matches!(
        error.code,
        ErrorCode::NotRunning | ErrorCode::NotReady | ErrorCode::ShuttingDown | ErrorCode::Unreachable
    )
}
