//! Which words of `weave launch` are ours, and which the router's.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;

use crate::{
    args::{Global, Output, PLUGIN_SOCKET},
    commands::launch::docker,
    context::Failure,
};

/// What `weave launch --help` says beyond clap's own list.
pub(super) const HELP: &str = "
Of the flags of launch itself:
      --timeout <SECONDS>  How long to wait until the router is ready [default: 60]
      --no-plugin          Do not serve Docker's engine, even if there is one
      --no-proxy           Give Docker's clients no socket at which containers get the network unasked
      --proxy-address <IP:PORT>, --tlscacert <FILE>, --tlscert <FILE>, --tlskey <FILE>
                           Serve Docker's clients of other hosts there as well, who need a certificate
      --no-default-ipalloc Leave containers alone there that have no WEAVE_CIDR in their environment
      --without-dns        Do not tell containers there of the name server
      --rewrite-inspect    Show the network's addresses there where Docker has those of its own bridge
      --hostname-from-label <LABEL>, --hostname-match <REGEX>, --hostname-replacement <TEXT>
                           How host names follow from labels and names of containers there
      --plugin-socket <S>  Where it looks for its driver [default: /run/docker/plugins/weave.sock]
      --password <P>       Handed to the router through WEAVE_PASSWORD; better set that, or use --password-file
";

/// Flags of Weave Net's launch that are gone, and what to do instead.
const GONE: [(&str, &str); 11] = [
    ("--no-restart", "weaver is not restarted unless systemd is told to do so"),
    ("--plugin", "Docker's engine is served where there is one; --no-plugin turns that off"),
    ("--proxy", "Docker's clients get a socket where there is an engine; --no-proxy turns that off"),
    ("--token", "nothing is reported to anybody"),
    ("--awsvpc", "there is no tracker of address ranges; use the overlay"),
    (
        "--status-addr",
        "status is asked at the control socket, or with --http-addr and a token; metrics at --metrics-addr",
    ),
    ("--no-rewrite-hosts", "the proxy rewrites no /etc/hosts; `weave attach --rewrite-hosts` does"),
    ("--no-detect-tls", "nothing is read from Docker's command line"),
    ("--tls", "clients of other hosts are always asked for a certificate; see --proxy-address"),
    ("--tlsverify", "clients of other hosts are always asked for a certificate; see --proxy-address"),
    (
        "-H",
        "use --proxy-address for clients of other hosts; those of this host find the socket by `weave env`",
    ),
];

fn gone(flag: &str) -> Option<&'static str> {
    GONE.iter().find(|(name, _)| *name == flag).map(|(_, instead)| *instead)
}

/// How long a start may take by default. Opening a large store after a crash takes the longest.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a launch is to do.
pub(super) struct Plan {
    /// Our own flags, the ones among the router's words included.
    pub(super) global: Global,
    /// The router's words, in their order.
    pub(super) arguments: Vec<OsString>,
    /// The password, which must not be among them.
    pub(super) password: Option<OsString>,
    /// How long to wait for readiness.
    pub(super) patience: Duration,
    /// What is to be done about Docker.
    pub(super) docker: docker::Plan,
    /// Only help was asked for.
    pub(super) help: bool,
}

impl Plan {
    /// Sorts the words. Everything behind `--` is the router's.
    pub(super) fn new(words: Vec<OsString>, global: &Global) -> Result<Self, Failure> {
        let mut plan = Self {
            global: global.clone(),
            arguments: Vec::new(),
            password: None,
            patience: PATIENCE,
            docker: docker::Plan {
                is_wanted: true,
                engine: global.docker_socket.clone(),
                plugin: PathBuf::from(PLUGIN_SOCKET),
                is_proxy_wanted: true,
                flags: Vec::new(),
                bridge: None,
            },
            help: false,
        };
        let mut words = VecDeque::from(words);
        while let Some(word) = words.pop_front() {
            let (flag, inline) = split(&word);
            match flag {
                Some("--") => {
                    plan.arguments.push(word);
                    plan.arguments.extend(words.drain(..));
                }
                Some("--help" | "-h") => plan.help = true,
                Some("--password") => plan.take_password(value(&mut words, inline, "--password")?)?,
                Some("--run-dir") => {
                    plan.global.run_dir = PathBuf::from(value(&mut words, inline, "--run-dir")?);
                }
                Some("--http-addr") => {
                    let address = value(&mut words, inline, "--http-addr")?;
                    plan.global.http_addr = Some(address.to_string_lossy().into_owned());
                }
                Some("--http-token-file") => {
                    let file = value(&mut words, inline, "--http-token-file")?;
                    plan.global.http_token_file = Some(PathBuf::from(file));
                }
                Some("--timeout") => plan.take_timeout(&value(&mut words, inline, "--timeout")?)?,
                Some("--no-plugin") => plan.docker.is_wanted = false,
                Some("--no-proxy") => plan.docker.is_proxy_wanted = false,
                Some(flag @ ("--no-default-ipalloc" | "--without-dns" | "--rewrite-inspect")) => {
                    plan.docker.flags.push(flag.into());
                }
                Some(
                    flag @ ("--proxy-address"
                    | "--hostname-from-label"
                    | "--hostname-match"
                    | "--hostname-replacement"),
                ) => {
                    let value = value(&mut words, inline, flag)?;
                    plan.docker.flags.push(joined(flag, &value));
                }
                Some(flag @ ("--tlscacert" | "--tlscert" | "--tlskey")) => {
                    let file = PathBuf::from(value(&mut words, inline, flag)?);
                    let file = absolute(flag, &file)?;
                    plan.docker.flags.push(joined(flag, file.as_os_str()));
                }
                Some("--docker-socket") => {
                    plan.docker.engine = PathBuf::from(value(&mut words, inline, "--docker-socket")?);
                }
                Some("--plugin-socket") => {
                    plan.docker.plugin = PathBuf::from(value(&mut words, inline, "--plugin-socket")?);
                }
                Some("--weave-bridge") => {
                    let bridge = value(&mut words, inline, "--weave-bridge")?;
                    plan.docker.bridge = Some(bridge.to_string_lossy().into_owned());
                    plan.arguments.extend(["--weave-bridge".into(), bridge]);
                }
                Some("--output" | "-o") => plan.take_output(&value(&mut words, inline, "--output")?)?,
                Some(flag) if gone(flag).is_some() => {
                    let instead = gone(flag).unwrap_or_default();
                    return Err(Failure::usage(format!("{flag} was removed: {instead}")));
                }
                _ => plan.arguments.push(word),
            }
        }
        plan.global.run_dir = absolute("--run-dir", &plan.global.run_dir)?;
        plan.docker.check(&plan.global.run_dir)?;
        Ok(plan)
    }

