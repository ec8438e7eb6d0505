//! Docker Engines on hosts of a mesh: containers find each other, keep what they have, and nothing ever waits for long.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weave_api::{EndpointListRequest, ListRequest};
use weave_tests::{
    clock::{Look, now, wait_until},
    docker::{self, Engine, IMAGE, await_network, start_driver},
    lab::{Host, Process},
    product::{Programs, Router},
    sandbox,
    scene::{LIMIT, await_mesh, finish, hosts, lab, no_errors, play, routers},
    tool,
};

/// Longer than any answer to Docker may take, in which Docker stands still.
const PATIENCE: Duration = Duration::from_secs(25);

fn await_exec(engine: &Engine<'_>, container: &str, command: &str, word: &str) -> Result<()> {
    let what = format!("`{command}` in {container} to say {word}");
    let mut words = vec!["exec", container];
    words.extend(command.split_whitespace());
    let looked = wait_until(&what, Duration::from_secs(30), || {
        let output = tool::output(&mut engine.command(&words))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Look::when(output.status.success() && said.contains(word), || said.clone()))
    });
    looked.map(drop)
}

fn await_ping(engine: &Engine<'_>, container: &str, to: &str) -> Result<()> {
    await_exec(engine, container, &format!("/bin/ping -c 1 -W 1 {to}"), " 0% packet loss")
}

/// Waits until the router gives this name these addresses.
fn await_name(router: &Router<'_>, name: &str, wanted: &str) -> Result<()> {
    let looked = wait_until(&format!("{name} to be {wanted:?}"), Duration::from_secs(30), || {
        let said = router.tell(&format!("dns-lookup {name}"))?;
        Ok(Look::when(said == wanted, || said.clone()))
    });
    looked.map(drop)
}

/// Runs `body` and checks that it did not take as long as Docker would have to wait in vain.
fn soon<T>(what: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = now();
    let result = body().with_context(|| what.to_owned())?;
    ensure!(start.elapsed() < PATIENCE, "{what} took {:?}", start.elapsed());
    Ok(result)
}

/// Addresses that are leased to Docker, but not those of exposed hosts.
fn leased(router: &Router<'_>) -> Result<usize> {
    let held = router.call(&ListRequest {})?.addresses_by_owner;
    Ok(held.iter().filter(|(owner, _)| owner.as_str().starts_with("docker:")).map(|(_, a)| a.len()).sum())
}

/// As [`play`], and the control groups of engines go as well.
fn play_with_docker(test: &str, body: impl FnOnce(&Programs) -> Result<()>) -> Result<()> {
    let played = play(test, body);
    if !sandbox::is_inside() {
        docker::remove_cgroups();
    }
    played
}

/// Two hosts with a router, a driver and an engine each, given to `body`. The ring has IPv4.
fn two_hosts(
    test: &str,
    body: impl FnOnce(&Programs, &mut Vec<Router<'_>>, &mut [Process; 2], &mut [Engine<'_>; 2]) -> Result<()>,
) -> Result<()> {
    two_hosts_with("10.32.0.0/12", test, body)
}

/// The same with these ranges of the ring.
fn two_hosts_with(
    ranges: &str,
    test: &str,
    body: impl FnOnce(&Programs, &mut Vec<Router<'_>>, &mut [Process; 2], &mut [Engine<'_>; 2]) -> Result<()>,
) -> Result<()> {
    play_with_docker(test, |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let mut routers = routers(programs, &hosts, &[&format!("--ipalloc-range={ranges}")])?;
        await_mesh(&routers, 1)?;
        routers[0].tell("prime --timeout 30")?;
        let mut drivers = [start_driver(programs, &routers[0])?, start_driver(programs, &routers[1])?];
        let mut engines = [Engine::start(&hosts[0], &[])?, Engine::start(&hosts[1], &[])?];
        engines.iter().try_for_each(await_network)?;
        body(programs, &mut routers, &mut drivers, &mut engines)?;
        drop(engines);
        for (mut driver, router) in drivers.into_iter().zip(&routers) {
            ensure!(driver.stop("TERM", Duration::from_secs(5))?.success(), "the driver ended badly");
            no_errors(&format!("the driver of {}", router.host().name()), &driver.said())?;
        }
        finish(routers)
    })
}

