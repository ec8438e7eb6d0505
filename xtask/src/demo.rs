//! `cargo xtask demo`: three hosts, one encrypted network, and proof of each claim.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use weave_api::{ConnectionState, Report};
use weave_tests::{
    clock::{Look, wait_until},
    lab::{Container, Host, Lab},
    product::{Profile, Programs, Router, Settings, mesh_in_words, peer_name, shows_mesh},
    traffic::{PingReport, Server, TcpReport, measure},
};

use crate::{
    inside,
    screen::{Steps, Verified, say},
};

/// What a newcomer reads first.
const HEADING: &str = "weave demo: three hosts on this machine, one encrypted network
  h1 ──── h2 ──── h3      h1 knows h2, h2 knows h3; h1 and h3 cannot reach each other\n";

/// How long the mesh may take to form or to heal.
const MESH: Duration = Duration::from_secs(30);

/// How long a path between containers may take to carry its first packet.
const PATH: Duration = Duration::from_secs(20);

/// How long each throughput measurement lasts.
const MEASURE_S: f64 = 1.5;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Stay up at the end and say how to enter each host
    #[arg(long)]
    keep: bool,
    /// Build with optimisation: takes longer to build, carries more
    #[arg(long)]
    release: bool,
}

/// A container that has been attached.
struct Attached {
    container: Container,
    address: IpAddr,
}

impl Demo {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let profile = if self.release { Profile::Release } else { Profile::Dev };
        inside::run("demo", profile, |programs| self.inside(programs))
    }

    fn inside(&self, programs: &Programs) -> Result<()> {
        say(HEADING);
        let mut steps = Steps::new();
        let outcome = self.show(programs, &mut steps);
        if outcome.is_err() {
            steps.summary("What was verified until then:");
        }
        outcome
    }

    fn show(&self, programs: &Programs, steps: &mut Steps) -> Result<()> {
        let mut lab = inside::lab()?;
        let hosts = steps.step("hosts", || make_hosts(&mut lab))?;
        let mut routers = steps.step("routers", || start_routers(programs, &hosts))?;
        steps.step("mesh", || await_mesh(&routers))?;
        steps.quote("weave status connections      # on h2", &routers[1].tell("status connections")?);
        steps.step("ring", || await_ring(&routers))?;
        steps.quote("weave status ipam      # on h1", &routers[0].tell("status ipam")?);
        let containers = steps.step("containers", || attach_all(&routers))?;
        steps.step("names", || check_names(&routers, &containers))?;
        steps.quote("weave status dns      # on h3", &routers[2].tell("status dns")?);
        steps.step("pings", || ping_all(&lab, &containers))?;
        steps.step("relay", || check_relay(&lab, &routers, &containers))?;
        steps.step("throughput", || measure_throughput(&lab, &containers))?;
        steps.step("crash", || crash_and_return(&lab, &mut routers, &containers))?;
        steps.step("healed", || check_healed(&lab, &routers, &containers))?;
        steps.step("new address", || attach_another(&routers, &containers))?;
        steps.summary("Three hosts, one network:");
        if self.keep {
            crate::lab::stay(&hosts.iter().collect::<Vec<_>>(), "a", programs)?;
        }
        Ok(())
    }
}

fn make_hosts(lab: &mut Lab) -> Result<Verified<[Host; 3]>> {
    let [mut h1, mut h2, mut h3] = [lab.add_host("h1")?, lab.add_host("h2")?, lab.add_host("h3")?];
    lab.join(&mut [&mut h1, &mut h2])?;
    let far = lab.join(&mut [&mut h2, &mut h3])?;
    for (from, to, expected) in
        [(&h1, h2.address()?.into(), true), (&h1, h3.addresses_in(far.number())[0], false)]
    {
        let report: PingReport =
            measure(lab.generator(), from, &format!("ping {to} --count 2 --timeout 0.3"))?;
        ensure!((report.received > 0) == expected, "{} to {to}: {report:?}", from.name());
    }
    Ok(Verified([h1, h2, h3], "3 hosts on 2 segments; h1 and h3 do not reach each other".to_owned()))
}

fn start_routers<'h>(programs: &Programs, hosts: &'h [Host; 3]) -> Result<Verified<Vec<Router<'h>>>> {
    let [h1, h2, h3] = hosts;
    let peers = [vec![h2.address()?], vec![far_address(h3)?], vec![]];
    let mut routers = Vec::new();
    for (host, peers) in [h1, h2, h3].into_iter().zip(peers) {
        let settings = Settings {
            peers: peers.iter().map(ToString::to_string).collect(),
            password: Some("correct horse battery staple".to_owned()),
            flags: vec!["--ipalloc-init=consensus=3".to_owned()],
        };
        routers.push(Router::start(programs, host, &settings)?);
    }
    routers.iter_mut().try_for_each(Router::await_ready)?;
    Ok(Verified(routers, "3 routers run and answer; one password from a file".to_owned()))
}