    fn take_password(&mut self, password: OsString) -> Result<(), Failure> {
        if password.is_empty() {
            return Err(Failure::usage("the password is empty; leave --password away for an open mesh"));
        }
        if self.password.replace(password).is_some() {
            return Err(Failure::usage("give one --password; several are given by --password-file"));
        }
        Ok(())
    }

    fn take_timeout(&mut self, seconds: &OsStr) -> Result<(), Failure> {
        let parsed = seconds.to_str().and_then(|s| s.parse().ok());
        let wrong =
            || Failure::usage(format!("--timeout {}: not a number of seconds", seconds.to_string_lossy()));
        self.patience = Duration::from_secs(parsed.ok_or_else(wrong)?).min(weave_api::MAX_WAIT);
        Ok(())
    }

    fn take_output(&mut self, form: &OsStr) -> Result<(), Failure> {
        let form = form.to_string_lossy();
        self.global.output = Output::from_str(&form, false)
            .map_err(|_| Failure::usage(format!("--output {form}: it is text, wide, json or yaml")))?;
        Ok(())
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("global", &self.global)
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}

/// A flag and its value, if `--flag=value`; no flag if the word is none (or no text).
fn split(word: &OsStr) -> (Option<&str>, Option<OsString>) {
    match word.to_str().filter(|text| text.starts_with('-')) {
        Some(text) => match text.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (Some(flag), Some(value.into())),
            _ => (Some(text), None),
        },
        None => (None, None),
    }
}

fn value(words: &mut VecDeque<OsString>, inline: Option<OsString>, flag: &str) -> Result<OsString, Failure> {
    inline.or_else(|| words.pop_front()).ok_or_else(|| Failure::usage(format!("{flag} needs a value")))
}

/// A flag and its value as one word, so that a value may begin with a dash.
fn joined(flag: &str, value: &OsStr) -> OsString {
    let mut word = OsString::from(flag);
    word.push("=");
    word.push(value);
    word
}

/// The driver's process does not run where we do.
fn absolute(flag: &str, path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::usage(format!("{flag} {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Result<Plan, Failure> {
        let global = Global {
            run_dir: "/run/weave".into(),
            http_addr: None,
            http_token_file: None,
            docker_socket: "/run/docker.sock".into(),
            output: Output::Text,
        };
        Plan::new(line.split_whitespace().map(OsString::from).collect(), &global)
    }

    #[test]
    fn the_routers_words_pass_through_and_ours_are_taken_out() {
        let plan = plan("--port 7000 --run-dir=/tmp/r host2 --timeout 5 --no-dns -o json -- --odd").unwrap();
        assert_eq!(plan.arguments, ["--port", "7000", "host2", "--no-dns", "--", "--odd"]);
        assert_eq!(plan.global.run_dir, PathBuf::from("/tmp/r"));
        assert_eq!((plan.patience, plan.global.output), (Duration::from_secs(5), Output::Json));
    }

    #[test]
    fn what_dockers_clients_get_is_told_to_the_driver() {
        let line =
            "--rewrite-inspect --hostname-match=^a(.*) --hostname-replacement b-$1 host2 --without-dns";
        let plan = plan(line).unwrap();
        assert_eq!(plan.arguments, ["host2"]);
        let flags =
            ["--rewrite-inspect", "--hostname-match=^a(.*)", "--hostname-replacement=b-$1", "--without-dns"];
        assert_eq!(plan.docker.flags, flags);
    }

    #[test]
    fn a_password_never_stays_among_the_arguments() {
        for line in ["--password hunter2 host2", "host2 --password=hunter2", "--name a --password hunter2"] {
            let plan = plan(line).unwrap();
            assert_eq!(plan.password.as_deref(), Some(OsStr::new("hunter2")), "{line}");
            assert!(!format!("{plan:?}").contains("hunter2"), "{line}");
        }
        let file = plan("--password-file /etc/weave/password").unwrap();
        assert_eq!(file.arguments, ["--password-file", "/etc/weave/password"]);
        assert_eq!(file.password, None);
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_starts() {
        for line in [
            "--password",
            "--password=",
            "--password a --password b",
            "--timeout soon",
            "-o xml",
            "--no-restart",
            "--plugin=false host2",
            "--token abc",
            "--hostname-match (",
            "--proxy-address 127.0.0.1:2376",
            "--proxy-address 127.0.0.1:2376 --tlscacert /no --tlscert /no --tlskey /no",
            "--tlscert /no",
            "--rewrite-inspect --no-proxy",
            "--without-dns --no-plugin",
            "-H tcp://0.0.0.0:12375",
        ] {
            assert_eq!(plan(line).unwrap_err().exit, weave_api::Exit::Usage, "{line}");
        }
    }
}
