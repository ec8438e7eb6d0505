//! What the daemon was told, checked: from here on nothing is text any more.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use weave_api::{Address, Token};
use weave_control::ListenConfig;
use weave_ipam::Init;
use weave_mesh::Target;
use weave_model::{Password, PeerName, Subnet};
use weave_names::Domain;

use crate::{args::Args, exit::Fatal};

/// Passwords that may be valid at once, as the handshake offers one answer for each.
const MAX_PASSWORDS: usize = 4;
/// The smallest MTU that IPv6 permits (RFC 8200 section 5); IPv4 alone would bear less.
pub(crate) const MIN_MTU: u16 = 1280;
/// The largest IP packet.
const MAX_MTU: u16 = 65_535;
/// Smallest subnets that leave an address beside the first and the last.
const MAX_PREFIX_V4: u8 = 30;
const MAX_PREFIX_V6: u8 = 126;
/// Threads of the data plane unless told otherwise; more gain little for one host's containers.
const MAX_WORKERS: usize = 4;

/// Everything that a start needs to know.
pub(crate) struct Config {
    pub(crate) name: Option<PeerName>,
    pub(crate) nickname: String,
    pub(crate) listen: SocketAddr,
    pub(crate) passwords: Vec<Password>,
    pub(crate) trusted_subnets: Vec<Subnet>,
    /// How long the kernel encrypts with one key.
    pub(crate) rekey_after: Duration,
    pub(crate) conn_limit: usize,
    pub(crate) discovery: bool,
    pub(crate) resume: bool,
    pub(crate) targets: Vec<Target>,
    /// What the operator fixed; else it follows the paths.
    pub(crate) mtu: Option<u16>,
    /// Whether the kernel may carry frames.
    pub(crate) fastdp: bool,
    /// Whether containers may only send from their own addresses.
    pub(crate) port_guard: bool,
    /// Whether containers of this host see who calls from outside.
    pub(crate) keeps_sources: bool,
    pub(crate) bridge: String,
    pub(crate) workers: usize,
    pub(crate) ipam: Option<IpamConfig>,
    pub(crate) dns: Option<DnsConfig>,
    /// The control socket.
    pub(crate) listen_api: ListenConfig,
    /// Where the control API is served over TCP, and to whom.
    pub(crate) tcp_api: Option<(SocketAddr, Token)>,
    /// Where Prometheus is answered.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) db_prefix: PathBuf,
}

/// Address allocation.
pub(crate) struct IpamConfig {
    pub(crate) ranges: Vec<Subnet>,
    /// Whether the operator chose the ranges: then an overlap with a route of the host is a warning only.
    pub(crate) is_explicit: bool,
    pub(crate) default_subnets: Vec<Subnet>,
    pub(crate) init: Init,
}

/// Names.
pub(crate) struct DnsConfig {
    pub(crate) domain: Domain,
    pub(crate) listen: SocketAddr,
    pub(crate) ttl: Duration,
    pub(crate) resolv_conf: PathBuf,
    /// Who may ask, besides containers and this host.
    pub(crate) allow: Vec<Subnet>,
}

impl Config {
    /// Checks the command line. Reads password files, touches nothing else.
    pub(crate) fn from_args(args: Args, host_name: &str, cores: usize) -> anyhow::Result<Self> {
        let targets = parse_targets(&args.peers)?;
        let ipam = parse_ipam(&args, targets.len())?;
        let (tcp_api, listen_api) = (parse_tcp_api(&args)?, parse_listen_api(&args)?);
        let dns = if args.no_dns { None } else { Some(parse_dns(&args)?) };
        Ok(Self {
            name: args.name.as_deref().map(parse_name).transpose()?,
            nickname: args.nickname.clone().unwrap_or_else(|| host_name.to_owned()),
            listen: SocketAddr::new(args.host.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), args.port),
            passwords: read_passwords(&args)?,
            trusted_subnets: parse_subnets(
                "--trusted-subnets",
                args.trusted_subnets.iter().map(String::as_str),
            )?,
            rekey_after: Duration::from_secs(args.rekey_after.into()),
            conn_limit: args.conn_limit,
            discovery: !args.no_discovery,
            resume: args.resume,
            targets,
            mtu: args.mtu.map(check_mtu).transpose()?,
            fastdp: !args.no_fastdp,
            port_guard: !args.no_port_guard,
            keeps_sources: args.no_masq_local,
            bridge: args.weave_bridge,
            workers: if args.workers == 0 { cores.clamp(1, MAX_WORKERS) } else { args.workers.min(64) },
            ipam,
            dns,
            metrics: args.metrics_addr.as_deref().map(parse_metrics).transpose()?,
            tcp_api,
            listen_api,
            db_prefix: args.db_prefix,
        })
    }
}

