//! What a node needs before pods can start: the CNI plugin, its configuration, kernel settings.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::peers::replace;

/// Directories for plugins, on the host, in the order in which they are tried: some hosts have a read-only /opt.
const PLUGIN_DIRECTORIES: [&str; 2] = ["opt/cni/bin", "home/kubernetes/bin"];

/// Directory of the configuration, on the host.
const CONFIG_DIRECTORY: &str = "etc/cni/net.d";

/// Our configuration.
const CONFLIST: &str = "10-weave.conflist";

/// The name of the older form of it, which must not stand beside.
const OLD_CONFIG: &str = "10-weave.conf";

/// Settings that pods need, where the kernel has them: forwarding, and bridged packets seen by Services and policies.
const SYSCTLS: [(&str, &str); 4] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/bridge/bridge-nf-call-iptables", "1"),
    ("net/bridge/bridge-nf-call-ip6tables", "1"),
];

/// What to install, and where.
#[derive(Debug, Clone, Args)]
pub struct Install {
    /// Where the host's root is mounted
    #[arg(long, env = "HOST_ROOT", value_name = "DIR", default_value = "/host")]
    pub host_root: PathBuf,
    /// The plugin's program
    #[arg(long, env = "WEAVE_NET", value_name = "FILE", default_value = "/usr/bin/weave-net")]
    pub plugin: PathBuf,
    /// Whether pods may reach themselves through a Service
    #[arg(long, env = "HAIRPIN_MODE", value_name = "BOOL", default_value = "true", action = clap::ArgAction::Set)]
    pub hairpin_mode: bool,
    /// Whether weave-npc runs on this node: a pod is connected only when that has isolated it as its policies want
    #[arg(long, env = "EXPECT_NPC", value_name = "BOOL", default_value = "true",
        action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub expect_npc: bool,
    /// The socket of weave-npc, as the host sees it
    #[arg(long, env = "NPC_SOCKET", value_name = "FILE", default_value = "/run/weave/npc.sock")]
    pub npc_socket: PathBuf,
    /// The router's socket, as the host sees it
    #[arg(long, env = "WEAVE_SOCKET", value_name = "FILE", default_value = "/run/weave/weave.sock")]
    pub socket: PathBuf,
    /// Where kernel settings are
    #[arg(long, value_name = "DIR", default_value = "/proc/sys", hide = true)]
    pub proc_sys: PathBuf,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Installed {
    /// Files that were written or removed, and settings that were made.
    pub changes: Vec<String>,
    /// What could not be done, and may not matter.
    pub warnings: Vec<String>,
}

impl Install {
    /// Installs what is missing or out of date. Files of others are not touched.
    ///
    /// # Errors
    /// When the plugin or its configuration cannot be written, or the configuration in place is somebody else's.
    pub fn run(&self) -> Result<Installed> {
        let mut installed = Installed::default();
        self.plugin(&mut installed)?;
        self.settings(&mut installed);
        // Last: the configuration is what makes a kubelet call the node ready.
        self.configuration(&mut installed)?;
        Ok(installed)
    }

