//! Docker Engines of our own: one per host of a lab, with data, socket and plugins apart from any other.
//!
//! No registry is needed: the one image is a busybox of this machine in an empty file system.

mod image;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    clock::{Look, wait_until},
    lab::{Host, Process},
    product::{Programs, Router},
    sandbox,
    scene::LIMIT,
    tool,
};

pub use image::{ROUTER_IMAGE, build_static_programs, prepare_host};

/// The image that every engine has.
pub const IMAGE: &str = "box";

/// How long an engine may take to start. One that waits for a driver takes the longest.
const START: Duration = Duration::from_secs(60);

/// Where Debian puts a busybox that needs no libraries.
const BUSYBOX: [&str; 2] = ["/usr/bin/busybox", "/bin/busybox"];

/// What the image's busybox is called.
const APPLETS: [&str; 10] =
    ["sh", "ping", "nslookup", "sleep", "ip", "cat", "hostname", "nc", "echo", "wget"];

/// How the control groups of our engines begin.
const CGROUPS: &str = "weave-test-";

/// Longer than anything may take that Docker is asked for: it then hangs.
pub const HANGS: Duration = Duration::from_secs(40);

/// A Docker Engine on a host. Ended, with all its containers, when dropped.
#[derive(Debug)]
pub struct Engine<'h> {
    host: &'h Host,
    flags: Vec<String>,
    /// Where its clients go.
    address: String,
    process: Option<Process>,
}

impl<'h> Engine<'h> {
    /// Starts an engine and waits until it answers and has the image. `flags` are further flags of `dockerd`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(host: &'h Host, flags: &[&str]) -> Result<Self> {
        let data = Path::new(sandbox::DIRECTORY).join(format!("docker-{}", host.name()));
        fs::create_dir_all(&data)?;
        let mut all = vec![
            "--debug".to_owned(),
            format!("--data-root={}", data.display()),
            "--exec-root=/run/docker-exec".to_owned(),
            "--pidfile=/run/dockerd.pid".to_owned(),
            format!("--host=unix://{}", socket().display()),
            "--storage-driver=vfs".to_owned(),
            format!("--cgroup-parent=/{}", cgroup(host)),
            "--shutdown-timeout=1".to_owned(),
        ];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let mut engine =
            Self { host, flags: all, address: format!("unix://{}", socket().display()), process: None };
        engine.restart()?;
        engine.import()?;
        Ok(engine)
    }

    /// Starts it again with what it has on disk; kills it first if it runs. Returns how long it took to answer.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<Duration> {
        if self.process.is_some() {
            self.kill()?;
        }
        let mut command = self.host.command("dockerd");
        command.args(&self.flags);
        let mut process = self.host.spawn(command, &format!("dockerd-{}", self.host.name()))?;
        let waited = wait_until("Docker's engine to answer", START, || {
            ensure!(process.ended()?.is_none(), "dockerd has ended: {}", process.last_words(5));
            let answer = tool::output(self.command(&["version"]).stdin(std::process::Stdio::null()))?;
            Ok(Look::when(answer.status.success(), || String::from_utf8_lossy(&answer.stderr).into_owned()))
        });
        let (_, took) = waited.with_context(|| process.last_words(20))?;
        self.process = Some(process);
        Ok(took)
    }

    /// Ends it with SIGKILL. Its containers go on until it comes back.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the engine does not run")?.kill()?;
        // Its containerd dies with it. There is no init here to bury it, and the next engine would take it for alive.
        let forgotten =
            ["/run/docker-exec", "/run/docker"].map(|root| format!("{root}/containerd/containerd.pid"));
        self.host.run(&format!("rm -f {}", forgotten.join(" "))).map(drop)
    }

    fn import(&self) -> Result<()> {
        let root = Path::new(sandbox::DIRECTORY).join("image");
        if !root.exists() {
            fs::create_dir_all(root.join("bin"))?;
            let busybox = BUSYBOX.iter().find(|path| Path::new(path).is_file());
            fs::copy(busybox.context("busybox-static is not installed")?, root.join("bin/busybox"))?;
            for applet in APPLETS {
                symlink("busybox", root.join("bin").join(applet))?;
            }
        }
        let image = Path::new(sandbox::DIRECTORY).join("image.tar");
        if !image.exists() {
            tool::run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&image).arg("."))?;
        }
        self.docker(&format!("import {} {IMAGE}", image.display())).map(drop)
    }

    /// A `docker` command for this engine; arguments may be added. It is ended when it takes so long that it must hang.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command("timeout");
        command.args(["--signal=KILL", &HANGS.as_secs().to_string(), "docker"]);
        command.arg(format!("--host={}", self.address)).args(arguments);
        command
    }

    /// Sends its clients to another socket, such as a proxy's; its own is `socket()`.
    pub fn use_socket(&mut self, address: &str) {
        address.clone_into(&mut self.address);
    }

    /// Runs `docker` with these arguments and returns what it printed, without the line end.
    ///
    /// # Errors
    /// When it fails, or hangs.
    pub fn docker(&self, arguments: &str) -> Result<String> {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let text = tool::run(&mut self.command(&words))?;
        Ok(text.trim_end().to_owned())
    }

    /// Runs `docker` with these arguments, which must fail without hanging; returns what it said.
    ///
    /// # Errors
    /// When it succeeds, or hangs.
    pub fn refused(&self, arguments: &str) -> Result<String> {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let output = tool::output(&mut self.command(&words))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "docker {arguments} succeeded");
        ensure!(output.status.code().is_some_and(|code| code != 137), "docker {arguments} hangs: {said}");
        Ok(said)
    }

    /// Starts a container that does nothing on a network; `flags` are further flags of `docker run`.
    ///
    /// # Errors
    /// When Docker refuses.
    pub fn run(&self, name: &str, network: &str, flags: &str) -> Result<String> {
        self.docker(&format!("run --detach --name {name} --net {network} {flags} {IMAGE} /bin/sleep 100000"))
    }

    /// The container's address on a network, as Docker says.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self, container: &str, network: &str) -> Result<String> {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        let text = tool::run(&mut self.command(&["inspect", "--format", &format, container]))?;
        let address = text.trim().to_owned();
        ensure!(!address.is_empty(), "{container} has no address on {network}");
        Ok(address)
    }

    /// Where it runs.
    #[must_use]
    pub fn host(&self) -> &'h Host {
        self.host
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        self.address = format!("unix://{}", socket().display());
        if self.process.is_none() {
            drop(self.restart());
        }
        if let Ok(all) = self.docker("ps --all --quiet") {
            for container in all.split_whitespace() {
                drop(self.docker(&format!("rm --force {container}")));
            }
        }
        if let Some(mut process) = self.process.take() {
            drop(process.stop("TERM", Duration::from_secs(20)));
        }
    }
}

