//! The daemon and the command line tool, on hosts of a lab.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::runtime::{Builder, Runtime};
use weave_api::{ApiError, Call, Client, ConnectionState, ReadyRequest, Report};

use crate::{
    clock::{Look, wait_until},
    lab::{self, Host, Process, target_directory},
    sandbox, tool,
};

/// How long a router may take to start, on a machine that is emulated or does much else.
const START: Duration = Duration::from_secs(60);

/// Names the directory of programs that were built elsewhere: these are tested, nothing is built.
const BINARIES: &str = "WEAVE_BIN_DIR";

/// The built programs.
#[derive(Debug, Clone)]
pub struct Programs {
    weaver: PathBuf,
    weave: PathBuf,
}

/// How they are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As tests are: fast to build.
    Dev,
    /// As users run them.
    Release,
}

impl Programs {
    /// Builds both with cargo. To be called outside the sandbox, where the registry can be reached.
    ///
    /// # Errors
    /// When the build fails.
    pub fn build(profile: Profile) -> Result<Self> {
        if env::var_os(BINARIES).is_some() {
            return Self::built(profile);
        }
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        cargo.args(["build", "--quiet", "--package", "weave-router", "--package", "weave-launcher"]);
        cargo.arg("--target-dir").arg(target_directory()?);
        if profile == Profile::Release {
            cargo.arg("--release");
        }
        let status = cargo.status().context("cannot run cargo")?;
        ensure!(status.success(), "the build failed; its messages are above");
        Self::built(profile)
    }

    /// Finds both where [`Self::build`] put them, or in the directory that `WEAVE_BIN_DIR` names.
    ///
    /// # Errors
    /// When they are not there.
    pub fn built(profile: Profile) -> Result<Self> {
        let built = target_directory()?.join(match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        });
        let directory = env::var_os(BINARIES).map_or(built, PathBuf::from);
        let programs = Self { weaver: directory.join("weaver"), weave: directory.join("weave") };
        for program in [&programs.weaver, &programs.weave] {
            ensure!(program.is_file(), "{} has not been built", program.display());
        }
        Ok(programs)
    }

    /// The daemon's path.
    #[must_use]
    pub fn weaver(&self) -> &Path {
        &self.weaver
    }

    /// The same, with another daemon.
    #[must_use]
    pub fn with_weaver(&self, weaver: PathBuf) -> Self {
        Self { weaver, ..self.clone() }
    }

    /// The command line tool's path.
    #[must_use]
    pub fn weave(&self) -> &Path {
        &self.weave
    }
}

/// Runs a test's `body` with the programs, in a sandbox of its own. See [`lab::in_sandbox`].
///
/// # Errors
/// Whatever `body` fails with, and when the programs cannot be built or there can be no sandbox.
pub fn in_sandbox(test: &str, body: impl FnOnce(&Programs) -> Result<()>) -> Result<()> {
    if !sandbox::is_inside() {
        Programs::build(Profile::Dev)?;
    }
    lab::in_sandbox(test, || body(&Programs::built(Profile::Dev)?))
}

/// How a router is started, besides what every router of a lab is told.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Whom to connect to, as `weaver` takes it.
    pub peers: Vec<String>,
    /// The mesh's password; none is an open mesh.
    pub password: Option<String>,
    /// Further flags of `weaver`.
    pub flags: Vec<String>,
}

/// A router on a host. Killed when dropped; its store stays with the lab.
#[derive(Debug)]
pub struct Router<'h> {
    host: &'h Host,
    programs: Programs,
    flags: Vec<String>,
    directory: PathBuf,
    process: Option<Process>,
    api: Api,
}

/// A blocking client of one router's control API.
#[derive(Debug)]
pub struct Api {
    client: Client,
    runtime: Runtime,
}

impl Api {
    /// A client of the router with this run directory.
    ///
    /// # Errors
    /// When the system gives no event queue.
    pub fn of(run_dir: &Path) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { client: Client::new(run_dir.join("weave.sock")), runtime })
    }

    /// The router's whole state.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn report(&self) -> Result<Report, ApiError> {
        self.runtime.block_on(self.client.report())
    }

    /// Asks it something.
    ///
    /// # Errors
    /// When it refuses or does not answer.
    pub fn call<C: Call>(&self, request: &C) -> Result<C::Answer, ApiError> {
        self.runtime.block_on(self.client.call(request))
    }
}