    /// The configuration list.
    #[must_use]
    pub fn conflist(&self) -> Value {
        let mut weave = json!({
            "type": "weave-net",
            "hairpinMode": self.hairpin_mode,
            "capabilities": { "ips": true, "mac": true },
            "socket": self.socket,
        });
        if self.expect_npc {
            weave["policySocket"] = json!(self.npc_socket);
        }
        json!({
            "cniVersion": "1.0.0",
            "name": "weave",
            "disableCheck": false,
            "plugins": [
                weave,
                { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
            ],
        })
    }

    fn plugin(&self, installed: &mut Installed) -> Result<()> {
        let program = fs::read(&self.plugin)
            .with_context(|| format!("cannot read the CNI plugin {}", self.plugin.display()))?;
        let mut refusals = Vec::new();
        for directory in PLUGIN_DIRECTORIES.map(|directory| self.host_root.join(directory)) {
            match put_plugin(&directory, &program, installed) {
                Ok(()) => return Ok(()),
                Err(error) => refusals.push(format!("{error:#}")),
            }
        }
        bail!("the CNI plugin cannot be installed: {}", refusals.join("; "))
    }

    fn configuration(&self, installed: &mut Installed) -> Result<()> {
        let directory = self.host_root.join(CONFIG_DIRECTORY);
        let path = directory.join(CONFLIST);
        let mut wanted = serde_json::to_vec_pretty(&self.conflist())?;
        wanted.push(b'\n');
        let present = fs::read(&path).ok();
        if present.as_ref() != Some(&wanted) {
            let is_foreign = present.is_some_and(|present| !is_ours(&present));
            if is_foreign {
                bail!("{} is there and does not name weave-net: move it away", path.display());
            }
            replace(&path, &wanted, 0o644)?;
            installed.changes.push(path.display().to_string());
        }
        let old = directory.join(OLD_CONFIG);
        if fs::read(&old).is_ok_and(|present| is_ours(&present)) {
            fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
            installed.changes.push(format!("{} (removed)", old.display()));
        }
        Ok(())
    }

    fn settings(&self, installed: &mut Installed) {
        if !self.proc_sys.join("net/bridge").exists() {
            // Where there is no modprobe, or no such module, the warning below says what is missing.
            let _tried = Command::new("modprobe").arg("br_netfilter").stderr(Stdio::null()).status();
        }
        for (name, value) in SYSCTLS {
            let path = self.proc_sys.join(name);
            match fs::read_to_string(&path) {
                Ok(present) if present.trim() == value => {}
                Ok(_) => match fs::write(&path, value) {
                    Ok(()) => installed.changes.push(format!("{name} = {value}")),
                    Err(error) => installed.warnings.push(format!("cannot set {name} to {value}: {error}")),
                },
                Err(_) if name.starts_with("net/bridge") => {
                    let warning = format!(
                        "{name} is not there: load br_netfilter, or Services may not work between pods of one node"
                    );
                    installed.warnings.push(warning);
                }
                Err(_) => {}
            }
        }
    }
}

/// Puts the plugin there in one step, so that it may run meanwhile, and its second name beside it.
fn put_plugin(directory: &Path, program: &[u8], installed: &mut Installed) -> Result<()> {
    let path = directory.join("weave-net");
    if fs::read(&path).ok().as_deref() != Some(program) {
        replace(&path, program, 0o755)?;
        installed.changes.push(path.display().to_string());
    }
    let second = directory.join("weave-ipam");
    if fs::read_link(&second).ok().as_deref() != Some(Path::new("weave-net")) {
        let fresh = directory.join(".weave-ipam.weave-new");
        let _absent = fs::remove_file(&fresh);
        std::os::unix::fs::symlink("weave-net", &fresh)
            .and_then(|()| fs::rename(&fresh, &second))
            .with_context(|| format!("cannot write {}", second.display()))?;
        installed.changes.push(second.display().to_string());
    }
    Ok(())
}

/// Whether a configuration names our plugin.
fn is_ours(present: &[u8]) -> bool {
    let Ok(document) = serde_json::from_slice::<Value>(present) else { return false };
    let plugins = document.get("plugins").and_then(Value::as_array).cloned().unwrap_or_default();
    let all = plugins.iter().chain([&document]);
    all.into_iter().any(|plugin| plugin.get("type").and_then(Value::as_str) == Some("weave-net"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host(PathBuf);

    impl Host {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("weave-kube-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("sys/net/ipv4")).unwrap();
            fs::write(root.join("sys/net/ipv4/ip_forward"), "0\n").unwrap();
            fs::write(root.join("plugin"), "first").unwrap();
            Self(root)
        }

        fn install(&self) -> Install {
            Install {
                host_root: self.0.join("host"),
                plugin: self.0.join("plugin"),
                hairpin_mode: true,
                expect_npc: true,
                npc_socket: "/run/weave/npc.sock".into(),
                socket: "/run/weave/weave.sock".into(),
                proc_sys: self.0.join("sys"),
            }
        }

        fn text(&self, path: &str) -> String {
            fs::read_to_string(self.0.join(path)).unwrap_or_default()
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn what_is_missing_is_installed_once_and_what_is_old_is_replaced() {
        let host = Host::new("install");
        let first = host.install().run().unwrap();
        assert_eq!(first.changes.len(), 4, "{first:?}");
        assert!(host.text("host/etc/cni/net.d/10-weave.conflist").contains("portmap"));
        assert_eq!(host.text("host/opt/cni/bin/weave-ipam"), "first");
        assert_eq!(host.text("sys/net/ipv4/ip_forward"), "1");
        assert_eq!(host.install().run().unwrap().changes, Vec::<String>::new());
        fs::write(host.0.join("plugin"), "second").unwrap();
        let again = Install { hairpin_mode: false, ..host.install() }.run().unwrap();
        assert_eq!(again.changes.len(), 2, "{again:?}");
        assert_eq!(host.text("host/opt/cni/bin/weave-net"), "second");
        let left = fs::read_dir(host.0.join("host/opt/cni/bin")).unwrap().count();
        assert_eq!(left, 2, "nothing else is left");
    }

    #[test]
    fn what_is_somebody_else_s_stays() {
        let host = Host::new("foreign");
        let directory = host.0.join("host/etc/cni/net.d");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("10-weave.conflist"), r#"{"plugins":[{"type":"other"}]}"#).unwrap();
        let error = format!("{:#}", host.install().run().unwrap_err());
        assert!(error.contains("10-weave.conflist"), "{error}");
        assert!(host.text("host/etc/cni/net.d/10-weave.conflist").contains("other"));
        fs::remove_file(directory.join("10-weave.conflist")).unwrap();
        fs::write(directory.join("10-weave.conf"), r#"{"type":"weave-net"}"#).unwrap();
        fs::write(directory.join("05-other.conf"), r#"{"type":"other"}"#).unwrap();
        host.install().run().unwrap();
        assert!(!directory.join("10-weave.conf").exists() && directory.join("05-other.conf").exists());
    }

    #[test]
    fn a_host_with_a_read_only_opt_gets_the_plugin_elsewhere() {
        let host = Host::new("readonly");
        fs::create_dir_all(host.0.join("host")).unwrap();
        // A file where a directory should be: not even root can write below it.
        fs::write(host.0.join("host/opt"), "").unwrap();
        host.install().run().unwrap();
        assert_eq!(host.text("host/home/kubernetes/bin/weave-net"), "first");
    }
}
