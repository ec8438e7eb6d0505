//! Who the other nodes are, from the API server or from the last time.

use std::{
    fs,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};

/// The nodes of the cluster as far as a router needs them, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Nodes {
    /// All of them.
    pub nodes: Vec<KnownNode>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KnownNode {
    /// Its name.
    pub name: String,
    /// Its addresses: internal ones, or external ones where it has no other.
    pub addresses: Vec<IpAddr>,
}

impl Nodes {
    /// From the objects of a list.
    #[must_use]
    pub fn of(objects: &[Node]) -> Self {
        let mut nodes: Vec<KnownNode> = objects.iter().filter_map(known).collect();
        nodes.sort();
        Self { nodes }
    }

    /// Whether there is a node of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| node.name == name)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The first address of every node but `own`, as `weaver` takes it.
    #[must_use]
    pub fn peers(&self, own: &str) -> Vec<String> {
        let others = self.nodes.iter().filter(|node| node.name != own);
        others.filter_map(|node| node.addresses.first()).map(ToString::to_string).collect()
    }
}

fn known(node: &Node) -> Option<KnownNode> {
    let status = node.status.as_ref();
    let of_kind = |kind: &str| -> Vec<IpAddr> {
        let all = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        all.iter().filter(|address| address.type_ == kind).filter_map(|a| a.address.parse().ok()).collect()
    };
    let internal = of_kind("InternalIP");
    let addresses = if internal.is_empty() { of_kind("ExternalIP") } else { internal };
    Some(KnownNode { name: node.metadata.name.clone()?, addresses })
}

/// The list of the last time, on disk.
#[derive(Debug, Clone)]
pub struct Cache {
    path: PathBuf,
}

impl Cache {
    /// In this file.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The list, if there is one that makes sense.
    #[must_use]
    pub fn read(&self) -> Option<Nodes> {
        serde_json::from_slice(&fs::read(&self.path).ok()?).ok()
    }

    /// Keeps a list.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, nodes: &Nodes) -> anyhow::Result<()> {
        replace(&self.path, &serde_json::to_vec(nodes)?, 0o600)
    }
}

/// Writes a file in one step: readers see the old one or the new one, and a crash leaves one of them.
///
/// # Errors
/// When the file system refuses.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let directory = path.parent().context("a file has a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A name that neither kubelets nor runtimes take for a configuration or a plugin.
    let fresh = directory.join(format!(".{name}.weave-new"));
    // What an earlier attempt left has the wrong mode, maybe.
    let _absent = fs::remove_file(&fresh);
    let written = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(contents)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&fresh, path)?;
        fs::File::open(directory)?.sync_all()
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, addresses: &[(&str, &str)]) -> Node {
        let addresses: Vec<_> =
            addresses.iter().map(|(kind, address)| json!({ "type": kind, "address": address })).collect();
        serde_json::from_value(json!({ "metadata": { "name": name }, "status": { "addresses": addresses } }))
            .unwrap()
    }

    #[test]
    fn peers_are_the_internal_addresses_of_the_other_nodes() {
        let nodes = Nodes::of(&[
            node("n2", &[("Hostname", "n2"), ("ExternalIP", "198.51.100.2"), ("InternalIP", "192.0.2.2")]),
            node("n1", &[("InternalIP", "192.0.2.1")]),
            node("n3", &[("ExternalIP", "198.51.100.3")]),
            node("n4", &[("InternalIP", "2001:db8::4")]),
            node("n5", &[]),
        ]);
        assert_eq!(nodes.peers("n1"), ["192.0.2.2", "198.51.100.3", "2001:db8::4"]);
        assert!(nodes.contains("n5") && !nodes.contains("n6"));
    }

    #[test]
    fn a_list_is_read_back_and_nonsense_is_no_list() {
        let directory = std::env::temp_dir().join(format!("weave-kube-cache-{}", std::process::id()));
        let cache = Cache::new(directory.join("peers"));
        assert_eq!(cache.read(), None);
        let nodes = Nodes::of(&[node("n1", &[("InternalIP", "192.0.2.1")])]);
        cache.write(&nodes).unwrap();
        cache.write(&nodes).unwrap();
        assert_eq!(cache.read(), Some(nodes));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing else is left");
        fs::write(directory.join("peers"), "{").unwrap();
        assert_eq!(cache.read(), None);
        fs::remove_dir_all(&directory).unwrap();
    }
}
