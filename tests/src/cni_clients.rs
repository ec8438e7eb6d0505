//! Real clients of CNI plugins on the hosts of a lab: podman, and containerd.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    clock::{Look, wait_until},
    cni::Plugins,
    lab::{Host, Lab, Process},
    product::Router,
    tool,
};

/// Where Debian's package `containernetworking-plugins` puts the reference plugins.
pub const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// A root file system with nothing but busybox, as `busybox-static` has it.
///
/// # Errors
/// When busybox is not installed.
pub fn root_file_system(lab: &Lab, name: &str) -> Result<PathBuf> {
    let root = lab.directory().join(name);
    for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "run", "www"] {
        fs::create_dir_all(root.join(directory))?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file());
    let busybox = busybox.context("this test needs the package busybox-static")?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    for applet in ["sh", "sleep", "ping", "httpd", "ip", "cat"] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("www/index.html"), "served by weave\n")?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    Ok(root)
}

/// The configuration list that a node gets, for this router: our plugin, then portmap, as `weave-kube` installs it.
#[must_use]
pub fn conflist(router: &Router<'_>, version: &str) -> serde_json::Value {
    serde_json::json!({
        "cniVersion": version,
        "name": "weave",
        "disableCheck": false,
        "plugins": [
            {
                "type": "weave-net",
                "hairpinMode": true,
                "capabilities": { "ips": true, "mac": true },
                "socket": router.run_dir().join("weave.sock"),
            },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
        ],
    })
}

/// A script that shows the unified hierarchy alone where the system has both.
fn unify_control_groups(directory: &Path) -> Result<PathBuf> {
    let script = directory.join("control-groups");
    let text = "[ ! -d /sys/fs/cgroup/unified ] || mount -n --bind /sys/fs/cgroup/unified /sys/fs/cgroup\n";
    fs::write(&script, text)?;
    Ok(script)
}

/// Fetches the page of a server; `command` is where from.
///
/// # Errors
/// When there is no answer in ten seconds.
pub fn fetch(mut command: Command, server: &str, port: u16) -> Result<String> {
    const SCRIPT: &str = r#"exec 3<>"/dev/tcp/$0/$1"; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3"#;
    command.args(["timeout", "10", "bash", "-c", SCRIPT, server, &port.to_string()]);
    let answer = tool::run(&mut command)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(body.trim().to_owned())
}

/// podman on one host, with files of its own.
#[derive(Debug)]
pub struct Podman<'h> {
    host: &'h Host,
    directory: PathBuf,
}

impl<'h> Podman<'h> {
    /// Prepares podman on this router's host: its network `weave` is made by our plugin and `portmap`.
    ///
    /// # Errors
    /// When podman is not installed.
    pub fn new(lab: &Lab, router: &Router<'h>, plugins: &Plugins) -> Result<Self> {
        let host = router.host();
        let directory = lab.directory().join(format!("podman-{}", host.name()));
        for sub in ["net", "storage", "run", "tmp"] {
            fs::create_dir_all(directory.join(sub))?;
        }
        let list = conflist(router, "0.4.0").to_string();
        fs::write(directory.join("net/10-weave.conflist"), list)?;
        let settings = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             log_driver = \"k8s-file\"\n\
             [network]\nnetwork_backend = \"cni\"\ndefault_network = \"weave\"\n\
             network_config_dir = \"{net}\"\ncni_plugin_dirs = [\"{ours}\", \"{REFERENCE_PLUGINS}\"]\n\
             [engine]\nruntime = \"crun\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n",
            net = directory.join("net").display(),
            ours = plugins.directory().display(),
        );
        fs::write(directory.join("containers.conf"), settings)?;
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            directory.join("storage").display(),
            directory.join("run").display(),
        );
        fs::write(directory.join("storage.conf"), storage)?;
        // crun knows one hierarchy of control groups only; this host's mounts are its own.
        host.run(&format!("sh {}", unify_control_groups(&directory)?.display()))?;
        let podman = Self { host, directory };
        podman.tell("--version").context("this test needs the package podman")?;
        Ok(podman)
    }

    /// A podman command.
    #[must_use]
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = self.host.command("podman");
        command.env("CONTAINERS_CONF", self.directory.join("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.directory.join("storage.conf"));
        command.env("TMPDIR", self.directory.join("tmp"));
        command.args(["--tmpdir", &self.directory.join("tmp").display().to_string()]);
        command.args(arguments.split_whitespace());
        command
    }

    /// Runs podman with these arguments and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn tell(&self, arguments: &str) -> Result<String> {
        Ok(tool::run(&mut self.command(arguments))?.trim().to_owned())
    }

    /// Fetches the page of a server from a container's network, with the host's programs.
    ///
    /// # Errors
    /// When there is no page.
    pub fn fetch(&self, container: &str, server: &str, port: u16) -> Result<String> {
        let pid = self.tell(&format!("inspect --format {{{{.State.Pid}}}} {container}"))?;
        let mut command = self.host.command("nsenter");
        command.args(["--target", &pid, "--net"]);
        fetch(command, server, port)
    }

    /// Starts a container from a root file system and returns its address.
    ///
    /// # Errors
    /// When podman fails, or the container has no address.
    pub fn start(&self, name: &str, options: &str, root: &Path, command: &str) -> Result<String> {
        let fixed = "run --detach --cgroups=disabled --security-opt=seccomp=unconfined --net=weave";
        self.tell(&format!("{fixed} --name={name} {options} --rootfs {} {command}", root.display()))?;
        let shown = self.tell(&format!("exec {name} ip -4 -o addr show dev eth0"))?;
        let address = shown.split_whitespace().skip_while(|word| *word != "inet").nth(1);
        let address = address.and_then(|net| net.split('/').next()).unwrap_or_default().to_owned();
        ensure!(!address.is_empty(), "{name} has no address: {shown}");
        Ok(address)
    }
}

