//! `weave` as somebody types it who runs hosts: routers that are launched, joined, looked at and stopped.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weave_api::Exit;
use weave_tests::{
    clock::{Look, wait_until},
    lab::Host,
    product::Programs,
    scene::{LIMIT, await_ping, hosts, lab, no_errors, play, refusal},
    tool,
};

/// Somebody on a host.
struct User<'a> {
    host: &'a Host,
    programs: &'a Programs,
}

impl User<'_> {
    /// Types a command, whatever comes of it.
    fn types(&self, line: &str) -> Result<Output> {
        let mut command = self.host.command(self.programs.weave());
        tool::output(command.args(line.split_whitespace()))
    }

    /// Types a command that has to succeed; returns what it printed.
    fn tells(&self, line: &str) -> Result<String> {
        let output = self.types(line)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: weave {line}: {}: {said}", self.host.name(), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    fn is_refused(&self, line: &str, exit: Exit) -> Result<String> {
        refusal(&self.types(line)?, "weave", exit)
            .with_context(|| format!("{}: weave {line}", self.host.name()))
    }

    /// Launches a router with its store in the host's own /run.
    fn launches(&self, words: &str) -> Result<()> {
        let name = self.host.name();
        let line = format!(
            "launch --nickname {name} --db-prefix /run/lib/weave --ipalloc-init consensus=2 --log-level debug {words}"
        );
        self.tells(&line).map(drop)
    }

    /// Waits until a command says something.
    fn awaits(&self, line: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let waited = wait_until(&format!("`weave {line}` on {}", self.host.name()), LIMIT, || {
            let said = self.tells(line)?;
            Ok(Look::when(wanted(&said), || said.clone()))
        });
        waited.map(drop)
    }

    /// Stops the router; it has logged no error and is gone.
    fn stops(&self) -> Result<()> {
        self.tells("stop")?;
        no_errors(self.host.name(), &self.host.run("cat /run/weave/weaver.log")?)?;
        let left = self.host.run("find /run/weave -type s -o -name *.pid")?;
        ensure!(left.is_empty(), "left behind: {left}");
        let said = self.is_refused("status", Exit::NotRunning)?;
        ensure!(said.contains("weave launch"), "it does not say what to do: {said}");
        Ok(())
    }
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_newcomer_launches_joins_attaches_looks_and_stops() -> Result<()> {
    play("a_newcomer_launches_joins_attaches_looks_and_stops", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let [one, two] = [0, 1].map(|n| User { host: &hosts[n], programs });
        one.is_refused("status", Exit::NotRunning)?;
        one.is_refused("stop", Exit::NotRunning)?;
        one.launches("")?;
        two.launches(&hosts[0].address()?.to_string())?;
        let said = one.is_refused("launch", Exit::Failed)?;
        ensure!(said.contains("already running"), "{said}");
        for user in [&one, &two] {
            user.tells("prime")?;
            user.awaits("status connections", |said| said.contains("established"))?;
            let said = user.tells("version")?;
            ensure!(said.matches(env!("CARGO_PKG_VERSION")).count() >= 2, "{said}");
        }
        let container = hosts[0].add_container("web")?;
        let address = one.tells("attach --netns /run/netns/web --name web")?;
        two.awaits("dns-lookup web", |said| said == address)?;
        let shown = one.tells("ps")?;
        ensure!(shown.contains("web") && shown.contains(&address), "{shown}");
        // The host itself, with a name, on the other side.
        let exposed = two.tells("expose -h gate.weave.local")?;
        await_ping(&lab, &container, exposed.parse()?)?;
        await_ping(&lab, &hosts[1], address.parse()?)?;
        one.awaits("dns-lookup gate", |said| said == exposed)?;
        ensure!(two.tells("ps weave:expose")?.contains(&exposed));
        ensure!(two.tells("expose")? == exposed, "exposing twice gives another address");
        ensure!(two.tells("hide")? == exposed);
        ensure!(!hosts[1].run("ip -o addr show dev weave")?.contains(&exposed), "the address is still there");
        one.awaits("status dns", |said| !said.contains("gate"))?;
        for view in ["connections", "peers", "targets", "ipam", "dns"] {
            let text = two.tells(&format!("status {view}"))?;
            ensure!(!text.is_empty(), "status {view} is empty");
            let json = two.tells(&format!("status {view} -o json"))?;
            serde_json::from_str::<Value>(&json).with_context(|| format!("status {view} -o json: {json}"))?;
        }
        let report: Value = serde_json::from_str(&two.tells("report")?)?;
        ensure!(report["router"]["nickname"] == "h2", "{report}");
        let summary = two.tells("status")?;
        for word in ["(h2)", "Service: ipam", "Service: dns", "established"] {
            ensure!(summary.contains(word), "no {word} in the status: {summary}");
        }
        one.tells("detach web")?;
        ensure!(one.tells("ps")?.lines().all(|line| !line.starts_with("web")), "{}", one.tells("ps")?);
        one.stops()?;
        two.stops()
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn peers_are_connected_replaced_forgotten_and_resumed() -> Result<()> {
    play("peers_are_connected_replaced_forgotten_and_resumed", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 3] = hosts(&mut lab)?;
        let [one, two, three] = [0, 1, 2].map(|n| User { host: &hosts[n], programs });
        for user in [&one, &two, &three] {
            user.launches("--no-discovery")?;
        }
        let (second, third) = (hosts[1].address()?.to_string(), hosts[2].address()?.to_string());
        let linked = |peer: &'static str| {
            move |said: &str| said.lines().any(|l| l.contains("established") && l.contains(peer))
        };
        let not_linked = |peer: &'static str| move |said: &str| !linked(peer)(said);
        one.tells(&format!("connect {second}"))?;
        one.awaits("status connections", linked("(h2)"))?;
        ensure!(one.tells("status targets")?.contains(&second));
        one.tells(&format!("connect --replace {third}"))?;
        one.awaits("status connections", linked("(h3)"))?;
        let targets = one.tells("status targets")?;
        ensure!(targets.contains(&third) && !targets.contains(&second), "{targets}");

        // What was asked for last is what a resumed router goes back to.
        one.stops()?;
        one.launches("--no-discovery --resume")?;
        one.awaits("status connections", linked("(h3)"))?;
        one.awaits("status connections", not_linked("(h2)"))?;
        ensure!(!one.tells("status targets")?.contains(&second), "an old target came back");
        one.tells(&format!("forget {third}"))?;
        one.awaits("status connections", not_linked("(h3)"))?;
        ensure!(!one.tells("status targets")?.contains(&third));
        one.stops()?;
        one.launches("--no-discovery --resume")?;
        ensure!(one.tells("status targets")?.is_empty(), "a forgotten target came back");
        let said = one.is_refused("connect not:a:peer", Exit::Usage)?;
        ensure!(said.contains("not:a:peer"), "{said}");
        [one, two, three].iter().try_for_each(User::stops)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_launch_that_fails_shows_why_with_the_routers_own_code() -> Result<()> {
    play("a_launch_that_fails_shows_why_with_the_routers_own_code", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 1] = hosts(&mut lab)?;
        let user = User { host: &hosts[0], programs };
        hosts[0].run("ip route add 10.40.0.0/16 via 172.31.1.250")?;
        let before = hosts[0].run("ip -o link show")?;
        for (words, exit, word) in [
            ("", Exit::Conflict, "10.40.0.0/16"),
            ("--mtu 7", Exit::Usage, "--mtu 7"),
            ("--frobnicate", Exit::Usage, "--frobnicate"),
        ] {
            let output = user.types(&format!("launch --db-prefix /run/lib/weave {words}"))?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(
                output.status.code() == Some(exit.code().into()),
                "launch {words}: {}: {said}",
                output.status
            );
            ensure!(said.contains(word), "launch {words}: {said}");
            ensure!(hosts[0].run("ip -o link show")? == before, "launch {words} left an interface");
            user.is_refused("status", Exit::NotRunning)?;
        }
        Ok(())
    })
}
