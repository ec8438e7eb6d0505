//! What the environment of the DaemonSet says, and the command line of `weaver` that follows from it.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

/// The settings of a node. Names of variables and defaults are those of Weave Net.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Name of this node
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node: Option<String>,
    /// Name of this host, used where NODE_NAME is not set
    #[arg(long, env = "HOSTNAME", value_name = "NAME")]
    pub hostname: Option<String>,
    /// Routers to connect to, separated by blanks, instead of the cluster's nodes
    #[arg(long, env = "KUBE_PEERS", value_name = "HOSTS", default_value = "", hide_default_value = true)]
    pub peers: String,
    /// Address ranges of pods
    #[arg(long, env = "IPALLOC_RANGE", value_name = "CIDRS", default_value = "10.32.0.0/12")]
    pub ipalloc_range: String,
    /// How the address ring starts; consensus=N with the number of nodes unless given
    #[arg(long, env = "IPALLOC_INIT", value_name = "MODE", default_value = "", hide_default_value = true)]
    pub ipalloc_init: String,
    /// MTU, bytes; the best that every path carries unless given
    #[arg(long, env = "WEAVE_MTU", value_name = "BYTES", default_value = "", hide_default_value = true)]
    pub mtu: String,
    /// Most links of one router
    #[arg(long, env = "CONN_LIMIT", value_name = "N", default_value_t = 200)]
    pub conn_limit: usize,
    /// The host's address on the network; one from the range unless given
    #[arg(long, env = "WEAVE_EXPOSE_IP", value_name = "CIDR", default_value = "", hide_default_value = true)]
    pub expose_ip: String,
    /// Whether pods see the addresses of who calls from outside through their own node; 0 for no
    #[arg(long, env = "NO_MASQ_LOCAL", value_name = "0|1", default_value = "1")]
    pub no_masq_local: String,
    /// Where Prometheus is answered; an empty value turns it off
    #[arg(long, env = "WEAVE_METRICS_ADDR", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:6782")]
    pub metrics_addr: String,
    /// Where state is kept
    #[arg(long, env = "DB_PREFIX", value_name = "PREFIX", default_value = "/weavedb/weave-net")]
    pub db_prefix: PathBuf,
    /// Directory of the control socket
    #[arg(long, env = "WEAVE_RUN_DIR", value_name = "DIR", default_value = "/run/weave")]
    pub run_dir: PathBuf,
    /// Further arguments of weaver, separated by blanks
    #[arg(
        long,
        env = "EXTRA_ARGS",
        value_name = "FLAGS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub extra_args: String,
    /// The router's program
    #[arg(long, env = "WEAVER", value_name = "FILE", default_value = "weaver")]
    pub weaver: PathBuf,
    /// How to reach the API server; by the service account of this pod unless given
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// How long the API server is asked for the nodes at the start, before the list of the last time is used, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub api_patience: u64,
    /// Namespace of the ConfigMap and the Lease
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "kube-system")]
    pub namespace: String,
}

impl Settings {
    /// The node's name.
    ///
    /// # Errors
    /// When neither variable is set.
    pub fn node(&self) -> anyhow::Result<&str> {
        let named = self.node.as_deref().or(self.hostname.as_deref()).filter(|name| !name.is_empty());
        named.ok_or_else(|| anyhow::anyhow!("the node has no name: set NODE_NAME (fieldRef: spec.nodeName)"))
    }

    /// The peers that were named instead of the cluster's nodes.
    #[must_use]
    pub fn named_peers(&self) -> Vec<String> {
        self.peers.split_whitespace().map(str::to_owned).collect()
    }

    /// The arguments of the router, for a cluster of `nodes` nodes.
    ///
    /// # Errors
    /// When the node has no name.
    pub fn weaver_arguments(&self, peers: &[String], nodes: usize) -> anyhow::Result<Vec<OsString>> {
        let mut arguments: Vec<OsString> = vec![
            "--no-dns".into(),
            format!("--nickname={}", self.node()?).into(),
            format!("--conn-limit={}", self.conn_limit).into(),
            format!("--ipalloc-range={}", self.ipalloc_range).into(),
        ];
        arguments.extend(self.storage_arguments());
        if self.no_masq_local != "0" {
            arguments.push("--no-masq-local".into());
        }
        let init = if self.ipalloc_init.is_empty() {
            format!("consensus={}", nodes.max(1))
        } else {
            self.ipalloc_init.clone()
        };
        arguments.push(format!("--ipalloc-init={init}").into());
        let optional = [("--mtu", &self.mtu), ("--metrics-addr", &self.metrics_addr)];
        for (flag, value) in optional.into_iter().filter(|(_, value)| !value.is_empty()) {
            arguments.push(format!("{flag}={value}").into());
        }
        arguments.extend(self.extra_args.split_whitespace().map(OsString::from));
        arguments.extend(peers.iter().map(OsString::from));
        Ok(arguments)
    }

    /// The arguments that say where state is.
    #[must_use]
    pub fn storage_arguments(&self) -> Vec<OsString> {
        let with = |flag: &str, path: &PathBuf| {
            let mut argument = OsString::from(flag);
            argument.push(path);
            argument
        };
        vec![with("--db-prefix=", &self.db_prefix), with("--run-dir=", &self.run_dir)]
    }

    /// A file beside the store.
    #[must_use]
    pub fn beside_store(&self, suffix: &str) -> PathBuf {
        let mut path = self.db_prefix.clone().into_os_string();
        path.push(suffix);
        path.into()
    }
}

/// Variables of Weave Net that mean nothing here, and why.
pub const WITHOUT_MEANING: [(&str, &str); 3] = [
    ("CHECKPOINT_DISABLE", "nothing phones home"),
    ("IPTABLES_BACKEND", "rules are nftables of our own"),
    ("WEAVE_STATUS_ADDR", "the control API is a unix socket"),
];

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn settings(words: &[&str]) -> Settings {
        Line::parse_from(std::iter::once(&"weave-kube").chain(words)).settings
    }

    #[test]
    fn a_router_is_started_as_the_environment_says() {
        let plain = settings(&["--node=n1"]);
        let arguments = plain.weaver_arguments(&["192.0.2.2".to_owned()], 3).unwrap();
        let text: Vec<_> = arguments.iter().filter_map(|a| a.to_str()).collect();
        assert_eq!(
            text,
            [
                "--no-dns",
                "--nickname=n1",
                "--conn-limit=200",
                "--ipalloc-range=10.32.0.0/12",
                "--db-prefix=/weavedb/weave-net",
                "--run-dir=/run/weave",
                "--no-masq-local",
                "--ipalloc-init=consensus=3",
                "--metrics-addr=0.0.0.0:6782",
                "192.0.2.2"
            ]
        );
        let more = settings(&[
            "--node=n1",
            "--ipalloc-init=observer",
            "--mtu=1400",
            "--metrics-addr=",
            "--no-masq-local=0",
            "--extra-args=--log-level debug",
        ]);
        let text = format!("{:?}", more.weaver_arguments(&[], 0).unwrap());
        assert!(text.contains("--ipalloc-init=observer") && text.contains("--mtu=1400"), "{text}");
        assert!(text.contains("\"--log-level\", \"debug\"") && !text.contains("metrics"), "{text}");
        assert!(!text.contains("masq"), "{text}");
    }
}