/// containerd on one host, with files of its own. Ended when dropped.
#[derive(Debug)]
pub struct Containerd<'h> {
    host: &'h Host,
    socket: PathBuf,
    _process: Process,
}

impl<'h> Containerd<'h> {
    /// Starts containerd on this router's host. Its client looks for plugins and networks where everybody does; the
    /// host's mounts there are its own.
    ///
    /// # Errors
    /// When containerd is not installed, or does not answer.
    pub fn start(lab: &Lab, router: &Router<'h>, plugins: &Plugins) -> Result<Self> {
        let host = router.host();
        let directory = lab.directory().join(format!("containerd-{}", host.name()));
        fs::create_dir_all(&directory)?;
        let list = directory.join("10-weave.conflist");
        fs::write(&list, conflist(router, "1.0.0").to_string())?;
        let script = directory.join("mounts");
        let text = format!(
            "set -e\nmount -n -t tmpfs tmpfs /opt\nmkdir -p /opt/cni/bin\n\
             cp -a {}/. /opt/cni/bin/\ncp {REFERENCE_PLUGINS}/portmap {REFERENCE_PLUGINS}/loopback /opt/cni/bin/\n\
             mount -n -t tmpfs tmpfs /etc/cni\nmkdir /etc/cni/net.d\ncp {} /etc/cni/net.d/\n",
            plugins.directory().display(),
            list.display(),
        );
        fs::write(&script, text)?;
        host.run(&format!("sh {}", script.display())).context("this test needs /etc/cni and /opt")?;
        let config = directory.join("config.toml");
        fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")?;
        let socket = directory.join("containerd.sock");
        let mut command = host.command("containerd");
        command.arg("--config").arg(&config).arg("--address").arg(&socket);
        command.arg("--root").arg(directory.join("root")).arg("--state").arg(directory.join("state"));
        let process = host.spawn(command, &format!("containerd-{}", host.name()))?;
        let containerd = Self { host, socket, _process: process };
        wait_until("containerd", Duration::from_secs(30), || {
            let asked = tool::output(containerd.ctr().arg("version"))?;
            let said = String::from_utf8_lossy(&asked.stderr).into_owned();
            Ok(Look::when(asked.status.success(), || said))
        })?;
        Ok(containerd)
    }

    /// A command of its client; arguments are to be added.
    #[must_use]
    pub fn ctr(&self) -> Command {
        let mut command = self.host.command("ctr");
        command.arg("--address").arg(&self.socket);
        command
    }

    /// Runs a command in a container with a network by CNI, and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, id: &str, root: &Path, line: &str) -> Result<String> {
        let mut command = self.ctr();
        command
            .args(["run", "--rm", "--cni", "--cgroup", "", "--rootfs"])
            .arg(root)
            .arg(id)
            .args(line.split_whitespace());
        tool::run(&mut command)
    }
}
