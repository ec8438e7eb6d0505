//! The command line: what can be typed, and its help.

mod containers;
mod help;
mod mesh;
mod names;
mod router;
mod views;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use weave_api::Exit;

pub(crate) use containers::{Addresses, Attach, Detach, Expose, Namespace, Ps};
use help::{ATTACH_EXAMPLES, DOCTOR_HELP, REPORT_HELP};
pub(crate) use mesh::{Connect, Ipam, Peers, Repair, Rmpeer, Wait};
pub(crate) use names::{DnsAdd, DnsLookup, DnsRemove};
pub(crate) use router::{Config, DockerPlugin, Doctor, Launch, PLUGIN_SOCKET, Proxy, Reset, Stop};
pub(crate) use views::{Status, View};

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
    /// Where the control API is, if not in the run directory: a socket, or HOST:PORT of a router that serves it there.
    #[arg(
        long,
        global = true,
        value_name = "SOCKET|HOST:PORT",
        env = "WEAVE_HTTP_ADDR",
        hide_short_help = true
    )]
    pub(crate) http_addr: Option<String>,
    /// File with the token that the control API wants over TCP.
    #[arg(long, global = true, value_name = "FILE", env = "WEAVE_HTTP_TOKEN_FILE", hide_short_help = true)]
    pub(crate) http_token_file: Option<PathBuf>,
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
    #[value(alias = "table")]
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
    /// Ask the controller of network policies, `weave-npc`, which takes everything that follows.
    #[command(
        disable_help_flag = true,
        after_help = "Examples:\n  weave npc --help\n  weave npc sync\n  weave npc explain shop/web shop/db 5432/tcp"
    )]
    Npc {
        /// What `weave-npc` is to be told.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
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
    /// Print the flags with which `docker` puts containers on the network; or check a file with settings for the router.
    #[command(after_help = "Examples:\n  docker $(weave config) run …\n  weave config check weaver.toml")]
    Config {
        /// What else to do.
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
    DockerPlugin(Box<DockerPlugin>),
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
            assert!(error.use_stderr(), "{line}");
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