#[test]
#[ignore = "needs Docker: run with cargo xtask test --real"]
fn containers_of_two_engines_reach_each_other_by_address_and_by_name() -> Result<()> {
    two_hosts(
        "containers_of_two_engines_reach_each_other_by_address_and_by_name",
        |_, routers, _, engines| {
            let ask = routers[0].tell("dns-args")?;
            engines[0].run("one", "weave", &ask)?;
            engines[1].run("two", "weave", "--hostname second --network-alias deux")?;
            let (one, two) = (engines[0].address("one", "weave")?, engines[1].address("two", "weave")?);
            ensure!(one != two, "both have {one}");
            await_ping(&engines[0], "one", &two)?;
            await_ping(&engines[1], "two", &one)?;
            for name in ["two", "second", "deux", "two.weave.local"] {
                await_exec(&engines[0], "one", &format!("/bin/ping -c 1 -W 1 {name}"), &format!("({two})"))?;
            }
            await_name(&routers[1], "one", &one)?;
            // Told apart from anything that Docker does: the interface is small enough for the tunnel, and leads to multicast.
            let link = engines[0].docker("exec one /bin/ip link show ethwe0")?;
            let bridge = routers[0].host().run("ip link show weave")?;
            let mtu = bridge.split_whitespace().skip_while(|word| *word != "mtu").nth(1).context("no MTU")?;
            ensure!(link.contains(&format!("mtu {mtu} ")), "{link}; the bridge has {mtu}");
            await_exec(&engines[0], "one", "/bin/ip route", "224.0.0.0/4 dev ethwe0")?;
            let listed = routers[0].tell("ps one")?;
            ensure!(listed.contains(&one) && !listed.contains(&two), "`weave ps one` said {listed}");
            // Names and addresses go with the containers.
            engines[1].docker("rename two three")?;
            await_name(&routers[0], "three", &two)?;
            await_name(&routers[0], "two", "")?;
            engines[1].docker("rm --force three")?;
            await_name(&routers[0], "three", "")?;
            await_name(&routers[0], "deux", "")?;
            ensure!(routers[1].call(&EndpointListRequest {})?.endpoints.is_empty(), "an endpoint is left");
            wait_until("its address to be free", LIMIT, || {
                let count = leased(&routers[1])?;
                Ok(Look::when(count == 0, || format!("{count} are leased")))
            })?;
            Ok(())
        },
    )
}

#[test]
#[ignore = "needs Docker: run with cargo xtask test --real"]
fn a_container_keeps_its_address_whatever_is_started_again() -> Result<()> {
    two_hosts("a_container_keeps_its_address_whatever_is_started_again", |_, routers, _, engines| {
        engines[0].run("one", "weave", "--restart always")?;
        engines[1].run("two", "weave", "")?;
        let (one, two) = (engines[0].address("one", "weave")?, engines[1].address("two", "weave")?);
        await_ping(&engines[1], "two", &one)?;
        let is_as_before = |engine: &Engine<'_>| -> Result<()> {
            let looked = wait_until("the container to run again", LIMIT, || {
                let state = engine.docker("inspect --format {{.State.Running}} one")?;
                let address = engine.address("one", "weave").unwrap_or_default();
                Ok(Look::when(state == "true" && address == one, || format!("running {state}, {address}")))
            });
            looked.map(drop)
        };
        soon("docker restart", || engines[0].docker("restart --time 0 one"))?;
        is_as_before(&engines[0])?;
        await_ping(&engines[1], "two", &one)?;
        await_name(&routers[1], "one", &one)?;

        engines[0].docker("stop --time 0 one")?;
        await_name(&routers[1], "one", "")?;
        soon("docker start", || engines[0].docker("start one"))?;
        is_as_before(&engines[0])?;

        engines[0].kill()?;
        engines[0].restart()?;
        is_as_before(&engines[0])?;
        await_ping(&engines[1], "two", &one)?;
        await_name(&routers[1], "one", &one)?;

        routers[0].kill()?;
        routers[0].restart()?;
        routers[0].await_ready()?;
        is_as_before(&engines[0])?;
        await_mesh(routers, 1)?;
        await_ping(&engines[1], "two", &one)?;
        await_ping(&engines[0], "one", &two)?;
        await_name(&routers[1], "one", &one)?;
        soon("docker restart after that", || engines[0].docker("restart --time 0 one"))?;
        is_as_before(&engines[0])?;
        await_ping(&engines[1], "two", &one)
    })
}

