//! A cluster of Kubernetes on hosts of a lab: one with the control plane, and nodes with containerd, kubelet and kube-proxy. What
//! `cargo xtask test --kubernetes` has built is used; images are made here, of our programs and of this machine's.

mod control;
mod images;
mod node;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

pub use control::Control;
pub use images::Image;
pub use node::{NAME_SERVER, Node, PAUSE};

use crate::{
    clock::{Look, wait_until},
    docker,
    lab::{Lab, logs, target_directory},
    product::Programs,
    sandbox, scene, tool,
};

/// How long anything may take in a cluster on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Programs of ours that nodes need besides those of every test.
const PACKAGES: [&str; 3] = ["weave-cni", "weave-npc", "weave-kube"];

/// What kubectl is asked for all that our containers have said.
const OUR_LOGS: &str = "logs --namespace=kube-system --selector=name=weave-net --all-containers --prefix --tail=-1 --ignore-errors";

/// Runs a test's `body` as [`scene::play`] does, with everything built that a node needs.
///
/// # Errors
/// As [`scene::play`].
pub fn play(test: &str, body: impl FnOnce(&Programs) -> Result<()>) -> Result<()> {
    if sandbox::is_inside() {
        return scene::play(test, body);
    }
    if env::var_os("WEAVE_BIN_DIR").is_none() {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args(["build", "--quiet"]);
        cargo.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
        let status = cargo.arg("--target-dir").arg(target_directory()?).status();
        ensure!(status.context("cannot run cargo")?.success(), "the build failed; its messages are above");
    }
    let played = scene::play(test, body);
    docker::remove_cgroups();
    played
}

/// The images of a node: ours as the manifest names them, and what the tests' pods run.
///
/// # Errors
/// When a program is not there.
pub fn images(lab: &Lab, programs: &Programs) -> Result<Vec<PathBuf>> {
    let directory = lab.directory().join("images");
    let ours = |name: &'static str| (programs.weaver().with_file_name(name), name);
    let busybox = [(installed("busybox")?, "busybox")];
    let version = env!("CARGO_PKG_VERSION");
    let all = [
        Image {
            name: &format!("docker.io/weave/weave:{version}"),
            programs: &["weaver", "weave", "weave-kube", "weave-net"].map(ours),
            links: &[],
            files: &[],
        },
        Image {
            name: &format!("docker.io/weave/weave-npc:{version}"),
            programs: &[ours("weave-npc")],
            links: &[],
            files: &[],
        },
        Image { name: PAUSE, programs: &busybox, links: &["sleep"], files: &[] },
        Image {
            name: "docker.io/lab/box:1",
            programs: &busybox,
            links: &[
                "sh", "sleep", "ping", "httpd", "wget", "nslookup", "timeout", "cat", "kill", "ip", "tail",
            ],
            files: &[("www/index.html", "served by weave\n"), ("etc/passwd", "root:x:0:0:root:/:/bin/sh\n")],
        },
        Image {
            name: "docker.io/lab/dnsmasq:1",
            programs: &[(installed("dnsmasq")?, "dnsmasq")],
            links: &[],
            files: &[("etc/passwd", "root:x:0:0:root:/:/bin/sh\n"), ("etc/group", "root:x:0:\n")],
        },
    ];
    all.iter().map(|image| image.pack(&directory)).collect()
}

/// Where a program of this machine is.
fn installed(program: &str) -> Result<PathBuf> {
    let found = tool::run(Command::new("sh").args(["-c", &format!("command -v {program}")]));
    Ok(found.with_context(|| format!("this test needs {program}"))?.trim().into())
}

/// A file of this repository.
#[must_use]
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

impl Control<'_> {
    /// Runs kubectl with these words as administrator.
    ///
    /// # Errors
    /// When it fails.
    pub fn tell(&self, line: &str) -> Result<String> {
        Ok(tool::run(self.kubectl().args(line.split_whitespace()))?.trim().to_owned())
    }

    /// Applies a file of manifests of this repository.
    ///
    /// # Errors
    /// When it is refused.
    pub fn apply(&self, path: &str) -> Result<()> {
        tool::run(self.kubectl().args(["apply", "--filename"]).arg(file(path))).map(drop)
    }

    /// Runs a shell's line in a pod of the default namespace, and says whether it succeeded and what it printed.
    ///
    /// # Errors
    /// When kubectl cannot be run.
    pub fn inside(&self, pod: &str, line: &str) -> Result<(bool, String)> {
        let output = tool::output(self.kubectl().args(["exec", pod, "--", "sh", "-c", line]))?;
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok((output.status.success(), said.concat()))
    }

    /// Writes what the cluster knows to the lab's logs.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn keep_logs(&self) -> Result<()> {
        for (name, line) in [
            ("objects", "get --all-namespaces -o wide nodes,pods,services,endpoints,configmaps,events"),
            ("pods", "describe --all-namespaces pods"),
            ("weave", OUR_LOGS),
        ] {
            let said = tool::output(self.kubectl().args(line.split_whitespace()))?;
            fs::write(logs().join(format!("cluster-{name}.log")), [said.stdout, said.stderr].concat())?;
        }
        Ok(())
    }

    /// Fails for every line that ought never to be in a log of our containers.
    ///
    /// # Errors
    /// Names the first such line.
    pub fn no_errors(&self) -> Result<()> {
        scene::no_errors("a container", &self.tell(OUR_LOGS)?)
    }

    /// Waits until kubectl, with these words, prints what is wanted.
    ///
    /// # Errors
    /// When it does not in [`LIMIT`]; `what` is then named.
    pub fn await_answer_to(&self, what: &str, line: &str, is_so: impl Fn(&str) -> bool) -> Result<String> {
        let waited = wait_until(what, LIMIT, || {
            let said = self.tell(line)?;
            Ok(if is_so(&said) { Look::Found(said) } else { Look::NotYet(said) })
        });
        Ok(waited?.0)
    }

    /// Waits until a shell's line succeeds in a pod; or fails, unless `succeeds`.
    ///
    /// # Errors
    /// When it does not in [`LIMIT`].
    pub fn await_inside(&self, pod: &str, line: &str, succeeds: bool) -> Result<String> {
        let waited = wait_until(&format!("`{line}` in {pod} to end so: {succeeds}"), LIMIT, || {
            let (has_succeeded, said) = self.inside(pod, line)?;
            Ok(if has_succeeded == succeeds { Look::Found(said) } else { Look::NotYet(said) })
        });
        Ok(waited?.0)
    }
}
