//! Everything in `examples/` is read by the program that it is for, and the Compose files are really brought up.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use weave_api::ListRequest;
use weave_tests::{
    clock::{Look, wait_until},
    docker::{self, Engine, IMAGE, ROUTER_IMAGE, await_network, build_static_programs, prepare_host},
    lab::Host,
    product::Programs,
    sandbox,
    scene::{LIMIT, await_mesh, finish, hosts, lab, play, routers},
    tool,
};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

/// Where the units expect our programs.
const UNITS_PROGRAMS: &str = "/usr/local/bin";

/// What a virtual machine is told at its first start, as far as we use it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CloudInit {
    package_update: bool,
    packages: Vec<String>,
    write_files: Vec<Written>,
    runcmd: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    path: PathBuf,
    #[serde(default)]
    permissions: Option<String>,
    content: String,
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(Path::new(EXAMPLES).join(path)).with_context(|| format!("examples/{path}"))
}

/// Every file below `examples/`.
fn all_examples() -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from(EXAMPLES)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path.strip_prefix(EXAMPLES)?.display().to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[test]
#[ignore = "needs docker-compose and systemd-analyze: run with cargo xtask test --real"]
fn every_example_is_understood_by_the_program_that_it_is_for() -> Result<()> {
    play("every_example_is_understood_by_the_program_that_it_is_for", |programs| {
        let mut lab = lab()?;
        let [host]: [Host; 1] = hosts(&mut lab)?;
        // Programs where the units expect them. The host's mounts are its own.
        host.run(&format!("mount -n -t tmpfs tmpfs {UNITS_PROGRAMS}"))?;
        for program in [programs.weaver(), programs.weave()] {
            host.run(&format!("cp {} {UNITS_PROGRAMS}", program.display()))?;
        }
        for name in all_examples()? {
            understood(&host, programs, &name).with_context(|| format!("examples/{name}"))?;
        }
        Ok(())
    })
}

fn understood(host: &Host, programs: &Programs, name: &str) -> Result<()> {
    let path = format!("{EXAMPLES}/{name}");
    match name {
        "docker/cloud-init.yaml" => cloud_init(host, programs),
        _ if name.ends_with(".service") => unit(host, programs, &path, &read(name)?),
        _ if name.ends_with(".sh") => host.run(&format!("bash -n {path}")).map(drop),
        _ if name.ends_with(".json") => Ok(serde_json::from_str::<Value>(&read(name)?).map(drop)?),
        "monitoring/prometheus.yml" => {
            let settings: Value = serde_saphyr::from_str(&read(name)?)?;
            ensure!(settings["scrape_configs"].is_array(), "{settings}");
            Ok(())
        }
        _ if name.starts_with("docker/") && name.ends_with(".yaml") => {
            let mut compose = host.command("docker-compose");
            compose.args(["--file", &path, "config"]).env("WEAVE_DNS", "10.32.0.1");
            let shown = tool::run(&mut compose)?;
            ensure!(shown.contains("services:"), "{shown}");
            Ok(())
        }
        // Compiled with the other tests; and what people read.
        _ if name.ends_with(".rs") || name.ends_with(".md") => Ok(()),
        _ => bail!("no test says whether this is right"),
    }
}

/// systemd finds nothing to complain of, and our programs know the flags.
fn unit(host: &Host, programs: &Programs, path: &str, text: &str) -> Result<()> {
    let output = tool::output(host.command("systemd-analyze").args(["verify", "--man=no", path]))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let name = Path::new(path).file_name().and_then(|name| name.to_str()).context("a unit has a name")?;
    ensure!(output.status.success() && !said.contains(name), "systemd-analyze: {said}");
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("it starts nothing")?;
    let mut words = line.split_whitespace().filter(|word| !word.starts_with('$'));
    let program = match words.next().and_then(|path| path.strip_prefix(UNITS_PROGRAMS)) {
        Some("/weaver") => programs.weaver(),
        Some("/weave") => programs.weave(),
        other => bail!("it starts {other:?}"),
    };
    // What comes before is parsed before.
    tool::run(Command::new(program).args(words).arg("--help")).map(drop)
}