#[test]
#[ignore = "needs Docker: run with cargo xtask test --real"]
fn networks_have_subnets_and_addresses_of_the_users_choice_and_none_is_given_twice() -> Result<()> {
    let test = "networks_have_subnets_and_addresses_of_the_users_choice_and_none_is_given_twice";
    two_hosts_with("10.32.0.0/12,fd00:77::/64", test, |_, routers, _, engines| {
        let create = "network create --driver weave --ipam-driver weave";
        for engine in engines.iter() {
            let flags = "--subnet 10.40.8.0/24 --ip-range 10.40.8.64/26 --gateway 10.40.8.1";
            engine.docker(&format!("{create} {flags} blue"))?;
            engine.docker(&format!("{create} --subnet 10.40.9.0/24 --internal green"))?;
        }
        // Docker's own addresses would be the same on every host.
        let said = engines[0].refused("network create --driver weave theirs")?;
        ensure!(said.contains("--ipam-driver weave"), "{said}");
        // The network that is there by itself takes wishes as well, and has the families of the ring.
        engines[0].run("zero", "weave", "--ip 10.33.0.9")?;
        ensure!(engines[0].address("zero", "weave")? == "10.33.0.9");
        let shown = engines[0].docker("exec zero /bin/ip address show ethwe0")?;
        ensure!(shown.contains("inet6 fd00:77::"), "{shown}");
        engines[0].docker("rm --force zero")?;
        engines[0].run("one", "blue", "")?;
        engines[1].run("two", "blue", "--ip 10.40.8.7")?;
        ensure!(engines[0].address("one", "blue")?.starts_with("10.40.8."));
        ensure!(engines[1].address("two", "blue")? == "10.40.8.7");
        await_ping(&engines[0], "one", "10.40.8.7")?;
        // What another host has, no host gives.
        let said = soon("a taken address", || {
            engines[0].refused(&format!("run --rm --net blue --ip 10.40.8.7 {IMAGE} /bin/echo"))
        })?;
        ensure!(said.contains("10.40.8.7"), "{said}");
        // Nor with Docker's own idea of addresses, which knows nothing of other hosts.
        engines[0].docker("network create --driver weave --subnet 10.40.8.0/28 local")?;
        let said = engines[0].refused(&format!("run --rm --net local --ip 10.40.8.7 {IMAGE} /bin/echo"))?;
        ensure!(said.contains("10.40.8.7"), "{said}");
        // An internal network has no way out; a second one can be joined in use.
        engines[0].run("three", "green", "")?;
        ensure!(!engines[0].docker("exec three /bin/ip route")?.contains("default"));
        engines[0].docker("network connect green one")?;
        await_ping(&engines[0], "three", &engines[0].address("one", "green")?)?;
        engines[0].docker("network disconnect green one")?;
        let said = engines[0].refused(&format!("{create} --subnet 192.168.77.0/24 outside"))?;
        ensure!(said.contains("10.32.0.0/12"), "{said}");
        engines[0]
            .docker(&format!("{create} --opt works.weave.multicast=false --subnet 10.40.10.0/24 still"))?;
        engines[0].run("four", "still", "")?;
        ensure!(!engines[0].docker("exec four /bin/ip route")?.contains("224.0.0.0"));
        // Both families.
        for engine in engines.iter() {
            engine.docker(&format!("{create} --ipv6 --subnet 10.40.11.0/24 --subnet fd00:77::/80 dual"))?;
        }
        engines[0].run("five", "dual", "")?;
        engines[1].run("six", "dual", "")?;
        let both = routers[0].tell("ps five")?;
        let five6 = both.split_whitespace().find_map(|word| word.strip_suffix("/80")).context("no IPv6")?;
        await_ping(&engines[1], "six", five6)?;
        // A port of the host leads into a container, as on any network of Docker's.
        let serve = ["run", "--detach", "--name", "seven", "--net", "blue", "--publish", "8080:80", IMAGE];
        let script = ["/bin/sh", "-c", "while true; do echo published | /bin/nc -l -p 80; done"];
        tool::run(engines[0].command(&serve).args(script))?;
        wait_until("the published port to answer", LIMIT, || {
            let said = tool::run_with_input(
                engines[0].host().command("timeout").args(["2", "busybox", "nc", "127.0.0.1", "8080"]),
                "",
            );
            Ok(Look::when(said.as_ref().is_ok_and(|said| said == "published\n"), || format!("{said:?}")))
        })?;
        // Everything goes.
        for container in ["one", "three", "four", "five", "seven"] {
            engines[0].docker(&format!("rm --force {container}"))?;
        }
        for network in ["blue", "green", "local", "still", "dual"] {
            engines[0].docker(&format!("network rm {network}"))?;
        }
        wait_until("all addresses to be free", LIMIT, || {
            let held = routers[0].call(&ListRequest {})?.addresses_by_owner;
            let count = leased(&routers[0])?;
            Ok(Look::when(count <= 1, || format!("{count} are leased: {held:?}")))
        })?;
        let links = routers[0].host().run("ip -o link show")?;
        ensure!(!links.contains("vethwe"), "interfaces are left: {links}");
        Ok(())
    })
}

