//! The command line of `weaver`, as clap sees it. `config.rs` turns it into values that are valid.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{CommandFactory as _, FromArgMatches as _, Parser};

use crate::{config_file, logging::LogFormat, supervisor::SupervisorArgs};

/// The range that Weave Net has always used.
pub(crate) const DEFAULT_RANGE: &str = "10.32.0.0/12";

/// The router of an encrypted mesh network for containers.
///
/// Finds its peers, carries container traffic between hosts, allocates addresses and answers names. Runs in the
/// foreground; `weave launch` starts it in the background.
#[derive(Debug, Parser)]
#[command(name = "weaver", version, after_help = crate::exit::table())]
pub(crate) struct Args {
    /// Hosts to connect to, as HOST[:PORT]; one that is reachable is enough, the others are found through it
    #[arg(value_name = "PEER")]
    pub(crate) peers: Vec<String>,

    /// File with settings, as TOML with the names of these flags and `peers`; flags win over it
    #[arg(long, value_name = "FILE", env = "WEAVE_CONFIG", help_heading = "Host")]
    pub(crate) config: Option<PathBuf>,

    /// Check flags and config file, print nothing if they are good, and exit; `weave config check` does it too
    #[arg(long, help_heading = "Host")]
    pub(crate) check_config: bool,

    /// Bind control and data sockets to this local address instead of all
    #[arg(long, value_name = "ADDRESS", help_heading = "Mesh")]
    pub(crate) host: Option<std::net::IpAddr>,

    /// UDP port for control and data
    #[arg(long, default_value_t = weave_model::DEFAULT_PORT, help_heading = "Mesh")]
    pub(crate) port: u16,

    /// Name of this router in the mesh, six bytes like a MAC address; made from its key unless given
    #[arg(long, value_name = "MAC", help_heading = "Mesh")]
    pub(crate) name: Option<String>,

    /// What people call this router; the host name unless given
    #[arg(long, help_heading = "Mesh")]
    pub(crate) nickname: Option<String>,

    /// Password that all routers share (visible to local users in the process list: prefer --password-file)
    #[arg(long, help_heading = "Mesh", env = "WEAVE_PASSWORD", hide_env_values = true)]
    pub(crate) password: Option<String>,

    /// File with the password; may be given up to four times while a password is being changed: the first
    /// is used to connect, all are accepted
    #[arg(long, value_name = "FILE", help_heading = "Mesh")]
    pub(crate) password_file: Vec<PathBuf>,

    /// Subnets of the underlay in which data may travel unencrypted, if the other end says so too
    #[arg(long, value_name = "SUBNETS", value_delimiter = ',', help_heading = "Mesh")]
    pub(crate) trusted_subnets: Vec<String>,

    /// Change the keys with which the kernel encrypts after this many seconds
    #[arg(long, default_value_t = 3600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Mesh")]
    pub(crate) rekey_after: u32,

    /// Stop connecting at this many links; 0 is no limit
    #[arg(long, default_value_t = 200, value_name = "N", help_heading = "Mesh")]
    pub(crate) conn_limit: usize,

    /// Connect only to the peers given, not to those found through them
    #[arg(long, help_heading = "Mesh")]
    pub(crate) no_discovery: bool,

    /// Connect to the peers of the last run instead of peers given here
    #[arg(long, help_heading = "Mesh", conflicts_with = "peers")]
    pub(crate) resume: bool,

    /// MTU of the bridge and of container interfaces, in bytes, instead of the best that every path carries
    #[arg(long, value_name = "BYTES", help_heading = "Data plane")]
    pub(crate) mtu: Option<u16>,

    /// Never let the kernel carry frames as VXLAN (UDP 6784): everything goes through the user-space tunnel
    #[arg(long, help_heading = "Data plane", env = "WEAVE_NO_FASTDP", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) no_fastdp: bool,

    /// Let containers send frames from Ethernet and IP addresses that are not theirs. For one container alone: `weave
    /// attach --any-source`
    #[arg(long, help_heading = "Data plane")]
    pub(crate) no_port_guard: bool,

    /// Let containers of this host see the addresses of who calls from outside, though the host is exposed: their answers
    /// have to take this host for their way out
    #[arg(long, help_heading = "Data plane")]
    pub(crate) no_masq_local: bool,

    /// Name of the bridge that containers are attached to
    #[arg(long, default_value = "weave", hide = true, help_heading = "Data plane")]
    pub(crate) weave_bridge: String,

    /// Data-plane threads; 0 is one for each core, at most four
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Data plane")]
    pub(crate) workers: usize,

    /// Address ranges that the mesh manages, separated by commas; an empty value turns address allocation off
    /// [default: 10.32.0.0/12]
    #[arg(long, value_name = "CIDRS", help_heading = "Addresses")]
    pub(crate) ipalloc_range: Option<String>,

    /// Subnet that addresses are taken from unless one is asked for; the whole range unless given
    #[arg(long, value_name = "CIDR", help_heading = "Addresses")]
    pub(crate) ipalloc_default_subnet: Option<String>,