fn cloud_init(host: &Host, programs: &Programs) -> Result<()> {
    let text = read("docker/cloud-init.yaml")?;
    ensure!(text.starts_with("#cloud-config\n"), "cloud-init would not know what this is");
    let told: CloudInit = serde_saphyr::from_str(&text)?;
    ensure!(told.package_update && told.packages == ["docker.io"] && !told.runcmd.is_empty(), "{told:?}");
    let password = told.write_files.iter().find(|file| file.path.ends_with("password"));
    let password = password.context("no password")?;
    ensure!(password.permissions.as_deref() == Some("0600"), "everybody may read the password");
    let settings = |text: &str| {
        let is_setting = |line: &&str| !line.starts_with(['#', '[']) && !line.starts_with("Documentation");
        let lines = text.lines().filter(|line| !line.is_empty()).filter(is_setting);
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut units = 0;
    for file in told.write_files.iter().filter(|file| file.path.starts_with("/etc/systemd/system")) {
        let name = file.path.file_name().and_then(|name| name.to_str()).context("a unit has a name")?;
        let alone = read(&format!("docker/{name}"))?;
        ensure!(
            settings(&file.content) == settings(&alone),
            "{name} is another than the one beside: {:?}",
            settings(&file.content)
        );
        let copy = docker::directory().join(name);
        fs::write(&copy, &file.content)?;
        unit(host, programs, &copy.display().to_string(), &file.content)?;
        ensure!(told.runcmd.iter().any(|line| line.contains(name)), "{name} is not started");
        units += 1;
    }
    ensure!(units == 2, "{units} units");
    Ok(())
}

/// As [`play`], with the static programs for the router's image built, and the control groups of engines removed.
fn play_with_image(test: &str, body: impl FnOnce(&Programs) -> Result<()>) -> Result<()> {
    if !sandbox::is_inside() {
        build_static_programs()?;
    }
    let played = play(test, body);
    if !sandbox::is_inside() {
        docker::remove_cgroups();
    }
    played
}

/// Runs `docker-compose` on a file of `examples/docker`.
fn compose(engine: &Engine<'_>, file: &str, variables: &[(&str, &str)], line: &str) -> Result<String> {
    let project = if file == "compose.yaml" { "weave" } else { "shop" };
    let mut command = engine.compose(project, &format!("examples/docker/{file}"));
    command.args(line.split_whitespace()).envs(variables.iter().copied());
    Ok(tool::run(&mut command)?.trim().to_owned())
}

/// Asks the router of an engine's host by the command in the driver's container.
fn weave(engine: &Engine<'_>, line: &str) -> Result<String> {
    compose(engine, "compose.yaml", &[], &format!("exec -T driver weave {line}"))
}

fn await_answer(engine: &Engine<'_>, container: &str, to: &str) -> Result<()> {
    let what = format!("{to} to answer {container}");
    let waited = wait_until(&what, LIMIT, || {
        let ping = ["exec", container, "/bin/ping", "-c", "1", "-W", "1", to];
        let output = tool::output(&mut engine.command(&ping))?;
        Ok(Look::when(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned()))
    });
    waited.map(drop)
}

/// Engines on two hosts that know each other by name, with the router's image and the image of the example's service.
fn engines(hosts: &[Host; 2]) -> Result<[Engine<'_>; 2]> {
    let [one, two] = [hosts[0].address()?, hosts[1].address()?];
    let names = format!("{one} host1\n{two} host2\n");
    let start = |host| -> Result<Engine<'_>> {
        prepare_host(host, &names)?;
        // Where everybody has it; the Compose file names a directory in there.
        let engine = Engine::start(host, &["--exec-root=/var/run/docker"])?;
        engine.build_router_image()?;
        // What stands for the service does nothing.
        let recipe = format!("FROM {IMAGE}\nCMD [\"/bin/sleep\", \"100000\"]\n");
        let mut build = engine.command(&["build", "--tag", "nginx:alpine", "-"]);
        tool::run_with_input(build.env("DOCKER_BUILDKIT", "0"), &recipe)?;
        Ok(engine)
    };
    Ok([start(&hosts[0])?, start(&hosts[1])?])
}

