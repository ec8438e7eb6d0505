//! A control plane: etcd, the API server, controllers and the scheduler, on a host of its own, with roles enforced.

use std::{fmt::Write as _, fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::{
    clock::{Look, wait_until},
    lab::{Host, Lab, Process, target_directory},
    tool,
};

/// Where Services have their addresses.
const SERVICES: &str = "10.96.0.0/16";

/// The address of the API server's own Service: the first.
const OWN_SERVICE: &str = "10.96.0.1";

/// How long a program of the control plane may take to start on a busy machine.
const START: Duration = Duration::from_secs(180);

/// Who knows a token: user, groups.
const USERS: [(&str, &str); 4] = [
    ("admin", "system:masters"),
    ("system:kube-controller-manager", ""),
    ("system:kube-scheduler", ""),
    ("system:kube-proxy", ""),
];

/// The control plane. Ended when dropped.
#[derive(Debug)]
pub struct Control<'h> {
    host: &'h Host,
    programs: PathBuf,
    directory: PathBuf,
    processes: Vec<Process>,
}

impl<'h> Control<'h> {
    /// Starts it on `host`, for nodes of these names, and waits until it answers.
    ///
    /// # Errors
    /// When Kubernetes has not been built, or something of it does not come up.
    pub fn start(lab: &Lab, host: &'h Host, nodes: &[&str]) -> Result<Self> {
        let programs = target_directory()?.join("kubernetes/bin");
        ensure!(programs.is_dir(), "there is no Kubernetes: cargo xtask test --kubernetes builds it");
        let directory = lab.directory().join("control");
        fs::create_dir_all(directory.join("etcd"))?;
        let mut control = Self { host, programs, directory, processes: Vec::new() };
        control.certificates()?;
        control.users(nodes)?;
        control.etcd()?;
        control.api_server()?;
        control.await_answer()?;
        control.controllers()?;
        Ok(control)
    }

    /// A program of Kubernetes.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The file by which a user reaches the API server.
    #[must_use]
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.directory.join(format!("{}.kubeconfig", user.replace(':', "-")))
    }

    /// Runs kubectl as administrator.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        let mut command = self.host.command(self.program("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig("admin"));
        command.arg("--cache-dir").arg(self.directory.join("cache"));
        command
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        self.host
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn certificates(&self) -> Result<()> {
        let address = self.host.address()?;
        let names = "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc";
        fs::write(
            self.directory.join("server.ext"),
            format!(
                "basicConstraints=CA:FALSE\nsubjectAltName={names},IP:{address},IP:{OWN_SERVICE},IP:127.0.0.1\n"
            ),
        )?;
        for line in [
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=lab -days 2",
            "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=kube-apiserver",
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile server.ext",
            "genrsa -out accounts.key 2048",
        ] {
            let mut openssl = Command::new("openssl");
            tool::run(openssl.current_dir(&self.directory).args(line.split_whitespace()))?;
        }
        Ok(())
    }

    /// Writes the list of tokens, and a kubeconfig for each.
    fn users(&self, nodes: &[&str]) -> Result<()> {
        let fixed = USERS.iter().map(|(user, groups)| ((*user).to_owned(), *groups));
        let nodes = nodes.iter().map(|node| (format!("system:node:{node}"), "system:nodes"));
        let mut tokens = String::new();
        for (user, groups) in fixed.chain(nodes) {
            writeln!(tokens, "token-of-{user},{user},{user},\"{groups}\"")?;
            let config = json!({
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "lab",
                "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": user } }],
                "clusters": [{ "name": "lab", "cluster": {
                    "server": format!("https://{}:6443", self.host.address()?),
                    "certificate-authority": self.file("ca.crt"),
                } }],
                "users": [{ "name": user, "user": { "token": format!("token-of-{user}") } }],
            });
            fs::write(self.kubeconfig(&user), config.to_string())?;
        }
        fs::write(self.directory.join("tokens.csv"), tokens).map_err(Into::into)
    }

    fn run(&mut self, name: &str, flags: &[String]) -> Result<()> {
        let mut command = self.host.command(self.program(name));
        command.args(flags);
        let process = self.host.spawn(command, name)?;
        self.processes.push(process);
        Ok(())
    }

    fn etcd(&mut self) -> Result<()> {
        let flags = [
            format!("--data-dir={}", self.file("etcd")),
            "--listen-client-urls=http://127.0.0.1:2379".into(),
            "--advertise-client-urls=http://127.0.0.1:2379".into(),
            "--listen-peer-urls=http://127.0.0.1:2380".into(),
        ];
        self.run("etcd", &flags)
    }

    fn api_server(&mut self) -> Result<()> {
        let address = self.host.address()?;
        let flags = [
            "--etcd-servers=http://127.0.0.1:2379".into(),
            format!("--advertise-address={address}"),
            format!("--tls-cert-file={}", self.file("server.crt")),
            format!("--tls-private-key-file={}", self.file("server.key")),
            format!("--token-auth-file={}", self.file("tokens.csv")),
            format!("--service-account-key-file={}", self.file("accounts.key")),
            format!("--service-account-signing-key-file={}", self.file("accounts.key")),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--allow-privileged=true".into(),
            "--kubelet-preferred-address-types=InternalIP".into(),
            format!("--cert-dir={}", self.file("certificates")),
        ];
        self.run("kube-apiserver", &flags)
    }

    fn controllers(&mut self) -> Result<()> {
        let kubeconfig = |user: &str| format!("--kubeconfig={}", self.kubeconfig(user).display());
        let controllers = [
            kubeconfig("system:kube-controller-manager"),
            format!("--service-account-private-key-file={}", self.file("accounts.key")),
            format!("--root-ca-file={}", self.file("ca.crt")),
            format!("--cert-dir={}", self.file("certificates")),
            format!("--flex-volume-plugin-dir={}", self.file("volume-plugins")),
            "--use-service-account-credentials=true".into(),
            "--leader-elect=false".into(),
        ];
        let scheduler = [
            kubeconfig("system:kube-scheduler"),
            format!("--cert-dir={}", self.file("certificates")),
            "--leader-elect=false".into(),
        ];
        self.run("kube-controller-manager", &controllers)?;
        self.run("kube-scheduler", &scheduler)
    }

    fn await_answer(&mut self) -> Result<()> {
        let mut ask = self.kubectl();
        ask.args(["--request-timeout=5s", "get", "--raw=/readyz"]);
        let waited = wait_until("the API server", START, || {
            for process in &mut self.processes {
                ensure!(process.ended()?.is_none(), "it has ended: {}", process.last_words(5));
            }
            let answer = tool::output(&mut ask)?;
            Ok(Look::when(answer.status.success(), || String::from_utf8_lossy(&answer.stderr).into_owned()))
        });
        waited
            .map(drop)
            .with_context(|| self.processes.last().map(|process| process.last_words(5)).unwrap_or_default())
    }
}