#[test]
#[ignore = "needs Docker: run with cargo xtask test --real"]
fn docker_never_waits_for_long_for_a_router_that_is_not_there() -> Result<()> {
    let test = "docker_never_waits_for_long_for_a_router_that_is_not_there";
    two_hosts(test, |_, routers, _, engines| {
        for name in ["one", "two", "three"] {
            engines[0].run(name, "weave", "")?;
        }
        let one = engines[0].address("one", "weave")?;
        routers[0].kill()?;
        let said = soon("docker run without a router", || {
            engines[0].refused(&format!("run --name late --net weave {IMAGE} /bin/echo"))
        })?;
        ensure!(said.contains("no weaver is running"), "{said}");
        engines[0].docker("rm late")?;
        soon("docker rm without a router", || engines[0].docker("rm --force two"))?;
        soon("docker restart without a router", || engines[0].refused("restart --time 0 three"))?;
        soon("docker network ls", || engines[0].docker("network ls"))?;
        // Docker starts without the router as well.
        engines[0].kill()?;
        let took = engines[0].restart()?;
        ensure!(took < PATIENCE, "dockerd took {took:?} to start without a router");
        routers[0].restart()?;
        routers[0].await_ready()?;
        wait_until("the router to know nothing that Docker does not", LIMIT, || {
            let endpoints = routers[0].call(&EndpointListRequest {})?.endpoints;
            Ok(Look::when(endpoints.is_empty(), || format!("{endpoints:?}")))
        })?;
        let links = routers[0].host().run("ip -o link show")?;
        ensure!(!links.contains("vethwe"), "interfaces are left: {links}");
        soon("docker start with the router back", || engines[0].docker("start one"))?;
        engines[1].run("four", "weave", "")?;
        let now = engines[0].address("one", "weave")?;
        ensure!(now.starts_with("10."), "{one} became {now}");
        await_ping(&engines[1], "four", &now)
    })
}

/// `weave` on a host without a router of the lab's own making.
fn weave(programs: &Programs, host: &Host, arguments: &str) -> Result<String> {
    let directory = format!("{}/launched", docker::directory().display());
    let mut command = host.command("timeout");
    command.args(["--signal=KILL", "60"]).arg(programs.weave());
    command
        .args([format!("--run-dir={directory}"), format!("--docker-socket={}", docker::socket().display())]);
    command.args(arguments.replace("DIR", &directory).split_whitespace());
    Ok(tool::run(&mut command)?.trim_end().to_owned())
}

