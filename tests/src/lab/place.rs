//! A place where commands run: a network and a mount namespace, kept by a process that does nothing.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::process::Process;
use crate::{sandbox, tool};

/// Gives the new mount namespace a `/run` of its own in which the lab's directory stays visible. A host in a lab is no
/// router of IP packets, whatever the machine around it is.
const HOST_SCRIPT: &str = r#"
set -e
mkdir -p "$1/run-$2"
mount -n -t tmpfs -o mode=755 tmpfs "$1/run-$2"
mkdir -p "$1/run-$2/netns" "$1/run-$2/${1#/run/}"
mount -n --bind "$1" "$1/run-$2/${1#/run/}"
mount -n --move "$1/run-$2" /run
ip link set lo up
echo 0 > /proc/sys/net/ipv4/ip_forward
echo ready
exec sleep infinity
"#;

/// Gives the container its own resolver configuration; a link that leads nowhere is made to lead to a file first.
const CONTAINER_SCRIPT: &str = r#"
set -e
target=$(readlink -m /etc/resolv.conf)
[ -e "$target" ] || { mkdir -p "$(dirname "$target")" && : > "$target"; }
mount -n --bind "$1/$2.resolv" "$target"
ip link set lo up
echo ready
exec sleep infinity
"#;

/// A network and a mount namespace with a process that holds them.
#[derive(Debug)]
pub struct Place {
    name: String,
    holder: Child,
}

/// What went through an interface since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes that the interface received.
    pub received: u64,
    /// Bytes that it sent.
    pub sent: u64,
}

impl Place {
    /// A place straight in the sandbox.
    pub(super) fn host(name: &str) -> Result<Self> {
        Self::hold(Command::new("unshare"), HOST_SCRIPT, name)
    }

    /// A place inside `host`, with the resolver file `NAME.resolv` of the lab's directory.
    pub(super) fn container(host: &Self, name: &str) -> Result<Self> {
        Self::hold(host.command("unshare"), CONTAINER_SCRIPT, name)
    }

    fn hold(mut unshare: Command, script: &str, name: &str) -> Result<Self> {
        unshare.args(["--net", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        unshare.args([sandbox::DIRECTORY, name]);
        let mut holder = unshare
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot make the namespaces of {name}"))?;
        let mut answer = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut answer)?;
        }
        let place = Self { name: name.to_owned(), holder };
        if answer.trim() != "ready" {
            bail!("the namespaces of {name} could not be set up; the message is above");
        }
        fs::write(Path::new(sandbox::DIRECTORY).join(format!("{name}.pid")), place.pid().to_string())?;
        Ok(place)
    }

    /// What the place is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process that holds the namespaces; `--pid` of the command line tool takes it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command that will run here. `program` is found on the path or absolute.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid().to_string(), "--mount", "--net", "--"]).arg(program);
        command
    }

    /// Runs a command line without quoting here, and returns what it wrote to stdout.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        tool::run(self.command(program).args(words))
    }

    /// Runs many `ip` commands, a line each, in one process.
    ///
    /// # Errors
    /// When one of them fails; the later ones are not run.
    pub fn ip(&self, batch: &str) -> Result<()> {
        tool::run_with_input(self.command("ip").args(["-batch", "-"]), batch).map(drop)
    }

    /// Starts a command made by [`Self::command`] that goes on by itself; its output goes to `LOG.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: Command, log: &str) -> Result<Process> {
        Process::spawn(command, log)
    }

    /// The counters of every interface here.
    ///
    /// # Errors
    /// When `ip` fails or says something else than it should.
    pub fn counters(&self) -> Result<BTreeMap<String, Counters>> {
        #[derive(Deserialize)]
        struct Link {
            ifname: String,
            stats64: Stats,
        }
        #[derive(Deserialize)]
        struct Stats {
            rx: Direction,
            tx: Direction,
        }
        #[derive(Deserialize)]
        struct Direction {
            bytes: u64,
        }
        let text = self.run("ip -s -j link show")?;
        let links: Vec<Link> = serde_json::from_str(&text).context("`ip -s -j link` is not as expected")?;
        let counters = |l: &Link| Counters { received: l.stats64.rx.bytes, sent: l.stats64.tx.bytes };
        Ok(links.into_iter().map(|l| (l.ifname.clone(), counters(&l))).collect())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}
