//! Container runtimes as CNI sees them: somebody who runs a plugin with an environment and a configuration.

use std::{
    collections::BTreeMap,
    env, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use weave_api::{ListRequest, PsRequest};

use crate::{
    clock::{Look, wait_until},
    lab::{Container, Host, Lab, Place, target_directory},
    product::{Programs, Router},
    sandbox,
    scene::{self, LIMIT},
    tool,
};

/// The plugins, and where a runtime finds them.
#[derive(Debug)]
pub struct Plugins {
    directory: PathBuf,
}

/// What a plugin said when it refused: the error document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub Value);

impl Refused {
    /// The number of the error.
    #[must_use]
    pub fn code(&self) -> u64 {
        self.0["code"].as_u64().unwrap_or_default()
    }

    /// Message and details together.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "{} {}",
            self.0["msg"].as_str().unwrap_or_default(),
            self.0["details"].as_str().unwrap_or_default()
        )
    }
}

/// Runs a test's `body` as [`scene::play`] does, with the plugins and weave-npc built.
///
/// # Errors
/// As [`scene::play`].
pub fn play(test: &str, body: impl FnOnce(&Programs) -> Result<()>) -> Result<()> {
    if !sandbox::is_inside() && env::var_os("WEAVE_BIN_DIR").is_none() {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        cargo.args(["build", "--quiet", "--package", "weave-cni", "--package", "weave-npc"]);
        let status =
            cargo.arg("--target-dir").arg(target_directory()?).status().context("cannot run cargo")?;
        ensure!(status.success(), "the build failed; its messages are above");
    }
    scene::play(test, body)
}

/// A host with a router and the plugins.
#[derive(Debug)]
pub struct Scene<'s> {
    /// What has been built.
    pub programs: &'s Programs,
    /// Where it plays.
    pub lab: &'s Lab,
    /// What a runtime there calls.
    pub plugins: Plugins,
    /// The host's router.
    pub router: &'s Router<'s>,
}

/// As [`play`], on one host, whose router has these flags.
///
/// # Errors
/// As [`scene::play`].
pub fn play_alone(test: &str, flags: &[&str], body: impl FnOnce(&Scene<'_>) -> Result<()>) -> Result<()> {
    play(test, |programs| {
        let mut lab = scene::lab()?;
        let hosts: [Host; 1] = scene::hosts(&mut lab)?;
        let routers = scene::routers(programs, &hosts, flags)?;
        let plugins = Plugins::install(&lab, programs)?;
        body(&Scene { programs, lab: &lab, plugins, router: &routers[0] })?;
        scene::finish(routers)
    })
}

impl Plugins {
    /// Installs the plugins in a directory of the lab.
    ///
    /// # Errors
    /// When they have not been built.
    pub fn install(lab: &Lab, programs: &Programs) -> Result<Self> {
        let built = programs.weaver().with_file_name("weave-net");
        ensure!(built.is_file(), "{} has not been built", built.display());
        let directory = lab.directory().join("cni-bin");
        fs::create_dir_all(&directory)?;
        fs::copy(&built, directory.join("weave-net"))?;
        std::os::unix::fs::symlink("weave-net", directory.join("weave-ipam"))?;
        Ok(Self { directory })
    }

    /// Where they are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The plugin that the configuration names, with a command for `pod`'s eth0. `Err` is what it refused with.
    ///
    /// # Errors
    /// When it cannot be run, or its answer is not what the specification wants.
    pub fn ask(&self, verb: &str, pod: &Pod<'_>, config: &Value) -> Result<Result<Value, Refused>> {
        let mut command = self.command(pod.host, config)?;
        command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", &pod.id);
        command.env("CNI_NETNS", &pod.netns).env("CNI_IFNAME", "eth0").env("CNI_ARGS", &pod.arguments);
        answer(command, config)
    }

    /// The same for commands that are about no container.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_alone(&self, verb: &str, host: &Place, config: &Value) -> Result<Result<Value, Refused>> {
        let mut command = self.command(host, config)?;
        command.env("CNI_COMMAND", verb);
        answer(command, config)
    }

    /// Asks for what must be granted.
    ///
    /// # Errors
    /// When it is refused.
    pub fn must(&self, verb: &str, pod: &Pod<'_>, config: &Value) -> Result<Value> {
        let answer = self.ask(verb, pod, config)?;
        answer.map_err(|refused| anyhow!("{verb} of {} was refused: {}", pod.id, refused.0))
    }

    /// Asks for what must be refused.
    ///
    /// # Errors
    /// When it is granted.
    pub fn refused(&self, verb: &str, pod: &Pod<'_>, config: &Value) -> Result<Refused> {
        match self.ask(verb, pod, config)? {
            Ok(answer) => bail!("{verb} of {} was granted: {answer}", pod.id),
            Err(refused) => Ok(refused),
        }
    }

    /// A run of the plugin, its environment to be filled.
    ///
    /// # Errors
    /// When the configuration names no plugin.
    pub fn command(&self, host: &Place, config: &Value) -> Result<Command> {
        let plugin = config["type"].as_str().context("the configuration names no plugin")?;
        let mut command = host.command(self.directory.join(plugin));
        command.env("CNI_PATH", &self.directory);
        Ok(command)
    }
}