fn parse_targets(peers: &[String]) -> anyhow::Result<Vec<Target>> {
    peers
        .iter()
        .map(|peer| peer.parse().map_err(|error| Fatal::usage(format!("peer `{peer}`: {error}"))))
        .collect()
}

fn parse_name(text: &str) -> anyhow::Result<PeerName> {
    text.parse().map_err(|error| Fatal::usage(format!("--name: {error}")))
}

fn check_mtu(mtu: u16) -> anyhow::Result<u16> {
    if (MIN_MTU..=MAX_MTU).contains(&mtu) {
        return Ok(mtu);
    }
    Err(Fatal::usage(format!("--mtu {mtu}: give {MIN_MTU} to {MAX_MTU} bytes")))
}

/// The address of the control API over TCP, if `--http-addr` is one, and the token that it must not be without.
fn parse_tcp_api(args: &Args) -> anyhow::Result<Option<(SocketAddr, Token)>> {
    let Some(text) = args.http_addr.as_deref().and_then(weave_api::tcp_address) else { return Ok(None) };
    let address = text.parse().map_err(|_| {
        Fatal::usage(format!(
            "--http-addr {text}: give an address of this host and a port, as in 127.0.0.1:6784"
        ))
    })?;
    match Address::of(&args.run_dir, Some(text), args.http_token_file.as_deref()) {
        Ok(Address::Tcp { token, .. }) => Ok(Some((address, token))),
        Ok(Address::Unix(_)) => Ok(None),
        Err(error) => Err(Fatal::usage(error.to_string())),
    }
}

fn parse_listen_api(args: &Args) -> anyhow::Result<ListenConfig> {
    let path = args.http_addr.as_deref().filter(|text| weave_api::tcp_address(text).is_none());
    let socket =
        weave_api::socket_path(&args.run_dir, path).map_err(|error| Fatal::usage(error.to_string()))?;
    let mode = u32::from_str_radix(&args.socket_mode, 8).ok().filter(|mode| mode & !0o777 == 0);
    let mode = mode.ok_or_else(|| {
        Fatal::usage(format!("--socket-mode {}: give permissions in octal, such as 0660", args.socket_mode))
    })?;
    let group = args.socket_group.as_deref().map(group_id).transpose()?;
    Ok(ListenConfig { mode, group, ..ListenConfig::new(socket) })
}

/// A group by number, or by its name in `/etc/group`.
fn group_id(text: &str) -> anyhow::Result<u32> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    find_group(&groups, text).ok_or_else(|| {
        Fatal::usage(format!("--socket-group {text}: /etc/group has no such group; a number works, too"))
    })
}

/// Lines of group(5): name, password, number, members.
fn find_group(groups: &str, name: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten())
}

/// `ADDRESS:PORT`, or `:PORT` as Weave Net took it: on every address.
fn parse_metrics(text: &str) -> anyhow::Result<SocketAddr> {
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    full.parse().map_err(|_| Fatal::usage(format!("--metrics-addr {text}: give ADDRESS:PORT, or :PORT")))
}

fn parse_subnets<'a>(flag: &str, texts: impl Iterator<Item = &'a str>) -> anyhow::Result<Vec<Subnet>> {
    texts
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().map_err(|error| Fatal::usage(format!("{flag}: {error}"))))
        .collect()
}

fn read_passwords(args: &Args) -> anyhow::Result<Vec<Password>> {
    let mut passwords = Vec::new();
    if let Some(text) = &args.password {
        passwords.push(password("the password", text.clone().into_bytes())?);
    }
    for path in &args.password_file {
        passwords
            .push(password(&format!("the password file {}", path.display()), read_password_file(path)?)?);
    }
    if passwords.len() > MAX_PASSWORDS {
        let n = passwords.len();
        return Err(Fatal::usage(format!(
            "{n} passwords were given; at most {MAX_PASSWORDS} can be valid at once"
        )));
    }
    Ok(passwords)
}

fn password(source: &str, bytes: Vec<u8>) -> anyhow::Result<Password> {
    Password::new(bytes).map_err(|error| Fatal::usage(format!("{source}: {error}")))
}

/// The file's bytes without the line end that editors add.
fn read_password_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = std::fs::read(path)
        .map_err(|error| Fatal::usage(format!("--password-file {}: {error}", path.display())))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(bytes)
}

