//! The command line.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use anyhow::bail;
use clap::{
    Args as Arguments, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind,
    parser::ValueSource,
};
use weave_policy::Scope;

use crate::{cluster::Access, daemon::Config, docker, program::Multicast, source::Source};

/// Enforces NetworkPolicy on this host.
#[derive(Debug, Parser)]
#[command(name = "weave-npc", version)]
pub struct Args {
    /// What to ask of the daemon, instead of being it.
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    run: Run,
    /// Unix socket at which the daemon answers.
    #[arg(long, global = true, default_value = "/run/weave/npc.sock", value_name = "PATH")]
    pub socket: PathBuf,
}

/// What to ask of the daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Wait until everything written to the directory before is in the kernel.
    Sync {
        /// How long to wait, in seconds.
        #[arg(long, default_value_t = 30)]
        timeout: u64,
    },
    /// Show how many objects are known, and whether they are in force.
    Status,
    /// Say which policies decide about a connection, and how.
    Explain {
        /// Who opens it: an address, or NAMESPACE/NAME of a pod.
        source: String,
        /// To whom it goes: an address, or NAMESPACE/NAME of a pod.
        destination: String,
        /// PORT/PROTOCOL, `icmp`, or the number of another protocol.
        traffic: String,
    },
    /// Say that a pod is about to be started, before it can send anything: it is isolated from then on. For whoever gives
    /// pods their addresses, such as a CNI plugin.
    Expect {
        /// NAMESPACE/NAME
        pod: String,
        /// The addresses that it will have.
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<std::net::IpAddr>,
    },
    /// Remove the table from the kernel, so that everything passes. Stop the daemon first.
    Reset,
}

impl Command {
    /// The question for the daemon, and how long it may take; none for what is done without it.
    #[must_use]
    pub fn question(&self) -> Option<(String, Duration)> {
        const AT_ONCE: Duration = Duration::from_secs(10);
        match self {
            Self::Sync { timeout } => Some(("sync".to_owned(), Duration::from_secs(*timeout))),
            Self::Status => Some(("status".to_owned(), AT_ONCE)),
            Self::Explain { source, destination, traffic } => {
                Some((format!("explain {source} {destination} {traffic}"), AT_ONCE))
            }
            Self::Expect { pod, addresses } => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                Some((format!("expect {pod} {}", addresses.join(" ")), AT_ONCE))
            }
            Self::Reset => None,
        }
    }
}

#[derive(Debug, Arguments)]
struct Run {
    /// Directory with manifests of namespaces, pods and policies (*.yaml, *.yml, *.json), instead of an API server.
    #[arg(long, value_name = "DIR")]
    policy_dir: Option<PathBuf>,
    /// Take the containers of the Docker engine at this socket for pods: labels and addresses are theirs, the label
    /// `weave.namespace` names their namespace (`default` without it), and `weave.port.NAME=NUMBER[/PROTOCOL]` a port.
    #[arg(long, value_name = "SOCKET", requires = "policy_dir", num_args = 0..=1, require_equals = true,
          default_missing_value = "/var/run/docker.sock")]
    docker: Option<PathBuf>,
    /// Control socket of the router of this host, if one runs: with --docker it is asked for the addresses of containers
    /// that were attached by hand.
    #[arg(long, value_name = "SOCKET", default_value = "/run/weave/weave.sock")]
    router_socket: PathBuf,
    /// How to reach the API server. Without it, and without a directory, by the service account of the pod that this
    /// runs in.
    #[arg(long, value_name = "FILE", conflicts_with = "policy_dir")]
    kubeconfig: Option<PathBuf>,
    /// Isolate only the pods whose `spec.nodeName` is this, or that have none. Without it, which only a directory
    /// allows, all pods are isolated at this host.
    #[arg(long, alias = "node", env = "NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// Where metrics are served over HTTP, as ADDRESS:PORT; with PORT 0 nowhere.
    #[arg(long, alias = "metrics-addr", default_value = "0.0.0.0:6781", value_name = "ADDRESS")]
    metrics_address: std::net::SocketAddr,
    /// Let multicast pass whatever policies say.
    #[arg(long)]
    allow_mcast: bool,
}

impl Args {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// When it makes no sense, such as a question together with what only the daemon is told.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.clone().try_get_matches_from(words)?;
        let args = Self::from_arg_matches(&matches)?;
        let is_given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let of_the_daemon = Run::augment_args(clap::Command::new(""));
        let given: Vec<&str> = of_the_daemon
            .get_arguments()
            .map(|argument| argument.get_id().as_str())
            .filter(is_given)
            .collect();
        match (&args.command, given.first()) {
            (Some(_), Some(first)) => {
                let message = format!(
                    "--{} is for the daemon, and cannot be used with a question to it",
                    first.replace('_', "-")
                );
                Err(command.error(ErrorKind::ArgumentConflict, message))
            }
            _ => Ok(args),
        }
    }

    /// The configuration of the daemon.
    ///
    /// # Errors
    /// When it is not said whose pods are isolated here.
    pub fn into_config(self) -> anyhow::Result<Config> {
        let Run { policy_dir, docker, router_socket, kubeconfig, node_name, metrics_address, allow_mcast } =
            self.run;
        let node = node_name.filter(|name| !name.is_empty());
        let (source, scope) = match (policy_dir, node) {
            (Some(directory), node) => {
                let source = match docker {
                    None => Source::directory(directory),
                    Some(engine) => {
                        let node = node.clone().unwrap_or_default();
                        Source::docker(docker::Access { engine, router: router_socket, node }, directory)
                    }
                };
                (source, node.map_or(Scope::Everything, Scope::Node))
            }
            (None, Some(node)) => {
                let access = kubeconfig.map_or(Access::FromInside, Access::File);
                (Source::cluster(access, node.clone()), Scope::Node(node))
            }
            (None, None) => bail!(
                "say whose pods are isolated here: --node-name NAME, or NODE_NAME in the environment; \
                 or where the manifests are: --policy-dir DIR"
            ),
        };
        let multicast = if allow_mcast { Multicast::Pass } else { Multicast::Judge };
        let metrics = (metrics_address.port() != 0).then_some(metrics_address);
        Ok(Config { source, scope, multicast, socket: self.socket, metrics })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Args, String> {
        let words = std::iter::once("weave-npc").chain(line.split_whitespace()).map(OsString::from);
        Args::read(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_socket_may_stand_before_and_after_a_question_and_flags_of_the_daemon_nowhere() {
        for line in ["--socket=/x sync", "sync --socket=/x"] {
            let args = read(line).unwrap();
            assert!(matches!(args.command, Some(Command::Sync { timeout: 30 })), "{line}");
            assert_eq!(args.socket, PathBuf::from("/x"), "{line}");
        }
        assert!(read("--policy-dir /x --docker --socket /y").unwrap().command.is_none());
        let refused = read("--policy-dir=/x --allow-mcast status").unwrap_err();
        assert!(refused.contains("--policy-dir is for the daemon"), "{refused}");
        assert!(refused.contains("Usage: weave-npc"), "{refused}");
        assert!(read("sink").is_err());
    }
}
