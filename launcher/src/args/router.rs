//! Starting and stopping the router, and Docker's driver beside it.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};

/// Where `weaver` keeps its store unless told otherwise.
const DB_PREFIX: &str = "/var/lib/weave/weave";

/// Where Docker looks for network drivers; the file's name is the driver's.
pub(crate) const PLUGIN_SOCKET: &str = "/run/docker/plugins/weave.sock";

#[derive(Debug, Args)]
pub(crate) struct Launch {
    /// Flags of `weaver`, and peers as `host` or `host:port`; `weave launch --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAG|PEER")]
    pub(crate) args: Vec<OsString>,
    /// The program to start, instead of the `weaver` beside `weave` or in the PATH.
    #[arg(long, env = "WEAVER", hide = true)]
    pub(crate) weaver: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DockerPlugin {
    /// Where Docker looks for the driver; the file's name without `.sock` is the driver's name.
    #[arg(long, value_name = "SOCKET", default_value = PLUGIN_SOCKET)]
    pub(crate) plugin_socket: PathBuf,
    /// What Docker calls the driver, if not by its socket: one that Docker starts itself is `NAME:TAG`.
    #[arg(long, value_name = "NAME")]
    pub(crate) driver_name: Option<String>,
    /// Network to make if Docker has none of that name; `none` makes none.
    #[arg(long, value_name = "NAME", default_value = "weave")]
    pub(crate) network: String,
    #[command(flatten)]
    pub(crate) proxy: Proxy,
    /// Give this host no address on the network; containers then cannot ask its name server.
    #[arg(long)]
    pub(crate) no_expose: bool,
    /// Name of the bridge that containers are attached to.
    #[arg(long, default_value = "weave", hide = true)]
    pub(crate) weave_bridge: String,
    /// How much to log: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: String,
}

/// What clients of Docker get who want containers on the network without asking for it.
#[derive(Debug, Args)]
pub(crate) struct Proxy {
    /// Listen there for clients of Docker whose containers are to be on the network without asking for it.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) proxy_socket: Option<PathBuf>,
    /// Listen there as well, for clients of other hosts who prove with a certificate that they may.
    #[arg(long, value_name = "IP:PORT", requires_all = ["proxy_socket", "tlscacert", "tlscert", "tlskey"])]
    pub(crate) proxy_address: Option<SocketAddr>,
    /// The authority (PEM) that has signed the certificates of such clients.
    #[arg(long, value_name = "FILE", requires = "proxy_address")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// The certificate (PEM) shown to them.
    #[arg(long, value_name = "FILE", requires = "proxy_address")]
    pub(crate) tlscert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "proxy_address")]
    pub(crate) tlskey: Option<PathBuf>,
    /// Leave containers of these clients alone that have no WEAVE_CIDR in their environment.
    #[arg(long, requires = "proxy_socket")]
    pub(crate) no_default_ipalloc: bool,
    /// Do not tell their containers of the name server.
    #[arg(long, requires = "proxy_socket")]
    pub(crate) without_dns: bool,
    /// Show them the network's addresses where `docker inspect` has those of Docker's own bridge.
    #[arg(long, requires = "proxy_socket")]
    pub(crate) rewrite_inspect: bool,
    /// Label of a container whose value becomes its host name; its name does without.
    #[arg(long, value_name = "LABEL", requires = "proxy_socket")]
    pub(crate) hostname_from_label: Option<String>,
    /// What is replaced in names that become host names: a regular expression.
    #[arg(long, value_name = "REGEX", default_value = "(.*)", requires = "proxy_socket")]
    pub(crate) hostname_match: String,
    /// What stands there instead; `$1` is the expression's first group.
    #[arg(long, value_name = "TEXT", default_value = "$1", requires = "proxy_socket")]
    pub(crate) hostname_replacement: String,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds to wait for it to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub(crate) timeout: u64,
    /// Kill it if it has not ended by then.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// Even if no other router takes our addresses over, or the router does not answer.
    #[arg(long)]
    pub(crate) force: bool,
    /// Seconds to wait until another router has our addresses.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub(crate) timeout: u64,
    /// Where state is kept, as `weaver` takes it; a router that runs knows by itself.
    #[arg(long, value_name = "PREFIX", default_value = DB_PREFIX)]
    pub(crate) db_prefix: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Where state is kept, as `weaver` takes it; a router that runs knows by itself.
    #[arg(long, value_name = "PREFIX", default_value = DB_PREFIX)]
    pub(crate) db_prefix: PathBuf,
}

/// `weave config …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say what is wrong with a file of settings; nothing when it is good.
    #[command(after_help = "The file is TOML with the names of weaver's flags, and `peers`:\n\n  \
        peers = [\"host2\", \"host3\"]\n  password-file = \"/etc/weave/password\"\n  no-dns = true\n\n\
        Example: weave config check /etc/weave/weave.toml")]
    Check {
        /// The file.
        file: PathBuf,
    },
}