#[test]
#[ignore = "needs Docker: run with cargo xtask test --real"]
fn a_launch_is_all_that_docker_needs_and_a_reset_leaves_it_as_it_was() -> Result<()> {
    play_with_docker("a_launch_is_all_that_docker_needs_and_a_reset_leaves_it_as_it_was", |programs| {
        let mut lab = lab()?;
        let [host]: [Host; 1] = hosts(&mut lab)?;
        let mut engine = Engine::start(&host, &[])?;
        let launch = format!("launch --docker-socket {} --db-prefix DIR/db", docker::socket().display());
        weave(programs, &host, &launch)?;
        ensure!(engine.docker("network ls --format {{.Name}}")?.lines().any(|name| name == "weave"));
        engine.run("one", "weave", "")?;
        let one = engine.address("one", "weave")?;
        // A container of Docker's own network, by its name.
        engine.run("plain", "bridge", "")?;
        let plain = weave(programs, &host, "attach plain")?;
        await_ping(&engine, "one", &plain)?;
        ensure!(weave(programs, &host, "ps plain")?.contains(&plain));
        weave(programs, &host, "dns-add plain")?;
        ensure!(weave(programs, &host, "dns-lookup plain")? == plain);
        // What was attached by hand comes back with the container, and with the engine.
        soon("docker restart", || engine.docker("restart --time 0 plain"))?;
        await_ping(&engine, "one", &plain)?;
        wait_until("the name to be back", LIMIT, || {
            let said = weave(programs, &host, "dns-lookup plain")?;
            Ok(Look::when(said == plain, || said.clone()))
        })?;
        engine.docker("update --restart always plain")?;
        engine.docker("update --restart always one")?;
        engine.kill()?;
        engine.restart()?;
        wait_until("both to run again", LIMIT, || {
            let running = engine.docker("ps --format {{.Names}}")?;
            Ok(Look::when(running.lines().count() == 2, || running.clone()))
        })?;
        await_ping(&engine, "one", &plain)?;
        weave(programs, &host, "dns-remove plain")?;
        ensure!(weave(programs, &host, "detach plain")? == plain);
        // What Docker put on the network is not ours to take off.
        let told = weave(programs, &host, "detach one").err().context("`weave detach one` went through")?;
        ensure!(format!("{told:#}").contains("docker network disconnect"), "{told:#}");
        // Somebody's hand on the packet filter.
        host.run("iptables -F DOCKER-USER")?;
        wait_until("the packet filter to let the bridge's frames pass again", LIMIT, || {
            let filter = host.run("iptables -S DOCKER-USER")?;
            Ok(Look::when(filter.contains("-o weave"), || filter.clone()))
        })?;
        // And on nftables: what is ours comes back by itself.
        host.run("nft delete table inet weave")?;
        host.run("nft delete table bridge weave-ports")?;
        wait_until("our tables to be back", LIMIT, || {
            let tables = host.run("nft list tables")?;
            let are_back = ["inet weave", "bridge weave-ports"].iter().all(|table| tables.contains(table));
            Ok(Look::when(are_back, || tables.clone()))
        })?;
        // Docker is served while the router is stopped, and after it was launched again.
        weave(programs, &host, "stop")?;
        soon("docker network ls", || engine.docker("network ls"))?;
        weave(programs, &host, &launch)?;
        engine.run("two", "weave", "")?;
        await_ping(&engine, "two", &one)?;
        soon("docker rm", || engine.docker("rm --force two"))?;
        weave(programs, &host, "reset")?;
        let networks = engine.docker("network ls --format {{.Name}}")?;
        ensure!(!networks.lines().any(|name| name == "weave"), "{networks}");
        let links = host.run("ip -o link show")?;
        ensure!(!links.contains("weave") && !links.contains("vethwe"), "interfaces are left: {links}");
        let filter = host.run("iptables -S")?;
        ensure!(!filter.contains("-o weave"), "the packet filter still has {filter}");
        ensure!(!host.run("ls /run/docker/plugins")?.contains("weave"), "the driver's socket is left");
        soon("docker run", || engine.docker(&format!("run --rm {IMAGE} /bin/echo fine")))?;
        Ok(())
    })
}

