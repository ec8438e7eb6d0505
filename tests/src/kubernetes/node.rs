//! A node: containerd, kubelet and kube-proxy on a host of the lab, with files of its own.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::control::Control;
use crate::{
    clock::{Look, wait_until},
    cni_clients::REFERENCE_PLUGINS,
    docker,
    lab::{Host, Lab, Process},
    tool,
};

/// The image that holds a pod's namespaces.
pub const PAUSE: &str = "docker.io/lab/pause:1";

/// Where pods find the cluster's name server.
pub const NAME_SERVER: &str = "10.96.0.10";

/// How long containerd may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// What a kubelet sets on its machine, and would set on this one: it is shown files in which that is done already.
const KERNEL: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// A node. Ended when dropped; its containers end with the sandbox.
#[derive(Debug)]
pub struct Node<'h> {
    host: &'h Host,
    processes: Vec<Process>,
}

impl<'h> Node<'h> {
    /// Makes `host` a node of the cluster, named after it, which has these images.
    ///
    /// # Errors
    /// When a program is not there or does not start.
    pub fn start(lab: &Lab, control: &Control<'_>, host: &'h Host, images: &[PathBuf]) -> Result<Self> {
        let directory = lab.directory().join(format!("node-{}", host.name()));
        fs::create_dir_all(directory.join("kernel"))?;
        let mut node = Self { host, processes: Vec::new() };
        node.file_systems(&directory)?;
        host.run(&format!("ip route add default via {}", control.host().address()?))?;
        node.containerd(&directory, images)?;
        node.kubelet(&directory, control)?;
        node.proxy(control)?;
        Ok(node)
    }

    /// Its host.
    #[must_use]
    pub fn host(&self) -> &'h Host {
        self.host
    }

    /// Kills kubelet, containerd and kube-proxy; containers go on.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn kill(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::kill)?;
        self.processes.clear();
        Ok(())
    }

    /// Gives the host directories of its own wherever a node writes, and lets mounts made later be seen in containers.
    fn file_systems(&self, directory: &Path) -> Result<()> {
        let mut script = String::from("set -e\n");
        for place in ["/var/lib", "/var/log", "/opt"] {
            writeln!(script, "mount -n -t tmpfs -o mode=755 tmpfs {place}")?;
        }
        // With `/lib/modules`, which a runtime makes where it is missing and a pod mounts it.
        for (place, inside) in [("/etc", "cni/net.d"), ("/usr/lib", "modules")] {
            let layer = directory.join(place.replace('/', "-"));
            fs::create_dir_all(layer.join("work"))?;
            fs::create_dir_all(layer.join("upper").join(inside))?;
            let layer = layer.display();
            let options = format!("lowerdir={place},upperdir={layer}/upper,workdir={layer}/work");
            writeln!(script, "mount -n -t overlay -o {options} overlay {place}")?;
        }
        // What other runtimes of this machine brought.
        script += "rm -f /etc/cni/net.d/*\n";
        // Two machines have two identities.
        writeln!(script, "tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id")?;
        for (number, (name, value)) in KERNEL.iter().enumerate() {
            let file = directory.join("kernel").join(number.to_string());
            fs::write(&file, format!("{value}\n"))?;
            writeln!(script, "mount -n --bind {} /proc/sys/{name}", file.display())?;
        }
        // What every node has from its distribution; a conflist of ours calls the second.
        script += "mkdir -p /opt/cni/bin /run/netns\n";
        for plugin in ["loopback", "portmap"] {
            writeln!(script, "cp {REFERENCE_PLUGINS}/{plugin} /opt/cni/bin/")?;
        }
        script += "mount -n --make-rshared /\n";
        let file = directory.join("file-systems");
        fs::write(&file, script)?;
        self.host.run(&format!("sh {}", file.display())).map(drop)
    }

    fn containerd(&mut self, directory: &Path, images: &[PathBuf]) -> Result<()> {
        let config = format!(
            "version = 2\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"/var/lib/containerd/opt\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{PAUSE}\"\n\
             disable_apparmor = true\nrestrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"overlayfs\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/opt/cni/bin\"\nconf_dir = \"/etc/cni/net.d\"\n"
        );
        let file = directory.join("containerd.toml");
        fs::write(&file, config)?;
        let mut command = self.host.command("containerd");
        command.arg("--config").arg(&file);
        let process = self.host.spawn(command, &format!("containerd-{}", self.host.name()))?;
        let waited = wait_until("containerd", START, || {
            let asked = tool::output(self.host.command("ctr").arg("version"))?;
            Ok(Look::when(asked.status.success(), || String::from_utf8_lossy(&asked.stderr).into_owned()))
        });
        waited.with_context(|| process.last_words(5))?;
        self.processes.push(process);
        for image in images {
            let mut import = self.host.command("ctr");
            tool::run(import.args(["--namespace", "k8s.io", "images", "import"]).arg(image))?;
        }
        Ok(())
    }

    fn kubelet(&mut self, directory: &Path, control: &Control<'_>) -> Result<()> {
        let name = self.host.name();
        let resolver = directory.join("resolv.conf");
        fs::write(&resolver, "")?;
        let config = json!({
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
            "authorization": { "mode": "AlwaysAllow" },
            "clusterDNS": [NAME_SERVER],
            "clusterDomain": "cluster.local",
            "resolvConf": resolver,
            "cgroupRoot": format!("/{}", docker::cgroup(self.host)),
            "cgroupsPerQOS": false,
            "enforceNodeAllocatable": [],
            "failSwapOn": false,
            "oomScoreAdj": 0,
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "imageGCHighThresholdPercent": 100,
            "evictionHard": { "memory.available": "1Mi" },
            "nodeStatusUpdateFrequency": "4s",
        });
        let file = directory.join("kubelet.json");
        fs::write(&file, config.to_string())?;
        let mut command = self.host.command(control.program("kubelet"));
        command.arg(format!("--config={}", file.display()));
        command.arg(format!("--kubeconfig={}", control.kubeconfig(&format!("system:node:{name}")).display()));
        command.arg(format!("--hostname-override={name}"));
        command.arg(format!("--node-ip={}", self.host.address()?));
        command.args([
            "--container-runtime=remote",
            "--container-runtime-endpoint=unix:///run/containerd/containerd.sock",
            "--cert-dir=/var/lib/kubelet/pki",
        ]);
        self.processes.push(self.host.spawn(command, &format!("kubelet-{name}"))?);
        Ok(())
    }

    fn proxy(&mut self, control: &Control<'_>) -> Result<()> {
        let name = self.host.name();
        let mut command = self.host.command(control.program("kube-proxy"));
        command.arg(format!("--kubeconfig={}", control.kubeconfig("system:kube-proxy").display()));
        command.arg(format!("--hostname-override={name}"));
        // What it would set of connection tracking is the machine's.
        command.args([
            "--proxy-mode=iptables",
            "--conntrack-max-per-core=0",
            "--conntrack-min=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        ]);
        self.processes.push(self.host.spawn(command, &format!("kube-proxy-{name}"))?);
        Ok(())
    }
}