#[test]
#[ignore = "needs Docker and docker-compose: run with cargo xtask test --real"]
fn router_and_driver_run_as_containers_on_two_engines() -> Result<()> {
    play_with_image("router_and_driver_run_as_containers_on_two_engines", |_| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let mut engines = engines(&hosts)?;
        ensure!(
            engines[0]
                .docker(&format!("run --rm {ROUTER_IMAGE} version"))?
                .contains(env!("CARGO_PKG_VERSION"))
        );
        for (engine, peer) in engines.iter().zip(["host2", "host1"]) {
            compose(engine, "compose.yaml", &[("WEAVE_PEERS", peer)], "up --detach")?;
        }
        for engine in &engines {
            await_network(engine).with_context(|| state(engine))?;
        }
        engines[0].run("one", "weave", "")?;
        engines[1].run("two", "weave", "")?;
        let (one, two) = (engines[0].address("one", "weave")?, engines[1].address("two", "weave")?);
        await_answer(&engines[0], "one", &two)?;
        // A container of Docker's own network, by its name.
        engines[1].run("plain", "bridge", "")?;
        let plain = weave(&engines[1], "attach plain")?;
        await_answer(&engines[0], "one", &plain)?;
        services(&engines)?;
        restarts(&mut engines, &one)?;
        // Docker is rid of us first, while there is somebody to ask.
        for (engine, mine) in engines.iter().zip([&["one"][..], &["two", "plain"]]) {
            compose(engine, "stack.yaml", &[("WEAVE_DNS", "10.32.0.1")], "down")?;
            mine.iter().try_for_each(|name| engine.docker(&format!("rm --force {name}")).map(drop))?;
            engine.docker("network rm weave")?;
            compose(engine, "compose.yaml", &[], "down")?;
            ensure!(engine.docker("ps --all --quiet")?.is_empty(), "a container is left");
        }
        Ok(())
    })
}

