//! How a container is named in a request.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weave_model::ContainerId;

use crate::{ApiError, ErrorCode};

/// Where named network namespaces live; a namespace made by `ip netns add` is known by its bare name.
const NAMED_NETNS: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// A container: its id, its network namespace, or both.
///
/// The id owns addresses and names; the namespace is where the interface goes. An id alone is looked up (as a named
/// network namespace, or by a container engine); a namespace alone is given an id that is derived from it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerRef {
    /// The id that owns addresses and names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ContainerId>,
    /// Path of the network namespace, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// A process in the network namespace, as the router's process namespace numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

impl ContainerRef {
    /// The container with this id.
    #[must_use]
    pub fn id(id: ContainerId) -> Self {
        Self { id: Some(id), ..Self::default() }
    }

    /// The container that lives in the network namespace at `path`.
    pub fn netns(path: impl Into<PathBuf>) -> Self {
        Self { netns: Some(path.into()), ..Self::default() }
    }

    /// The container that process `pid` lives in.
    #[must_use]
    pub fn pid(pid: u32) -> Self {
        Self { pid: Some(pid), ..Self::default() }
    }

    /// The id given; else the one derived from the namespace: its name under `/run/netns`, its path with colons for
    /// slashes, or `pid:N`.
    ///
    /// # Errors
    /// When nothing was given, both namespace and process were, or the path is relative or makes no valid id.
    pub fn container_id(&self) -> Result<ContainerId, ApiError> {
        let bad = |message: String| ApiError::new(ErrorCode::BadRequest, message);
        match (&self.id, &self.netns, self.pid) {
            (_, Some(_), Some(_)) => {
                Err(bad("a container is named by --netns or by --pid, not by both".to_owned()))
            }
            (_, Some(path), None) if !path.is_absolute() => {
                Err(bad(format!("the network namespace path `{}` is not absolute", path.display())))
            }
            (Some(id), _, _) => Ok(id.clone()),
            (None, Some(path), None) => derived(path).parse().map_err(|e| {
                bad(format!("no container id can be made from {}: {e}", path.display()))
                    .with_hint("give one before --netns")
            }),
            (None, None, Some(pid)) => format!("pid:{pid}").parse().map_err(|e| bad(format!("{e}"))),
            (None, None, None) => Err(bad("no container is named".to_owned())
                .with_hint("give a container id, --netns PATH or --pid N")),
        }
    }

    /// The network namespace's path, if the request names one.
    #[must_use]
    pub fn netns_path(&self) -> Option<PathBuf> {
        match (&self.netns, self.pid) {
            (Some(path), _) => Some(path.clone()),
            (None, Some(pid)) => Some(PathBuf::from(format!("/proc/{pid}/ns/net"))),
            (None, None) => None,
        }
    }
}

fn derived(path: &Path) -> String {
    let named = NAMED_NETNS.iter().find_map(|dir| path.strip_prefix(dir).ok());
    match named.and_then(Path::to_str) {
        Some(name) if !name.is_empty() && !name.contains('/') => name.to_owned(),
        _ => path.to_string_lossy().trim_matches('/').replace('/', ":"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_alone_gives_an_id_that_is_the_same_next_time() {
        let id = |r: ContainerRef| r.container_id().unwrap().to_string();
        assert_eq!(id(ContainerRef::netns("/run/netns/c1")), "c1");
        assert_eq!(id(ContainerRef::netns("/var/run/netns/c1")), "c1");
        assert_eq!(id(ContainerRef::netns("/proc/77/ns/net")), "proc:77:ns:net");
        assert_eq!(id(ContainerRef::pid(77)), "pid:77");
        let both = ContainerRef { id: Some("web".parse().unwrap()), ..ContainerRef::netns("/run/netns/c1") };
        assert_eq!(id(both), "web");
    }

    #[test]
    fn a_container_that_is_not_named_or_named_twice_is_refused() {
        assert!(ContainerRef::default().container_id().is_err());
        assert!(ContainerRef::netns("c1").container_id().is_err());
        assert!(ContainerRef::netns("/run/my nets/c1").container_id().is_err());
        let twice = ContainerRef { pid: Some(1), ..ContainerRef::netns("/run/netns/c1") };
        assert!(twice.container_id().is_err());
    }
}
