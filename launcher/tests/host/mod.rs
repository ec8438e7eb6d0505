//! A host with its own run directory, and the real `weave` on it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{path::PathBuf, process::Command};

use tokio::{runtime::Runtime, sync::mpsc};
use weave_control::{ListenConfig, Listener, serve};

use crate::fake::{Engine, TempDir};

/// Variables of the environment that change what `weave` does.
const VARIABLES: [&str; 5] =
    ["WEAVE_HTTP_ADDR", "WEAVE_HTTP_TOKEN_FILE", "WEAVE_PASSWORD", "WEAVER", "NO_COLOR"];

pub(crate) struct Host {
    pub(crate) dir: TempDir,
    /// What stands behind the router's API.
    pub(crate) engine: Engine,
    pub(crate) runtime: Runtime,
}

impl Host {
    /// Without a router.
    pub(crate) fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { dir: TempDir::new(), engine: Engine::default(), runtime }
    }

    pub(crate) fn with_router() -> Self {
        let host = Self::new();
        let config = ListenConfig::new(host.run_dir().join("weave.sock"));
        let listener = host.runtime.block_on(Listener::bind(&config)).unwrap();
        let (commands, receiver) = mpsc::channel(4);
        host.runtime.spawn(host.engine.clone().run(receiver));
        host.runtime.spawn(serve(listener, commands, std::future::pending()));
        host
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// `weave` with the words of `line`, not yet run.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weave"));
        for name in VARIABLES {
            command.env_remove(name);
        }
        command.env("WEAVE_DOCKER_SOCKET", self.dir.join("no-docker.sock")).env("TERM", "xterm");
        command.env("WEAVE_RUN_DIR", self.run_dir()).args(line.split_whitespace());
        command
    }
}