/// The services of `stack.yaml`, started on both hosts, find each other by their alias.
fn services(engines: &[Engine<'_>; 2]) -> Result<()> {
    for engine in engines {
        let server: BTreeMap<String, Value> = serde_json::from_str(&weave(engine, "dns-args -o json")?)?;
        let server = server.get("server").and_then(Value::as_str).context("no name server")?;
        compose(engine, "stack.yaml", &[("WEAVE_DNS", server)], "up --detach")?;
    }
    for engine in engines {
        let web = compose(engine, "stack.yaml", &[("WEAVE_DNS", "")], "ps --quiet web")?;
        await_answer(engine, &web, "www.weave.local")?;
        wait_until("both services to be called www", LIMIT, || {
            let all = weave(engine, "dns-lookup www")?;
            Ok(Look::when(all.lines().count() == 2, || all.clone()))
        })?;
    }
    Ok(())
}

/// What runs on a host, and what ours say, for people who look why a test failed.
fn state(engine: &Engine<'_>) -> String {
    let containers = engine.docker("ps --all");
    let said = compose(engine, "compose.yaml", &[], "logs --tail 30");
    format!("{containers:?}\n{}", said.unwrap_or_else(|error| format!("{error:#}")))
}

/// A container keeps what it has, whichever of ours starts again, and is found again when Docker does.
fn restarts(engines: &mut [Engine<'_>; 2], one: &str) -> Result<()> {
    for line in ["restart --timeout 1 router", "restart --timeout 1 driver"] {
        compose(&engines[0], "compose.yaml", &[], line)?;
        await_answer(&engines[1], "two", one)
            .with_context(|| format!("after {line}: {}", state(&engines[0])))?;
    }
    engines[0].docker("update --restart always one")?;
    engines[0].kill()?;
    engines[0].restart()?;
    // Docker asks for an address before the driver, one of its own containers, runs again: it may be another one.
    let ((), _) = wait_until("the container to run again", LIMIT, || {
        let now = engines[0].address("one", "weave").unwrap_or_default();
        Ok(Look::when(!now.is_empty(), || now.clone()))
    })?;
    let one = engines[0].address("one", "weave")?;
    await_answer(&engines[1], "two", &one)
        .with_context(|| format!("after dockerd's death: {}", state(&engines[0])))?;
    wait_until("the container's name to follow", LIMIT, || {
        let known = weave(&engines[1], "dns-lookup one")?;
        Ok(Look::when(known == one, || known.clone()))
    })?;
    Ok(())
}

#[test]
#[ignore = "needs Docker: run with cargo xtask test --real"]
fn the_example_by_hand_runs_to_its_end() -> Result<()> {
    // It makes its own namespaces.
    play("the_example_by_hand_runs_to_its_end", |programs| {
        let directory = programs.weave().parent().context("programs lie in a directory")?;
        let mut script = Command::new("timeout");
        script.args(["--signal=TERM", "300", "bash"]).arg(format!("{EXAMPLES}/docker/by-hand.sh"));
        let said = tool::run(script.env("WEAVE_BIN", directory))?;
        ensure!(
            said.contains("Docker is as it was") && said.matches(" 0% packet loss").count() == 3,
            "{said}"
        );
        Ok(())
    })
}

#[test]
#[ignore = "needs Docker: run with cargo xtask test --real"]
fn services_of_a_swarm_are_on_the_network() -> Result<()> {
    const DRIVER: &str = "weave-swarm:latest";
    play_with_image("services_of_a_swarm_are_on_the_network", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let engines = [Engine::start(&hosts[0], &[])?, Engine::start(&hosts[1], &[])?];
        for (engine, router) in engines.iter().zip(&routers) {
            engine.install_plugin(&format!("{EXAMPLES}/docker/swarm/config.json"), router)?;
        }
        let manager = hosts[0].address()?;
        engines[0].docker(&format!("swarm init --advertise-addr {manager}"))?;
        let token = engines[0].docker("swarm join-token --quiet worker")?;
        let own = hosts[1].address()?;
        engines[1].docker(&format!("swarm join --advertise-addr {own} --token {token} {manager}:2377"))?;
        for engine in &engines {
            engine.docker(&format!(
                "network create --config-only --ipam-driver {DRIVER} --subnet 10.40.0.0/16 settings"
            ))?;
        }
        let create = "network create --scope swarm --config-from settings";
        engines[0].docker(&format!("{create} --driver {DRIVER} services"))?;
        let service =
            "service create --detach --no-resolve-image --mode global --name web --network services";
        engines[0].docker(&format!("{service} {IMAGE} /bin/sleep 100000"))?;
        let found = [task(&engines[0])?, task(&engines[1])?];
        ensure!(found[0].1 != found[1].1, "both have {}", found[0].1);
        await_answer(&engines[0], &found[0].0, &found[1].1)?;
        await_answer(&engines[1], &found[1].0, &found[0].1)?;
        engines[0].docker("service rm web")?;
        wait_until("every address to be free", LIMIT, || {
            let held = routers[0].call(&ListRequest {})?.addresses_by_owner;
            let count = held.keys().filter(|owner| owner.as_str().starts_with("docker:")).count();
            Ok(Look::when(count == 0, || format!("{held:?}")))
        })?;
        for engine in &engines {
            engine.docker("swarm leave --force")?;
        }
        drop(engines);
        finish(routers)
    })
}

/// The container of the service that runs on this engine, and its address.
fn task(engine: &Engine<'_>) -> Result<(String, String)> {
    let waited = wait_until("a task of the service to run", LIMIT, || {
        let container = engine.docker("ps --quiet --filter name=web")?;
        let address = engine.address(&container, "services");
        Ok(match address {
            Ok(address) => Look::Found((container, address)),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    });
    Ok(waited?.0)
}