impl<'h> Router<'h> {
    /// Starts a router named after the host's number, with its run directory and store in the lab's directory.
    /// Returns at once; see [`Self::await_ready`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(programs: &Programs, host: &'h Host, settings: &Settings) -> Result<Self> {
        let directory = Path::new(sandbox::DIRECTORY).join(format!("weave-{}", host.name()));
        fs::create_dir_all(&directory)?;
        let mut flags = vec![
            format!("--name={}", peer_name(host)),
            format!("--nickname={}", host.name()),
            format!("--run-dir={}", directory.display()),
            format!("--db-prefix={}", directory.join("db").display()),
        ];
        if let Some(password) = &settings.password {
            let file = directory.join("password");
            fs::write(&file, password)?;
            flags.push(format!("--password-file={}", file.display()));
        }
        flags.extend(settings.flags.iter().chain(&settings.peers).cloned());
        let (api, programs) = (Api::of(&directory)?, programs.clone());
        let mut router = Self { host, programs, flags, directory, process: None, api };
        router.restart()?;
        Ok(router)
    }

    /// Starts it again with the same flags and the same store; kills it first if it runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.process = None;
        let mut command = self.host.command(&self.programs.weaver);
        command.args(&self.flags);
        self.process = Some(self.host.spawn(command, &format!("weaver-{}", self.host.name()))?);
        Ok(())
    }

    /// Its next life is of these programs.
    pub fn install(&mut self, programs: &Programs) {
        self.programs = programs.clone();
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the router does not run")?.kill()
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not run, or does not end in ten seconds.
    pub fn await_end(&mut self) -> Result<std::process::ExitStatus> {
        let what = format!("the router of {} to end", self.host.name());
        let process = self.process.as_mut().context("the router does not run")?;
        let ended = wait_until(&what, Duration::from_secs(10), || {
            Ok(process.ended()?.map_or_else(|| Look::NotYet("it runs".to_owned()), Look::Found))
        })?;
        self.process = None;
        Ok(ended.0)
    }

    /// Ends it with SIGTERM and waits.
    ///
    /// # Errors
    /// When it does not run, or does not end in ten seconds.
    pub fn stop(&mut self) -> Result<std::process::ExitStatus> {
        self.process.take().context("the router does not run")?.stop("TERM", Duration::from_secs(10))
    }

    /// Waits until every part of it has started.
    ///
    /// # Errors
    /// When it ends instead, or takes more than 20 s; with the last lines of its log.
    pub fn await_ready(&mut self) -> Result<()> {
        let what = format!("the router of {}", self.host.name());
        let process = self.process.as_mut().context("the router does not run")?;
        let request = ReadyRequest { timeout_s: Some(START.as_secs()) };
        let api = &self.api;
        let waited = wait_until(&what, START, || {
            if let Some(status) = process.ended()? {
                bail!("{what} ended ({status})");
            }
            Ok(match api.call(&request) {
                Ok(_) => Look::Found(()),
                Err(error) => Look::NotYet(error.to_string()),
            })
        });
        waited.map(drop).with_context(|| process.last_words(20))
    }

    /// The host it runs on.
    #[must_use]
    pub fn host(&self) -> &'h Host {
        self.host
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the router does not run")?.pid())
    }

    /// All it has logged, in this life and in earlier ones.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(lab::logs().join(format!("weaver-{}.log", self.host.name()))).unwrap_or_default()
    }

    /// The directory of its control socket.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.directory
    }

    /// Its whole state.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn report(&self) -> Result<Report> {
        self.api.report().with_context(|| format!("{} gave no report", self.host.name()))
    }

    /// Asks it something over its control API.
    ///
    /// # Errors
    /// When it refuses or does not answer.
    pub fn call<C: Call>(&self, request: &C) -> Result<C::Answer> {
        self.api.call(request).with_context(|| format!("{} refused {}", self.host.name(), C::PATH))
    }

    /// A `weave` command for this router; arguments are to be added.
    #[must_use]
    pub fn weave(&self) -> Command {
        let mut command = self.host.command(&self.programs.weave);
        command.arg(format!("--run-dir={}", self.directory.display()));
        command
    }

    /// Runs `weave` with these arguments and returns what it printed, without the line end.
    ///
    /// # Errors
    /// When it fails.
    pub fn tell(&self, arguments: &str) -> Result<String> {
        let text = tool::run(self.weave().args(arguments.split_whitespace()))?;
        Ok(text.trim_end().to_owned())
    }
}

/// The name in the mesh of the router on `host`.
#[must_use]
pub fn peer_name(host: &Host) -> String {
    format!("02:00:00:00:00:{:02x}", host.number())
}

/// Whether `report` shows `peers` routers, all reachable, that describe `links` established links together. Each link is
/// described by both its ends, so a full mesh of N has N * (N - 1).
#[must_use]
pub fn shows_mesh(report: &Report, peers: usize, links: usize) -> bool {
    let established = |p: &weave_api::PeerReport| {
        p.connections.iter().filter(|c| c.state == ConnectionState::Established).count()
    };
    let all = &report.router.peers;
    all.len() == peers
        && all.iter().all(|p| p.reachable)
        && all.iter().map(established).sum::<usize>() == links
}

/// What [`shows_mesh`] looked at, in words: how much there is, and the first ends of links that nobody describes.
#[must_use]
pub fn mesh_in_words(report: &Report) -> String {
    let all = &report.router.peers;
    let links: usize = all.iter().map(|p| p.connections.len()).sum();
    let missing = all.iter().flat_map(|a| {
        let has =
            |name| a.connections.iter().any(|c| c.name == name && c.state == ConnectionState::Established);
        let others = all.iter().filter(move |b| b.name != a.name && !has(b.name));
        others.map(|b| format!("{} to {}", a.nickname, b.nickname))
    });
    let missing: Vec<String> = missing.take(8).collect();
    format!(
        "{} knows {} routers with {links} links, not from {}",
        report.router.nickname,
        all.len(),
        missing.join(", ")
    )
}
