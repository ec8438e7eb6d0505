//! The way to the engine and back, with deadlines on both.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use weave_api::{ApiError, ErrorCode, QUICK, Report};

use crate::{Command, Reply, command::Dispatch};

/// How long a request stands in line for the engine.
const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// Hands commands to the engine.
#[derive(Debug, Clone)]
pub(crate) struct Engine(mpsc::Sender<Command>);

impl Engine {
    pub(crate) const fn new(commands: mpsc::Sender<Command>) -> Self {
        Self(commands)
    }

    /// Carries out one request. Dropping the future withdraws it.
    pub(crate) async fn call<C: Dispatch>(&self, request: C) -> Result<C::Answer, ApiError> {
        let patience = request.timeout() + QUICK;
        self.ask(patience, |reply| request.command(reply)).await
    }

    /// The whole state.
    pub(crate) async fn report(&self) -> Result<Report, ApiError> {
        self.ask(QUICK, |reply| Command::Report { reply }).await.map(|report| *report)
    }

    /// What Prometheus scrapes.
    pub(crate) async fn metrics(&self) -> Result<String, ApiError> {
        self.ask(QUICK, |reply| Command::Metrics { reply }).await
    }

    async fn ask<T>(
        &self,
        patience: Duration,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        match timeout(QUEUE_WAIT, self.0.send(command(reply))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(stopping()),
            Err(_) => return Err(busy()),
        }
        match timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(late(patience)),
        }
    }
}

fn stopping() -> ApiError {
    ApiError::new(ErrorCode::ShuttingDown, "the router is stopping")
}

fn busy() -> ApiError {
    let seconds = QUEUE_WAIT.as_secs();
    ApiError::new(ErrorCode::TooBusy, format!("the router has had too much to do for {seconds} s"))
        .with_hint("try again; if it stays so, its log says why")
}

fn late(patience: Duration) -> ApiError {
    let seconds = patience.as_secs();
    ApiError::new(ErrorCode::Deadline, format!("the router did not finish the request in {seconds} s"))
        .with_hint("its log says what it waits for")
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use weave_api::PrimeRequest;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_gets_no_place_in_a_line_that_does_not_move() {
        let (commands, _receiver) = mpsc::channel(1);
        let (reply, _answer) = oneshot::channel();
        commands.try_send(Command::Report { reply }).unwrap();
        let start = Instant::now();
        let error = Engine::new(commands).report().await.unwrap_err();
        assert_eq!((error.code, start.elapsed()), (ErrorCode::TooBusy, QUEUE_WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_forgets_a_request_is_given_up_after_what_the_request_allows_and_a_little_more() {
        let (commands, mut receiver) = mpsc::channel(1);
        let start = Instant::now();
        let asked = Engine::new(commands);
        let error = asked.call(PrimeRequest { timeout_s: Some(30) }).await.unwrap_err();
        assert_eq!((error.code, start.elapsed()), (ErrorCode::Deadline, Duration::from_secs(30) + QUICK));
        let Some(Command::Prime(_, reply)) = receiver.recv().await else { panic!("the command is lost") };
        assert!(reply.is_closed(), "nobody waits any more, and the engine can see it");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_drops_a_request_is_stopping() {
        let (commands, mut receiver) = mpsc::channel(1);
        let dropped = tokio::spawn(async move { drop(receiver.recv().await) });
        let error = Engine::new(commands).report().await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ShuttingDown);
        dropped.await.unwrap();
    }
}
