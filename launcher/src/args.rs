//! The command line: what can be typed, and its help.

use std::{ffi::OsString, net::IpAddr, path::PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use weave_api::{Exit, HostEntry};

/// An encrypted network for containers across hosts.
#[derive(Debug, Parser)]
#[command(name = "weave", version, disable_version_flag = true, subcommand_required = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands, before or after its name.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Global {
    /// Directory of the router's socket, log and pid file; one per router.
    #[arg(long, global = true, value_name = "DIR", env = "WEAVE_RUN_DIR", default_value = "/run/weave")]
    pub(crate) run_dir: PathBuf,
    /// Socket of the control API, if it is not in the run directory.
    #[arg(long, global = true, value_name = "SOCKET", env = "WEAVE_HTTP_ADDR", hide = true)]
    pub(crate) http_addr: Option<String>,
    /// Where Docker's engine listens, if there is one.
    #[arg(
        long,
        global = true,
        value_name = "SOCKET",
        env = "WEAVE_DOCKER_SOCKET",
        default_value = "/var/run/docker.sock",
        hide_short_help = true
    )]
    pub(crate) docker_socket: PathBuf,
    /// Form of the answer on standard output, and of errors on standard error.
    #[arg(short, long, global = true, value_enum, value_name = "FORM", default_value_t)]
    pub(crate) output: Output,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people, in Weave Net's shapes.
    #[default]
    Text,
    /// For people, with everything that is known, as tables.
    Wide,
    /// For programs.
    Json,
    /// The same as YAML.
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a router on this host, and wait until it is ready.
    #[command(
        disable_help_flag = true,
        after_help = "Example: weave launch --password-file /etc/weave/password host2 host3"
    )]
    Launch(Launch),
    /// Stop the router; containers keep their addresses for its return.
    #[command(after_help = "Example: weave stop --timeout 5 --force")]
    Stop(Stop),
    /// Leave the mesh for good: hand the addresses over, stop the router, and take everything of it from this host.
    #[command(after_help = "Example: weave reset")]
    Reset(Reset),
    /// Find out what is wrong with this host and its links, and what to do about it.
    #[command(after_help = DOCTOR_HELP)]
    Doctor(Doctor),
    /// Show where something is and how frames get there: which router, which links, what carries them.
    #[command(
        after_help = "Examples:\n  weave trace 10.32.0.7\n  weave trace web\n  weave trace 6e:02:11:5d:9a:01"
    )]
    Trace {
        /// An address, a name, or an Ethernet address.
        #[arg(value_name = "ADDRESS|NAME|MAC")]
        target: String,
    },
    /// Add peers to keep links to.
    #[command(after_help = "Example: weave connect host2 192.0.2.13:6783")]
    Connect(Connect),
    /// Remove peers from those to keep links to, and drop the links.
    #[command(after_help = "Example: weave forget host2")]
    Forget(Peers),
    /// Wait until addresses can be given out.
    #[command(after_help = "Example: weave prime --timeout 30")]
    Prime(Wait),
    /// Give a container an interface on the network, and print its addresses.
    #[command(after_help = ATTACH_EXAMPLES)]
    Attach(Attach),
    /// Take addresses away from a container, and print them; without a list, all.
    #[command(after_help = "Example: weave detach 10.9.1.7/24 4f1c09aa21be")]
    Detach(Detach),
    /// Give this host an address on the network, and print it.
    #[command(disable_help_flag = true, after_help = "Example: weave expose -h node-a.weave.local")]
    Expose(Expose),
    /// Take addresses away from this host, and print them; without a list, all.
    #[command(after_help = "Example: weave hide 10.32.0.1/12")]
    Hide(Addresses),
    /// List containers with their Ethernet and overlay addresses.
    #[command(after_help = "Example: weave ps weave:expose")]
    Ps(Ps),
    /// Give addresses a name.
    #[command(
        disable_help_flag = true,
        after_help = "Examples:\n  weave dns-add 192.0.2.80 -h printer.weave.local\n  weave dns-add 4f1c09aa21be -h web --service http/tcp:80"
    )]
    DnsAdd(DnsAdd),
    /// Take names away.
    #[command(
        disable_help_flag = true,
        after_help = "Example: weave dns-remove 192.0.2.80 -h printer.weave.local"
    )]
    DnsRemove(DnsRemove),
    /// Print the addresses of a name.
    #[command(after_help = "Example: weave dns-lookup web")]
    DnsLookup(DnsLookup),
    /// Print what makes a shell's `docker` put containers on the network; with --restore, what undoes that.
    #[command(after_help = "Example: eval $(weave env)")]
    Env {
        /// Back to Docker's own socket.
        #[arg(long)]
        restore: bool,
    },
    /// Print the flags with which `docker` puts containers on the network.
    #[command(
        after_help = "Examples:\n  docker $(weave config) run …\n  weave config check /etc/weave/weave.toml"
    )]
    Config {
        /// Something else about settings.
        #[command(subcommand)]
        command: Option<Config>,
    },
    /// Print the flags of `docker run` with which a container asks this host's name server.
    #[command(after_help = "Example: docker run --network weave $(weave dns-args) …")]
    DnsArgs,
    /// Show what runs and what is wrong.
    #[command(
        after_help = "Examples:\n  weave status connections -o json\n  weave status peers -o wide --watch=5"
    )]
    Status(Status),
    /// Print everything that the router knows, as JSON.
    #[command(after_help = REPORT_HELP)]
    Report {
        /// What to print of it, as a template.
        #[arg(short, long, value_name = "TEMPLATE")]
        format: Option<String>,
    },
    /// Take over the addresses of peers that are gone for good.
    #[command(after_help = "Example: weave rmpeer aa:00:00:00:00:03 node-d")]
    Rmpeer(Rmpeer),
    /// Show how much the running router logs, or change it until it ends.
    #[command(after_help = "Examples:\n  weave log-level\n  weave log-level debug")]
    LogLevel {
        /// `error`, `warn`, `info`, `debug` or `trace`.
        level: Option<String>,
    },
    /// Look after who owns which addresses.
    Ipam {
        /// What to do.
        #[command(subcommand)]
        command: Ipam,
    },
    /// Serve Docker's engine on this host: its network driver, and the names of its containers. `weave launch` starts it
    /// where Docker is.
    #[command(after_help = "Example: weave docker-plugin --network none")]
    DockerPlugin(DockerPlugin),
    /// Print the versions of this command and of the running router.
    #[command(after_help = "Example: weave version -o json")]
    Version,
    /// Print a script that teaches a shell to complete these commands.
    #[command(after_help = "Example: weave completion bash >/etc/bash_completion.d/weave")]
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Write man pages, one for each command.
    #[command(after_help = "Example: weave man /usr/local/share/man/man1")]
    Man {
        /// Where to.
        dir: PathBuf,
    },
    /// Run a program of the host, from a container that sees the host's processes.
    #[command(name = "exec-on-host", hide = true, disable_help_flag = true)]
    ExecOnHost {
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Run a program in a session of its own: the child's half of `launch`.
    #[command(name = "exec-detached", hide = true, disable_help_flag = true)]
    ExecDetached {
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
}

/// Where `weaver` keeps its store unless told otherwise.
const DB_PREFIX: &str = "/var/lib/weave/weave";

const DOCTOR_HELP: &str =
    "Ends with 0 when all is well, 9 when something ought to be looked at, 1 when something does
not work. Example: weave doctor -o json | jq -r '.findings[].id'";

const REPORT_HELP: &str = "Templates are the part of Go's that most people know: {{.path.to.value}}, range, if, else, with, end; the functions
json, len, index, not, eq, ne, and, or, print; $ for the whole report. Case and underscores of names do not matter.

Examples:
  weave report | jq .router.connections
  weave report -f '{{range .router.peers}}{{.name}} {{.nickname}}{{\"\\n\"}}{{end}}'
  weave report -f '{{json .ipam.owners}}'
  weave report -o yaml";

const REPAIR_HELP: &str =
    "Containers keep their addresses and traffic flows on. Ends with 0 when nothing is left to do, 9 when \
there is something to do here or elsewhere, 6 when containers on two routers hold the same address.

Examples:
  weave ipam repair
  weave ipam repair --yes";

const ATTACH_EXAMPLES: &str = "Examples:
  weave attach 4f1c09aa21be
  weave attach 10.9.1.7/24 net:10.32.8.0/22 4f1c09aa21be
  weave attach --netns /run/netns/web --name web";

#[derive(Debug, Args)]
pub(crate) struct Launch {
    /// Flags of `weaver`, and peers as `host` or `host:port`; `weave launch --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAG|PEER")]
    pub(crate) args: Vec<OsString>,
    /// The program to start, instead of the `weaver` beside `weave` or in the PATH.
    #[arg(long, env = "WEAVER", hide = true)]
    pub(crate) weaver: Option<PathBuf>,
}

/// Where Docker looks for network drivers; the file's name is the driver's.
pub(crate) const PLUGIN_SOCKET: &str = "/run/docker/plugins/weave.sock";

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

#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Make these the only peers to keep links to; with none, keep no links.
    #[arg(long)]
    pub(crate) replace: bool,
    /// `host`, `host:port`, an address, or `[address]:port`.
    #[arg(value_name = "PEER", required_unless_present = "replace")]
    pub(crate) peers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Peers {
    /// Peers as they were given to `launch` or `connect`.
    #[arg(value_name = "PEER", required = true)]
    pub(crate) peers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Seconds to wait; 0 tells at once whether it would.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

/// A container by its network namespace; its id is among the positional arguments.
#[derive(Debug, Args)]
pub(crate) struct Namespace {
    /// The container's network namespace: a path, or a name that `ip netns` knows.
    #[arg(long, value_name = "PATH", conflicts_with = "pid")]
    pub(crate) netns: Option<PathBuf>,
    /// A process in the container.
    #[arg(long, value_name = "N")]
    pub(crate) pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Addresses, and the container. An address is `10.9.1.7/24`, `ip:10.9.1.7/24`, `net:10.32.8.0/22` or
    /// `net:default`; without any, `net:default`.
    #[arg(value_name = "ADDRESS|CONTAINER")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// Name to register in DNS, with or without the domain.
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Register no names.
    #[arg(long)]
    pub(crate) without_dns: bool,
    /// Write the container's /etc/hosts.
    #[arg(long)]
    pub(crate) rewrite_hosts: bool,
    /// Further line for the container's /etc/hosts.
    #[arg(long = "add-host", value_name = "NAME:ADDRESS", value_parser = host_entry)]
    pub(crate) add_hosts: Vec<HostEntry>,
    /// Do not route multicast to the network.
    #[arg(long)]
    pub(crate) no_multicast_route: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct Detach {
    /// Addresses, and the container.
    #[arg(value_name = "ADDRESS|CONTAINER")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

#[derive(Debug, Args)]
pub(crate) struct Addresses {
    /// `10.9.1.7/24`, `ip:10.9.1.7/24`, `net:10.32.8.0/22` or `net:default`.
    #[arg(value_name = "ADDRESS", value_parser = address)]
    pub(crate) addresses: Vec<weave_model::AddressSpec>,
}

#[derive(Debug, Args)]
pub(crate) struct Expose {
    #[command(flatten)]
    pub(crate) addresses: Addresses,
    /// Name to register for the addresses.
    #[arg(short = 'h', value_name = "FQDN")]
    pub(crate) fqdn: Option<String>,
    /// Do not masquerade between containers and the world outside.
    #[arg(long)]
    pub(crate) without_masquerade: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Only these, by id or its beginning; the host is `weave:expose`.
    #[arg(value_name = "CONTAINER")]
    pub(crate) containers: Vec<weave_model::ContainerId>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

#[derive(Debug, Args)]
pub(crate) struct DnsAdd {
    /// Addresses, and the container that holds them; without addresses, the container's own.
    #[arg(value_name = "ADDRESS|CONTAINER", required = true)]
    pub(crate) words: Vec<String>,
    /// The name; without it, the container's own.
    #[arg(short = 'h', value_name = "FQDN")]
    pub(crate) fqdn: Option<String>,
    /// What is served there, so that SRV queries for `_NAME._TRANSPORT.FQDN` find it.
    #[arg(long, value_name = "NAME/TRANSPORT:PORT")]
    pub(crate) service: Option<String>,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct DnsRemove {
    /// Addresses, and the container that holds them; without them, whatever has the name on this host.
    #[arg(value_name = "ADDRESS|CONTAINER", required_unless_present = "fqdn")]
    pub(crate) words: Vec<String>,
    /// The name; without it, all names of the addresses or the container.
    #[arg(short = 'h', value_name = "FQDN")]
    pub(crate) fqdn: Option<String>,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct DnsLookup {
    /// With or without the domain.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// One part in detail.
    #[arg(value_enum)]
    pub(crate) view: Option<View>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

/// For what is worth looking at again and again.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Show it again every so many seconds, until Ctrl-C.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", require_equals = true)]
    pub(crate) watch: Option<u64>,
}

/// A part of the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum View {
    /// Our links, and attempts at them.
    Connections,
    /// Every known router and its links.
    Peers,
    /// Peers to keep links to.
    Targets,
    /// Who owns which part of the addresses.
    Ipam,
    /// Names.
    Dns,
    /// What went over which link, and what was dropped.
    Overlay,
}

#[derive(Debug, Args)]
pub(crate) struct Rmpeer {
    /// Names or nicknames.
    #[arg(value_name = "PEER", required = true)]
    pub(crate) peers: Vec<String>,
    /// Even from a peer that seems alive; two containers may then get the same address.
    #[arg(long)]
    pub(crate) force: bool,
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

/// `weave ipam …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Ipam {
    /// Make one ring of two that have met, or make this router's space its own again after its store was restored.
    #[command(after_help = REPAIR_HELP)]
    Repair(Repair),
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// Do it; without this, only say what would be done.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Seconds to wait for other routers, for each step.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) timeout: u64,
}

/// Parses the command line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    Cli::from_arg_matches(&matches)
}

/// The command with everything that is computed rather than written above.
pub(crate) fn command() -> clap::Command {
    Cli::command().after_help(exit_codes())
}

fn exit_codes() -> String {
    let rows = Exit::ALL.iter().map(|exit| format!("\n  {}  {}", exit.code(), exit.meaning()));
    format!(
        "Exit codes:{}\n\nWEAVE_RUN_DIR stands for --run-dir; WEAVE_HTTP_ADDR names the router's socket directly.",
        rows.collect::<String>()
    )
}

fn address(text: &str) -> Result<weave_model::AddressSpec, String> {
    text.parse().map_err(|error: weave_model::AddressError| error.to_string())
}

fn host_entry(text: &str) -> Result<HostEntry, String> {
    let (name, address) = text.split_once(':').ok_or("write NAME:ADDRESS")?;
    let address: IpAddr = address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
    if name.is_empty() {
        return Err("the name is missing; write NAME:ADDRESS".to_owned());
    }
    Ok(HostEntry { name: name.to_owned(), address })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Cli, clap::Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command) {
            let leaves = command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
            for leaf in leaves {
                let said = leaf.get_after_help().map(ToString::to_string).unwrap_or_default();
                let has_own = leaf.get_subcommands().next().is_some();
                assert!(has_own || said.contains("Example"), "{}", leaf.get_name());
                check(leaf);
            }
        }
        check(&command());
    }

    #[test]
    fn flags_are_understood_anywhere() {
        for line in [
            "weave attach 10.9.1.7/24 --without-dns net:default c1 -o json --run-dir /tmp/r",
            "weave --run-dir /tmp/r attach --without-dns 10.9.1.7/24 net:default c1 --output=json",
            "weave -o json attach --run-dir=/tmp/r 10.9.1.7/24 net:default c1 --without-dns",
        ] {
            let cli = parse_words(line).unwrap();
            assert_eq!(cli.global.output, Output::Json, "{line}");
            assert_eq!(cli.global.run_dir, PathBuf::from("/tmp/r"), "{line}");
            let Command::Attach(attach) = cli.command else { panic!("{line}") };
            assert!(attach.without_dns, "{line}");
            assert_eq!(attach.words, ["10.9.1.7/24", "net:default", "c1"], "{line}");
        }
    }

    #[test]
    fn h_is_a_name_where_it_was_one_and_help_elsewhere() {
        let cli = parse_words("weave expose -h node.weave.local 10.9.1.7/24").unwrap();
        let Command::Expose(expose) = cli.command else { panic!() };
        assert_eq!(expose.fqdn.as_deref(), Some("node.weave.local"));
        for line in ["weave attach -h", "weave expose --help", "weave help attach", "weave --help"] {
            assert!(!parse_words(line).unwrap_err().use_stderr(), "{line}");
        }
    }

    #[test]
    fn launch_takes_every_flag_of_the_router_in_any_order() {
        let cli = parse_words("weave launch --port 7000 host2 --no-dns -- host3").unwrap();
        let Command::Launch(launch) = cli.command else { panic!() };
        assert_eq!(launch.args, ["--port", "7000", "host2", "--no-dns", "--", "host3"]);
    }

    #[test]
    fn nonsense_is_a_usage_error_with_a_reason() {
        for (line, part) in [
            ("weave", "Usage"),
            ("weave conect host2", "connect"),
            ("weave connect", "PEER"),
            ("weave forget", "PEER"),
            ("weave hide 10.9.1.0", "prefix length"),
            ("weave hide net:10.9.1.7/24", "host bits set"),
            ("weave status peer", "peers"),
            ("weave attach --netns /n --pid 3", "cannot be used"),
            ("weave attach --add-host web:nowhere c1", "not an IP address"),
            ("weave dns-add -h x.weave.local", "ADDRESS|CONTAINER"),
            ("weave ps a/b", "letters, digits"),
            ("weave status -o xml", "json"),
        ] {
            let error = parse_words(line).unwrap_err();
            assert_eq!(error.exit_code(), i32::from(Exit::Usage.code()), "{line}");
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn connect_replace_may_leave_nothing() {
        let cli = parse_words("weave connect --replace").unwrap();
        assert!(matches!(cli.command, Command::Connect(Connect { replace: true, .. })));
    }

    #[test]
    fn commands_of_the_original_that_are_gone_name_their_replacement() {
        let answer = |line| crate::removed::answer(&parse_words(line).unwrap_err());
        assert_eq!(
            answer("weave launch-router host2").unwrap(),
            "`weave launch-router` was removed: use `weave launch`"
        );
        assert!(answer("weave run 10.2.1.1/24").unwrap().contains("weave attach"));
        assert_eq!(answer("weave conect"), None);
        assert_eq!(answer("weave connect"), None);
    }

    #[test]
    fn help_lists_every_exit_code() {
        let help = command().render_help().to_string();
        for exit in Exit::ALL {
            assert!(help.contains(&format!("  {}  {}", exit.code(), exit.meaning())), "{help}");
        }
    }
}
