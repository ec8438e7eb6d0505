//! Policies in files and containers of a real Docker: who may reach whom, from the first process of a container on.

use std::{env, fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weave_tests::{
    clock::{Look, wait_until},
    docker::{self, Engine, IMAGE, await_network, start_driver},
    lab::{Host, Process, target_directory},
    product::Programs,
    sandbox,
    scene::{LIMIT, await_mesh, finish, hosts, lab, no_errors, play, routers},
    tool,
};

/// Containers of the shop that are `web` may be reached by its shoppers; those that are `mute` may reach nobody.
const POLICIES: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: web, namespace: shop }
spec:
  podSelector: { matchLabels: { app: web } }
  ingress: [ { from: [ { podSelector: { matchLabels: { app: shopper } } } ] } ]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: mute, namespace: shop }
spec:
  podSelector: { matchLabels: { app: mute } }
  policyTypes: [ Egress ]
";

/// Asks for an answer as often as it can, and says so of each that comes.
const PROBE: &str =
    "for i in 1 2 3 4; do (while :; do ping -c 1 -W 1 $0 >/dev/null && echo reached; done) & done; wait";

fn play_with_npc(test: &str, body: impl FnOnce(&Programs) -> Result<()>) -> Result<()> {
    if !sandbox::is_inside() && env::var_os("WEAVE_BIN_DIR").is_none() {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        cargo.args(["build", "--quiet", "--package", "weave-npc", "--target-dir"]);
        ensure!(
            cargo.arg(target_directory()?).status()?.success(),
            "the build failed; its messages are above"
        );
    }
    let played = play(test, body);
    if !sandbox::is_inside() {
        docker::remove_cgroups();
    }
    played
}

/// The controller of a host, and how it is asked.
struct Npc<'h> {
    host: &'h Host,
    program: std::path::PathBuf,
    daemon: Process,
}

impl<'h> Npc<'h> {
    fn start(programs: &Programs, host: &'h Host) -> Result<Self> {
        let policies = docker::directory().join("policies");
        fs::create_dir_all(&policies)?;
        fs::write(policies.join("shop.yaml"), POLICIES)?;
        let program = programs.weaver().with_file_name("weave-npc");
        let mut daemon = host.command(&program);
        daemon.arg("--policy-dir").arg(&policies).arg(format!("--docker={}", docker::socket().display()));
        daemon.args(["--socket=/run/npc.sock", "--metrics-address=127.0.0.1:0"]);
        let daemon = host.spawn(daemon, &format!("weave-npc-{}", host.name()))?;
        let npc = Self { host, program, daemon };
        wait_until("policies in force", LIMIT, || {
            let said = npc.ask("sync");
            Ok(Look::when(said.is_ok(), || format!("{said:?}")))
        })?;
        Ok(npc)
    }

    fn ask(&self, words: &str) -> Result<String> {
        let mut command = self.host.command(&self.program);
        tool::run(command.arg("--socket=/run/npc.sock").args(words.split_whitespace()))
    }
}

/// How many of `count` questions are answered, asked in a container.
fn answers(engine: &Engine<'_>, container: &str, to: &str, count: u32) -> Result<u32> {
    let count = count.to_string();
    let ping = ["exec", container, "/bin/ping", "-c", &count, "-W", "1", to];
    received(&tool::output(&mut engine.command(&ping))?)
}

/// How many answers a `ping` says that it got.
fn received(output: &std::process::Output) -> Result<u32> {
    let said = String::from_utf8_lossy(&output.stdout);
    let (before, _) = said.split_once(" packets received").with_context(|| format!("ping said {said}"))?;
    Ok(before.split_whitespace().next_back().unwrap_or_default().parse()?)
}

fn of_the_shop(app: &str) -> String {
    format!("--label weave.namespace=shop --label app={app}")
}