fn parse_ipam(args: &Args, targets: usize) -> anyhow::Result<Option<IpamConfig>> {
    let given = args.ipalloc_range.as_deref();
    let ranges = parse_subnets("--ipalloc-range", given.unwrap_or(crate::args::DEFAULT_RANGE).split(','))?;
    if ranges.is_empty() {
        return match (&args.ipalloc_default_subnet, &args.ipalloc_init) {
            (None, None) => Ok(None),
            (Some(_), _) => Err(Fatal::usage("--ipalloc-default-subnet needs an --ipalloc-range")),
            (None, Some(_)) => Err(Fatal::usage("--ipalloc-init needs an --ipalloc-range")),
        };
    }
    for range in &ranges {
        check_size("--ipalloc-range", *range)?;
    }
    check_disjoint(&ranges)?;
    let default_subnets = parse_subnets(
        "--ipalloc-default-subnet",
        args.ipalloc_default_subnet.iter().flat_map(|text| text.split(',')),
    )?;
    for subnet in &default_subnets {
        check_size("--ipalloc-default-subnet", *subnet)?;
        if !ranges.iter().any(|range| range.net().contains(&subnet.net())) {
            return Err(Fatal::usage(format!(
                "--ipalloc-default-subnet {subnet} does not lie in --ipalloc-range {}",
                given.unwrap_or(crate::args::DEFAULT_RANGE)
            )));
        }
    }
    Ok(Some(IpamConfig {
        default_subnets: if default_subnets.is_empty() { ranges.clone() } else { default_subnets },
        ranges,
        is_explicit: given.is_some(),
        init: parse_init(args.ipalloc_init.as_deref().unwrap_or("consensus"), targets)?,
    }))
}

fn check_size(flag: &str, subnet: Subnet) -> anyhow::Result<()> {
    let (len, max) = match subnet.net() {
        ipnet::IpNet::V4(net) => (net.prefix_len(), MAX_PREFIX_V4),
        ipnet::IpNet::V6(net) => (net.prefix_len(), MAX_PREFIX_V6),
    };
    if len <= max {
        return Ok(());
    }
    Err(Fatal::usage(format!(
        "{flag} {subnet} is too small: the first and the last address are never given out; a /{max} is the least"
    )))
}

fn check_disjoint(ranges: &[Subnet]) -> anyhow::Result<()> {
    for (i, a) in ranges.iter().enumerate() {
        for b in &ranges[i + 1..] {
            if a.net().contains(&b.net()) || b.net().contains(&a.net()) {
                return Err(Fatal::usage(format!("--ipalloc-range: {a} and {b} overlap")));
            }
        }
    }
    Ok(())
}

/// `consensus`, `consensus=N`, `seed=NAME,NAME`, `observer`. Without a number, every target is expected to take part.
fn parse_init(text: &str, targets: usize) -> anyhow::Result<Init> {
    let bad = |why: String| Fatal::usage(format!("--ipalloc-init {text}: {why}"));
    let (mode, value) = match text.split_once('=') {
        Some((mode, value)) => (mode, Some(value)),
        None => (text, None),
    };
    match (mode, value) {
        ("consensus", None) => Ok(Init::Consensus { peers: targets + 1 }),
        ("consensus", Some(n)) => match n.parse() {
            Ok(peers @ 1..=100_000) => Ok(Init::Consensus { peers }),
            Ok(_) | Err(_) => Err(bad(format!("`{n}` is not a number of routers, 1 or more"))),
        },
        ("seed", Some(names)) => {
            let seeds: Result<Vec<PeerName>, _> = names.split(',').map(str::parse).collect();
            seeds.map(Init::Seed).map_err(|error| bad(error.to_string()))
        }
        ("observer", None) => Ok(Init::Observer),
        _ => Err(bad("give consensus, consensus=N, seed=NAME,NAME,… or observer".to_owned())),
    }
}

fn parse_dns(args: &Args) -> anyhow::Result<DnsConfig> {
    let domain = args.dns_domain.parse().map_err(|error| Fatal::usage(format!("--dns-domain: {error}")))?;
    Ok(DnsConfig {
        domain,
        listen: args.dns_listen_address,
        ttl: Duration::from_secs(args.dns_ttl.into()),
        resolv_conf: args.resolv_conf.clone(),
        allow: parse_subnets("--dns-allow", args.dns_allow.iter().map(String::as_str))?,
    })
}

/// The host's name, as the nickname that people see.
pub(crate) fn host_name() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").context("cannot read the host's name")?;
    Ok(name.trim().to_owned())
}

