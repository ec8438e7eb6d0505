//! The manifest of the repository with choices filled in, for who applies it without kustomize.
//!
//! It is the text as it stands, comments included, with some lines changed: that everything falls into its place is held by
//! tests, which read what comes out as Kubernetes does.

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use weave_model::Subnet;

const MANIFEST: &str = include_str!("../../../manifests/kubernetes/weave.yaml");

/// What the manifest says where nobody chose anything.
const IMAGE: &str = concat!("weave/weave:", env!("CARGO_PKG_VERSION"));
const NPC_IMAGE: &str = concat!("weave/weave-npc:", env!("CARGO_PKG_VERSION"));

/// What is to be filled in.
#[derive(Debug, Clone, Args)]
pub struct Manifest {
    /// Image with the router and its launcher
    #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
    pub image: String,
    /// Image with weave-npc
    #[arg(long, value_name = "IMAGE", default_value = NPC_IMAGE)]
    pub npc_image: String,
    /// Address ranges of pods
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', default_value = "10.32.0.0/12")]
    pub ipalloc_range: Vec<Subnet>,
    /// Encrypt: a Secret of the namespace kube-system has the password, by default under `password`
    #[arg(long, value_name = "NAME[/KEY]")]
    pub password_secret: Option<String>,
    /// Let user space carry all frames
    #[arg(long)]
    pub no_fastdp: bool,
    /// Enforce no network policies
    #[arg(long, conflicts_with = "npc_image")]
    pub no_npc: bool,
    /// A further variable of the router's container, such as WEAVE_MTU=1410
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
}

impl Manifest {
    /// The manifest, in YAML.
    ///
    /// # Errors
    /// When a value cannot be what it should be.
    pub fn render(&self) -> Result<String> {
        let mut variables = vec![("IPALLOC_RANGE".to_owned(), self.ranges())];
        if self.no_fastdp {
            variables.push(("WEAVE_NO_FASTDP".to_owned(), "1".to_owned()));
        }
        for pair in &self.env {
            let (name, value) = pair.split_once('=').with_context(|| format!("--env {pair}: no `=`"))?;
            let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            ensure!(
                !name.is_empty() && name.chars().all(fits),
                "--env {pair}: {name:?} is no variable's name"
            );
            ensure!(
                variables.iter().all(|(other, _)| other != name),
                "--env {pair}: {name} has been said already"
            );
            ensure!(name != "WEAVE_PASSWORD", "a password belongs in a Secret: --password-secret");
            variables.push((name.to_owned(), value.to_owned()));
        }
        let mut router: Vec<String> = variables.iter().flat_map(|(name, value)| plain(name, value)).collect();
        if let Some(secret) = &self.password_secret {
            router.extend(from_secret(secret)?);
        }
        let mut lines = Vec::new();
        let mut rest = MANIFEST.lines().peekable();
        while let Some(line) = rest.next() {
            match line.trim() {
                "- name: IPALLOC_RANGE" => {
                    // Its value, which comes with the others.
                    rest.next();
                    lines.append(&mut router);
                }
                "- name: weave-npc" if self.no_npc => {
                    while rest.next_if(|line| !line.starts_with("      volumes:")).is_some() {}
                }
                "command: [\"weave-kube\", \"init\"]" if self.no_npc => {
                    lines.extend([line.to_owned(), "          env:".to_owned()]);
                    lines.extend(plain("EXPECT_NPC", "0"));
                }
                _ => lines.push(self.with_image(line)?),
            }
        }
        Ok(lines.join("\n") + "\n")
    }

    fn ranges(&self) -> String {
        self.ipalloc_range.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    fn with_image(&self, line: &str) -> Result<String> {
        let Some((before, named)) = line.split_once("image: ") else { return Ok(line.to_owned()) };
        let image = if named.contains("weave-npc") { &self.npc_image } else { &self.image };
        let is_one_word = !image.is_empty() && image.chars().all(|c| c.is_ascii_graphic() && c != '"');
        ensure!(is_one_word, "{image:?} is no image's name");
        Ok(format!("{before}image: {}", quoted(image)))
    }
}

/// Entries of a container's `env`.
fn plain(name: &str, value: &str) -> [String; 2] {
    [format!("            - name: {name}"), format!("              value: {}", quoted(value))]
}

fn from_secret(secret: &str) -> Result<Vec<String>> {
    let (name, key) = secret.split_once('/').unwrap_or((secret, "password"));
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    for part in [name, key] {
        ensure!(
            !part.is_empty() && part.chars().all(fits),
            "--password-secret {secret}: {part:?} is no name"
        );
    }
    Ok([
        "            - name: WEAVE_PASSWORD".to_owned(),
        "              valueFrom:".to_owned(),
        "                secretKeyRef:".to_owned(),
        format!("                  name: {}", quoted(name)),
        format!("                  key: {}", quoted(key)),
    ]
    .into())
}

/// A string of JSON is one of YAML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
