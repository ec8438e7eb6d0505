//! What tests of the product begin and end with: a lab, linked routers, attached containers; what they wait for; and
//! what must be true of every router when a test is over.

mod open;

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
    process::Output,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use weave_api::{ConnectionState, Exit, Report};
use weave_model::Mac;

pub use open::{await_overlay, is_all, kernel_encrypts, links, open, start_open};

use crate::{
    clock::{Look, wait_until},
    lab::{Container, Host, Lab, Place, Segment, target_directory},
    product::{self, Programs, Router, Settings, mesh_in_words, shows_mesh},
    sandbox, tool,
    traffic::{PingReport, Recording, measure},
};

/// How long anything may take that ought to happen soon, on a machine that does much else.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Runs a test's `body` as [`product::in_sandbox`] does, and sees to it that no interface of ours appears outside.
///
/// # Errors
/// Whatever `body` fails with, when there can be no sandbox, and when something was left behind.
pub fn play(test: &str, body: impl FnOnce(&Programs) -> Result<()>) -> Result<()> {
    if sandbox::is_inside() {
        return product::in_sandbox(test, body);
    }
    let before = our_interfaces()?;
    product::in_sandbox(test, body)?;
    let left: Vec<String> = our_interfaces()?.difference(&before).cloned().collect();
    ensure!(left.is_empty(), "interfaces were left behind: {left:?}");
    Ok(())
}

fn our_interfaces() -> Result<BTreeSet<String>> {
    let all = fs::read_dir("/sys/class/net").context("cannot list interfaces")?;
    let names = all.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    Ok(names.filter(|name| name.starts_with("weave") || name.starts_with("vethwe")).collect())
}

/// An empty lab with the generator that is built beside the tests.
///
/// # Errors
/// As [`Lab::new`].
pub fn lab() -> Result<Lab> {
    Lab::new(vec![target_directory()?.join("debug/weave-lab").into()])
}

/// `N` hosts called h1 to hN on one segment.
///
/// # Errors
/// When the lab cannot make them.
pub fn hosts<const N: usize>(lab: &mut Lab) -> Result<[Host; N]> {
    Ok(hosts_on_segment(lab)?.0)
}

/// `N` hosts called h1 to hN, and the segment that joins them.
///
/// # Errors
/// When the lab cannot make them.
pub fn hosts_on_segment<const N: usize>(lab: &mut Lab) -> Result<([Host; N], Segment)> {
    let mut hosts = Vec::new();
    for number in 1..=N {
        hosts.push(lab.add_host(&format!("h{number}"))?);
    }
    let segment = lab.join(&mut hosts.iter_mut().collect::<Vec<_>>())?;
    Ok((hosts.try_into().ok().context("as many hosts as were asked for")?, segment))
}

/// Settings with a password, whose ring begins with `routers` routers.
#[must_use]
pub fn settings(routers: usize, peers: &[&Host], flags: &[&str]) -> Settings {
    let mut all = vec![format!("--ipalloc-init=consensus={routers}"), "--log-level=debug".to_owned()];
    all.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let peers = peers.iter().filter_map(|host| Some(host.address().ok()?.to_string())).collect();
    Settings { peers, password: Some("correct horse battery".to_owned()), flags: all }
}

/// Starts a router on each host; all but the first know the first.
///
/// # Errors
/// When one does not get ready.
pub fn routers<'h>(programs: &Programs, hosts: &'h [Host], flags: &[&str]) -> Result<Vec<Router<'h>>> {
    start_all(programs, hosts, |host| {
        let peers: &[&Host] = if host.number() == hosts[0].number() { &[] } else { &[&hosts[0]] };
        settings(hosts.len(), peers, flags)
    })
}

/// Starts a router on each host, all at once, and waits until each is ready.
///
/// # Errors
/// When one does not get ready.
pub fn start_all<'h>(
    programs: &Programs,
    hosts: &'h [Host],
    settings: impl Fn(&Host) -> Settings,
) -> Result<Vec<Router<'h>>> {
    let mut routers = Vec::new();
    for host in hosts {
        routers.push(Router::start(programs, host, &settings(host))?);
    }
    routers.iter_mut().try_for_each(Router::await_ready)?;
    Ok(routers)
}