/// Runs a plugin with this on its stdin.
///
/// # Errors
/// When it cannot be run, or its answer is not what the specification wants.
pub fn answer(mut command: Command, config: &Value) -> Result<Result<Value, Refused>> {
    use std::io::Write as _;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", tool::line(&command)))?;
    let stdin = child.stdin.take();
    if let Some(mut stdin) = stdin {
        stdin.write_all(config.to_string().as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!said.contains("panicked"), "{said}");
    let document: Value = match output.stdout.as_slice() {
        [] => Value::Null,
        bytes => {
            serde_json::from_slice(bytes).with_context(|| format!("no JSON on stdout; stderr: {said}"))?
        }
    };
    if output.status.success() {
        return Ok(Ok(document));
    }
    ensure!(document["code"].as_u64().is_some_and(|c| c > 0), "refused without a number: {document} {said}");
    ensure!(document["msg"].as_str().is_some_and(|m| !m.is_empty()), "refused without a word: {document}");
    Ok(Err(Refused(document)))
}

/// A container of a runtime.
#[derive(Debug)]
pub struct Pod<'h> {
    /// Its host.
    pub host: &'h Place,
    /// What the runtime calls it.
    pub id: String,
    /// The path of its network namespace, as the runtime tells it.
    pub netns: String,
    /// What the runtime says in `CNI_ARGS`.
    pub arguments: String,
}

impl<'h> Pod<'h> {
    /// The pod in this container of this host.
    #[must_use]
    pub fn of(host: &'h Place, container: &Container) -> Self {
        let id = format!("{}-{}-4f1c09aa21be", host.name(), container.short_name());
        let netns = container.netns().display().to_string();
        Self { host, id, netns, arguments: String::new() }
    }

    /// The same with these `CNI_ARGS`.
    #[must_use]
    pub fn with(self, arguments: &str) -> Self {
        Self { arguments: arguments.to_owned(), ..self }
    }
}

/// A network configuration for this router, `extra` merged into it.
#[must_use]
pub fn config(router: &Router<'_>, version: &str, extra: &Value) -> Value {
    let mut config = json!({
        "cniVersion": version,
        "name": "weave",
        "type": "weave-net",
        "socket": router.run_dir().join("weave.sock"),
        "waitSeconds": 30,
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config
}

/// Everything that an attachment may change, but the host's own address, which stays once it is needed.
///
/// # Errors
/// When the kernel or the router does not answer.
pub fn state(router: &Router<'_>) -> Result<BTreeMap<&'static str, String>> {
    let links = router.host().run("ip -o link show")?;
    let mut links: Vec<&str> = links.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    links.sort_unstable();
    let mut held = router.call(&ListRequest {})?.addresses_by_owner;
    held.retain(|owner, _| owner.as_str() != "weave:expose");
    let mut containers = router.call(&PsRequest::default())?.containers;
    containers.retain(|container| container.id.as_str() != "weave:expose");
    Ok(BTreeMap::from([
        ("addresses", format!("{held:?}")),
        ("containers", format!("{containers:?}")),
        ("links", links.join(" ")),
    ]))
}

/// Waits until nothing is left of what came after `before`.
///
/// # Errors
/// When something is.
pub fn await_state(router: &Router<'_>, before: &BTreeMap<&'static str, String>) -> Result<()> {
    let waited = wait_until("nothing to be left", LIMIT, || {
        let now = state(router)?;
        Ok(Look::when(now == *before, || format!("{now:?}; before: {before:?}")))
    });
    waited.map(drop)
}

/// The first address of a result.
///
/// # Errors
/// When it has none.
pub fn address(result: &Value) -> Result<IpAddr> {
    let text = result["ips"][0]["address"].as_str().with_context(|| format!("no address: {result}"))?;
    Ok(text.split('/').next().unwrap_or_default().parse()?)
}
