//! Where objects come from.

use std::{path::PathBuf, sync::mpsc::SyncSender};

use weave_policy::{Change, World};

use crate::{
    cluster::{Access, Cluster, Kind},
    directory::{Directory, imply_namespaces},
    docker::{self, Docker},
};

/// What may wake the daemon.
#[derive(Debug)]
pub enum Event {
    /// The source has news: [`Source::poll`] says which.
    News,
    /// Somebody changed our table.
    Table(Vec<weave_hostnet::nft::Notice>),
    /// A connection was blocked that is to be logged.
    Blocked(crate::blocked::Blocked),
    /// Somebody asks something; the answer goes back by the channel.
    Request(crate::control::Request, SyncSender<String>),
}

/// A source of objects.
#[derive(Debug)]
pub enum Source {
    /// An API server.
    Cluster(Cluster),
    /// Files.
    Directory(Directory),
    /// Files, and the containers of an engine beside the pods in them.
    Docker(Docker, Directory),
}

/// What a source says at one time.
#[derive(Debug)]
pub struct News {
    /// What changed since the time before.
    pub changes: Vec<Change>,
    /// How much it has told with that. What comes later is not in it, even if it is there already.
    pub readiness: Readiness,
}

/// How much a source has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Too little to isolate anybody: these are missing.
    Missing(Vec<Kind>),
    /// Who is to be isolated, but not yet all whom they may talk to.
    Isolation,
    /// Everything, once at least.
    Everything,
}

impl Readiness {
    /// Of a source that has not been looked at.
    #[must_use]
    pub fn nothing() -> Self {
        Self::Missing(Kind::ALL.to_vec())
    }

    /// The kinds of which more is to come.
    #[must_use]
    pub fn missing(&self) -> &[Kind] {
        match self {
            Self::Everything => &[],
            Self::Isolation => &[Kind::Pods],
            Self::Missing(kinds) => kinds,
        }
    }
}

impl Source {
    /// Files in a directory.
    #[must_use]
    pub fn directory(path: PathBuf) -> Self {
        Self::Directory(Directory::new(path))
    }

    /// The containers of an engine, and whatever else is in a directory.
    #[must_use]
    pub const fn docker(access: docker::Access, path: PathBuf) -> Self {
        Self::Docker(Docker::new(access), Directory::new(path))
    }

    /// The API server of a cluster, as seen from the node of this name.
    #[must_use]
    pub const fn cluster(access: Access, node: String) -> Self {
        Self::Cluster(Cluster::new(access, node))
    }

    /// Begins to send [`Event::News`] when there is any.
    ///
    /// # Errors
    /// When the source cannot be watched.
    pub fn watch(&mut self, events: SyncSender<Event>) -> anyhow::Result<()> {
        match self {
            Self::Cluster(cluster) => cluster.watch(events),
            Self::Directory(directory) => directory.watch(events),
            Self::Docker(docker, directory) => {
                directory.watch(events.clone())?;
                docker.watch(events)
            }
        }
    }

    /// Waits until [`Self::poll`] will tell everything that is so now, where that takes more than a look.
    ///
    /// # Errors
    /// When it cannot be known.
    pub fn catch_up(&self) -> anyhow::Result<()> {
        match self {
            Self::Docker(docker, _) => docker.catch_up(),
            Self::Cluster(_) | Self::Directory(_) => Ok(()),
        }
    }

    /// What changed since the last call: everything written to a directory, and everything received from a server,
    /// before the call is taken into account.
    ///
    /// # Errors
    /// When the source cannot be read at all; what is known of it stays.
    pub fn poll(&mut self, known: &World) -> anyhow::Result<News> {
        match self {
            Self::Cluster(cluster) => {
                let (changes, missing) = cluster.poll(known);
                let readiness = match missing[..] {
                    [] => Readiness::Everything,
                    [Kind::Pods] => Readiness::Isolation,
                    _ => Readiness::Missing(missing),
                };
                Ok(News { changes, readiness })
            }
            Self::Directory(directory) => {
                let changes = known.changes_to(&directory.read()?);
                Ok(News { changes, readiness: Readiness::Everything })
            }
            Self::Docker(docker, directory) => {
                let mut world = directory.read()?;
                let containers = docker.pods();
                // Without its containers nobody would be isolated.
                let missing = || Readiness::Missing(vec![Kind::Pods]);
                let readiness = containers.as_ref().map_or_else(missing, |_| Readiness::Everything);
                containers.into_iter().flatten().for_each(|pod| world.apply(Change::Pod(pod)));
                imply_namespaces(&mut world);
                Ok(News { changes: known.changes_to(&world), readiness })
            }
        }
    }

    /// The kinds of objects of which no news come at present, because the server, or the engine, does not serve us.
    #[must_use]
    pub fn troubled(&self) -> Vec<Kind> {
        match self {
            Self::Cluster(cluster) => cluster.troubled(),
            Self::Docker(docker, _) if docker.is_troubled() => vec![Kind::Pods],
            Self::Directory(_) | Self::Docker(..) => Vec::new(),
        }
    }
}