/// Docker's driver on a host, beside its router.
///
/// # Errors
/// When it cannot be started.
pub fn start_driver(programs: &Programs, router: &Router<'_>) -> Result<Process> {
    let host = router.host();
    let mut command = host.command(programs.weave());
    command.arg(format!("--run-dir={}", router.run_dir().display()));
    command.arg(format!("--docker-socket={}", socket().display()));
    command.args(["docker-plugin", "--log-level=debug"]);
    host.spawn(command, &format!("docker-plugin-{}", host.name()))
}

/// Waits until the engine has the network, and its packet filter lets the bridge's frames pass.
///
/// # Errors
/// When that does not come.
pub fn await_network(engine: &Engine<'_>) -> Result<()> {
    wait_until("the network weave", LIMIT, || {
        let networks = engine.docker("network ls --format {{.Name}}")?;
        let filter = engine.host().run("iptables -S DOCKER-USER")?;
        let is_there = networks.lines().any(|name| name == "weave") && filter.contains("-o weave");
        Ok(Look::when(is_there, || format!("{networks}; {filter}")))
    })
    .map(drop)
}

/// Where the lab keeps its files.
#[must_use]
pub fn directory() -> &'static Path {
    Path::new(sandbox::DIRECTORY)
}

/// Where an engine of a lab listens, on its host.
#[must_use]
pub fn socket() -> PathBuf {
    PathBuf::from("/run/docker.sock")
}

/// The control group of an engine's containers. These are the machine's, whatever namespace one is in.
#[must_use]
pub fn cgroup(host: &Host) -> String {
    format!("{CGROUPS}{}-{}", sandbox::keeper().unwrap_or_default(), host.name())
}

/// Removes the control groups of engines that have ended, which nobody else does. To be called outside the sandbox: inside, the
/// dead are not buried and hold their groups. Those in use are not removed.
pub fn remove_cgroups() {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        for group in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            if !group.file_name().to_string_lossy().starts_with(CGROUPS) {
                continue;
            }
            for inner in fs::read_dir(group.path()).into_iter().flatten().flatten() {
                // Files cannot be removed, and go with their directory.
                drop(fs::remove_dir(inner.path()));
            }
            drop(fs::remove_dir(group.path()));
        }
    }
}
