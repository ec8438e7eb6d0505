//! Images for a node, made without a registry and without a builder: a layer with some programs.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::tool;

/// What an image consists of.
#[derive(Debug)]
pub struct Image<'i> {
    /// Its name with registry and tag, as a runtime writes it.
    pub name: &'i str,
    /// Programs, and what they are called in `/usr/bin`. The libraries that they need come along.
    pub programs: &'i [(PathBuf, &'i str)],
    /// Further names in `/usr/bin` of the first program.
    pub links: &'i [&'i str],
    /// Other files: where they are, and what is in them.
    pub files: &'i [(&'i str, &'i str)],
}

impl Image<'_> {
    /// Packs it as a file in `directory` that `ctr images import` takes.
    ///
    /// # Errors
    /// When a program is not there.
    pub fn pack(&self, directory: &Path) -> Result<PathBuf> {
        let label: String =
            self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let [root, parts] = ["root", "parts"].map(|kind| directory.join(format!("{label}.{kind}")));
        for path in ["usr/bin", "etc", "proc", "sys", "dev", "run", "tmp"] {
            fs::create_dir_all(root.join(path))?;
        }
        fs::create_dir_all(&parts)?;
        self.fill(&root)?;
        let layer = parts.join("layer.tar");
        tar(&root, &layer)?;
        let sum = tool::run(Command::new("sha256sum").arg(&layer))?;
        let sum = sum.split_whitespace().next().context("sha256sum prints a sum")?;
        let architecture = match env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Env": ["PATH=/usr/bin"], "Cmd": ["/usr/bin/sleep", "2147483647"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
        });
        let manifest = json!([{ "Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"] }]);
        fs::write(parts.join("config.json"), config.to_string())?;
        fs::write(parts.join("manifest.json"), manifest.to_string())?;
        let image = directory.join(format!("{label}.tar"));
        tar(&parts, &image)?;
        fs::remove_dir_all(root)?;
        fs::remove_dir_all(parts)?;
        Ok(image)
    }

    fn fill(&self, root: &Path) -> Result<()> {
        for (from, name) in self.programs {
            let place = root.join("usr/bin").join(name);
            tool::run(Command::new("strip").arg("-o").arg(&place).arg(from))?;
            let libraries = tool::output(Command::new("ldd").arg(from))?;
            let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
            for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
                let place = root.join(library.trim_start_matches('/'));
                fs::create_dir_all(place.parent().context("a library lies in a directory")?)?;
                fs::copy(library, place)?;
            }
        }
        if let Some((_, first)) = self.programs.first() {
            self.links.iter().try_for_each(|link| symlink(first, root.join("usr/bin").join(link)))?;
        }
        for (path, text) in self.files {
            let place = root.join(path);
            fs::create_dir_all(place.parent().context("a file lies in a directory")?)?;
            fs::write(place, text)?;
        }
        Ok(())
    }
}

fn tar(directory: &Path, archive: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(directory).args(["--owner=0", "--group=0", "-cf"]).arg(archive).arg(".");
    tool::run(&mut tar).map(drop)
}
