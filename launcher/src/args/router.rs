//! Starting and stopping the router, and Docker's driver beside it.

use std::{ffi::OsString, path::PathBuf};

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
    /// Network to make if Docker has none of that name; `none` makes none.
    #[arg(long, value_name = "NAME", default_value = "weave")]
    pub(crate) network: String,
    /// Listen there for clients of Docker whose containers are to be on the network without asking for it.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) proxy_socket: Option<PathBuf>,
    /// At that socket, leave containers alone that have no WEAVE_CIDR in their environment.
    #[arg(long, requires = "proxy_socket")]
    pub(crate) no_default_ipalloc: bool,
    /// At that socket, do not tell containers of the name server.
    #[arg(long, requires = "proxy_socket")]
    pub(crate) without_dns: bool,
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