/// Nobody reaches `address` who may not, however often the container that has it begins anew, and who may does each time.
fn nothing_passes_while_it_starts(engine: &Engine<'_>, npc: &Npc<'_>, address: &str) -> Result<()> {
    let probe = |name: &str, flags: &str| -> Result<()> {
        let mut run: Vec<&str> = vec!["run", "--detach", "--name", name, "--net", "weave"];
        run.extend(flags.split_whitespace());
        run.extend([IMAGE, "/bin/sh", "-c", PROBE, address]);
        tool::run(&mut engine.command(&run)).map(drop)
    };
    probe("prober", "")?;
    probe("buyer", &of_the_shop("shopper"))?;
    let reached =
        |name: &str| Ok::<_, anyhow::Error>(engine.docker(&format!("logs {name}"))?.lines().count());
    for _ in 0..5 {
        engine.docker("restart --time 0 web")?;
        let before = reached("buyer")?;
        wait_until("the buyer to reach it", LIMIT, || {
            Ok(Look::when(reached("buyer")? > before, || "not yet".to_owned()))
        })?;
    }
    let count = reached("prober")?;
    ensure!(
        count == 0,
        "{count} answers for who may not ask; {}",
        npc.ask("explain default/prober shop/web icmp")?
    );
    Ok(())
}

#[test]
#[ignore = "needs Docker: run with cargo xtask test --real"]
fn containers_are_what_policies_in_files_say_from_their_first_process_on() -> Result<()> {
    play_with_npc("containers_are_what_policies_in_files_say_from_their_first_process_on", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let drivers = [start_driver(programs, &routers[0])?, start_driver(programs, &routers[1])?];
        let engines = [Engine::start(&hosts[0], &[])?, Engine::start(&hosts[1], &[])?];
        engines.iter().try_for_each(await_network)?;
        let (near, far) = (&engines[0], &engines[1]);
        let mut npc = Npc::start(programs, &hosts[0])?;

        near.run("shopper", "weave", &of_the_shop("shopper"))?;
        near.run("stranger", "weave", "")?;
        far.run("distant", "weave", "")?;
        near.run("web", "weave", &of_the_shop("web"))?;
        let [web, shopper] = [near.address("web", "weave")?, near.address("shopper", "weave")?];
        npc.ask("sync")?;
        ensure!(
            answers(near, "shopper", &web, 3)? == 3,
            "{}",
            npc.ask("explain shop/shopper shop/web icmp")?
        );
        ensure!(answers(near, "stranger", &web, 2)? == 0, "a stranger reaches it");
        ensure!(answers(far, "distant", &web, 2)? == 0, "somebody of another host reaches it");
        ensure!(answers(far, "distant", &shopper, 3)? == 3, "who is not isolated is not reached");
        let said = npc.ask("explain default/stranger shop/web icmp")?;
        ensure!(said.contains("dropped: selected by shop/web"), "{said}");

        nothing_passes_while_it_starts(near, &npc, &web)?;

        // All that this one does is to send, at once.
        let once = |flags: &str| -> Result<u32> {
            let mut run = vec!["run", "--rm", "--net", "weave"];
            run.extend(flags.split_whitespace());
            run.extend([IMAGE, "/bin/ping", "-c", "2", "-W", "1", &shopper]);
            received(&tool::output(&mut near.command(&run))?)
        };
        for round in 0..5 {
            let count = once(&of_the_shop("mute"))?;
            ensure!(count == 0, "round {round}: {count} answers");
        }
        let count = once("")?;
        ensure!(count == 2, "{count} answers of 2 to who may ask");

        // What it was told stays in force when it is gone, until somebody says otherwise.
        ensure!(npc.daemon.stop("TERM", LIMIT)?.success(), "{}", npc.daemon.last_words(5));
        no_errors("weave-npc", &npc.daemon.said())?;
        ensure!(answers(near, "stranger", &web, 2)? == 0, "open without its daemon");
        npc.ask("reset")?;
        ensure!(answers(near, "stranger", &web, 3)? == 3, "isolated by nobody");
        let tables = hosts[0].run("nft list tables")?;
        ensure!(!tables.contains("weave-npc"), "{tables}");
        drop(engines);
        for (mut driver, router) in drivers.into_iter().zip(&routers) {
            ensure!(driver.stop("TERM", Duration::from_secs(5))?.success(), "the driver ended badly");
            no_errors(&format!("the driver of {}", router.host().name()), &driver.said())?;
        }
        finish(routers)
    })
}
