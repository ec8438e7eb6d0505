//! Names: who has one, who learns of it, and when it goes.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use weave_api::Exit;
use weave_tests::{
    clock::{Look, wait_until},
    lab::{Host, Place},
    product::Router,
    scene::{
        Attached, LIMIT, attach, await_all_pings, await_mesh, finish, hosts, lab, play, refused, routers,
        settings,
    },
    tool,
    traffic::{PingReport, measure},
};

/// What `dig` prints for a question asked in `place`, as a set; `words` as on its command line.
fn dig(place: &Place, words: &str) -> Result<BTreeSet<String>> {
    let mut command = place.command("dig");
    command.args(["+short", "+tries=1", "+timeout=2"]).args(words.split_whitespace());
    let text = tool::output(&mut command).context("these tests ask with dig (bind9-dnsutils)")?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    Ok(text.lines().filter(|line| !line.starts_with(';')).map(str::to_owned).collect())
}

/// Waits until the question is answered by exactly these.
fn await_answer(place: &Place, words: &str, wanted: &[&str]) -> Result<()> {
    let wanted: BTreeSet<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
    let waited = wait_until(&format!("`dig {words}` in {} to say {wanted:?}", place.name()), LIMIT, || {
        let said = dig(place, words)?;
        Ok(Look::when(said == wanted, || format!("{said:?}")))
    });
    waited.map(drop)
}

/// The code of the answer, such as NXDOMAIN.
fn status(place: &Place, words: &str) -> Result<String> {
    let mut command = place.command("dig");
    command.args(["+tries=1", "+timeout=2"]).args(words.split_whitespace());
    let text = tool::run(&mut command)?;
    let (_, rest) = text.split_once("status: ").context("dig shows no status")?;
    Ok(rest.split(',').next().unwrap_or_default().to_owned())
}