    /// How the address ring is started: consensus[=N] (N routers at first), seed=NAME,NAME,… or observer
    #[arg(long, value_name = "MODE", help_heading = "Addresses")]
    pub(crate) ipalloc_init: Option<String>,

    /// Turn the name service off
    #[arg(long, help_heading = "Names")]
    pub(crate) no_dns: bool,

    /// Domain of container names
    #[arg(long, default_value = "weave.local.", value_name = "DOMAIN", help_heading = "Names")]
    pub(crate) dns_domain: String,

    /// Address and port on which names are answered, over UDP and TCP
    #[arg(long, default_value = "0.0.0.0:53", value_name = "ADDRESS:PORT", help_heading = "Names")]
    pub(crate) dns_listen_address: SocketAddr,

    /// Subnets whose hosts may ask, separated by commas, besides the --ipalloc-range and this host itself
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', help_heading = "Names")]
    pub(crate) dns_allow: Vec<String>,

    /// Time for which answers may be kept by others, in seconds
    #[arg(long, default_value_t = 1, value_name = "SECONDS", help_heading = "Names")]
    pub(crate) dns_ttl: u32,

    /// Where the upstream name servers are listed
    #[arg(long, default_value = "/etc/resolv.conf", value_name = "FILE", help_heading = "Names")]
    pub(crate) resolv_conf: PathBuf,

    /// Directory of the control socket
    #[arg(
        long,
        default_value = "/run/weave",
        value_name = "DIR",
        env = "WEAVE_RUN_DIR",
        help_heading = "Host"
    )]
    pub(crate) run_dir: PathBuf,

    /// Control socket, if it is to lie elsewhere than in the run directory; or ADDRESS:PORT, to serve the control API there
    /// too, in the clear, to who shows the token
    #[arg(long, value_name = "SOCKET|ADDRESS:PORT", env = "WEAVE_HTTP_ADDR", help_heading = "Host")]
    pub(crate) http_addr: Option<String>,

    /// File with the token for the control API over TCP: one line, 16 characters or more
    #[arg(long, value_name = "FILE", env = "WEAVE_HTTP_TOKEN_FILE", help_heading = "Host")]
    pub(crate) http_token_file: Option<PathBuf>,

    /// Permissions of the control socket, in octal: who may write to it may use it
    #[arg(long, value_name = "MODE", default_value = "0660", help_heading = "Host")]
    pub(crate) socket_mode: String,

    /// Group that may use the control socket, by name or number; the router's own unless given
    #[arg(long, value_name = "GROUP", help_heading = "Host")]
    pub(crate) socket_group: Option<String>,

    /// Answer Prometheus on this address, at /metrics, to whoever can reach it; off unless given
    #[arg(long, value_name = "ADDRESS:PORT", help_heading = "Host")]
    pub(crate) metrics_addr: Option<String>,

    /// Where state is kept: the store is the directory PREFIX-data
    #[arg(long, default_value = "/var/lib/weave/weave", value_name = "PREFIX", help_heading = "Host")]
    pub(crate) db_prefix: PathBuf,

    /// How much to log: error, warn, info, debug, trace
    #[arg(long, default_value = "info", value_name = "LEVEL", help_heading = "Host")]
    pub(crate) log_level: String,

    /// Form of the log: text for people, json for programs, an object to a line
    #[arg(long, default_value = "text", value_name = "FORM", help_heading = "Host")]
    pub(crate) log_format: LogFormat,

    /// Take everything of a router that does not run from this host (interfaces, packet filter rules, store), print
    /// what was there, and exit; `weave reset` does it for one that runs
    #[arg(long, help_heading = "Host", conflicts_with = "print_peer_name")]
    pub(crate) cleanup: bool,

    /// Print what is wrong with this host as JSON, and exit; `weave doctor` also knows the router and its links
    #[arg(long, help_heading = "Host", conflicts_with_all = ["print_peer_name", "cleanup"])]
    pub(crate) doctor: bool,

    /// Print the name that this router has or would have, and exit
    #[arg(long, help_heading = "Host")]
    pub(crate) print_peer_name: bool,

    #[command(flatten)]
    pub(crate) supervisor: SupervisorArgs,
}

/// Reads the command line, and the config file that it names.
///
/// # Errors
/// Of clap, which carries its own exit code; else what is wrong with the file.
pub(crate) fn parse(words: Vec<OsString>) -> anyhow::Result<Args> {
    let command = Args::command();
    let given = command.clone().try_get_matches_from(&words)?;
    let Some(path) = given.get_one::<PathBuf>("config") else { return Ok(Args::from_arg_matches(&given)?) };
    let from_file = config_file::words(path, &command, &given)?;
    let (program, rest) = words.split_at(1.min(words.len()));
    let all = program.iter().cloned().chain(from_file).chain(rest.iter().cloned());
    Ok(Args::from_arg_matches(&command.try_get_matches_from(all)?)?)
}