/// Waits until every router's report satisfies `is_so`.
///
/// # Errors
/// When it does not in [`LIMIT`]; `what` is then named.
pub fn await_all(what: &str, routers: &[Router<'_>], is_so: impl Fn(&Report) -> bool) -> Result<()> {
    routers.iter().try_for_each(|router| await_report(what, router, &is_so))
}

/// Waits until the router's report satisfies `is_so`.
///
/// # Errors
/// When it does not in [`LIMIT`]; `what` is then named.
pub fn await_report(what: &str, router: &Router<'_>, is_so: impl Fn(&Report) -> bool) -> Result<()> {
    let waited = wait_until(what, LIMIT, || {
        let report = router.report()?;
        let seen = || format!("{}; its connections: {:?}", mesh_in_words(&report), report.router.connections);
        Ok(Look::when(is_so(&report), seen))
    });
    waited.map(drop)
}

/// Waits until every router knows all of them, with `links` links between them.
///
/// # Errors
/// When that does not come.
pub fn await_mesh(routers: &[Router<'_>], links: usize) -> Result<()> {
    await_all("every link", routers, |report| shows_mesh(report, routers.len(), links * 2))?;
    await_paths(routers)
}

/// Waits until every established link has a data path.
///
/// # Errors
/// When that does not come.
pub fn await_paths(routers: &[Router<'_>]) -> Result<()> {
    await_all("a data path on every link", routers, |report| {
        let mut established =
            report.router.connections.iter().filter(|c| c.state == ConnectionState::Established);
        established.all(|connection| connection.overlay.is_some())
    })
}

/// A container with its interface.
#[derive(Debug)]
pub struct Attached {
    /// Where it is.
    pub container: Container,
    /// What the routers call it.
    pub id: String,
    /// Its addresses, in the order in which `weave attach` printed them.
    pub addresses: Vec<IpAddr>,
}

impl Attached {
    /// Its first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.addresses[0]
    }

    /// The hardware address of its interface.
    ///
    /// # Errors
    /// When it has none.
    pub fn mac(&self) -> Result<Mac> {
        let line = self.container.run("ip -o link show dev ethwe")?;
        let (_, rest) = line.split_once("link/ether ").context("no Ethernet interface")?;
        Ok(rest.split_whitespace().next().unwrap_or_default().parse()?)
    }
}

/// Adds container `name` to the router's host and attaches it; `words` are further arguments of `weave attach`.
///
/// # Errors
/// When `weave attach` fails.
pub fn attach(router: &Router<'_>, name: &str, words: &str) -> Result<Attached> {
    let container = router.host().add_container(name)?;
    let id = format!("{}-{name}", router.host().name());
    let printed = router.tell(&format!("attach --netns {} {words} {id}", container.netns().display()))?;
    let addresses: Result<Vec<IpAddr>, _> = printed.split_whitespace().map(str::parse).collect();
    let addresses = addresses.with_context(|| format!("`weave attach` printed `{printed}`"))?;
    ensure!(!addresses.is_empty(), "`weave attach` printed no address");
    Ok(Attached { container, id, addresses })
}

/// Attaches one container, c1, on each router's host.
///
/// # Errors
/// When one fails.
pub fn attach_each(routers: &[Router<'_>]) -> Result<Vec<Attached>> {
    routers.iter().map(|router| attach(router, "c1", "")).collect()
}

/// Waits until a ping with `size` bytes of payload is answered.
///
/// # Errors
/// When none is in [`LIMIT`].
pub fn await_ping_of(lab: &Lab, from: &Place, to: IpAddr, size: u16) -> Result<()> {
    let what = format!("an answer to a ping of {size} bytes from {} to {to}", from.name());
    let waited = wait_until(&what, LIMIT, || {
        let line = format!("ping {to} --count 1 --timeout 0.5 --size {size}");
        let ping: PingReport = measure(lab.generator(), from, &line)?;
        Ok(Look::when(ping.received > 0, || format!("{ping:?}")))
    });
    waited.map(drop)
}

/// Waits until a ping is answered.
///
/// # Errors
/// When none is in [`LIMIT`].
pub fn await_ping(lab: &Lab, from: &Place, to: IpAddr) -> Result<()> {
    await_ping_of(lab, from, to, 56)
}

/// Waits until every container reaches every other.
///
/// # Errors
/// When one does not.
pub fn await_all_pings(lab: &Lab, attached: &[Attached]) -> Result<()> {
    for from in attached {
        for to in attached.iter().filter(|to| to.id != from.id) {
            for address in &to.addresses {
                await_ping(lab, &from.container, *address)?;
            }
        }
    }
    Ok(())
}

/// An address of the network that nobody has.
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 47, 255, 254);

/// The first container asks for an address that nobody has: every container sees each of its requests once.
pub fn broadcasts_are_seen_once(lab: &Lab, attached: &[Attached]) -> Result<()> {
    let recordings: Result<Vec<_>> =
        attached.iter().map(|one| Recording::start(lab.generator(), &one.container)).collect();
    let ping = format!("ping {NOBODY} --count 1 --timeout 4");
    let _: PingReport = measure(lab.generator(), &attached[0].container, &ping)?;
    let mac = attached[0].mac()?;
    let mut seen = Vec::new();
    for recording in recordings? {
        seen.push(recording.finish()?.iter().filter(|frame| asks_for_nobody(frame, mac)).count());
    }
    ensure!(seen[0] > 1 && seen.iter().all(|n| *n == seen[0]), "requests at each container: {seen:?}");
    Ok(())
}

/// Ethernet type ARP, operation request (RFC 826), sent by `asker` to everybody, for that address. Others with its MAC do not
/// count: routers announce to their own containers where an address is now.
fn asks_for_nobody(frame: &[u8], asker: Mac) -> bool {
    frame.len() >= 42
        && frame[..6] == [0xff; 6]
        && frame[6..12] == asker.0
        && frame[12..14] == [8, 6]
        && frame[20..22] == [0, 1]
        && frame[38..42] == NOBODY.octets()
}

/// What a failed command said: one sentence on stderr, nothing on stdout.
///
/// # Errors
/// When it succeeded, ended with another code, or said anything else than one line that begins with `program`.
pub fn refusal(output: &Output, program: &str, exit: Exit) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    ensure!(code == Some(exit.code().into()), "it ended with {}, not {}: {said}", output.status, exit.code());
    ensure!(output.stdout.is_empty(), "it printed on stdout");
    let mut lines = said.lines().filter(|line| !line.is_empty());
    match (lines.next(), lines.next()) {
        (Some(line), None) if line.starts_with(&format!("{program}: ")) => Ok(line.to_owned()),
        _ => bail!("not one sentence of {program}: {said}"),
    }
}

/// Runs `weave` with these arguments, which must fail with `exit` and one sentence; returns it.
///
/// # Errors
/// As [`refusal`].
pub fn refused(router: &Router<'_>, arguments: &str, exit: Exit) -> Result<String> {
    let output = tool::output(router.weave().args(arguments.split_whitespace()))?;
    refusal(&output, "weave", exit).with_context(|| format!("weave {arguments}"))
}

/// What must be true at the end of every test: no router has logged an error or panicked, each ends when it is told
/// to, and its control socket goes with it.
///
/// # Errors
/// When it is not.
pub fn finish(routers: Vec<Router<'_>>) -> Result<()> {
    for mut router in routers {
        let name = router.host().name().to_owned();
        if router.pid().is_ok() {
            let status = router.stop().with_context(|| format!("the router of {name} does not stop"))?;
            ensure!(status.success(), "the router of {name} ended with {status}");
            ensure!(!router.run_dir().join("weave.sock").exists(), "{name} left its control socket");
        }
        no_errors(&name, &router.log())?;
    }
    Ok(())
}

/// Fails for every line of a log that ought never to be written.
///
/// # Errors
/// Names the first such line.
pub fn no_errors(name: &str, log: &str) -> Result<()> {
    let is_bad = |line: &&str| line.contains(" ERROR ") || line.contains("panicked at");
    match log.lines().find(is_bad) {
        Some(line) => bail!("{name} logged: {line}"),
        None => Ok(()),
    }
}