#[test]
#[ignore = "needs Docker: run with cargo xtask test --real"]
fn clients_of_the_proxy_get_the_network_unasked_and_notice_nothing_else() -> Result<()> {
    play_with_docker("clients_of_the_proxy_get_the_network_unasked_and_notice_nothing_else", |programs| {
        let mut lab = lab()?;
        let [host]: [Host; 1] = hosts(&mut lab)?;
        let mut engine = Engine::start(&host, &[])?;
        let tls = certificates(&host, lab.directory())?;
        let launch = format!(
            "launch --docker-socket {} --db-prefix DIR/db --proxy-address {FAR} {tls} --rewrite-inspect \
             --hostname-from-label called --hostname-match ^plain-(.*) --hostname-replacement $1",
            docker::socket().display()
        );
        weave(programs, &host, &launch)?;
        wait_until("the host's address for names", LIMIT, || {
            let all = weave(programs, &host, "ps")?;
            Ok(Look::when(all.contains("weave:expose"), || all))
        })?;
        let config = weave(programs, &host, "config")?;
        let env = weave(programs, &host, "env")?;
        let socket = config.strip_prefix("--host=").context("`weave config` is no flag")?;
        ensure!(env.contains(&format!("DOCKER_HOST={socket}")), "{env}");
        engine.use_socket(socket);
        unasked_networks(&engine)?;
        streams(&engine, &host)?;
        descriptions(&engine)?;
        engine.use_socket(&format!("tcp://{FAR}"));
        engine.refused("ps")?;
        engine.refused("--tls ps")?;
        let seen = engine.docker(&format!("--tlsverify {tls} exec --interactive web /bin/hostname"))?;
        ensure!(seen == "web", "from another host: {seen}");
        drop(engine);
        weave(programs, &host, "reset").map(drop)
    })
}

/// Where clients of other hosts come.
const FAR: &str = "127.0.0.1:12376";

/// Flags that name an authority, a certificate of it for both ends, and its key, all made in `directory`.
fn certificates(host: &Host, directory: &Path) -> Result<String> {
    let make = |line: &str| -> Result<String> {
        let request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2";
        host.run(&format!("env --chdir={} {request} {line}", directory.display()))
    };
    make("-subj /CN=authority -keyout authority.key -out authority.pem")?;
    make(
        "-subj /CN=docker -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=CA:FALSE \
          -CA authority.pem -CAkey authority.key -keyout key.pem -out certificate.pem",
    )?;
    let file = |flag: &str, name: &str| format!("--{flag}={}", directory.join(name).display());
    let flags = [("tlscacert", "authority.pem"), ("tlscert", "certificate.pem"), ("tlskey", "key.pem")];
    Ok(flags.map(|(flag, name)| file(flag, name)).join(" "))
}

/// Addresses and host names as programs see them that know of one network only.
fn descriptions(proxied: &Engine<'_>) -> Result<()> {
    let field =
        |container: &str, format: &str| proxied.docker(&format!("inspect --format {format} {container}"));
    ensure!(field("web", "{{.NetworkSettings.IPAddress}}")? == proxied.address("web", "weave")?);
    ensure!(
        field("fixed", "{{.NetworkSettings.IPAddress}}/{{.NetworkSettings.IPPrefixLen}}")? == "10.40.1.7/24"
    );
    let link = proxied.docker("exec web /bin/ip -o link show ethwe0")?;
    ensure!(link.contains(&field("web", "{{.NetworkSettings.MacAddress}}")?), "{link}");
    for (flags, wanted) in [("--name plain-shop", "shop"), ("--name other --label called=plain-till", "till")]
    {
        let seen = proxied.docker(&format!("run --rm {flags} {IMAGE} /bin/hostname"))?;
        ensure!(seen == wanted, "{flags}: {seen}");
    }
    Ok(())
}