/// The address of a host in the last segment that it joined.
fn far_address(host: &Host) -> Result<std::net::Ipv4Addr> {
    let segment = host.segments().last().context("a host is in a segment")?;
    match host.addresses_in(*segment)[0] {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => anyhow::bail!("the first address of a host is IPv4"),
    }
}

fn await_mesh(routers: &[Router<'_>]) -> Result<Verified<()>> {
    for router in routers {
        wait_until("every router to know the whole mesh", MESH, || {
            let report = router.report()?;
            // Two links, each described by both its ends.
            Ok(Look::when(shows_mesh(&report, 3, 4), || mesh_in_words(&report)))
        })?;
    }
    for router in routers {
        let report = router.report()?;
        let links = established(&report);
        ensure!(links.iter().all(|c| c.encrypted), "{} has a link without encryption", router.host().name());
        let expected = if router.host().name() == "h2" { 2 } else { 1 };
        ensure!(links.len() == expected, "{} has {} links", router.host().name(), links.len());
    }
    Ok(Verified((), "every router knows all 3; both links established and encrypted".to_owned()))
}

fn established(report: &Report) -> Vec<&weave_api::ConnectionReport> {
    report.router.connections.iter().filter(|c| c.state == ConnectionState::Established).collect()
}

fn await_ring(routers: &[Router<'_>]) -> Result<Verified<()>> {
    routers.iter().try_for_each(|r| r.tell("prime --timeout 20").map(drop))?;
    let ring = |router: &Router<'_>| -> Result<BTreeMap<String, u128>> {
        let ipam = router.report()?.ipam.context("address management is on")?;
        Ok(ipam.owners.iter().map(|o| (o.peer.to_string(), o.addresses)).collect())
    };
    let first = ring(&routers[0])?;
    for router in routers {
        wait_until("all to see the same ring", PATH, || {
            let other = ring(router)?;
            Ok(Look::when(other == first, || format!("{other:?} and {first:?}")))
        })?;
    }
    let total: u128 = first.values().sum();
    ensure!(total == 1 << 20, "10.32.0.0/12 has 2^20 addresses, the ring has {total}");
    Ok(Verified((), format!("10.32.0.0/12 agreed on by all, {} owners, nothing left out", first.len())))
}

/// Attaches two containers on each host and gives each host an address for its name service.
fn attach_all(routers: &[Router<'_>]) -> Result<Verified<Vec<Vec<Attached>>>> {
    let mut all = Vec::new();
    for router in routers {
        let host = router.host();
        let resolver = router.tell("expose")?.parse().context("`weave expose` prints an address")?;
        let mut attached = Vec::new();
        for name in ["a", "b"] {
            let container = host.add_container(name)?;
            let address = attach(router, &container)?;
            container.use_resolver(resolver, "weave.local")?;
            attached.push(Attached { container, address });
        }
        all.push(attached);
    }
    let mut addresses: Vec<IpAddr> = all.iter().flatten().map(|a| a.address).collect();
    let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    addresses.sort();
    addresses.dedup();
    ensure!(addresses.len() == 6, "an address was given twice: {list}");
    Ok(Verified(all, format!("6 attached: {list}")))
}

fn attach(router: &Router<'_>, container: &Container) -> Result<IpAddr> {
    let (id, netns) = (dns_name(container), container.netns());
    let printed = router.tell(&format!("attach --netns {} --name {id} {id}", netns.display()))?;
    printed.parse().with_context(|| format!("`weave attach` printed `{printed}`"))
}

/// The name of a container in DNS, such as `a-h1`; also its id.
fn dns_name(container: &Container) -> String {
    let host = container.name().split('.').next().unwrap_or_default();
    format!("{}-{host}", container.short_name())
}

fn check_names(routers: &[Router<'_>], containers: &[Vec<Attached>]) -> Result<Verified<()>> {
    let mut answers = 0;
    for router in routers {
        for attached in containers.iter().flatten() {
            let name = dns_name(&attached.container);
            wait_until(&format!("{name} on {}", router.host().name()), PATH, || {
                let answer = router.tell(&format!("dns-lookup {name}"))?;
                Ok(Look::when(answer == attached.address.to_string(), || format!("`{answer}`")))
            })?;
            answers += 1;
        }
    }
    Ok(Verified((), format!("each of 6 names is known on each host, {answers} right answers")))
}

/// Pings `to` by name until a reply comes, and returns the best round trip.
fn ping_by_name(lab: &Lab, from: &Attached, to: &Attached) -> Result<f64> {
    let name = dns_name(&to.container);
    let arguments = format!("ping {name} --count 3 --timeout 0.5");
    let what = format!("{} to ping {name}", dns_name(&from.container));
    let (report, _) = wait_until(&what, PATH, || {
        let answer: Result<PingReport> = measure(lab.generator(), &from.container, &arguments);
        Ok(match answer {
            Ok(report) if report.received > 0 => Look::Found(report),
            Ok(report) => Look::NotYet(format!("{report:?}")),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    })?;
    ensure!(report.address == to.address, "{name} was taken for {}, it is {}", report.address, to.address);
    report.best_ms.context("a reply has a round trip")
}

/// Pings from a container of each host to every other container, by name through its resolver.
fn ping_all(lab: &Lab, containers: &[Vec<Attached>]) -> Result<Verified<()>> {
    let mut best = [f64::INFINITY; 3];
    let mut count = 0;
    for (i, from) in containers.iter().enumerate() {
        for (j, to) in containers.iter().enumerate() {
            for to in to.iter().filter(|to| to.address != from[0].address) {
                let ms = ping_by_name(lab, &from[0], to)?;
                let hops = i.abs_diff(j);
                best[hops] = best[hops].min(ms);
                count += 1;
            }
        }
    }
    let [_, direct, relayed] = best;
    Ok(Verified(
        (),
        format!("{count} by name; best {direct:.2} ms to the next host, {relayed:.2} ms through h2"),
    ))
}

fn check_relay(lab: &Lab, routers: &[Router<'_>], containers: &[Vec<Attached>]) -> Result<Verified<()>> {
    let [h1, h2, h3] = routers else { anyhow::bail!("the demo has three routers") };
    let (relay, end) = (peer_name(h2.host()), peer_name(h3.host()));
    let report = h1.report()?;
    let route = report.router.unicast_routes.iter().find(|r| r.dest.to_string() == end);
    let via = route.and_then(|r| r.via).context("h1 has no route to h3")?;
    ensure!(via.to_string() == relay, "h1 goes to h3 by {via}");
    let before = h2.host().counters()?["eth2"].sent;
    ping_by_name(lab, &containers[0][1], &containers[2][1])?;
    let sent = h2.host().counters()?["eth2"].sent - before;
    ensure!(sent > 0, "h2 passed nothing on to h3");
    Ok(Verified((), "h1 reaches h3 by h2, which passes the frames on".to_owned()))
}

fn measure_throughput(lab: &Lab, containers: &[Vec<Attached>]) -> Result<Verified<()>> {
    let gbit = |from: &Attached, to: &Attached| -> Result<f64> {
        let server = Server::start(lab.generator(), &to.container, to.address)?;
        let at: SocketAddr = server.at();
        let report: TcpReport =
            measure(lab.generator(), &from.container, &format!("tcp {at} --seconds {MEASURE_S}"))?;
        Ok(report.gbit_per_s())
    };
    let direct = gbit(&containers[0][0], &containers[1][0])?;
    let relayed = gbit(&containers[0][0], &containers[2][0])?;
    ensure!(direct > 0.01 && relayed > 0.01, "hardly anything arrives: {direct} and {relayed} Gbit/s");
    Ok(Verified(
        (),
        format!("one TCP stream: h1 to h2 {direct:.2} Gbit/s, to h3 through h2 {relayed:.2} Gbit/s"),
    ))
}

/// Kills the relay's router without warning and starts it again; returns once the mesh is whole.
fn crash_and_return(
    lab: &Lab,
    routers: &mut [Router<'_>],
    containers: &[Vec<Attached>],
) -> Result<Verified<()>> {
    let held = routers[1].tell("ps")?;
    routers[1].kill()?;
    let start = weave_tests::clock::now();
    routers[1].restart()?;
    routers[1].await_ready()?;
    await_mesh(routers)?;
    let back = routers[1].tell("ps")?;
    ensure!(held == back, "h2 held\n{held}\nand now holds\n{back}");
    ping_by_name(lab, &containers[0][0], &containers[2][0])?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Verified(
        (),
        format!("h2's router killed with SIGKILL, started again; h1 reaches h3 after {seconds:.1} s"),
    ))
}

fn check_healed(lab: &Lab, routers: &[Router<'_>], containers: &[Vec<Attached>]) -> Result<Verified<()>> {
    let Verified((), _) = check_names(routers, containers)?;
    let Verified((), _) = ping_all(lab, containers)?;
    for attached in containers.iter().flatten() {
        let shown = attached.container.run("ip -o address show dev ethwe")?;
        ensure!(
            shown.contains(&format!(" {}/", attached.address)),
            "{} has\n{shown}",
            attached.container.name()
        );
    }
    Ok(Verified((), "all 6 containers have their addresses, all names and pings are as before".to_owned()))
}

/// Attaches one more container on the host whose router crashed: its address must be new.
fn attach_another(routers: &[Router<'_>], containers: &[Vec<Attached>]) -> Result<Verified<()>> {
    let container = routers[1].host().add_container("c")?;
    let address = attach(&routers[1], &container)?;
    let is_taken = containers.iter().flatten().any(|a| a.address == address);
    ensure!(!is_taken, "{address} is held already");
    Ok(Verified((), format!("the router that crashed gave out {address}, which nobody held")))
}