fn reverse(address: IpAddr) -> String {
    format!("-x {address}")
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn names_are_answered_on_every_host_over_udp_and_tcp_and_go_with_their_container() -> Result<()> {
    play("names_are_answered_on_every_host_over_udp_and_tcp_and_go_with_their_container", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &["--ipalloc-range=10.40.0.0/16,fd00:7ea::/64"])?;
        await_mesh(&routers, 3)?;
        let one = attach(&routers[0], "c1", "--name web")?;
        let two = attach(&routers[1], "c1", "--name web --name Other")?;
        let of = |a: &Attached, is: fn(&IpAddr) -> bool| -> Result<String> {
            Ok(a.addresses.iter().find(|a| is(a)).context("an address of each family")?.to_string())
        };
        let (v4, v6) = (IpAddr::is_ipv4, IpAddr::is_ipv6);
        let all = [of(&one, v4)?, of(&one, v6)?, of(&two, v4)?, of(&two, v6)?];
        let asked: Vec<&Host> = hosts.iter().collect();
        for host in &asked {
            for transport in ["+notcp", "+tcp"] {
                let at = format!("@127.0.0.1 {transport}");
                await_answer(host, &format!("{at} web.weave.local. A"), &[&all[0], &all[2]])?;
                await_answer(host, &format!("{at} WEB.weave.LOCAL. AAAA"), &[&all[1], &all[3]])?;
                await_answer(host, &format!("{at} other.weave.local. A"), &[&all[2]])?;
                await_answer(host, &format!("{at} {}", reverse(one.addresses[0])), &["web.weave.local."])?;
                await_answer(host, &format!("{at} {}", reverse(one.addresses[1])), &["web.weave.local."])?;
                ensure!(status(host, &format!("{at} nobody.weave.local. A"))? == "NXDOMAIN");
                ensure!(status(host, &format!("{at} other.weave.local. TXT"))? == "NOERROR");
            }
        }
        routers[1].tell(&format!("detach {}", two.id))?;
        for host in &asked {
            await_answer(host, "@127.0.0.1 web.weave.local. A", &[&all[0]])?;
            await_answer(host, "@127.0.0.1 other.weave.local. A", &[])?;
            await_answer(host, &format!("@127.0.0.1 {}", reverse(two.addresses[0])), &[])?;
        }
        let shown = routers[2].tell("status dns")?;
        ensure!(shown.contains("web") && !shown.contains("other"), "status dns: {shown}");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_name_that_comes_and_goes_again_and_again_is_what_it_is_now() -> Result<()> {
    play("a_name_that_comes_and_goes_again_and_again_is_what_it_is_now", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 3)?;
        let all = routers.iter().map(|router| attach(router, "c1", "")).collect::<Result<Vec<_>>>()?;
        let addresses: Vec<String> = all.iter().map(|one| one.address().to_string()).collect();
        let seen_as = |wanted: &[&str]| -> Result<()> {
            hosts.iter().try_for_each(|host| await_answer(host, "@127.0.0.1 web.weave.local. A", wanted))
        };
        for _ in 0..5 {
            let mut there: Vec<&str> = Vec::new();
            for ((router, one), address) in routers.iter().zip(&all).zip(&addresses) {
                router.tell(&format!("dns-add {} -h web.weave.local", one.id))?;
                there.push(address);
                seen_as(&there)?;
            }
            for (router, one) in routers.iter().zip(&all) {
                router.tell(&format!("dns-remove {}", one.id))?;
                there.remove(0);
                seen_as(&there)?;
            }
        }
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_container_without_names_has_none_and_can_ask_for_those_of_others() -> Result<()> {
    play("a_container_without_names_has_none_and_can_ask_for_those_of_others", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let quiet = attach(&routers[0], "c1", "--without-dns --name quiet")?;
        let web = attach(&routers[1], "c1", "--name web")?;
        let server = routers[0].tell("expose")?;
        let place: &Place = &quiet.container;
        await_answer(place, &format!("@{server} web.weave.local. A"), &[&web.address().to_string()])?;
        for host in &hosts {
            ensure!(status(host, "@127.0.0.1 quiet.weave.local. A")? == "NXDOMAIN");
        }
        await_answer(&hosts[0], &format!("@127.0.0.1 {}", reverse(quiet.address())), &[])?;
        let said = refused(&routers[0], &format!("attach --add-host=x:1.2.3.4 {}", quiet.id), Exit::Usage)?;
        ensure!(said.contains("names are answered by DNS"), "{said}");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn the_names_of_a_peer_that_dies_go_and_are_back_with_it() -> Result<()> {
    play("the_names_of_a_peer_that_dies_go_and_are_back_with_it", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let mut routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 3)?;
        let three = attach(&routers[2], "c1", "--name three")?;
        let address = three.address().to_string();
        for host in &hosts {
            await_answer(host, "@127.0.0.1 three.weave.local. A", &[&address])?;
        }
        routers[2].kill()?;
        for host in &hosts[..2] {
            await_answer(host, "@127.0.0.1 three.weave.local. A", &[])?;
        }
        routers[2].restart()?;
        routers[2].await_ready()?;
        for host in &hosts {
            await_answer(host, "@127.0.0.1 three.weave.local. A", &[&address])?;
        }
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_service_is_found_by_its_name_on_every_host_and_goes_with_its_record() -> Result<()> {
    play("a_service_is_found_by_its_name_on_every_host_and_goes_with_its_record", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let one = attach(&routers[0], "c1", "")?;
        routers[0].tell(&format!("dns-add {} -h shop --service http/tcp:8080", one.id))?;
        routers[1].tell("dns-add 192.0.2.80 -h printer --service _ipp/tcp:631")?;
        for host in &hosts {
            let at = "@127.0.0.1";
            await_answer(
                host,
                &format!("{at} _http._tcp.shop.weave.local. SRV"),
                &["0 0 8080 shop.weave.local."],
            )?;
            await_answer(
                host,
                &format!("{at} _ipp._tcp.printer.weave.local. SRV"),
                &["0 0 631 printer.weave.local."],
            )?;
            await_answer(host, &format!("{at} shop.weave.local. A"), &[&one.address().to_string()])?;
            ensure!(status(host, &format!("{at} _http._udp.shop.weave.local. SRV"))? == "NXDOMAIN");
        }
        for wrong in ["http", "http/quic:80", "http/tcp:0", "/tcp:80"] {
            let said =
                refused(&routers[0], &format!("dns-add {} -h shop --service {wrong}", one.id), Exit::Usage)?;
            ensure!(said.contains("name/transport:port"), "{said}");
        }
        // Whose it is need not be said, and need not be nobody's.
        routers[0].tell("dns-remove -h shop")?;
        for host in &hosts {
            await_answer(host, "@127.0.0.1 _http._tcp.shop.weave.local. SRV", &[])?;
        }
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn containers_reach_each_other_by_name() -> Result<()> {
    play("containers_reach_each_other_by_name", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let attached = [attach(&routers[0], "c1", "--name one")?, attach(&routers[1], "c1", "--name two")?];
        await_all_pings(&lab, &attached)?;
        // The host's own address on the network is where its containers ask.
        for (router, one) in routers.iter().zip(&attached) {
            let server = router.tell("expose")?;
            one.container.use_resolver(server.parse()?, "weave.local")?;
        }
        for (from, name) in [(&attached[0], "two"), (&attached[1], "one"), (&attached[0], "two.weave.local")]
        {
            wait_until(&format!("a ping of {name}"), LIMIT, || {
                let line = format!("ping {name} --count 1 --timeout 0.5");
                let pinged: Result<PingReport> = measure(lab.generator(), &from.container, &line);
                let is_answered = pinged.as_ref().is_ok_and(|p| p.received == 1);
                Ok(Look::when(is_answered, || format!("{pinged:?}")))
            })?;
        }
        finish(routers)
    })
}

/// A name server on a host of its own that knows one name; it is a router too, of another mesh and domain.
fn upstream<'h>(programs: &weave_tests::product::Programs, host: &'h Host) -> Result<Router<'h>> {
    let alone = settings(1, &[], &["--dns-domain=example.test.", "--dns-allow=172.31.0.0/16"]);
    let mut router = Router::start(programs, host, &alone)?;
    router.await_ready()?;
    router.tell("dns-add 192.0.2.80 -h printer.example.test")?;
    Ok(router)
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn other_names_are_asked_of_the_upstream_server_that_resolv_conf_names_now() -> Result<()> {
    play("other_names_are_asked_of_the_upstream_server_that_resolv_conf_names_now", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let [asking, answering] = &hosts;
        let server = upstream(programs, answering)?;
        let file = lab.directory().join("upstream.conf");
        fs::write(&file, format!("nameserver {}\n", answering.address()?))?;
        let flag = format!("--resolv-conf={}", file.display());
        let mut router = Router::start(programs, asking, &settings(1, &[], &[&flag]))?;
        router.await_ready()?;
        for transport in ["+notcp", "+tcp"] {
            await_answer(
                asking,
                &format!("@127.0.0.1 {transport} printer.example.test. A"),
                &["192.0.2.80"],
            )?;
            ensure!(status(asking, &format!("@127.0.0.1 {transport} no.example.test. A"))? == "NXDOMAIN");
        }
        // Who is no container and not let by the operator is not answered.
        let mut stranger = answering.command("dig");
        stranger.args(["+tries=1", "+timeout=1", "+short"]);
        stranger.arg(format!("@{}", asking.address()?)).arg("printer.example.test.");
        let said = String::from_utf8_lossy(&tool::output(&mut stranger)?.stdout).into_owned();
        ensure!(!said.contains("192.0.2.80"), "a stranger was answered: {said}");
        // Nobody answers there: the asker is told so, in time.
        fs::write(&file, "nameserver 172.31.1.77\n")?;
        wait_until("the change to be seen", LIMIT, || {
            let mut command = asking.command("dig");
            command.args(["+tries=1", "+timeout=20", "@127.0.0.1", "fax.example.test.", "A"]);
            let said = tool::output(&mut command)?;
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            Ok(Look::when(said.contains("SERVFAIL"), || said.clone()))
        })?;
        fs::write(&file, format!("nameserver {}\n", answering.address()?))?;
        await_answer(asking, "@127.0.0.1 printer.example.test. A", &["192.0.2.80"])?;
        finish(vec![server, router])
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn names_can_be_given_and_taken_by_hand() -> Result<()> {
    play("names_can_be_given_and_taken_by_hand", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        routers[0].tell("dns-add 192.0.2.80 -h printer.weave.local")?;
        await_answer(&hosts[1], "@127.0.0.1 printer.weave.local. A", &["192.0.2.80"])?;
        ensure!(routers[1].tell("dns-lookup printer")? == "192.0.2.80");
        routers[0].tell("dns-remove 192.0.2.80 -h printer.weave.local")?;
        await_answer(&hosts[1], "@127.0.0.1 printer.weave.local. A", &[])?;
        let told =
            routers[0].weave().args(["dns-add", "192.0.2.80", "-h", "printer.elsewhere.org"]).output()?;
        ensure!(!told.status.success(), "a name outside the domain is refused");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn what_was_said_of_names_by_hand_outlives_the_router_and_ends_with_its_container() -> Result<()> {
    play("what_was_said_of_names_by_hand_outlives_the_router_and_ends_with_its_container", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let mut routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let far = &hosts[1];
        let ask = |name: &str| format!("@127.0.0.1 {name}.weave.local. A");
        let one = attach(&routers[0], "c1", "--name born --name kept")?;
        let two = attach(&routers[0], "c2", "")?;
        let at_one = one.address().to_string();
        let near = &routers[0];
        near.tell(&format!("dns-add {} -h given", one.id))?;
        near.tell(&format!("dns-add {} -h shop --service http/tcp:8080", two.id))?;
        near.tell("dns-add 192.0.2.80 -h printer")?;
        near.tell("dns-add 192.0.2.81 -h scanner")?;
        near.tell("dns-remove -h scanner")?;
        near.tell(&format!("dns-remove {} -h born", one.id))?;
        let shop = "@127.0.0.1 _http._tcp.shop.weave.local. SRV";
        let as_said = || -> Result<()> {
            await_answer(far, &ask("given"), &[&at_one])?;
            await_answer(far, &ask("kept"), &[&at_one])?;
            await_answer(far, &ask("printer"), &["192.0.2.80"])?;
            await_answer(far, shop, &["0 0 8080 shop.weave.local."])?;
            await_answer(far, &ask("scanner"), &[])?;
            await_answer(far, &ask("born"), &[])
        };
        as_said()?;
        routers[0].kill()?;
        await_answer(far, &ask("kept"), &[])?;
        routers[0].restart()?;
        routers[0].await_ready()?;
        as_said()?;
        // Another address does not bring a name back, and giving it again does.
        let netns = one.container.netns().display().to_string();
        let second = routers[0].tell(&format!("attach ip:10.2.9.5/24 --netns {netns} {}", one.id))?;
        ensure!(second.contains("10.2.9.5"), "{second}");
        await_answer(far, &ask("kept"), &[&at_one, "10.2.9.5"])?;
        await_answer(far, &ask("given"), &[&at_one])?;
        await_answer(far, &ask("born"), &[])?;
        routers[0].tell(&format!("attach --netns {netns} --name born {}", one.id))?;
        await_answer(far, &ask("born"), &[&at_one, "10.2.9.5"])?;
        // Of one address only.
        routers[0].tell(&format!("dns-remove {} 10.2.9.5 -h kept", one.id))?;
        await_answer(far, &ask("kept"), &[&at_one])?;
        // Those of a container go with it, while the router runs and while it does not.
        routers[0].tell(&format!("detach {}", two.id))?;
        await_answer(far, shop, &[])?;
        routers[0].tell(&format!("detach {}", one.id))?;
        await_answer(far, &ask("given"), &[])?;
        routers[0].kill()?;
        routers[0].restart()?;
        routers[0].await_ready()?;
        await_answer(far, &ask("printer"), &["192.0.2.80"])?;
        let known = routers[0].tell("status dns")?;
        for gone in ["given", "shop", "born", "kept", "scanner"] {
            ensure!(!known.contains(gone), "{known}");
        }
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn without_a_name_server_nothing_listens_and_whoever_wants_a_name_is_told_why() -> Result<()> {
    play("without_a_name_server_nothing_listens_and_whoever_wants_a_name_is_told_why", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 1] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &["--no-dns"])?;
        let listening = hosts[0].run("ss -H -l -n -t -u")?;
        ensure!(listening.contains(":6783") && !listening.contains(":53 "), "{listening}");
        for words in ["dns-add 192.0.2.80 -h printer.weave.local", "dns-lookup printer"] {
            let said = refused(&routers[0], words, Exit::NotFound)?;
            ensure!(said.contains("--no-dns"), "{said}");
        }
        ensure!(!routers[0].tell("status")?.contains("Service: dns"));
        attach(&routers[0], "c1", "")?;
        finish(routers)
    })
}

/// The addresses that a C program prints when its library resolves `argv[1]`, once each.
const RESOLVE: &str = r#"
#define _POSIX_C_SOURCE 200112L
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found, *one;
    char text[INET6_ADDRSTRLEN];
    int failed = argc < 2 ? EAI_NONAME : getaddrinfo(argv[1], 0, &hints, &found);
    if (failed) return fprintf(stderr, "%s\n", gai_strerror(failed)), 2;
    for (one = found; one; one = one->ai_next) {
        void *from = one->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
                                               : (void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
        puts(inet_ntop(one->ai_family, from, text, sizeof text));
    }
}
"#;

/// Builds [`RESOLVE`] against musl's resolver, which asks all servers at once and knows no `getent`.
fn build_for_musl(directory: &Path) -> Result<String> {
    let (source, program) = (directory.join("resolve.c"), directory.join("resolve-musl"));
    fs::write(&source, RESOLVE)?;
    let mut compiler = Command::new("musl-gcc");
    compiler.args(["-static", "-o"]).args([&program, &source]);
    tool::run(&mut compiler).context("this test builds a program with musl's resolver (musl-tools)")?;
    Ok(program.display().to_string())
}

/// The addresses that a program prints, the first word of each line; none when it finds none.
fn resolved(place: &Place, program: &str, words: &str) -> Result<BTreeSet<IpAddr>> {
    let mut command = place.command(program);
    let output = tool::output(command.args(words.split_whitespace()))?;
    ensure!(matches!(output.status.code(), Some(0 | 2)), "{program} {words}: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = text.lines().filter_map(|line| line.split_whitespace().next());
    first.map(|word| word.parse().with_context(|| format!("{program} {words} printed {text}"))).collect()
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn glibc_musl_and_dig_find_the_same_in_a_container() -> Result<()> {
    play("glibc_musl_and_dig_find_the_same_in_a_container", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &["--ipalloc-range=10.40.0.0/16,fd00:7ea::/64"])?;
        await_mesh(&routers, 1)?;
        let asking = attach(&routers[0], "c1", "--name asking")?;
        let web = attach(&routers[1], "c1", "--name web --name a.b.weave.local")?;
        let exposed = routers[0].tell("expose")?;
        let server = exposed.split_whitespace().next().context("no address was exposed")?;
        asking.container.use_resolver(server.parse()?, "weave.local")?;
        let place: &Place = &asking.container;
        let musl = build_for_musl(lab.directory())?;
        let wanted: BTreeSet<IpAddr> = web.addresses.iter().copied().collect();
        for name in ["web", "WEB", "web.weave.local", "web.weave.local.", "a.b.weave.local"] {
            wait_until(&format!("glibc and musl to find {name}"), LIMIT, || {
                let glibc = resolved(place, "getent", &format!("ahosts {name}"))?;
                let musl = resolved(place, &musl, name)?;
                Ok(Look::when(glibc == wanted && musl == wanted, || {
                    format!("glibc {glibc:?}, musl {musl:?}")
                }))
            })?;
        }
        let v4: BTreeSet<String> = wanted.iter().filter(|a| a.is_ipv4()).map(IpAddr::to_string).collect();
        ensure!(dig(place, &format!("@{server} web.weave.local. A"))? == v4);
        for name in ["nobody", "nobody.weave.local"] {
            ensure!(resolved(place, "getent", &format!("ahosts {name}"))?.is_empty(), "glibc finds {name}");
            ensure!(resolved(place, &musl, name)?.is_empty(), "musl finds {name}");
        }
        for address in &web.addresses {
            let text = tool::run(place.command("getent").args(["hosts", &address.to_string()]))?;
            ensure!(text.contains(".weave.local"), "glibc finds no name of {address}: {text}");
        }
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn names_are_removed_by_container_by_address_and_by_name_and_the_host_can_have_one() -> Result<()> {
    play("names_are_removed_by_container_by_address_and_by_name_and_the_host_can_have_one", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &["--dns-domain=Example.test", "--dns-ttl=7"])?;
        await_mesh(&routers, 1)?;
        let (near, far) = (&routers[0], &hosts[1]);
        let ask = |name: &str| format!("@127.0.0.1 {name}.example.test. A");
        let one = attach(near, "c1", "")?;
        let address = one.address().to_string();
        for name in ["x", "y", "z.deep"] {
            near.tell(&format!("dns-add {} -h {name}.example.test", one.id))?;
            await_answer(far, &ask(name), &[&address])?;
        }
        near.tell("dns-add 192.0.2.1 192.0.2.2 -h both.example.test.")?;
        await_answer(far, &ask("both"), &["192.0.2.1", "192.0.2.2"])?;
        near.tell("dns-remove 192.0.2.1")?;
        await_answer(far, &ask("both"), &["192.0.2.2"])?;
        near.tell(&format!("dns-remove {} -h x.example.test", one.id))?;
        await_answer(far, &ask("x"), &[])?;
        await_answer(far, &ask("y"), &[&address])?;
        near.tell(&format!("dns-remove {}", one.id))?;
        await_answer(far, &ask("y"), &[])?;
        await_answer(far, &ask("z.deep"), &[])?;
        // Another router's names are not ours to take away.
        routers[1].tell("dns-remove 192.0.2.2")?;
        await_answer(far, &ask("both"), &["192.0.2.2"])?;

        let exposed = near.tell("expose -h gate.example.test")?;
        await_answer(far, &ask("gate"), &[&exposed])?;
        await_answer(far, &format!("@127.0.0.1 -x {exposed}"), &["gate.example.test."])?;
        let whole = tool::run(far.command("dig").args(["@127.0.0.1", "gate.example.test.", "+tries=1"]))?;
        let line = whole.lines().find(|line| line.starts_with("gate.example.test.")).context("no answer")?;
        ensure!(line.split_whitespace().nth(1) == Some("7"), "the TTL that was asked for: {line}");
        near.tell("hide")?;
        await_answer(far, &ask("gate"), &[])?;
        finish(routers)
    })
}
