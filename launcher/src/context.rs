//! What every command works with: the router, the form of answers, and the two voices.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time::Duration,
};

use serde::Serialize;
use weave_api::{Address, ApiError, Client, Exit, Report};
use weave_docker::Engine;

use crate::{
    args::{Global, Output},
    screen::{Screen, Shape},
};

/// When a command that waits first says what for, and how often it looks.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    cause: Cause,
}

/// A refusal of the router, or a failure of our own.
#[derive(Debug)]
enum Cause {
    Router(ApiError),
    Own(String),
    /// The answer on standard output says it all.
    Said,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, cause: Cause::Own(message.into()) }
    }

    /// The answer has been printed, and is bad news.
    pub(crate) const fn said(exit: Exit) -> Self {
        Self { exit, cause: Cause::Said }
    }

    /// The command line makes no sense, in a way that clap cannot see.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Says it on standard error: a sentence, or a JSON object.
    pub(crate) fn print(&self, output: Output) {
        #[derive(Serialize)]
        struct Document<'a> {
            code: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            hint: Option<&'a str>,
            exit: u8,
        }
        let exit = self.exit.code();
        match (&self.cause, output) {
            (Cause::Said, _) => {}
            (Cause::Own(message), Output::Text | Output::Wide) => talk(message),
            (Cause::Router(error), Output::Text | Output::Wide) => talk(error),
            (Cause::Own(message), Output::Json | Output::Yaml) => {
                talk_json(&Document { code: "failed", message, hint: None, exit });
            }
            (Cause::Router(error), Output::Json | Output::Yaml) => {
                let (code, hint) = (error.code.as_str(), error.hint.as_deref());
                talk_json(&Document { code, message: &error.message, hint, exit });
            }
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { exit: error.code.exit(), cause: Cause::Router(error) }
    }
}

/// The router that commands speak to, and how they answer.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) run_dir: PathBuf,
    pub(crate) client: Client,
    pub(crate) docker: Engine,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let address =
            Address::of(&global.run_dir, global.http_addr.as_deref(), global.http_token_file.as_deref())?;
        Ok(Self {
            run_dir: global.run_dir.clone(),
            client: Client::at(address),
            docker: Engine::new(&global.docker_socket),
            output: global.output,
        })
    }

    /// Whether the router is asked at a socket, and so runs on this host.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.client.address(), Address::Unix(_))
    }

    /// Refuses what is about this host while a router elsewhere is meant.
    pub(crate) fn need_local(&self, command: &str) -> Result<(), Failure> {
        if self.is_local() {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{command} is about the host it runs on, and {} is another's",
            self.client.address()
        )))
    }

    /// Prints a view: dressed for the terminal it goes to, or the value as JSON or YAML. What is asked for at any width
    /// is never cut.
    pub(crate) fn show<T: Serialize>(
        &self,
        value: &T,
        shape: Shape,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let shape = if self.output == Output::Wide { Shape::Page } else { shape };
        self.answer(value, || Screen::of_output().dress(&text(), shape))
    }

    /// Prints an answer: its text as it is, or the value as JSON or YAML.
    pub(crate) fn answer<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.output {
            Output::Text | Output::Wide => print(&text()),
            Output::Yaml => {
                let value = serde_json::to_value(value).map_err(ApiError::internal)?;
                print(&crate::yaml::to_string(&value))
            }
            Output::Json => {
                let json = serde_json::to_string_pretty(value).map_err(ApiError::internal)?;
                print(&(json + "\n"))
            }
        }
    }

    /// Waits for a call that may take long; meanwhile says what it waits for, each time that changes.
    pub(crate) async fn with_progress<T>(
        &self,
        call: impl Future<Output = Result<T, ApiError>>,
        reason: impl Fn(&Report) -> Option<String>,
    ) -> Result<T, Failure> {
        let mut progress = Progress::new(io::stderr().is_terminal());
        tokio::pin!(call);
        loop {
            if let Ok(done) = tokio::time::timeout(progress.tick(), &mut call).await {
                progress.end();
                return Ok(done?);
            }
            if progress.is_time_to_look() {
                progress.tell(self.client.report().await.ok().as_ref().and_then(&reason));
            }
            progress.turn();
        }
    }
}

/// What a command that waits shows on standard error: on a terminal one line that moves, else a line for each reason.
struct Progress {
    is_terminal: bool,
    reason: Option<String>,
    ticks: usize,
}

/// The picture of a line that moves, and how often it changes.
const FRAMES: [char; 4] = ['|', '/', '-', '\\'];
const FRAME_EVERY: Duration = Duration::from_millis(125);
const FRAMES_TO_A_LOOK: usize = 8;
/// To the beginning of the line, and clear it (ECMA-48: EL).
const CLEAR_LINE: &str = "\r\x1b[2K";

impl Progress {
    const fn new(is_terminal: bool) -> Self {
        Self { is_terminal, reason: None, ticks: 0 }
    }

    const fn tick(&self) -> Duration {
        if self.is_terminal { FRAME_EVERY } else { PROGRESS_EVERY }
    }

    fn is_time_to_look(&mut self) -> bool {
        self.ticks += 1;
        !self.is_terminal || self.ticks.is_multiple_of(FRAMES_TO_A_LOOK)
    }

    fn tell(&mut self, reason: Option<String>) {
        let Some(reason) = reason.filter(|reason| self.reason.as_ref() != Some(reason)) else { return };
        if !self.is_terminal {
            talk(format_args!("waiting: {reason}"));
        }
        self.reason = Some(reason);
    }

    fn turn(&self) {
        if let (true, Some(reason)) = (self.is_terminal, &self.reason) {
            let frame = FRAMES[self.ticks % FRAMES.len()];
            let _ = write!(io::stderr().lock(), "{CLEAR_LINE}{frame} waiting: {reason}");
        }
    }

    fn end(&self) {
        if self.is_terminal && self.reason.is_some() {
            let _ = write!(io::stderr().lock(), "{CLEAR_LINE}");
        }
    }
}

/// Writes to standard output. A reader that has gone away has had enough; that is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format!("cannot write the answer: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error. If even that fails, there is nobody to tell.
pub(crate) fn talk(message: impl Display) {
    let _ = writeln!(io::stderr().lock(), "weave: {message}");
}

fn talk_json(document: &impl Serialize) {
    let _ = writeln!(io::stderr().lock(), "{}", serde_json::to_string(document).unwrap_or_default());
}