/// Where containers are that say nothing of networks, and those that do.
fn unasked_networks(proxied: &Engine<'_>) -> Result<()> {
    let seen = proxied.docker(&format!("run --rm --name first {IMAGE} /bin/ip address show ethwe0"))?;
    ensure!(seen.contains("inet 10."), "the entrypoint saw {seen}");
    proxied.docker(&format!("run --detach --name web {IMAGE} /bin/sleep 100000"))?;
    let web = proxied.address("web", "weave")?;
    ensure!(proxied.docker("exec web /bin/hostname")? == "web");
    let fixed = "--env WEAVE_CIDR=10.40.1.7/24";
    proxied.docker(&format!("run --detach --name fixed {fixed} {IMAGE} /bin/sleep 100000"))?;
    ensure!(proxied.address("fixed", "weave-10.40.1.0-24")? == "10.40.1.7");
    let several =
        ["run", "--rm", "--env", "WEAVE_CIDR=net:10.40.2.0/24 net:10.40.1.0/24", IMAGE, "/bin/ip", "address"];
    let seen = tool::run(&mut proxied.command(&several))?;
    ensure!(seen.contains("10.40.2.") && seen.contains("10.40.1."), "{seen}");
    for left_alone in ["--net host", "--net bridge", "--net none", "--env WEAVE_CIDR=none"] {
        let seen = proxied.docker(&format!("run --rm {left_alone} {IMAGE} /bin/ip -o link"))?;
        ensure!(!seen.contains("ethwe0"), "{left_alone}: {seen}");
    }
    let said = proxied.refused(&format!("run --rm --env WEAVE_CIDR=10.40.1.7 {IMAGE} /bin/echo"))?;
    ensure!(said.contains("WEAVE_CIDR"), "{said}");
    // By the names that the router knows, asked of the host's address.
    let seen = proxied.docker(&format!("run --rm {IMAGE} /bin/ping -c 1 -W 2 web.weave.local"))?;
    ensure!(seen.contains(&format!("({web})")), "{seen}");
    soon("docker restart", || proxied.docker("restart --time 0 web"))?;
    ensure!(proxied.address("web", "weave")? == web, "another address after a restart");
    Ok(())
}

/// What goes on for long, in both directions, and becomes something else than HTTP.
fn streams(proxied: &Engine<'_>, host: &Host) -> Result<()> {
    let mut cat = proxied.command(&["run", "--rm", "--interactive", IMAGE, "/bin/cat"]);
    let long = "all of it and the end too\n".repeat(20_000);
    ensure!(tool::run_with_input(&mut cat, &long)? == long, "`docker run -i` lost something");
    let mut exec = proxied.command(&["exec", "--interactive", "web", "/bin/cat"]);
    ensure!(tool::run_with_input(&mut exec, "through exec\n")? == "through exec\n");
    let docker =
        tool::line(&proxied.command(&["exec", "--interactive", "--tty", "web", "/bin/echo", "terminal"]));
    let (_, docker) = docker.split_once(" -- ").context("no command line")?;
    let terminal = tool::run(host.command("script").args(["--quiet", "--command", docker, "/dev/null"]))?;
    ensure!(terminal.contains("terminal\r\n"), "exec -it said {terminal:?}");
    proxied.docker(&format!("run --detach --name talks {IMAGE} /bin/echo said"))?;
    proxied.docker("wait talks")?;
    ensure!(proxied.docker("logs --follow talks")? == "said");
    let mut attached =
        proxied.command(&["run", "--rm", IMAGE, "/bin/sh", "-c", "echo out; echo err >&2; exit 7"]);
    let output = tool::output(&mut attached)?;
    ensure!(output.status.code() == Some(7) && output.stdout == b"out\n" && output.stderr == b"err\n");
    let directory = docker::directory().display();
    proxied.docker(&format!("cp web:/bin/busybox {directory}/copied"))?;
    ensure!(fs::metadata(format!("{directory}/copied"))?.len() > 100_000, "the copy is short");
    ensure!(proxied.docker("stats --no-stream --format {{.Name}} web")? == "web");
    let events =
        proxied.docker("events --since 60s --until 0s --filter container=talks --format {{.Action}}")?;
    ensure!(events.lines().any(|action| action == "die"), "{events}");
    fs::create_dir_all(format!("{directory}/build"))?;
    fs::write(format!("{directory}/build/Dockerfile"), format!("FROM {IMAGE}\nCOPY Dockerfile /made\n"))?;
    let build = format!("build --quiet --tag made {directory}/build");
    let words: Vec<&str> = build.split_whitespace().collect();
    tool::run(proxied.command(&words).env("DOCKER_BUILDKIT", "0"))?;
    ensure!(proxied.docker("run --rm made /bin/cat /made")?.contains("COPY"));
    Ok(())
}