#[cfg(test)]
mod flags;

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::exit::{Exit, exit_for};

    fn config(flags: &[&str]) -> anyhow::Result<Config> {
        let args = Args::try_parse_from([&["weaver"], flags].concat())?;
        Config::from_args(args, "node", 2)
    }

    fn refused(flags: &[&str]) -> String {
        let error = config(flags).err().unwrap();
        assert_eq!(exit_for(&error), Exit::Usage);
        error.to_string()
    }

    #[test]
    fn without_flags_the_defaults_of_weave_net_hold() {
        let config = config(&[]).unwrap();
        assert_eq!(config.listen.port(), 6783);
        assert_eq!(config.nickname, "node");
        let ipam = config.ipam.unwrap();
        assert_eq!(ipam.ranges[0].to_string(), "10.32.0.0/12");
        assert!(!ipam.is_explicit);
        assert!(matches!(ipam.init, Init::Consensus { peers: 1 }));
    }

    #[test]
    fn wrong_ranges_are_refused_in_words() {
        assert!(refused(&["--ipalloc-range", "10.32.0.1/12"]).contains("the subnet is 10.32.0.0/12"));
        assert!(refused(&["--ipalloc-range", "10.0.0.0/8,10.1.0.0/16"]).contains("overlap"));
        assert!(refused(&["--ipalloc-range", "10.0.0.0/31"]).contains("too small"));
        assert!(refused(&["--ipalloc-default-subnet", "10.9.0.0/24"]).contains("does not lie in"));
        assert!(
            refused(&["--ipalloc-range", "", "--ipalloc-init", "observer"])
                .contains("needs an --ipalloc-range")
        );
    }

    #[test]
    fn the_ways_to_start_the_ring_are_understood() {
        let init = |text: &str, peers: &[&str]| {
            config(&[&["--ipalloc-init", text], peers].concat()).map(|config| config.ipam.unwrap().init)
        };
        assert!(matches!(init("consensus", &["a", "b"]).unwrap(), Init::Consensus { peers: 3 }));
        assert!(matches!(init("consensus=5", &[]).unwrap(), Init::Consensus { peers: 5 }));
        assert!(matches!(init("observer", &[]).unwrap(), Init::Observer));
        assert!(
            matches!(init("seed=02:00:00:00:00:01,02:00:00:00:00:02", &[]).unwrap(), Init::Seed(s) if s.len() == 2)
        );
        for wrong in ["consensus=0", "consensus=x", "observer=1", "seed", "seed=a", "quorum"] {
            assert!(init(wrong, &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_mtu_below_what_ipv6_needs_is_refused() {
        assert!(refused(&["--mtu", "576"]).contains("1280"));
    }

    #[test]
    fn a_group_is_found_by_its_name_or_number() {
        let groups = "root:x:0:\nweave:x:4711:alice,bob\nbroken\nodd:x:many:\n";
        assert_eq!(find_group(groups, "weave"), Some(4711));
        for unknown in ["wea", "broken", "odd", "alice", ""] {
            assert_eq!(find_group(groups, unknown), None, "{unknown}");
        }
        assert_eq!(config(&["--socket-group", "12"]).unwrap().listen_api.group, Some(12));
        assert!(refused(&["--socket-group", "no such group"]).contains("/etc/group"));
        assert_eq!(config(&["--socket-mode=0600"]).unwrap().listen_api.mode, 0o600);
        for wrong in ["rw", "0999", "1777", ""] {
            assert!(refused(&["--socket-mode", wrong]).contains("in octal"), "{wrong}");
        }
    }

    #[test]
    fn the_api_over_tcp_wants_a_token_and_leaves_the_socket_where_it_is() {
        assert!(refused(&["--http-addr", "127.0.0.1:6784"]).contains("wants a token"));
        assert!(refused(&["--http-addr=localhost:80"]).contains("an address of this host"));
        let file = std::env::temp_dir().join(format!("weave-token-{}-of-config", std::process::id()));
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        let name = file.display().to_string();
        let config = config(&["--http-addr", "[::1]:6784", "--http-token-file", &name]).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(config.tcp_api.unwrap().0, "[::1]:6784".parse().unwrap());
        assert_eq!(config.listen_api.socket, Path::new("/run/weave/weave.sock"));
    }

    #[test]
    fn an_empty_or_missing_password_file_is_refused_by_name() {
        assert!(refused(&["--password-file", "/nonexistent/pw"]).contains("/nonexistent/pw"));
        assert!(refused(&["--password", ""]).contains("empty"));
    }
}
